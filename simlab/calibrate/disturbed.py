"""Runs in which something else slowed the server down: a shared machine, a hot GPU, a neighbour.

A disturbance makes a server slower and never faster, so the fast runs tell how fast it is. One factor for each run
beside a plain step-time for all tells them apart; of a run whose batches no other run has nobody can tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simlab.calibrate.robust import robust_fit
from simlab.calibrate.run import Floats, Steps
from simlab.calibrate.step_design import Contents, columns, contents, matrix

LEAST_RUNS = 8
"""Of fewer runs none is called disturbed: they may well differ by what they measure."""
SLOWER = 1.07
"""A run so many times slower than the fast ones was disturbed."""
FAST = 0.2
"""The quantile of the runs' speeds that stands for the fast ones."""
MOST = 0.5
"""With a larger share of slow runs, slow is what the server is."""
ROUNDS = 4
PLENTY = 600
"""Steps of a run that are looked at, evenly spread."""
GROUPS = ("base", "curve", "kv", "seq", "knee", "prefill", "prefill_seq", "attention")


@dataclass(frozen=True)
class Speeds:
    """How fast each run's steps were.

    Attributes:
        factors: how many times longer its steps took than those of the fast runs, [n].
        disturbed: whether that is more than they may differ, [n].
        alone: the run was disturbed, or it has batches that no other run has: one cannot tell, [n].
    """

    factors: Floats
    disturbed: tuple[bool, ...]
    alone: tuple[bool, ...]


def speeds(logs: Sequence[Steps]) -> Speeds:
    """The speeds of runs of one server by their steps.

    Args:
        logs: of each run.
    """
    n = len(logs)
    none = (False,) * n
    if n < LEAST_RUNS:
        return Speeds(np.ones(n), none, none)
    thin = [_thinned(steps) for steps in logs]
    batches = [contents(steps) for steps in thin]
    every = Contents.joined(batches)
    chosen = [column for column in columns(every) if column.group in GROUPS]
    x, seconds = matrix(every, chosen), np.concatenate([steps.seconds for steps in thin])
    run = np.repeat(np.arange(n), [len(steps.seconds) for steps in thin])
    phase = np.where(every.prefill > 0, 1, 0)
    factors = np.ones(n)
    for _ in range(ROUNDS):
        fast = factors <= SLOWER
        kept = fast[run]
        if fast.mean() < 1.0 - MOST:
            return Speeds(np.ones(n), none, none)
        solution = robust_fit(x[kept], seconds[kept], phase[kept]).solution
        ratio = seconds / np.maximum(x @ solution, 1e-9)
        medians = np.array([np.median(ratio[run == i]) for i in range(n)])
        factors = medians / np.quantile(medians, FAST)
    slow = factors > SLOWER
    largest = max((_usual(batch) for batch, is_slow in zip(batches, slow, strict=True) if not is_slow), default=0.0)
    alone = slow & np.array([_usual(batch) > 1.25 * largest for batch in batches])
    return Speeds(factors, tuple(map(bool, slow & ~alone)), tuple(map(bool, alone)))


def _usual(batch: Contents) -> float:
    """The decoding sequences of a run's larger batches."""
    return float(np.quantile(batch.decodes, 0.9)) if len(batch.decodes) else 0.0


def _thinned(steps: Steps) -> Steps:
    """At most `PLENTY` of the steps, evenly spread."""
    at = np.unique(np.linspace(0, len(steps.seconds) - 1, min(PLENTY, len(steps.seconds))).astype(np.int64))
    return Steps(*(getattr(steps, name)[at] for name in vars(steps)))
