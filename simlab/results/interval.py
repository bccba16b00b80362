"""A number with its 95 % interval: Student over replications, calibration error, batch means of a single run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
"""Probability with which an interval holds the true mean."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A metric's value and the ends of its 95 % interval, in `unit`; None where nothing can be said.

    Args:
        value: mean over replications; None when it is undefined (a latency when nothing finished).
        low: None when one replication tells nothing about the spread.
        high: as `low`.
        unit: as in the table of metrics.
        calibration_share: the part of the interval's variance that is calibration error, 0..1, the rest is luck; None
            where calibration error was not looked at.
    """

    value: float | None
    low: float | None
    high: float | None
    unit: str
    calibration_share: float | None = None

    def as_dict(self) -> dict[str, float | str | None]:
        """As in the result JSON."""
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "unit": self.unit,
            "calibration_share": self.calibration_share,
        }


class Draws(NamedTuple):
    """A metric in the replications that were run again with step times drawn from their profiles' uncertainty.

    Args:
        values: the metric, float64 [replications, …], in the order of the replications at the fit.
        one_sided: bool [replications]: the draw says nothing of the other side, see `halves`.
    """

    values: Floats
    one_sided: NDArray[np.bool_]


class Halves(NamedTuple):
    """How far an interval reaches below and above its value, and the share of its variance that is calibration error.

    All of the shape of one replication's values; NaN where fewer than two replications tell.
    """

    below: Floats
    above: Floats
    calibration_share: Floats


def student_factor(n: int) -> float:
    """The two-sided 95 % quantile of Student's t with n-1 degrees of freedom."""
    return float(_factor(np.float64(n - 1)))


def _factor(freedom: Any) -> Any:
    """The two-sided 95 % quantile of Student's t, for any degrees of freedom."""
    # scipy.stats takes most of a second to import; its t distribution calls this same function.
    from scipy.special import stdtrit

    return stdtrit(freedom, 0.5 + CONFIDENCE / 2)


