"""Which pools could not keep up with what they were sent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simlab.results.measurements import Measurements

LEAST_LEFT = 0.01
"""Share of a pool's calls that may be left waiting at the end, or time out, before it counts as not keeping up."""


def overloaded(measured: Measurements) -> NDArray[np.bool_]:
    """Whether each backend was left with a queue, or timed out, for more than `LEAST_LEFT` of its calls, bool [B].

    The queue is the mean over the last time window. An API has none that is counted.
    """
    n = len(measured.backend_names)
    calls = np.bincount(measured.cells["backend"], weights=measured.cells["attempts"], minlength=n)
    timed_out = np.bincount(measured.cells["backend"], weights=measured.cells["timed_out"], minlength=n)
    last_s = measured.horizon_s - (len(measured.windows) - 1) * measured.window_s
    waiting = measured.windows["waiting_s"][-1] / last_s
    # Of few calls one that happens to wait at the end is already a large share.
    return np.asarray(np.maximum(waiting - 1.0, timed_out) > LEAST_LEFT * (calls + waiting))
