"""How a run went over time: one row for each time window and backend, and one for all backends together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simlab.results.breakdown import divided
from simlab.results.measurements import COARSE_METRICS, Measurements, histogram_quantile, mean_windows
from simlab.results.metrics import QUANTILES

ALL = "(all)"
"""Backend name of the rows that hold all backends together; only these have latency quantiles."""


def window_columns(measurements: Sequence[Measurements]) -> dict[str, NDArray[Any]]:
    """The window table as columns: W rows of `ALL`, then W of each backend; means over replications.

    Returns:
        ``backend``, ``start_s``, ``arrival_rate_rps``, ``finish_rate_rps``, ``failure_rate_rps``,
        ``prompt_tokens_per_s``, ``output_tokens_per_s``, ``ttft_s_mean``, ``e2e_s_mean``, ``utilization`` (busy / up),
        ``replicas`` (mean number up), ``waiting`` and ``running`` (mean numbers), ``kv_utilization`` and the quantiles
        ``ttft_s_p50`` … ``e2e_s_p99`` of all replications together (relative error 5 %), NaN where nothing finished.
    """
    first = measurements[0]
    starts = np.arange(len(first.windows)) * first.window_s
    lengths = np.clip(first.horizon_s - starts, 0.0, first.window_s)
    means = mean_windows(measurements)
    stacked = {name: np.concatenate([m.sum(axis=1)[:, None], m], axis=1).T.ravel() for name, m in means.items()}
    length = np.tile(lengths, 1 + len(first.backend_names))
    quantiles = np.full((len(COARSE_METRICS) * len(QUANTILES), len(length)), np.nan)
    pooled = np.sum([measured.window_hist for measured in measurements], axis=0)
    for window in range(len(starts)):
        quantiles[:, window] = [
            histogram_quantile(pooled[window, metric], q)
            for metric in range(len(COARSE_METRICS))
            for q in QUANTILES.values()
        ]
    return {
        "backend": np.repeat(np.array([ALL, *first.backend_names], dtype=object), len(starts)),
        "start_s": np.tile(starts, 1 + len(first.backend_names)),
        "arrival_rate_rps": divided(stacked["arrived"], length),
        "finish_rate_rps": divided(stacked["finished"], length),
        "failure_rate_rps": divided(stacked["failed"], length),
        "prompt_tokens_per_s": divided(stacked["prompt_tokens"], length),
        "output_tokens_per_s": divided(stacked["output_tokens"], length),
        "ttft_s_mean": divided(stacked["ttft_sum_s"], stacked["finished"]),
        "e2e_s_mean": divided(stacked["e2e_sum_s"], stacked["finished"]),
        "utilization": divided(stacked["busy_s"], stacked["up_s"]),
        "replicas": divided(stacked["up_s"], length),
        "waiting": divided(stacked["waiting_s"], length),
        "running": divided(stacked["running_s"], length),
        "kv_utilization": divided(stacked["kv_block_s"], stacked["kv_total_block_s"]),
        **dict(zip([f"{m}_s_{label}" for m in COARSE_METRICS for label in QUANTILES], quantiles, strict=True)),
    }
