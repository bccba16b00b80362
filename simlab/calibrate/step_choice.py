"""Which terms a server's steps need: forward selection by the error of steps held out."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from simlab.calibrate.run import Floats, Ints
from simlab.calibrate.step_design import BASIC
from simlab.calibrate.step_log import PHASES, Bools
from simlab.calibrate.step_problem import Problem

LEAST_GAIN = 0.01
"""A group of terms is kept when it lowers the held-out error by at least this share."""
TRIMMED = 0.1
"""This share of the largest errors does not count: by how much outliers are missed says nothing."""
LEAST_ERROR = 0.003
"""Errors below this are all alike: the clock's."""
FOLDS = 4
ENOUGH = 800
"""So many single steps of a phase, evenly spread, are enough to choose terms by."""
PLENTY = 4000
"""So many are enough for the coefficients."""
QUICK = 12
"""Rounds of the robust fit while choosing."""


def choose(problem: Problem) -> tuple[Problem, dict[str, float]]:
    """The problem with the terms that its steps need.

    First it is decided, with all terms, whether bursts are seen as sums: when that lowers the held-out error. Then,
    beside what every step-time has, the group of columns that lowers the held-out error most is added, until none
    lowers it by `LEAST_GAIN`.

    Returns:
        The problem, and the groups kept in the order in which they were added, each with the share by which it lowered
        the held-out error (0: always there).
    """
    log = problem.log
    fold, counted = log.block % FOLDS, log.thinned(ENOUGH)
    alone, summed = replace(problem, together=False), replace(problem, together=True)
    if len(log.bursts):
        gain = _score(alone, fold, counted) - _score(summed, fold, counted)
        problem = summed if gain > LEAST_GAIN else alone
    else:
        problem = alone
    groups = list(dict.fromkeys(column.group for column in problem.columns))
    kept = {group: 0.0 for group in groups if group in BASIC or _has_floor(problem, group)}
    best = _score(problem.only(list(kept)), fold, counted)
    rest = [group for group in groups if group not in kept]
    while rest:
        scores = {group: _score(problem.only([*kept, group]), fold, counted) for group in rest}
        group = min(rest, key=lambda name: scores[name])
        if best - scores[group] < LEAST_GAIN:
            break
        kept[group] = 1.0 - math.exp(scores[group] - best)
        best = scores[group]
        rest.remove(group)
    return problem.only(list(kept)), kept


def held_out(problem: Problem, fold: Ints) -> Floats:
    """Each step's time by a fit to the steps of all other folds, s, [n]."""
    found = np.empty(len(problem.log))
    counted = problem.log.thinned(PLENTY)
    for one in np.unique(fold):
        test = fold == one
        seen = problem.observations(~test if not test.all() else test, counted)
        found[test] = problem.x[test] @ problem.fit(seen).solution
    return found


def _score(problem: Problem, fold: Ints, counted: Bools) -> float:
    """Logarithm of the held-out error: the geometric mean over phases, and bursts, of trimmed means."""
    log = problem.log
    found = np.empty(len(log))
    for one in range(FOLDS):
        test = fold == one
        if test.any():
            train = ~test if not test.all() else test
            found[test] = problem.x[test] @ problem.fit(problem.observations(train, counted), rounds=QUICK).solution
    parts = [_error(found[log.phase == phase], log.seconds[log.phase == phase]) for phase in range(len(PHASES))]
    parts.append(_error(log.burst_sums(found), log.burst_sums(log.seconds)))
    known = [part for part in parts if part is not None]
    return sum(map(math.log, known)) / len(known)


def _error(found: Floats, seconds: Floats) -> float | None:
    if not len(seconds):
        return None
    errors = np.sort(np.abs(np.log(np.maximum(found, 1e-9) / seconds)))
    return max(float(errors[: math.ceil(len(errors) * (1.0 - TRIMMED))].mean()), LEAST_ERROR)


def _has_floor(problem: Problem, group: str) -> bool:
    floors = zip(problem.columns, problem.floor, strict=True)
    return any(column.group == group and least > 0 for column, least in floors)
