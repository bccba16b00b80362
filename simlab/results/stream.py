"""The stream that alerts watch: spending, calls, errors and cache hits in each window of the run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Stream:
    """W windows that lie whole within the horizon, T tenants summed over classes, B backends, L caches of answers.

    Args:
        window_s: length of a window, s.
        usd: float64 [W, T] spent on calls that ended in the window: tokens at their price, GPU time by work done, so
            without what idle replicas cost.
        calls: float64 [W, T] attempts that ended.
        attempts: float64 [W, B] attempts that ended.
        errors: float64 [W, B] of these, failed or timed out.
        refusals: float64 [W, B] of these, answered 429 or turned away.
        lookups, hits: float64 [W, L].
    """

    window_s: float
    usd: Floats
    calls: Floats
    attempts: Floats
    errors: Floats
    refusals: Floats
    lookups: Floats
    hits: Floats
