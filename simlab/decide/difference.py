"""The paired difference of one metric between two plans that saw the same luck, and what it means."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simlab.results.interval import Draws, halves
from simlab.results.metrics import METRICS, resolution

BETTER, WORSE, MORE, LESS, SAME, UNKNOWN = "better", "worse", "more", "less", "no change", "unknown"

_MORE_IS_BETTER = frozenset(
    {"succeeded", "success_ratio", "slo_ratio", "goodput_rps", "throughput_rps", "prefix_hit_ratio", "cache_saved_usd"}
)
_LESS_IS_BETTER = frozenset(
    {
        *("failed", "in_flight", "error_ratio", "retries", "rate_limited", "timed_out", "rejected", "preemptions"),
        *("cost_usd", "cost_usd_per_month", "cost_per_success_usd", "usd_per_mtok", "usd_per_output_mtok", "idle_usd"),
        *("waste_usd", "retry_usd"),
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
        calibration_share: the part of the interval's variance that is calibration error, 0..1; None where that was not
            looked at.
    """

    metric: str
    unit: str
    baseline: float | None
    value: float | None
    change: float | None
    low: float | None
    high: float | None
    verdict: str
    calibration_share: float | None = None

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
            "calibration_share": self.calibration_share,
        }


def paired(
    metric: str,
    baseline: NDArray[np.float64],
    plan: NDArray[np.float64],
    drawn: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]] | None = None,
) -> Difference:
    """The paired difference: mean of plan - baseline by replication, with its 95 % interval.

    Pairs in which either is undefined (NaN) are left out. Luck and calibration error make the interval as
    `simlab.results.interval.halves` has it, of the differences: two plans on one profile see the same draw of it, so
    what it does to both of them alike is no difference. Where a metric is read from histogram buckets, the variance
    of that rounding is added, unless every difference is zero: equal runs differ by nothing.

    Args:
        metric: a key of `simlab.results.METRICS`.
        baseline: the metric in each replication, float64 [replications].
        plan: likewise, replications with the same seeds in the same order.
        drawn: both again with step times drawn from the uncertainty of their profiles, and which of these draws count
            on one side only; None: calibration error is left out.
    """
    unit = METRICS[metric].unit
    known = ~(np.isnan(baseline) | np.isnan(plan))
    before, after = _mean(baseline), _mean(plan)
    if not known.any():
        return Difference(metric, unit, before, after, None, None, None, UNKNOWN)
    changes = plan - baseline
    before, after, change = _mean(baseline[known]), _mean(plan[known]), float(changes[known].mean())
    if known.sum() == 1:
        return Difference(metric, unit, before, after, change, None, None, UNKNOWN)
    draws = None if drawn is None else Draws(drawn[1] - drawn[0], drawn[2])
    rounding = 0.0
    if changes[known].any() or (draws is not None and np.nan_to_num(draws.values).any()):
        rounding = resolution(metric) ** 2 / 12.0 * ((before or 0.0) ** 2 + (after or 0.0) ** 2)
    found = halves(changes, draws, rounding=rounding)
    low, high = change - float(found.below), change + float(found.above)
    share = None if draws is None else float(found.calibration_share)
    return Difference(metric, unit, before, after, change, low, high, _verdict(metric, low, high), share)


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
