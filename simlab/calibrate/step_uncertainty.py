"""How well steps tell the terms of a step-time: resampled blocks of steps, and what blocks held out still show."""

from __future__ import annotations

import numpy as np

from simlab.calibrate.robust import MAD, RobustFit, nonnegative_by_gram
from simlab.calibrate.run import Floats
from simlab.calibrate.step_log import StepLog
from simlab.calibrate.step_problem import BEYOND, Observations, Problem
from simlab.profiles import Uncertainty

RESAMPLES = 100
MANY_LOGS = 8
"""Of so many logs whole ones are resampled, since a server's speed may differ from run to run."""
WIDEST = 0.5
"""Relative deviation of a term that the steps do not tell."""
LEAST_SD = 1e-4
"""Nothing is told better."""
MOST_STEPS = 0.75
"""The covariance gives at least this share of the steps the deviation that resampling gives them."""


def uncertainty_of(
    problem: Problem, seen: Observations, fit: RobustFit, held_out: Floats, seed: int = 0
) -> Uncertainty:
    """Covariance of the logarithms of the terms of a fit.

    Blocks of consecutive steps are resampled at the weights of the fit, and the relative deviations of the terms make
    the covariance; a table counts as one term, its mean over the observations. It is then widened by a factor until

    - most steps deviate as much by it as by resampling: a table's shape is not known either, only its height varies;
    - blocks deviate as much by it as blocks held out did: a server is slower at one time than at another, and no law is
      quite true.

    Args:
        problem: the columns that were fitted.
        seen: the observations they were fitted to.
        fit: their coefficients.
        held_out: [n] each step's time by a fit that did not see its block, s.
        seed: of the resampling.
    """
    log = problem.log
    terms = tuple(dict.fromkeys(column.term for column in problem.columns))
    of_term = np.array([[column.term == term for column in problem.columns] for term in terms], dtype=np.float64)
    solutions = _resampled(problem, seen, fit, np.random.default_rng(seed))
    measured = seen.groups != BEYOND
    mean = (fit.weights[:, None] * seen.x)[measured].mean(axis=0)
    amount = of_term @ (mean * fit.solution)
    used = amount > 0
    if not used.any():
        return Uncertainty()
    deviations = np.clip((solutions * mean) @ of_term.T[:, used] / amount[used] - 1.0, -2.0 * WIDEST, 2.0 * WIDEST)
    covariance = _bounded(deviations.T @ deviations / RESAMPLES)
    x = seen.x[measured & (fit.weights > 0)]
    shares = (x * fit.solution) @ of_term.T[:, used] / np.maximum(x @ fit.solution, 1e-12)[:, None]
    by_steps = ((x @ solutions.T) / np.maximum(x @ fit.solution, 1e-12)[:, None] - 1.0) ** 2
    factor = max(1.0, float(np.quantile(by_steps.mean(axis=1) / _variance(shares, covariance), MOST_STEPS)))
    x, misses = _by_block(log, problem.x, held_out)
    shares = (x * fit.solution) @ of_term.T[:, used] / np.maximum(x @ fit.solution, 1e-12)[:, None]
    factor = max(factor, (MAD * np.median(np.abs(misses))) ** 2 / float(np.median(_variance(shares, covariance))))
    # Rounding must not make a variance negative.
    rounded = np.round(_bounded(covariance * factor) + LEAST_SD**2 * np.eye(int(used.sum())), 10)
    rows = tuple(tuple(float(value) for value in row) for row in (rounded + rounded.T) / 2.0)
    return Uncertainty(tuple(term for term, is_used in zip(terms, used, strict=True) if is_used), rows)


def _variance(shares: Floats, covariance: Floats) -> Floats:
    """Relative variance of steps of which the terms have these shares, [n]; not quite zero."""
    return np.asarray(np.maximum(((shares @ covariance) * shares).sum(axis=1), 1e-12), dtype=np.float64)


def _bounded(covariance: Floats) -> Floats:
    """The same with no deviation above `WIDEST`."""
    wide = np.minimum(1.0, WIDEST / np.maximum(np.sqrt(np.diag(covariance)), 1e-12))
    return np.asarray(covariance * np.outer(wide, wide))


def _by_block(log: StepLog, x: Floats, held_out: Floats) -> tuple[Floats, Floats]:
    """Sums over each block without its strangest steps: of the columns, and log(found / measured) of its time."""
    miss = np.abs(np.log(np.maximum(held_out, 1e-9) / log.seconds))
    kept = miss <= np.quantile(miss, 0.9)
    _, block = np.unique(log.block[kept], return_inverse=True)
    total = np.zeros((int(block.max()) + 1, x.shape[1]))
    np.add.at(total, block, x[kept])
    ratio = np.bincount(block, held_out[kept]) / np.bincount(block, log.seconds[kept])
    return total, np.log(np.maximum(ratio, 1e-9))


def _resampled(problem: Problem, seen: Observations, fit: RobustFit, rng: np.random.Generator) -> Floats:
    """Coefficients fitted to resampled blocks, or logs, at the weights of the fit, [resamples, k]."""
    log = problem.log
    fitted = np.maximum(seen.x @ fit.solution, 1e-9)
    _, group, counts = np.unique(seen.groups, return_inverse=True, return_counts=True)
    root = np.sqrt(fit.weights * seen.balance / np.sqrt(counts)[group]) / np.maximum(seen.seconds, fitted)
    x, y = seen.x * root[:, None], (seen.seconds - seen.x @ problem.floor) * root
    unit = log.log if log.log[-1] + 1 >= MANY_LOGS else log.block
    names, index = np.unique(np.where(seen.groups == BEYOND, -1, unit[np.maximum(seen.first, 0)]), return_inverse=True)
    rows = [index == i for i in range(len(names))]
    grams = np.array([x[mine].T @ x[mine] for mine in rows])
    rights = np.array([x[mine].T @ y[mine] for mine in rows])
    drawn = np.flatnonzero(names != -1)
    solutions = np.zeros((RESAMPLES, x.shape[1]))
    for i in range(RESAMPLES):
        times = (names == -1).astype(np.float64)
        np.add.at(times, rng.choice(drawn, len(drawn)), 1.0)
        solutions[i] = problem.floor + nonnegative_by_gram(np.tensordot(times, grams, 1), times @ rights)
    return solutions
