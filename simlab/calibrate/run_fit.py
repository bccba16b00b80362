"""Fitting benchmarks: the step-time whose simulated benchmarks match the measured ones over all runs at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from simlab.calibrate.benchmark import Limits
from simlab.calibrate.cache_size import UNLIMITED, fit_blocks
from simlab.calibrate.limits import limits_of
from simlab.calibrate.run import Floats, Run, Server
from simlab.calibrate.run_prior import Prior
from simlab.calibrate.run_problem import RunProblem
from simlab.calibrate.sending import count
from simlab.profiles import Efficiency, StepTime, Uncertainty
from simlab.profiles.step_time import TABLES, TERMS

EVALUATIONS, QUICK = 12, 5
"""Steps of one search, and of one that only compares priors."""
LARGE = 4000
"""Requests of a run that is not looked at where priors are only compared, if enough others are left."""
FAR = 3.0
"""A fit without a point is not taken further than so many deviations of the prior from the whole one."""
TERM_SD = 0.7
"""Of the logarithm of a term, before any run is looked at."""
NUDGE = 0.05
"""Change of a term's logarithm from which a derivative is taken."""
MAD = 1.4826


@dataclass(frozen=True)
class RunFit:
    """A step-time fitted to benchmarks.

    Attributes:
        step_time: the coefficients.
        uncertainty: covariance of their logarithms.
        misses: log(simulated / measured) of each run, by metric.
        left_out: the same, each operating point predicted by a fit that did not see it.
        efficiency: of the roofline, where the fit is of one.
        kv_precision: of the KV cache, as far as the runs and the prior tell; None: not known.
        kv_blocks: blocks of a scheduler's cache that the runs were simulated with; None where servers state theirs, or
            nothing is known of them and no run fills the cache.
        cost: of the fit: half of the robust sum of squares, prior included.
        notes: what is to be known about it.
    """

    step_time: StepTime
    uncertainty: Uncertainty
    misses: tuple[Mapping[str, float], ...]
    left_out: tuple[Mapping[str, float], ...]
    efficiency: Efficiency | None
    kv_precision: str | None
    kv_blocks: int | None
    cost: float
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Solution:
    problem: RunProblem
    values: Floats
    cost: float
    kv_blocks: int | None


def fit_runs(runs: Sequence[Run], *priors: Prior, limits: Callable[[Server], Limits] = limits_of) -> RunFit:
    """The step-time that explains benchmarks of one server best.

    Each run is simulated as it was driven; what is fitted are logarithms of simulated over measured times to first
    token, times by token, ends and throughput of all runs together (least squares). A run may have a speed of its own,
    what is far off counts little (Cauchy's loss), and what the runs do not tell stays as the prior says.

    Args:
        runs: benchmarks of one set-up, each with a load and at least one metric of `METRICS`.
        priors: what to believe before; of several the one is kept that explains the runs best.
        limits: of a server's schedulers. Blocks of a KV cache that no server states are fitted where runs fill it.

    Raises:
        ValueError: no runs, or no prior.
    """
    if not runs or not priors:
        raise ValueError("give at least one run and one prior")
    best = _solve(runs, _choose(runs, priors, limits), limits)
    problem, values, prior = best.problem, best.values, best.problem.prior
    matrix = problem.jacobian(values)[: problem.size]
    residuals = problem.data(prior.step_time(values))
    weights = 1.0 / (1.0 + residuals**2)
    left_out, whitened = _leave_out(problem, values, matrix, residuals, weights)
    step_time = prior.step_time(values)
    notes: tuple[str, ...] = (prior.note,) if prior.note else ()
    if best.kv_blocks is not None:
        notes += (f"{best.kv_blocks} KV blocks of a scheduler are from the fit: the runs fill the cache",)
    unstated = {problem.limits[i].kv_blocks for i, run in enumerate(runs) if run.server.kv_blocks is None}
    return RunFit(
        step_time=step_time,
        uncertainty=_uncertainty(problem, step_time, weights, whitened),
        misses=problem.misses(step_time),
        left_out=left_out,
        efficiency=prior.efficiency(values) if prior.efficiency is not None else None,
        kv_precision=prior.server.kv_precision if prior.server is not None else None,
        kv_blocks=unstated.pop() if len(unstated) == 1 and unstated != {UNLIMITED} else None,
        cost=best.cost,
        notes=notes,
    )


def _choose(runs: Sequence[Run], priors: Sequence[Prior], limits: Callable[[Server], Limits]) -> Prior:
    """The prior by which a short search comes closest."""
    if len(priors) == 1:
        return priors[0]
    small = [run for run in runs if run.load is not None and count(run.load) <= LARGE]
    chosen = small if 2 * len(small) >= len(runs) else runs
    return min(priors, key=lambda prior: _solve(chosen, prior, limits, quick=True).cost)