def halves(
    values: Floats,
    draws: Draws | None = None,
    *,
    resolution: float = 0.0,
    rounding: float = 0.0,
    positive: bool = False,
) -> Halves:
    """The half widths of the 95 % interval around the mean over replications.

    Luck has the variance s²/R of a mean. Calibration error has the variance of one draw, however many replications
    there are: the mean square of what the draw changed, each replication against itself at the fit (the same luck), so
    next to no luck is in it. The two are added and taken times Student's factor at the effective degrees of freedom of
    Welch and Satterthwaite, as the Guide to the Expression of Uncertainty in Measurement (JCGM 100:2008, G.4) does.
    What calibration does to an amount that is above 0 is a factor, as the errors of step times are: its part of the
    interval reaches from the mean divided to the mean multiplied by one, and never below 0.

    Args:
        values: float64 [replications, …]; NaN where undefined.
        draws: the same replications with drawn step times; None: calibration error is left out.
        resolution: relative width of the step each value was rounded to (a histogram's bucket); the variance of that
            rounding, step²/12, is added, so that equal buckets do not pass for equal values.
        rounding: the same as an absolute variance, where the values are differences.
        positive: they are amounts, at 0 or above and without an upper end: calibration error is a factor.

    A one-sided draw (it overloads a pool that keeps up at the fit, so nothing is in proportion any more) counts on the
    side it lies on and not on the other.
    """
    known = ~np.isnan(values)
    n = known.sum(axis=0)
    mean = _mean(values, known)
    # Sums in another order differ by float dust, which is no spread of a bill that is fixed.
    dust = 1e-12 * np.abs(mean)
    off = np.where(known, values - mean, 0.0)
    spread = np.where(np.abs(off) > dust, off**2, 0.0).sum(axis=0) / np.maximum(n - 1, 1)
    luck = (spread + (resolution * mean) ** 2 / 12.0 + rounding) / np.maximum(n, 1)
    of_luck = np.where(n > 1, _factor(np.maximum(n - 1.0, 1.0)) * np.sqrt(luck), np.nan)
    if draws is None:
        return Halves(of_luck, of_luck, np.zeros_like(of_luck))
    paired = known & ~np.isnan(draws.values)
    factors = np.logical_and.reduce(~paired | ((values > 0.0) & (draws.values > 0.0))) & positive & (mean > 0.0)
    change = np.where(paired, draws.values - values, 0.0)
    safe = paired & factors
    change = np.where(safe, np.log(np.where(safe, draws.values, 1.0) / np.where(safe, values, 1.0)) * mean, change)
    change = np.where(np.abs(change) > dust, change, 0.0)
    lopsided = draws.one_sided.reshape(-1, *(1,) * (values.ndim - 1))
    ends = []
    for side, counts in ((-1.0, paired & ~(lopsided & (change > 0.0))), (1.0, paired & ~(lopsided & (change < 0.0)))):
        error = _mean_square(change, counts)
        both = luck + error
        weights = luck**2 / np.maximum(n - 1.0, 1.0) + error**2 / np.maximum(counts.sum(axis=0), 1)
        factor = _factor(np.maximum(both**2 / np.maximum(weights, np.finfo(float).tiny), 1.0))
        reach = factor * np.sqrt(error)
        scale = np.where(factors, np.abs(mean), 1.0)
        # At most e^50 times: beyond that the number of digits says it.
        reach = np.where(factors, scale * np.abs(np.expm1(side * np.minimum(reach / scale, 50.0))), reach)
        # More degrees of freedom can make the two together narrower than luck alone, which they are not.
        together = np.maximum(np.sqrt(factor**2 * luck + reach**2), of_luck)
        ends.append(np.where((n > 1) & (error > 0.0), together, of_luck))
    error = _mean_square(change, paired)
    share = np.where(error > 0.0, error / np.where(error > 0.0, luck + error, 1.0), 0.0)
    return Halves(ends[0], ends[1], np.where(n > 1, share, np.nan))


def _mean_square(change: Floats, counts: NDArray[np.bool_]) -> Floats:
    return np.asarray(np.where(counts, change**2, 0.0).sum(axis=0) / np.maximum(counts.sum(axis=0), 1), np.float64)


def _mean(values: Floats, known: NDArray[np.bool_]) -> Floats:
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.asarray(total / np.maximum(known.sum(axis=0), 1), np.float64)


def student(
    values: Sequence[float] | Floats, unit: str, *, resolution: float = 0.0, draws: Draws | None = None
) -> Estimate:
    """Mean and 95 % interval of independent replications: mean ± t·s/√n, with calibration error where it was drawn.

    Replications where the metric is undefined (NaN) are left out; one value alone gets no interval. An interval is
    cut at 0, and at 1 for ratios: no metric lies beyond.

    Args:
        values: the metric in each replication.
        unit: its unit.
        resolution: as for `halves`.
        draws: as for `halves`.
    """
    every = np.asarray(values, np.float64)
    known = every[~np.isnan(every)]
    if len(known) == 0:
        return Estimate(None, None, None, unit)
    mean = float(known.mean())
    if len(known) == 1:
        return Estimate(mean, None, None, unit)
    found = halves(every, draws, resolution=resolution, positive=unit != "ratio")
    share = None if draws is None else float(found.calibration_share)
    return around(mean, float(found.above), unit, below=float(found.below), calibration_share=share)


def around(
    value: float,
    half_width: float,
    unit: str,
    *,
    below: float | None = None,
    calibration_share: float | None = None,
) -> Estimate:
    """The interval value ± half_width (or from value - below on), cut to where the metric can lie."""
    high = value + half_width
    if unit == "ratio":
        high = max(value, min(1.0, high))
    low = min(value, max(0.0, value - (half_width if below is None else below)))
    return Estimate(value, low, high, unit, calibration_share)
