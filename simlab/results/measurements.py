"""What one replication measured: plain record arrays, and quantiles of its logarithmic histograms.

The engine fills these arrays while it runs; nothing here grows with the number of requests. Latencies are kept in
histograms whose buckets grow by a constant factor, so that every quantile is known to a relative error of 0.5 %
(the construction of DDSketch: Masson, Rim, Lee, "DDSketch", VLDB 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simlab.results.counts import LIMIT_DTYPE, no_counters
from simlab.results.groups import TaskGroups
from simlab.results.stream import Stream

HIST_LOW_S = 1e-6
"""Upper edge of bucket 0 in seconds; shorter times are all counted there."""

HIST_RELATIVE_ERROR = 0.005
"""Largest relative error of a reported quantile above `HIST_LOW_S`."""

HIST_GAMMA = (1.0 + HIST_RELATIVE_ERROR) / (1.0 - HIST_RELATIVE_ERROR)
"""Ratio of the edges of neighbouring buckets."""

HIST_BUCKETS = 2600
"""Buckets of a fine histogram; the last one ends above two days and also holds everything longer."""

HIST_METRICS = ("ttft", "itl", "tpot", "e2e")
"""Order of the first axis of `Measurements.hist`: ITL is a token's gap, TPOT a request's mean gap."""

COARSE_FACTOR = 10
"""Fine buckets in one coarse bucket of `Measurements.window_hist`."""

COARSE_BUCKETS = HIST_BUCKETS // COARSE_FACTOR
"""Buckets of a coarse (time window) histogram, with a relative error of 5 %."""

COARSE_METRICS = ("ttft", "e2e")
"""Order of the second axis of `Measurements.window_hist`."""

CELL_DTYPE = np.dtype(
    [
        ("cls", "i4"),
        ("tenant", "i4"),
        ("group", "i4"),
        ("backend", "i4"),
        ("reason", "i4"),
        ("attempts", "i8"),
        ("succeeded", "i8"),
        ("failed", "i8"),
        ("rate_limited", "i8"),
        ("timed_out", "i8"),
        ("rejected", "i8"),
        ("cancelled", "i8"),
        ("prompt_tokens", "i8"),
        ("cached_tokens", "i8"),
        ("written_tokens", "i8"),
        ("output_tokens", "i8"),
        ("long_prompt_tokens", "i8"),
        ("long_cached_tokens", "i8"),
        ("long_written_tokens", "i8"),
        ("long_output_tokens", "i8"),
        ("tasks_right", "i8"),
        ("tasks_wrong", "i8"),
        ("tasks_failed", "i8"),
        ("work_s", "f8"),
        ("lost_work_s", "f8"),
        ("timed_out_work_s", "f8"),
        ("cancelled_work_s", "f8"),
        ("discarded_work_s", "f8"),
        ("lost_usd", "f8"),
        ("timed_out_usd", "f8"),
        ("cancelled_usd", "f8"),
        ("discarded_usd", "f8"),
    ]
)
"""One group of tasks (`TaskGroups`) of one tenant of one class on one backend over the whole horizon, attempts made for
one reason (`REASONS`).

