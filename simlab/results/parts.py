"""Where the time of a P50 and of a P95 task goes: its latency, split into parts that add up to it.

The engine adds up the parts of all answered tasks by buckets of their latency, 10% wide each. A quantile's parts are
the means over the twentieth of all tasks around its rank (a P95's: those from 92.5% to 97.5%), a bucket that lies in it
only in part counting for as many of its tasks: one task alone would say more of its luck than of the plan.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simlab.results.interval import Draws, student
from simlab.results.measurements import COARSE_METRICS, Measurements

PARTS = {
    "network": "the network, both ways",
    "app": "the application",
    "retrieval": "retrieval",
    "rerank": "reranking",
    "gateway": "the gateway's own time",
    "helpers": "helpers: caches asked in vain, embeddings, classifiers, verifiers, summaries",
    "limits": "waiting at the gateway's limits",
    "retries": "attempts that failed or did not pass, and waiting between them",
    "tools": "tools of an agent",
    "queue": "waiting at the backend",
    "model": "the model's time to its first token, prompt and all",
    "output": "writing the answer",
    "smoothing": "smoothing",
}
"""The parts in the order of the columns of `Measurements.spans` behind the first, which counts tasks."""

AROUND = {"p50": 0.50, "p95": 0.95}
"""The quantiles whose parts are shown."""

BAND = 0.025
"""Share of all tasks on each side of a quantile that its parts are the means of."""

_DUST_S = 1e-9
"""What is left of differences of times that are equal."""

Floats = NDArray[np.float64]


def parts_at(spans: Floats, q: float) -> Floats:
    """Mean seconds of each part over the tasks around the q-quantile, f8[parts]; NaN where there are no tasks.

    Args:
        spans: f8[buckets, 1 + parts]: tasks, and their seconds in each part, by bucket of their latency, ascending.
        q: 0..1.
    """
    tasks = spans[:, 0]
    total = float(tasks.sum())
    if total == 0.0:
        return np.full(spans.shape[1] - 1, np.nan)
    ends = np.cumsum(tasks)
    low, high = max(0.0, q - BAND) * total, min(1.0, q + BAND) * total
    inside = np.maximum(0.0, np.minimum(ends, high) - np.maximum(ends - tasks, low))
    weight = inside / np.where(tasks > 0, tasks, 1.0)
    parts = weight @ spans[:, 1:] / inside.sum()
    return np.where((parts < _DUST_S) & (parts > -_DUST_S), 0.0, parts)


def part_rows(
    measurements: Sequence[Measurements],
    drawn: Sequence[Measurements] = (),
    draws: Callable[[Floats], Draws | None] = lambda _: None,
) -> list[dict[str, Any]]:
    """The parts of each class that meters them, for each of `AROUND` of TTFT and E2E, means over replications.

    Args:
        measurements: of each replication.
        drawn: the same replications with drawn step times; empty: intervals hold luck alone.
        draws: turns the values of those into what intervals are made of.

    Returns:
        ``class``, ``metric`` (ttft or e2e), ``quantile``, ``part`` and the fields of `Estimate`, in s. Parts that
        nothing of the class ever spends time in are left out.
    """
    rows: list[dict[str, Any]] = []
    if not measurements[0].spans.shape[1]:
        return rows
    for c, name in enumerate(measurements[0].class_names):
        used = sum(measured.spans[:, c, :, 1:].sum(axis=(0, 1)) for measured in measurements) > 1e-9
        for m, metric in enumerate(COARSE_METRICS):
            for quantile, q in AROUND.items():
                found, again = (
                    np.array([parts_at(measured.spans[m, c], q) for measured in runs]).reshape(-1, len(PARTS))
                    for runs in (measurements, drawn)
                )
                for i, part in enumerate(PARTS):
                    if used[i]:
                        estimate = student(found[:, i], "s", draws=draws(again[:, i]))
                        row = {"class": name, "metric": metric, "quantile": quantile, "part": part}
                        rows.append({**row, **estimate.as_dict()})
    return rows
