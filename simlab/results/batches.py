"""Batch means: the spread of a metric within one replication, from batches of its time windows.

After warm-up the windows are joined into up to `MOST_BATCHES` batches of equal length; the spread of their values gives
the interval value ± t·s/√b (Law, Simulation Modeling and Analysis, 9.5.3). Where traffic changes over the run the
batches differ for that reason too, so the interval is wide rather than narrow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from simlab.results.facts import BackendFacts
from simlab.results.interval import student_factor
from simlab.results.measurements import (
    COARSE_FACTOR,
    COARSE_METRICS,
    HIST_GAMMA,
    Measurements,
    histogram_quantile,
)
from simlab.results.metrics import QUANTILES, after_warmup, ratio, window_values

FEWEST_BATCHES = 5
MOST_BATCHES = 20


def half_widths(measured: Measurements, backends: Sequence[BackendFacts]) -> dict[str, float]:
    """The half width of the 95 % interval of each metric that windows tell; others are left out.

    Empty when the run has fewer than `FEWEST_BATCHES` windows after warm-up.
    """
    chosen, lengths = after_warmup(measured)
    windows = np.flatnonzero(chosen & (lengths > 0.0))
    count = min(MOST_BATCHES, len(windows))
    if count < FEWEST_BATCHES:
        return {}
    gpus = np.array([facts.gpus_per_replica for facts in backends])
    batches = [
        _batch_values(measured, batch, float(lengths[batch].sum()), gpus) for batch in np.array_split(windows, count)
    ]
    widths = {}
    for name in batches[0]:
        values = np.array([batch[name] for batch in batches if not math.isnan(batch[name])])
        if len(values) < FEWEST_BATCHES:
            continue
        variance = float(values.var(ddof=1))
        if name.split("_s_")[-1] in QUANTILES:
            # A coarse bucket hides a value anywhere within it: the variance of a uniform error comes on top.
            variance += (float(values.mean()) * (HIST_GAMMA**COARSE_FACTOR - 1.0)) ** 2 / 12.0
        widths[name] = student_factor(len(values)) * math.sqrt(variance / len(values))
    return widths


def _batch_values(
    measured: Measurements, batch: np.ndarray[tuple[int], np.dtype[np.int64]], length_s: float, gpus: np.ndarray
) -> dict[str, float]:
    """The metrics of some windows together."""
    windows = measured.windows[batch]
    finished = int(windows["finished"].sum())
    values = {
        **window_values(windows, length_s, gpus),
        "throughput_rps": ratio(finished, length_s),
        "arrival_rate_rps": ratio(int(windows["arrived"].sum()), length_s),
    }
    for index, name in enumerate(COARSE_METRICS):
        if not measured.patient:
            values[f"{name}_s_mean"] = ratio(float(windows[f"{name}_sum_s"].sum()), finished)
        counts = measured.window_hist[batch, index].sum(axis=0)
        for label, q in QUANTILES.items():
            values[f"{name}_s_{label}"] = histogram_quantile(counts, q)
    return values
