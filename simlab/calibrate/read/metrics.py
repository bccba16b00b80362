"""Metrics of a run from its requests."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from simlab.calibrate.run import METRICS, Requests

Floats = NDArray[np.float64]

STATISTICS: Mapping[str, tuple[str, str]] = {
    "ttft_s_mean": ("ttft", "mean"),
    "ttft_s_p50": ("ttft", "p50"),
    "ttft_s_p99": ("ttft", "p99"),
    "itl_s_mean": ("itl", "mean"),
    "tpot_s_mean": ("tpot", "mean"),
    "e2e_s_mean": ("e2el", "mean"),
}
"""The quantity and the statistic of each metric that is a time."""


def tpot(requests: Requests) -> Floats:
    """Time per output token after the first, s, of the requests with more than one: (e2e − ttft) / (output − 1)."""
    many = requests.output_tokens > 1
    return (requests.e2e_s[many] - requests.ttft_s[many]) / (requests.output_tokens[many] - 1)


def quantities(requests: Requests) -> dict[str, Floats]:
    """What statistics are of, s: ``ttft``, ``tpot``, ``e2el`` by request, and ``itl``, all gaps where they are kept."""
    found = {"ttft": requests.ttft_s, "tpot": tpot(requests), "e2el": requests.e2e_s}
    if requests.itl_s is not None:
        found["itl"] = np.concatenate([*requests.itl_s, np.zeros(0)])
    return found


def statistic(values: Floats, name: str) -> float:
    """``mean``, ``median``, ``std`` or ``pNN`` (linear between order statistics, as numpy); 0 of nothing, as vLLM."""
    if len(values) == 0:
        return 0.0
    if name == "mean":
        return float(np.mean(values))
    if name == "std":
        return float(np.std(values))
    return float(np.percentile(values, 50.0 if name == "median" else float(name[1:])))


def metrics_of(requests: Requests, duration_s: float | None = None) -> dict[str, float]:
    """Metrics of a run from its requests, by name of `METRICS`.

    Time between tokens is the mean over all gaps; where these are not kept, the time after the first token over the
    tokens after it, which is the same when every response holds one token.

    Args:
        requests: at least one.
        duration_s: of the run, s; where None, from the first sending to the last token.
    """
    known = quantities(requests)
    found = {name: statistic(known[of], how) for name, (of, how) in STATISTICS.items() if of in known}
    after = float(np.maximum(requests.output_tokens - 1, 0).sum())
    if "itl_s_mean" not in found and after > 0.0:
        found["itl_s_mean"] = float((requests.e2e_s - requests.ttft_s).sum()) / after
    if duration_s is None and np.isfinite(requests.start_s).all():
        duration_s = float((requests.start_s + requests.e2e_s).max() - requests.start_s.min())
    if duration_s:
        found["output_tokens_per_s"] = float(requests.output_tokens.sum()) / duration_s
    return positive(found)


def positive(measured: Mapping[str, float]) -> dict[str, float]:
    """Metrics in their usual order, without zeros: a benchmark writes 0 for a statistic of nothing."""
    return {name: measured[name] for name in METRICS if measured.get(name, 0.0) > 0.0}


def close_loop_starts(e2e_s: Floats, concurrency: int | None) -> Floats:
    """When requests were sent, s, if each was as soon as fewer than ``concurrency`` were in flight.

    Args:
        e2e_s: how long each took, s [n], in the order of sending.
        concurrency: most in flight; None: all are sent at once.
    """
    import heapq

    starts = np.zeros(len(e2e_s))
    if concurrency is None:
        return starts
    ends: list[float] = []
    for i, length in enumerate(e2e_s):
        starts[i] = heapq.heappop(ends) if len(ends) == concurrency else 0.0
        heapq.heappush(ends, starts[i] + float(length))
    return starts