def _solve(
    runs: Sequence[Run], prior: Prior, limits: Callable[[Server], Limits], *, quick: bool = False
) -> _Solution:
    """The best values of one prior, and the blocks of the cache where these had to be found too."""

    def limits_with(run: Run) -> Limits:
        if prior.server is None:
            return limits(run.server)
        taken = replace(run.server, kv_precision=prior.server.kv_precision, tp=prior.server.tp)
        return limits(taken)

    problem = RunProblem(runs, [limits_with(run) for run in runs], prior)
    values = _descend(problem, np.zeros(prior.size), _soft, QUICK if quick else EVALUATIONS)
    blocks = fit_blocks(problem, prior.step_time(values))
    if not quick:
        if blocks is not None:
            values = _descend(problem, values, _soft, EVALUATIONS)
            blocks = fit_blocks(problem, prior.step_time(values), near=blocks)
        problem.find_disturbed(prior.step_time(values))
        values = _descend(problem, values, _cauchy, EVALUATIONS)
    residuals = problem.residuals(values)
    loss = np.log1p(residuals[: problem.size] ** 2).sum() + (values**2).sum()
    return _Solution(problem, values, 0.5 * float(loss) + prior.cost, blocks)


def _descend(problem: RunProblem, start: Floats, loss: Callable[[Floats], Floats], evaluations: int) -> Floats:
    """Least squares from a start; the prior's residuals count by their square, the data's by ``loss``."""
    from scipy.optimize import least_squares

    n = problem.size

    def robust(squares: Floats) -> Floats:
        return np.concatenate(
            [loss(squares[:n]), np.stack([squares[n:], np.ones(len(start)), np.zeros(len(start))])], axis=1
        )

    problem.weigh(start)
    found = least_squares(
        problem.residuals,
        start,
        problem.carried_jacobian,
        loss=robust,  # type: ignore[arg-type]  # the stubs want an argument called x
        max_nfev=evaluations,
        xtol=1e-3,
        ftol=1e-4,
    )
    return np.asarray(found.x, np.float64)


def _soft(squares: Floats) -> Floats:
    """2 (√(1 + z) − 1) with its derivatives: an absolute error far out; it finds the way from anywhere."""
    root = np.sqrt(1.0 + squares)
    return np.stack([2.0 * (root - 1.0), 1.0 / root, -0.5 / root**3])


def _cauchy(squares: Floats) -> Floats:
    """ln(1 + z) with its derivatives: what is far out hardly pulls."""
    one = 1.0 + squares
    return np.stack([np.log(one), 1.0 / one, -1.0 / one**2])


def _leave_out(
    problem: RunProblem, values: Floats, matrix: Floats, residuals: Floats, weights: Floats
) -> tuple[tuple[dict[str, float], ...], Floats]:
    """Errors of each run, and whitened residuals, by fits that did not see its operating point.

    A fit without a point is one Newton step away from the fit with it: taking its rows out of the normal equations
    gives that step in closed form (Cook and Weisberg 1982, section 2.2), and the point is simulated there.
    """
    points: dict[str, list[int]] = {}
    for i, run in enumerate(problem.runs):
        assert run.load is not None
        points.setdefault(run.load.point, []).append(i)
    normal = matrix.T @ (weights[:, None] * matrix) + np.eye(len(values))
    left_out: list[dict[str, float]] = [{} for _ in problem.runs]
    whitened = np.empty(problem.size)
    for members in points.values():
        rows = np.concatenate([np.arange(problem.rows[i].start, problem.rows[i].stop) for i in members])
        own = weights[rows, None] * matrix[rows]
        step = np.linalg.solve(normal - matrix[rows].T @ own, own.T @ residuals[rows])
        step *= min(1.0, FAR / max(float(np.linalg.norm(step)), 1e-12))
        step_time = problem.prior.step_time(values + step)
        for i in members:
            miss = problem.miss(i, step_time)
            left_out[i] = dict(zip(problem.metrics[i], miss.tolist(), strict=True))
            whitened[problem.rows[i]] = problem.whiten(i, miss)
    return tuple(left_out), whitened


def _uncertainty(problem: RunProblem, step_time: StepTime, weights: Floats, whitened: Floats) -> Uncertainty:
    """Covariance of log factors on terms: Gauss-Newton at the fit, with noise as left-out points have it."""
    terms = tuple(term for term in TERMS if _size(step_time, term) > 0)
    columns = []
    for term in terms:
        up, down = (problem.data(step_time.scaled({term: math.exp(log)})) for log in (NUDGE, -NUDGE))
        columns.append((up - down) / (2.0 * NUDGE))
    matrix = np.stack(columns, axis=1)
    noise = max(1.0, MAD * float(np.median(np.abs(whitened))))
    normal = matrix.T @ (weights[:, None] * matrix) / noise**2 + np.eye(len(terms)) / TERM_SD**2
    covariance = np.linalg.inv(normal)
    symmetric = np.round((covariance + covariance.T) / 2.0, 10) + 1e-9 * np.eye(len(terms))
    return Uncertainty(terms, tuple(tuple(float(value) for value in row) for row in symmetric))


def _size(step_time: StepTime, term: str) -> float:
    value = getattr(step_time, term)
    return max((seconds for _, seconds in value), default=0.0) if term in TABLES else float(value)
