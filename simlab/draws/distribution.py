"""Distributions as data: a kind and numbers that a compiled kernel can draw from, and their own mean and quantiles."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simlab.draws.counter import normal_quantile
from simlab.draws.kernel import kernel

FIXED, EXPONENTIAL, LOGNORMAL, EMPIRICAL, GEOMETRIC = 0, 1, 2, 3, 4

TABLE_POINTS = 1025
"""Points of an empirical quantile table: the value at i / 1024 for i = 0..1024, linear in between."""

_Z95 = 1.6448536269514722


@dataclass(frozen=True)
class Distribution:
    """A non-negative distribution, drawn by inverting its quantile function at one uniform number.

    Args:
        kind: one of FIXED (value a), EXPONENTIAL (mean a), LOGNORMAL (mu a, sigma b), EMPIRICAL (table),
            GEOMETRIC (mean a >= 1, on 1, 2, …).
        a, b: parameters by kind, in the unit of the quantity.
        low, high: draws are clipped to [low, high].
        table: EMPIRICAL only: TABLE_POINTS quantiles at equal steps of probability, ascending.
    """

    kind: int
    a: float
    b: float = 0.0
    low: float = 0.0
    high: float = math.inf
    table: tuple[float, ...] = ()

    @classmethod
    def fixed(cls, value: float) -> Distribution:
        """Always ``value``."""
        return cls(FIXED, value)

    @classmethod
    def exponential(cls, mean: float) -> Distribution:
        """Exponential with the given mean."""
        return cls(EXPONENTIAL, mean)

    @classmethod
    def geometric(cls, mean: float) -> Distribution:
        """Geometric on 1, 2, … with the given mean (>= 1)."""
        return cls(GEOMETRIC, mean, low=1.0)

    @classmethod
    def lognormal(cls, mean: float, p95: float, low: float = 0.0, high: float = math.inf) -> Distribution:
        """Lognormal by mean and 95th percentile.

        With ``p95/mean = exp(z sigma - sigma^2/2)``, ``sigma = z - sqrt(z^2 - 2 ln(p95/mean))``, z = 1.645: the smaller
        root. A lognormal cannot have p95 / mean above ``exp(z^2/2)`` = 3.87 nor at or below 1.

        Raises:
            ValueError: the pair belongs to no lognormal.
        """
        ratio = math.log(p95 / mean)
        if not 0.0 < ratio <= _Z95 * _Z95 / 2.0:
            raise ValueError(
                f"no lognormal has mean {mean:g} and p95 {p95:g}: p95 must lie above the mean and at most 3.86 times it"
            )
        sigma = _Z95 - math.sqrt(_Z95 * _Z95 - 2.0 * ratio)
        return cls(LOGNORMAL, math.log(mean) - sigma * sigma / 2.0, sigma, low, high)

    @classmethod
    def empirical(cls, quantiles: Mapping[float, float]) -> Distribution:
        """Piecewise linear between given quantiles {probability: value}; 0 and 1 are extended from the outermost."""
        probabilities = np.array(sorted(quantiles), dtype=np.float64)
        values = np.array([quantiles[p] for p in probabilities], dtype=np.float64)
        grid = np.linspace(0.0, 1.0, TABLE_POINTS)
        table = np.interp(grid, probabilities, values)
        return cls(EMPIRICAL, float(np.trapezoid(table, grid)), low=float(table[0]), high=float(table[-1]),
                   table=tuple(table.tolist()))

    def scaled(self, factor: float) -> Distribution:
        """The distribution of ``factor`` times the variable."""
        a = self.a + math.log(factor) if self.kind == LOGNORMAL else self.a * factor
        return Distribution(self.kind, a, self.b, self.low * factor, self.high * factor,
                            tuple(value * factor for value in self.table))

    def mean(self) -> float:
        """The mean, before clipping (EMPIRICAL: of the table)."""
        if self.kind == LOGNORMAL:
            return math.exp(self.a + self.b * self.b / 2.0)
        return self.a

    def quantile(self, p: float) -> float:
        """The quantile at ``p`` in (0, 1), clipped."""
        record, table = pack([self])
        return float(draw(record, table, 0, p))


distribution_dtype = np.dtype(
    [("kind", "i8"), ("a", "f8"), ("b", "f8"), ("low", "f8"), ("high", "f8"), ("offset", "i8")]
)
"""One packed distribution; ``offset`` is where its table starts."""


def pack(distributions: list[Distribution]) -> tuple[NDArray[np.void], NDArray[np.float64]]:
    """Packs distributions for kernels: records of `distribution_dtype`, and all their tables end to end."""
    records = np.zeros(max(1, len(distributions)), distribution_dtype)
    tables: list[float] = []
    for i, d in enumerate(distributions):
        records[i] = (d.kind, d.a, d.b, d.low, d.high, len(tables))
        tables.extend(d.table)
    return records, np.array(tables or [0.0], dtype=np.float64)


@kernel
def draw(records: NDArray[np.void], tables: NDArray[np.float64], index: int, u: float) -> float:
    """The quantile of packed distribution ``index`` at the uniform number ``u`` in (0, 1)."""
    d = records[index]
    kind = d.kind
    if kind == FIXED:
        x = d.a
    elif kind == EXPONENTIAL:
        x = -d.a * math.log1p(-u)
    elif kind == LOGNORMAL:
        x = math.exp(d.a + d.b * normal_quantile(u))
    elif kind == EMPIRICAL:
        position = u * (TABLE_POINTS - 1)
        i = int(position)
        left = tables[d.offset + i]
        x = left + (position - i) * (tables[d.offset + i + 1] - left)
    else:
        if d.a <= 1.0:
            return 1.0
        x = math.floor(math.log1p(-u) / math.log1p(-1.0 / d.a)) + 1.0
    if x < d.low:
        x = d.low
    if x > d.high:
        x = d.high
    return x
