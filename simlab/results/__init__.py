"""What a simulation says: money, latency, time windows, each with an interval."""

from simlab.results.measurements import (
    CELL_DTYPE,
    COARSE_BUCKETS,
    COARSE_FACTOR,
    HIST_BUCKETS,
    HIST_GAMMA,
    HIST_LOW_S,
    HIST_METRICS,
    REPLICA_DTYPE,
    TASK_DTYPE,
    TENANT_TASK_DTYPE,
    WINDOW_DTYPE,
    Measurements,
    histogram_mean,
    histogram_quantile,
)

__all__ = [
    "CELL_DTYPE",
    "COARSE_BUCKETS",
    "COARSE_FACTOR",
    "HIST_BUCKETS",
    "HIST_GAMMA",
    "HIST_LOW_S",
    "HIST_METRICS",
    "REPLICA_DTYPE",
    "TASK_DTYPE",
    "TENANT_TASK_DTYPE",
    "WINDOW_DTYPE",
    "Measurements",
    "histogram_mean",
    "histogram_quantile",
]
