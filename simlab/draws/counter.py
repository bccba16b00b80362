"""Counter-based random numbers: every draw is a pure function of (seed, stream, counter).

A draw does not depend on the order of events, so two variants of a scenario see the same luck (common random
numbers) and the number of workers never changes a result. The mixer is the 64-bit finaliser of SplitMix64 (Steele,
Lea & Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014), applied once per word of the key.
"""

from __future__ import annotations

import math

import numpy as np

from simlab.draws.kernel import kernel

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S30 = np.uint64(30)
_S27 = np.uint64(27)
_S31 = np.uint64(31)
_S11 = np.uint64(11)
_TWO_53 = 1.0 / 9007199254740992.0
_BELOW_1 = 1.0 - _TWO_53


@kernel
def mix(x: np.uint64) -> np.uint64:
    """The SplitMix64 finaliser: a bijection of 64-bit words."""
    x = np.uint64(x)
    x ^= x >> _S30
    x *= _MIX_1
    x ^= x >> _S27
    x *= _MIX_2
    x ^= x >> _S31
    return x


@kernel
def key(a: int | np.uint64, b: int | np.uint64) -> np.uint64:
    """Joins two words into a key; ``key(key(seed, stream), counter)`` names one draw."""
    return mix(np.uint64(a) * _MIX_1 + mix(np.uint64(b) + _GOLDEN))


@kernel
def uniform(k: np.uint64) -> float:
    """The uniform number of a key, in the open interval (0, 1): 53 random bits, centred."""
    # The half rounds the last of the 2^53 numbers up to 1, where quantiles are infinite.
    return min((np.float64(np.uint64(k) >> _S11) + 0.5) * _TWO_53, _BELOW_1)


@kernel
def normal_quantile(p: float) -> float:
    """The standard normal quantile of ``p`` in (0, 1).

    Rational approximations with relative error below 1.2e-9 (coefficients: P. J. Acklam, 2003).
    """
    if p < 0.02425 or p > 1.0 - 0.02425:
        sign = 1.0 if p < 0.5 else -1.0
        q = math.sqrt(-2.0 * math.log(min(p, 1.0 - p)))
        num = ((((-7.784894002430293e-03 * q - 3.223964580411365e-01) * q - 2.400758277161838) * q
                - 2.549732539343734) * q + 4.374664141464968) * q + 2.938163982698783
        den = (((7.784695709041462e-03 * q + 3.224671290700398e-01) * q + 2.445134137142996) * q
               + 3.754408661907416) * q + 1.0
        return sign * num / den
    q = p - 0.5
    r = q * q
    num = (((((-3.969683028665376e+01 * r + 2.209460984245205e+02) * r - 2.759285104469687e+02) * r
             + 1.383577518672690e+02) * r - 3.066479806614716e+01) * r + 2.506628277459239) * q
    den = ((((-5.447609879822406e+01 * r + 1.615858368580409e+02) * r - 1.556989798598866e+02) * r
            + 6.680131188771972e+01) * r - 1.328068155288572e+01) * r + 1.0
    return num / den