Attempts end in exactly one of `succeeded`, `failed` (an error of the backend), `rate_limited`, `timed_out`, `rejected`,
`cancelled` (nobody waited any more), or are still running. Tokens are those of all billable attempts; `cached_tokens`
(read from a cache) and `written_tokens` (written to a provider's) are parts of `prompt_tokens`, and the `long_` columns
are the part of each that an API bills at its long-context tier. `work_s` is replica seconds of marginal work. Of
attempts in vain `lost_work_s` is that work, and `lost_usd` what an API took for them: those that timed out, were
cancelled, or ended well with an answer that was discarded (one level of a cascade did not pass), and, the rest, failed.
`tasks_` count the tasks that ended with an attempt of the cell, answered rightly, wrongly or not at all; what was tried
again counts as the fallback or escalation it belongs to.
"""

CELL_KEYS = ("cls", "tenant", "group", "backend", "reason")
"""The fields that say which cell it is; the others are its meters."""

REASONS = ("first", "retry", "hedge", "escalation", "fallback", "shadow", "duplicate", "helper")
"""Why an attempt was made, in the order of the numbers in a cell's `reason`."""

TASK_DTYPE = np.dtype(
    [
        ("arrived", "i8"),
        ("succeeded", "i8"),
        ("failed", "i8"),
        ("in_flight", "i8"),
        ("good", "i8"),
        ("retries", "i8"),
        ("wrong", "i8"),
    ]
)
"""The tasks of one class; `good` met every limit of its SLO, `arrived = succeeded + failed + in_flight`, and `wrong` is
the part of `failed` that got an answer, but not a right one."""

TENANT_TASK_DTYPE = np.dtype(
    [
        ("cls", "i4"),
        ("tenant", "i4"),
        ("arrived", "i8"),
        ("succeeded", "i8"),
        ("failed", "i8"),
        ("good", "i8"),
        ("wrong", "i8"),
        ("ttft_sum_s", "f8"),
        ("e2e_sum_s", "f8"),
    ]
)
"""The tasks of one tenant of one class after warm-up; the sums are over its answered tasks, right or wrong."""

WINDOW_DTYPE = np.dtype(
    [
        ("arrived", "i8"),
        ("finished", "i8"),
        ("failed", "i8"),
        ("prompt_tokens", "i8"),
        ("output_tokens", "i8"),
        ("ttft_sum_s", "f8"),
        ("e2e_sum_s", "f8"),
        ("busy_s", "f8"),
        ("up_s", "f8"),
        ("waiting_s", "f8"),
        ("running_s", "f8"),
        ("kv_block_s", "f8"),
        ("kv_total_block_s", "f8"),
    ]
)
"""One backend in one time window: counts, replica-seconds busy and up, request-seconds, KV block-seconds."""

SAVING_DTYPE = np.dtype(
    [
        ("lookups", "i8"),
        ("hits", "i8"),
        ("wrong", "i8"),
        ("prompt_tokens", "i8"),
        ("output_tokens", "i8"),
        ("usd", "f8"),
    ]
)
"""What one layer of answer caches did for one tenant: lookups, hits (wrong ones among them), and what those saved."""

REPLICA_DTYPE = np.dtype(
    [
        ("backend", "i4"),
        ("start_s", "f8"),
        ("ready_s", "f8"),
        ("stop_s", "f8"),
        ("busy_s", "f8"),
        ("steps", "i8"),
        ("preemptions", "i8"),
        ("prefill_tokens", "i8"),
        ("decode_tokens", "i8"),
        ("cached_tokens", "i8"),
        ("prompt_tokens", "i8"),
        ("peak_seqs", "i8"),
        ("peak_tokens", "i8"),
        ("peak_context", "i8"),
        ("beyond_seqs_s", "f8"),
        ("beyond_tokens_s", "f8"),
        ("beyond_context_tokens", "i8"),
    ]
)
"""The lease of one replica: ordered at `start_s`, serving from `ready_s`, given back at `stop_s` (inf: still up).

`peak_seqs` and `peak_tokens` are the most decoding sequences and tokens in a step, `peak_context` the longest request
that ended; `beyond_seqs_s`, `beyond_tokens_s` the busy time in steps above what its profile was measured on, and
`beyond_context_tokens` the tokens computed for requests longer than that.
"""


@dataclass(frozen=True, eq=False)
class Measurements:
    """Everything one replication measured. C classes, B backends, W windows, T tenants summed over classes.

    Args:
        horizon_s: simulated time, s; cost is counted over all of it.
        warmup_s: start of the time that latency and task metrics are counted over, s.
        window_s: length of a time window, s.
        seed: the replication's seed.
        class_names: C names, in file order.
        class_features: C names of the feature each class belongs to.
        backend_names: B names, pools before APIs, in file order.
        tenants_of_class: number of tenants of each class.
        cells: `CELL_DTYPE`, [T × groups × B × reasons that can occur] in any order, whole horizon.
        tasks: `TASK_DTYPE`, [C], tasks that arrived after warm-up.
        tasks_total: `TASK_DTYPE`, [C], whole horizon.
        tenant_tasks: `TENANT_TASK_DTYPE`, [T], after warm-up.
        hist: int64 [4, C, B, HIST_BUCKETS], order `HIST_METRICS`, answered tasks after warm-up; TTFT and E2E are
            measured from arrival at the gateway.
        hist_sum: float64 [4, C, B], exact sums of what `hist` counted, s.
        hist_count: int64 [4, C, B].
        windows: `WINDOW_DTYPE`, [W, B], whole horizon.
        window_hist: int64 [W, 2, COARSE_BUCKETS], order `COARSE_METRICS`, over all backends.
        replicas: `REPLICA_DTYPE`, one row a lease.
        peak_in_flight: most tasks in the system at once.
        savings: `SAVING_DTYPE`, for each tenant of each class one row a layer of answer caches; empty: there are none.
        groups: the groups of tasks of each class; empty: one group each.
        stream: spending and calls from window to window; None: nobody asked for alerts.
        counters: `COUNTER_DTYPE`, [C]: what limits, lines, caps and context budgets did to each class; empty: nothing
            was counted.
        limit_names: of the gateway's limits, in order.
        limits: `LIMIT_DTYPE`, one row a limit.
        queue_wait_hist: int64 [C, HIST_BUCKETS], waits at limits of each class; [0, 0]: nothing waits.
        deadlines_s: of the tasks of each class, after arrival; infinite: somebody waits for them; empty: for all.
        spans: float64 [2, C, COARSE_BUCKETS, 1 + parts], order `COARSE_METRICS`: how many answered tasks after warm-up
            had a latency in a bucket, and the seconds they spent in each of `simlab.results.parts.PARTS`; of classes
            that do not meter it 0. [2, 0, 0, 0]: no class does.
    """

    horizon_s: float
    warmup_s: float
    window_s: float
    seed: int
    class_names: tuple[str, ...]
    class_features: tuple[str, ...]
    backend_names: tuple[str, ...]
    tenants_of_class: tuple[int, ...]
    cells: NDArray[Any]
    tasks: NDArray[Any]
    tasks_total: NDArray[Any]
    tenant_tasks: NDArray[Any]
    hist: NDArray[np.int64]
    hist_sum: NDArray[np.float64]
    hist_count: NDArray[np.int64]
    windows: NDArray[Any]
    window_hist: NDArray[np.int64]
    replicas: NDArray[Any]
    peak_in_flight: int
    savings: NDArray[Any] = field(default_factory=lambda: np.zeros(0, SAVING_DTYPE))
    groups: tuple[TaskGroups, ...] = ()
    stream: Stream | None = None
    counters: NDArray[Any] = field(default_factory=lambda: no_counters(0))
    limit_names: tuple[str, ...] = ()
    limits: NDArray[Any] = field(default_factory=lambda: np.zeros(0, LIMIT_DTYPE))
    queue_wait_hist: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    deadlines_s: tuple[float, ...] = ()
    spans: NDArray[np.float64] = field(default_factory=lambda: np.zeros((2, 0, 0, 0)))

    @property
    def groups_of_classes(self) -> tuple[TaskGroups, ...]:
        """The groups of tasks of each class."""
        return self.groups or (TaskGroups(),) * len(self.class_names)

    @property
    def patient(self) -> tuple[str, ...]:
        """The classes with a deadline, for which nobody waits."""
        return tuple(name for name, end in zip(self.class_names, self.deadlines_s, strict=False) if np.isfinite(end))

    @property
    def hurried(self) -> NDArray[np.bool_]:
        """The classes whose latencies are those of the whole, bool [C]: somebody waits for them; all if for none."""
        hurried = np.array([name not in self.patient for name in self.class_names])
        return hurried if hurried.any() else ~hurried

    @property
    def measured_s(self) -> float:
        """Length of the time after warm-up, s."""
        return self.horizon_s - self.warmup_s


def bucket_of(value_s: float) -> int:
    """The fine bucket that holds a time in seconds; the slow obvious twin of the engine's kernel."""
    if value_s <= HIST_LOW_S:
        return 0
    return min(HIST_BUCKETS - 1, int(np.ceil(np.log(value_s / HIST_LOW_S) / np.log(HIST_GAMMA))))


def bucket_values(*, coarse: bool = False) -> NDArray[np.float64]:
    """The time in seconds reported for each bucket: the point with the same relative error to both its edges.

    A fine bucket i holds (low·γ^(i-1), low·γ^i] and is reported as 2·low·γ^i/(1+γ); a coarse one holds ten fine ones.
    """
    if not coarse:
        return np.asarray(2.0 * HIST_LOW_S * HIST_GAMMA ** np.arange(HIST_BUCKETS) / (1.0 + HIST_GAMMA), np.float64)
    upper = HIST_LOW_S * HIST_GAMMA ** (COARSE_FACTOR * np.arange(COARSE_BUCKETS) + COARSE_FACTOR - 1)
    return np.asarray(2.0 * upper / (1.0 + HIST_GAMMA**COARSE_FACTOR), np.float64)


def histogram_quantile(counts: NDArray[np.int64], q: float) -> float:
    """The q-quantile in seconds of one histogram, fine or coarse by its length; NaN when it is empty.

    It is the order statistic of rank ⌈q·n⌉ (the inverse of the empirical distribution function), to the relative
    error of a bucket: 0.5 % fine, 5 % coarse.

    Args:
        counts: int64 [HIST_BUCKETS] or [COARSE_BUCKETS].
        q: 0..1.

    Raises:
        ValueError: for another length, or q outside 0..1.
    """
    if counts.shape not in ((HIST_BUCKETS,), (COARSE_BUCKETS,)):
        raise ValueError(f"a histogram has {HIST_BUCKETS} or {COARSE_BUCKETS} buckets, not {counts.shape}")
    if not 0.0 <= q <= 1.0:
        raise ValueError(f"a quantile lies in 0..1, not at {q}")
    cumulative = np.cumsum(counts)
    n = int(cumulative[-1])
    if n == 0:
        return float("nan")
    # A product such as 0.07 * 100 is 7.000000000000001: without the allowance its rank would be 8.
    rank = min(n, max(1, int(np.ceil(q * n * (1.0 - 1e-12)))))
    bucket = int(np.searchsorted(cumulative, rank))
    return float(bucket_values(coarse=len(counts) == COARSE_BUCKETS)[bucket])


def histogram_mean(counts: NDArray[np.int64]) -> float:
    """The mean in seconds as far as the buckets tell; NaN when empty (where an exact sum is kept, use that)."""
    n = int(counts.sum())
    return float(counts @ bucket_values(coarse=len(counts) == COARSE_BUCKETS)) / n if n else float("nan")


def histogram_cdf(counts: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points (x_s, share of values at most x_s) at the non-empty buckets of one histogram, both ascending."""
    occupied = np.flatnonzero(counts)
    n = max(1, int(counts.sum()))
    return bucket_values(coarse=len(counts) == COARSE_BUCKETS)[occupied], np.cumsum(counts)[occupied] / n


def pooled_hist(measurements: Sequence[Measurements]) -> NDArray[np.int64]:
    """The fine histograms [4, C, B, HIST_BUCKETS] of all replications together."""
    total = measurements[0].hist.copy()
    for measured in measurements[1:]:
        total += measured.hist
    return total


def mean_windows(measurements: Sequence[Measurements]) -> dict[str, NDArray[np.float64]]:
    """Each field of `WINDOW_DTYPE` as float64 [W, B], its mean over the replications."""
    names = WINDOW_DTYPE.names or ()
    return {name: np.mean([measured.windows[name] for measured in measurements], axis=0) for name in names}
