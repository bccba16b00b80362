"""Robust non-negative least squares of relative errors: start-up, compilation and strange steps weigh nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simlab.calibrate.run import Floats

HUBER = 1.345
"""Beyond so many deviations an error counts by its size and no longer by its square (95% efficient for normal ones)."""
TUKEY = 6.0
"""Beyond so many deviations an observation counts nothing (biweight; wider than 4.685, for errors have long tails)."""
MAD = 1.4826
LEAST_SPREAD = 0.005
"""Relative; so that rows that repeat exactly do not make all others outliers."""
RIDGE = 1e-10
FIRST, MOST = 6, 40
"""Rounds by Huber before Tukey, and rounds in all."""


@dataclass(frozen=True)
class RobustFit:
    """Coefficients, and how much each observation counted: 0 is an outlier, 1 none."""

    solution: Floats
    weights: Floats


def robust_fit(
    x: Floats,
    seconds: Floats,
    groups: NDArray[np.int64],
    *,
    balance: Floats | None = None,
    floor: Floats | None = None,
    start: Floats | None = None,
    rounds: int = MOST,
) -> RobustFit:
    """Non-negative least squares of relative errors, reweighted until outliers are out (Huber first, then Tukey).

    An error is relative to the larger of measured and fitted: a time far too short is as bad as one far too long. Each
    group of observations has its own spread, and groups weigh by the root of their count: few prefill steps are
    not lost among many decode steps.

    Args:
        x: [n, k] seconds for one unit of each coefficient.
        seconds: [n] measured.
        groups: [n] group of each observation.
        balance: [n] weights of the caller's own.
        floor: [k] what no coefficient can be below.
        start: [n] weights to go on from, of an earlier fit of nearly the same: the first rounds are left out.
        rounds: most rounds.
    """
    names, index, counts = np.unique(groups, return_inverse=True, return_counts=True)
    fixed = (1.0 / np.sqrt(counts))[index] * (1.0 if balance is None else balance)
    least = np.zeros(x.shape[1]) if floor is None else floor
    weights = np.ones(len(seconds)) if start is None else start
    fitted = seconds if start is not None else _typical(x, seconds)
    solution = least
    for turn in range(FIRST if start is not None else 0, rounds):
        root = np.sqrt(weights * fixed) / np.maximum(seconds, fitted)
        solution = least + nonnegative(x * root[:, None], (seconds - x @ least) * root)
        fitted = np.maximum(x @ solution, 1e-9)
        miss = (fitted - seconds) / np.maximum(seconds, fitted)
        spread = np.array([np.median(np.abs(miss[index == i])) for i in range(len(names))])
        u = np.abs(miss) / (MAD * np.maximum(spread, LEAST_SPREAD))[index]
        if turn < FIRST:
            weights = HUBER / np.maximum(u, HUBER)
            continue
        before = weights
        weights = np.where(u < TUKEY, (1.0 - (u / TUKEY) ** 2) ** 2, 0.0)
        if np.abs(weights - before).max() < 1e-3:
            break
    return RobustFit(solution, weights)


def nonnegative(x: Floats, y: Floats) -> Floats:
    """The s >= 0 of least |x·s − y|, by way of the small triangle of x: [n, k] becomes [k, k]."""
    return nonnegative_by_gram(x.T @ x, x.T @ y)


def nonnegative_by_gram(gram: Floats, right: Floats) -> Floats:
    """The same from xᵀx and xᵀy; columns are scaled to length 1, those without length get 0."""
    from scipy.optimize import nnls

    length = np.sqrt(np.diag(gram))
    used = length > 0
    if not used.any():
        return np.zeros(len(right))
    scale = length[used]
    scaled = gram[np.ix_(used, used)] / np.outer(scale, scale)
    # A little on the diagonal keeps columns that say the same from making it singular; they share what they explain.
    lower = np.linalg.cholesky(scaled + RIDGE * np.eye(len(scale)))
    target = np.linalg.solve(lower, right[used] / scale)
    solution = np.zeros(len(right))
    solution[used] = nnls(lower.T, target, maxiter=50 * len(scale))[0] / scale
    return solution


def _typical(x: Floats, seconds: Floats, width: int = 7) -> Floats:
    """Median time of like observations, neighbours by the size of x: what an error is first relative to."""
    size = (x / np.maximum(x.max(axis=0), 1e-30)).sum(axis=1)
    order = np.argsort(size, kind="stable")
    padded = np.pad(seconds[order], width, mode="edge")
    middle = np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * width + 1), axis=1)
    typical = np.empty(len(seconds))
    typical[order] = middle
    return typical
