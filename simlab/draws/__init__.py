"""Counter-based randomness and the distributions drawn with it: a leaf that every room may import."""

from simlab.draws.distribution import (
    EMPIRICAL,
    EXPONENTIAL,
    FIXED,
    GEOMETRIC,
    LOGNORMAL,
    Distribution,
)

__all__ = ["EMPIRICAL", "EXPONENTIAL", "FIXED", "GEOMETRIC", "LOGNORMAL", "Distribution"]
