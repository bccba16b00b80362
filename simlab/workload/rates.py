"""How the arrival rate moves over time, and the exact change of clock that turns unit-rate arrivals into it.

With rate ``λ(t) = base · m(t) · exp(g t)``, m piecewise constant, the integrated rate ``Λ(t) = ∫ λ`` has a closed form
on each piece, and so has its inverse. If operational times ``S_1 < S_2 < …`` are arrivals at rate one, ``Λ⁻¹(S_n)``
are arrivals at rate λ (time-rescaling theorem; E. Çınlar, "Introduction to Stochastic Processes", 1975, section 4.7).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from simlab.draws.kernel import kernel

if TYPE_CHECKING:
    from simlab.scenario import RateProfile

MONTH_S = 730.0 * 3600.0
"""The month of ``growth_per_month``, in seconds: 730 h, a twelfth of a year."""

DAY_S = 86400.0
HOUR_S = 3600.0


@kernel
def piece_mass(rate: float, growth: float, start_s: float, end_s: float) -> float:
    """``∫ rate · exp(growth t) dt`` from ``start_s`` to ``end_s``, rate in 1/s, growth in 1/s."""
    if rate <= 0.0:
        return 0.0
    if growth == 0.0:
        return rate * (end_s - start_s)
    return rate * math.exp(growth * start_s) * math.expm1(growth * (end_s - start_s)) / growth


@kernel
def piece_time(rate: float, growth: float, start_s: float, mass: float) -> float:
    """The time at which `piece_mass` from ``start_s`` reaches ``mass``; infinite when a shrinking rate never does."""
    if growth == 0.0:
        return start_s + mass / rate
    inside = growth * mass / (rate * math.exp(growth * start_s))
    if inside <= -1.0:
        return math.inf
    return start_s + math.log1p(inside) / growth


@kernel
def piece_bounds(edges: NDArray[np.float64], period_s: float, index: int) -> tuple[float, float, int]:
    """Start, end (s) and place in ``edges`` of piece ``index`` of a step function that repeats every ``period_s``."""
    count = len(edges)
    cycle = index // count
    place = index - cycle * count
    offset = cycle * period_s if cycle > 0 else 0.0
    start = offset + edges[place]
    end = offset + edges[place + 1] if place + 1 < count else offset + period_s
    return start, end, place


@kernel
def integrate(
    edges: NDArray[np.float64],
    multipliers: NDArray[np.float64],
    period_s: float,
    base: float,
    growth: float,
    t_s: float,
) -> float:
    """``Λ(t_s)``: expected arrivals in [0, t_s]."""
    mass = 0.0
    index = 0
    while True:
        start, end, place = piece_bounds(edges, period_s, index)
        if start >= t_s:
            return mass
        mass += piece_mass(base * multipliers[place], growth, start, min(end, t_s))
        index += 1


@kernel
def invert(
    edges: NDArray[np.float64],
    multipliers: NDArray[np.float64],
    period_s: float,
    base: float,
    growth: float,
    mass: float,
    limit_s: float,
) -> float:
    """The first t with ``Λ(t) >= mass`` (mass > 0), or infinity when it lies beyond ``limit_s``."""
    before = 0.0
    index = 0
    while True:
        start, end, place = piece_bounds(edges, period_s, index)
        if start >= limit_s:
            return math.inf
        rate = base * multipliers[place]
        here = piece_mass(rate, growth, start, end)
        if rate > 0.0 and before + here >= mass:
            return min(piece_time(rate, growth, start, mass - before), end)
        before += here
        index += 1


@dataclass(frozen=True)
class RateFunction:
    """An arrival rate over time: ``base_rps`` times a repeating step function times exponential growth.

    Args:
        base_rps: rate at multiplier one and time zero, 1/s.
        edges_s: f8[k], where each piece starts, ascending from 0, s.
        multipliers: f8[k], >= 0.
        period_s: after this many seconds the pieces start again; infinite when the last piece goes on for ever.
        growth_per_s: exponent of growth, 1/s.
    """

    base_rps: float
    edges_s: NDArray[np.float64]
    multipliers: NDArray[np.float64]
    period_s: float = math.inf
    growth_per_s: float = 0.0

    @classmethod
    def constant(cls, rate_rps: float, growth_per_month: float = 0.0) -> RateFunction:
        """``rate_rps`` at time zero, growing by the ratio ``growth_per_month`` every 730 h."""
        return cls(rate_rps, np.zeros(1), np.ones(1), growth_per_s=math.log1p(growth_per_month) / MONTH_S)

    @classmethod
    def from_profile(
        cls, rate_rps: float, profile: RateProfile | None, start: datetime, growth_per_month: float = 0.0
    ) -> RateFunction:
        """``rate_rps`` times a scenario's profile: hour of day × day of week from ``start``, or a series of steps."""
        flat = cls.constant(rate_rps, growth_per_month)
        if profile is None:
            return flat
        if profile.series:
            edges = np.array([float(edge) for edge, _ in profile.series])
            edges[0] = 0.0
            multipliers = np.array([float(multiplier) for _, multiplier in profile.series])
            period = math.inf if profile.period is None else float(profile.period)
        else:
            edges, multipliers, period = _calendar(profile.hour_of_day, profile.day_of_week, start)
        return cls(rate_rps, edges, multipliers, period, flat.growth_per_s)

    def rate_rps(self, t_s: float) -> float:
        """The rate at time ``t_s``, 1/s."""
        inside = t_s % self.period_s if math.isfinite(self.period_s) else t_s
        place = int(np.searchsorted(self.edges_s, inside, side="right")) - 1
        return self.base_rps * float(self.multipliers[place]) * math.exp(self.growth_per_s * t_s)

    def integral(self, t_s: float) -> float:
        """Expected arrivals in [0, t_s]."""
        return float(
            integrate(self.edges_s, self.multipliers, self.period_s, self.base_rps, self.growth_per_s, float(t_s))
        )

    def inverse(self, mass: float, limit_s: float) -> float:
        """The first time with `integral` >= ``mass`` > 0, s; infinity when it lies beyond ``limit_s``."""
        return float(
            invert(
                self.edges_s,
                self.multipliers,
                self.period_s,
                self.base_rps,
                self.growth_per_s,
                float(mass),
                float(limit_s),
            )
        )

    def mean_rps(self, horizon_s: float) -> float:
        """Mean rate over [0, horizon_s], 1/s."""
        return self.integral(horizon_s) / horizon_s

    def peak_rps(self, horizon_s: float) -> float:
        """The highest rate within [0, horizon_s], 1/s: at one end of some piece, as growth is monotone."""
        peak = 0.0
        index = 0
        while True:
            start, end, place = piece_bounds(self.edges_s, self.period_s, index)
            if start >= horizon_s:
                return peak
            rate = self.base_rps * float(self.multipliers[place])
            ends = (start, min(end, horizon_s))
            peak = max(peak, *(rate * math.exp(self.growth_per_s * t) for t in ends))
            index += 1


def _calendar(
    hour_of_day: list[float] | tuple[float, ...] | None,
    day_of_week: list[float] | tuple[float, ...] | None,
    start: datetime,
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Pieces from ``start`` on: one a clock hour, for a day, or for a week when days differ (Monday first)."""
    hours = list(hour_of_day) if hour_of_day else [1.0] * 24
    days = list(day_of_week) if day_of_week else [1.0]
    into_hour = start.minute * 60.0 + start.second + start.microsecond * 1e-6
    count = 24 * len(days)
    edges = [0.0]
    edges += [step * HOUR_S - into_hour for step in range(1, count + 1) if step * HOUR_S - into_hour < count * HOUR_S]
    multipliers = []
    for piece in range(len(edges)):
        hour = start.hour + piece
        multipliers.append(hours[hour % 24] * days[(start.weekday() + hour // 24) % len(days)])
    return np.array(edges), np.array(multipliers), count * HOUR_S
