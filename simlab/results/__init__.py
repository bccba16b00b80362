"""What a simulation says: money, latency, time windows, each with an interval."""

from simlab.results.facts import BackendFacts, ProfileFacts, TokenPrices
from simlab.results.interval import Estimate
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
from simlab.results.requestlog import OUTCOMES, REQUEST_DTYPE, RequestLog, read_request_log
from simlab.results.result import Result
from simlab.results.schema import result_schema

__all__ = [
    "CELL_DTYPE",
    "COARSE_BUCKETS",
    "COARSE_FACTOR",
    "HIST_BUCKETS",
    "HIST_GAMMA",
    "HIST_LOW_S",
    "HIST_METRICS",
    "OUTCOMES",
    "REPLICA_DTYPE",
    "REQUEST_DTYPE",
    "TASK_DTYPE",
    "TENANT_TASK_DTYPE",
    "WINDOW_DTYPE",
    "BackendFacts",
    "Estimate",
    "Measurements",
    "ProfileFacts",
    "RequestLog",
    "Result",
    "TokenPrices",
    "histogram_mean",
    "histogram_quantile",
    "read_request_log",
    "result_schema",
]
