"""Renewal arrivals in chunks: unit-mean gaps drawn by counter, mapped through a rate function.

Gap n is a pure function of (seed, class, n), so neither the size of a chunk nor the order in which classes are read
changes a stream. The process starts in its stationary state: the first gap is the residual life, a uniform share of a
length-biased gap (D. R. Cox, "Renewal Theory", 1962, section 5.2), so that the mean rate is exact from time zero on.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from simlab.draws.counter import key, normal_quantile, uniform
from simlab.draws.kernel import kernel
from simlab.workload.rates import RateFunction, piece_bounds, piece_mass, piece_time

REGULAR, EXPONENTIAL, GAMMA, WEIBULL = 0, 1, 2, 3
"""Laws of the gap between arrivals."""

CHUNK = 65536
"""The most arrivals of one chunk."""

_ARRIVALS = 0x41525256  # keeps these draws apart from every other use of (seed, class)

state_dtype = np.dtype(
    [
        ("number", "i8"),  # arrivals drawn so far
        ("piece", "i8"),  # the piece of the rate function we are in
        ("operational", "f8"),  # time of the last arrival on the unit-rate clock
        ("before", "f8"),  # integrated rate at the start of the piece
    ]
)
"""Where a stream of arrivals stands."""


@kernel
def standard_gamma(shape: float, k: np.uint64) -> float:
    """A Gamma(shape, 1) number of key ``k``.

    Rejection of G. Marsaglia & W. W. Tsang, "A simple method for generating gamma variables", ACM TOMS 26 (2000),
    attempt j using draws 2j + 1 and 2j + 2 of the key; below shape 1 by their boost with draw 0.
    """
    boost = 1.0
    a = shape
    if shape < 1.0:
        boost = math.pow(uniform(key(k, 0)), 1.0 / shape)
        a = shape + 1.0
    d = a - 1.0 / 3.0
    c = 1.0 / math.sqrt(9.0 * d)
    attempt = 0
    while True:
        x = normal_quantile(uniform(key(k, 2 * attempt + 1)))
        v = 1.0 + c * x
        if v > 0.0:
            v = v * v * v
            u = uniform(key(k, 2 * attempt + 2))
            if math.log(u) < 0.5 * x * x + d - d * v + d * math.log(v):
                return boost * d * v
        attempt += 1


@kernel
def gap(law: int, shape: float, scale: float, stream: np.uint64, number: int) -> float:
    """Gap ``number`` of a stationary renewal process of rate one (gap 0: from time zero to the first arrival)."""
    k = key(stream, number)
    if law == EXPONENTIAL:
        return -math.log(uniform(k))
    if number == 0:
        share = uniform(key(k, -1))
        if law == REGULAR:
            return share
        if law == GAMMA:
            return share * scale * standard_gamma(shape + 1.0, k)
        return share * scale * math.pow(standard_gamma(1.0 + 1.0 / shape, k), 1.0 / shape)
    if law == REGULAR:
        return 1.0
    if law == GAMMA:
        return scale * standard_gamma(shape, k)
    return scale * math.pow(-math.log(uniform(k)), 1.0 / shape)


@kernel
def fill(
    state: NDArray[np.void],
    edges: NDArray[np.float64],
    multipliers: NDArray[np.float64],
    period_s: float,
    base: float,
    growth: float,
    horizon_s: float,
    law: int,
    shape: float,
    scale: float,
    stream: np.uint64,
    out: NDArray[np.float64],
) -> int:
    """Writes the next arrival times before ``horizon_s`` (s) into ``out``; fewer than ``len(out)`` means no more."""
    s = state[0]
    number = s.number
    piece = s.piece
    operational = s.operational
    before = s.before
    start, end, place = piece_bounds(edges, period_s, piece)
    rate = base * multipliers[place]
    after = before + piece_mass(rate, growth, start, end)
    filled = 0
    while filled < len(out):
        operational += gap(law, shape, scale, stream, number)
        number += 1
        while operational > after or rate <= 0.0:
            piece += 1
            start, end, place = piece_bounds(edges, period_s, piece)
            if start >= horizon_s:
                return filled
            rate = base * multipliers[place]
            before = after
            after = before + piece_mass(rate, growth, start, end)
        t = min(piece_time(rate, growth, start, operational - before), end)
        if t >= horizon_s:
            return filled
        out[filled] = t
        filled += 1
    s.number = number
    s.piece = piece
    s.operational = operational
    s.before = before
    return filled


def weibull_shape(cv: float) -> float:
    """The shape k of a Weibull law with coefficient of variation ``cv`` > 0.

    Solves ``1 + cv² = Γ(1 + 2/k) / Γ(1 + 1/k)²``, falling in k, by bisection on log k.

    Raises:
        ValueError: no shape between 0.05 and 10 000 gives this cv.
    """
    low, high = math.log(0.05), math.log(1e4)

    def excess(log_k: float) -> float:
        k = math.exp(log_k)
        return math.lgamma(1.0 + 2.0 / k) - 2.0 * math.lgamma(1.0 + 1.0 / k) - math.log1p(cv * cv)

    if cv <= 0.0 or excess(low) < 0.0 or excess(high) > 0.0:
        raise ValueError(f"no Weibull law has a coefficient of variation of {cv:g}: allowed are 0.0002 to 350000")
    for _ in range(200):
        middle = 0.5 * (low + high)
        if excess(middle) > 0.0:
            low = middle
        else:
            high = middle
    return math.exp(0.5 * (low + high))


def law_of(kind: str, cv: float) -> tuple[int, float, float]:
    """The law, shape and scale of a unit-mean gap: ``kind`` poisson, gamma or weibull with coefficient ``cv`` >= 0."""
    if kind == "poisson" or cv == 1.0:
        return EXPONENTIAL, 1.0, 1.0
    if cv < 1e-3:  # below this the jitter is a thousandth of a gap, and both laws lose their digits
        return REGULAR, 1.0, 1.0
    if kind == "gamma":
        shape = 1.0 / (cv * cv)
        return GAMMA, shape, 1.0 / shape
    shape = weibull_shape(cv)
    return WEIBULL, shape, math.exp(-math.lgamma(1.0 + 1.0 / shape))


def stream_key(seed: int, purpose: int, index: int) -> np.uint64:
    """The key of the draws of one class for one purpose."""
    of_purpose = np.uint64(key(np.uint64(seed % 2**64), np.uint64(purpose)))
    return np.uint64(key(of_purpose, np.uint64(index)))


class RenewalSource:
    """Arrival times of one class, a chunk at a time; memory does not depend on the horizon.

    Args:
        rate: the rate function.
        kind: ``poisson``, ``gamma`` or ``weibull``.
        cv: coefficient of variation of the gaps on the unit-rate clock.
        seed: seed of the replication.
        index: index of the class in the scenario.
        horizon_s: arrivals at or after it are not made.
        chunk: the most arrivals of one answer.
    """

    def __init__(
        self, rate: RateFunction, kind: str, cv: float, *, seed: int, index: int, horizon_s: float, chunk: int = CHUNK
    ) -> None:
        self._rate = rate
        self._law, self._shape, self._scale = law_of(kind, cv)
        self._stream = stream_key(seed, _ARRIVALS, index)
        self._horizon_s = float(horizon_s)
        self._state = np.zeros(1, state_dtype)
        self._chunk = chunk
        self._done = rate.base_rps <= 0.0

    def next_times(self) -> NDArray[np.float64] | None:
        """The next arrival times (s), ascending, f8[n]; None when there are no more."""
        if self._done:
            return None
        rate = self._rate
        out = np.empty(self._chunk)
        filled = fill(
            self._state,
            rate.edges_s,
            rate.multipliers,
            rate.period_s,
            rate.base_rps,
            rate.growth_per_s,
            self._horizon_s,
            self._law,
            self._shape,
            self._scale,
            self._stream,
            out,
        )
        self._done = filled < len(out)
        return out[:filled] if filled else None
