"""The paired difference of one metric between two plans that saw the same luck, and what it means."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simlab.results.interval import student_factor
from simlab.results.metrics import METRICS, resolution

BETTER, WORSE, MORE, LESS, SAME, UNKNOWN = "better", "worse", "more", "less", "no change", "unknown"

_MORE_IS_BETTER = frozenset(
    {"succeeded", "success_ratio", "slo_ratio", "goodput_rps", "throughput_rps", "prefix_hit_ratio"}
)
_LESS_IS_BETTER = frozenset(
    {
        *("failed", "in_flight", "error_ratio", "retries", "rate_limited", "timed_out", "rejected", "preemptions"),
        *("cost_usd", "cost_usd_per_month", "cost_per_success_usd", "usd_per_mtok", "usd_per_output_mtok", "idle_usd"),
        *(name for name, metric in METRICS.items() if metric.unit == "s"),
        "waiting_mean",
    }
)


def direction(name: str) -> int:
    """1: more of this metric is better; -1: less is; 0: neither, it only describes."""
    return 1 if name in _MORE_IS_BETTER else -1 if name in _LESS_IS_BETTER else 0


@dataclass(frozen=True)
class Difference:
    """One metric in a plan less the same metric in the baseline.

    Args:
        metric: its name, a key of `simlab.results.METRICS`.
        unit: its unit.
        baseline: mean over replications in the baseline; None: undefined.
        value: mean over replications in the plan; None: undefined.
        change: mean of the paired differences, in `unit`; None where either is undefined.
        low: lower end of its 95 % interval; None: one replication alone tells no spread.
        high: upper end.
        verdict: ``"better"``, ``"worse"`` (``"more"``, ``"less"`` for metrics that are neither), ``"no change"`` when
            the interval includes 0, ``"unknown"`` without an interval.
    """

    metric: str
    unit: str
    baseline: float | None
    value: float | None
    change: float | None
    low: float | None
    high: float | None
    verdict: str

    @property
    def relative(self) -> tuple[float, float | None, float | None] | None:
        """`change`, `low` and `high` as shares of the baseline; None where that is zero or undefined."""
        if self.change is None or not self.baseline:
            return None
        size = abs(self.baseline)
        low, high = (None if end is None else end / size for end in (self.low, self.high))
        return self.change / size, low, high

    def as_dict(self) -> dict[str, float | str | None]:
        """As in the comparison's JSON."""
        share, low, high = self.relative or (None, None, None)
        return {
            "baseline": self.baseline,
            "value": self.value,
            "change": self.change,
            "low": self.low,
            "high": self.high,
            "unit": self.unit,
            "relative": share,
            "relative_low": low,
            "relative_high": high,
            "verdict": self.verdict,
        }


def paired(metric: str, baseline: NDArray[np.float64], plan: NDArray[np.float64]) -> Difference:
    """The paired difference: mean of plan - baseline by replication, with Student's interval, mean ± t·s/√n.

    Pairs in which either is undefined (NaN) are left out. Where a metric is read from histogram buckets, the variance
    of that rounding is added, unless every difference is zero: equal runs differ by nothing.

    Args:
        metric: a key of `simlab.results.METRICS`.
        baseline: the metric in each replication, float64 [replications].
        plan: likewise, replications with the same seeds in the same order.
    """
    unit = METRICS[metric].unit
    known = ~(np.isnan(baseline) | np.isnan(plan))
    before, after = _mean(baseline), _mean(plan)
    if not known.any():
        return Difference(metric, unit, before, after, None, None, None, UNKNOWN)
    changes = plan[known] - baseline[known]
    before, after, change = _mean(baseline[known]), _mean(plan[known]), float(changes.mean())
    if len(changes) == 1:
        return Difference(metric, unit, before, after, change, None, None, UNKNOWN)
    half = 0.0
    if changes.any():
        step = resolution(metric)
        rounding = step**2 / 12.0 * ((before or 0.0) ** 2 + (after or 0.0) ** 2)
        half = student_factor(len(changes)) * math.sqrt((float(changes.var(ddof=1)) + rounding) / len(changes))
    low, high = change - half, change + half
    return Difference(metric, unit, before, after, change, low, high, _verdict(metric, low, high))


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _verdict(metric: str, low: float, high: float) -> str:
    if low <= 0.0 <= high:
        return SAME
    sign = 1 if low > 0.0 else -1
    wanted = direction(metric)
    if wanted == 0:
        return MORE if sign > 0 else LESS
    return BETTER if sign == wanted else WORSE
