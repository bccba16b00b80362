"""A number with its 95 % interval: Student over replications, batch means over the time of a single one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
"""Probability with which an interval holds the true mean."""


@dataclass(frozen=True)
class Estimate:
    """A metric's value and the ends of its 95 % interval, in `unit`; None where nothing can be said.

    Args:
        value: mean over replications; None when it is undefined (a latency when nothing finished).
        low: None when one replication tells nothing about the spread.
        high: as `low`.
        unit: as in the table of metrics.
    """

    value: float | None
    low: float | None
    high: float | None
    unit: str

    def as_dict(self) -> dict[str, float | str | None]:
        """As in the result JSON."""
        return {"value": self.value, "low": self.low, "high": self.high, "unit": self.unit}


def student_factor(n: int) -> float:
    """The two-sided 95 % quantile of Student's t with n-1 degrees of freedom."""
    # scipy.stats takes most of a second to import; its t distribution calls this same function.
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, 0.5 + CONFIDENCE / 2))


def student(values: Sequence[float], unit: str, *, resolution: float = 0.0) -> Estimate:
    """Mean and Student's interval of independent replications: mean ± t·s/√n.

    Replications where the metric is undefined (NaN) are left out; one value alone gets no interval. An interval is
    cut at 0, and at 1 for ratios: no metric lies beyond.

    Args:
        values: the metric in each replication.
        unit: its unit.
        resolution: relative width of the step each value was rounded to (a histogram's bucket); the variance of that
            rounding, step²/12, is added, so that equal buckets do not pass for equal values.
    """
    known = np.array([value for value in values if not math.isnan(value)])
    if len(known) == 0:
        return Estimate(None, None, None, unit)
    mean = float(known.mean())
    if len(known) == 1:
        return Estimate(mean, None, None, unit)
    variance = float(known.var(ddof=1)) + (resolution * mean) ** 2 / 12.0
    return around(mean, student_factor(len(known)) * math.sqrt(variance / len(known)), unit)


def around(value: float, half_width: float, unit: str) -> Estimate:
    """The interval value ± half_width, cut to where the metric can lie."""
    high = value + half_width
    if unit == "ratio":
        high = max(value, min(1.0, high))
    return Estimate(value, min(value, max(0.0, value - half_width)), high, unit)
