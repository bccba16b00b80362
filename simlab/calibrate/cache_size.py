"""How many blocks a server's KV cache has, from benchmarks that fill it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from simlab.calibrate.benchmark import Benchmark, Limits
from simlab.calibrate.run import Floats
from simlab.calibrate.run_problem import SPREAD, RunProblem
from simlab.profiles import StepTime

UNLIMITED = Limits.kv_blocks
"""What stands for a cache of which nothing is known."""
COARSE = (0.05, 0.07, 0.1, 0.14, 0.2, 0.28, 0.4, 0.55, 0.7, 0.85, 1.0, 1.2, 1.45, 1.75, 2.1, 2.6, 3.2)
FINE = (0.8, 0.87, 0.93, 1.0, 1.07, 1.15, 1.25)
FACTOR_SD = 0.5
"""Of the logarithm by which a cache is larger than memory and weights let one expect."""
WORTH = 3.0
"""How much better (log likelihood) a cache of another size must explain the runs to be believed."""


def fit_blocks(problem: RunProblem, step_time: StepTime, *, near: int | None = None) -> int | None:
    """Blocks of a scheduler's cache that explain the runs best; the runs are simulated with them from then on.

    Args:
        problem: the runs, of one server; those that state their blocks are left alone.
        step_time: with which they are simulated.
        near: blocks found before: only some more or fewer are tried.

    Returns:
        The blocks; None where no run says anything about them: all state them, or none needs more than it may have.
    """
    free = [i for i, run in enumerate(problem.runs) if run.server.kv_blocks is None]
    if not free:
        return None
    need = {i: _need(problem, i) for i in free}
    expected = near or problem.limits[free[0]].kv_blocks
    known = expected != UNLIMITED
    # Of a cache of which nothing is known, sizes are tried up to what the runs could ever need.
    centre = expected if known else max(need.values())
    factors = FINE if near is not None else COARSE if known else tuple(f for f in COARSE if f <= 1.0)
    sizes = sorted({max(2, round(centre * factor)) for factor in factors})
    tight = [i for i in free if need[i] > min(*sizes, expected)]
    if not tight:
        return None
    costs = []
    for blocks in (expected, *sizes):
        cost = sum(_cost(problem, i, blocks, step_time) for i in tight)
        if known and near is None:
            cost += 0.5 * (np.log(blocks / expected) / FACTOR_SD) ** 2
        costs.append(cost)
    at = int(np.argmin(costs))
    chosen = (expected, *sizes)[at]
    if near is None and costs[0] - costs[at] < WORTH:
        return None
    for i in free:
        problem.limit(i, replace(problem.limits[i], kv_blocks=chosen))
    return chosen


def _need(problem: RunProblem, i: int) -> int:
    """Blocks that a run's requests take if all that may be in flight together are at their end."""
    sent, limits = problem.benchmarks[i].sending, problem.limits[i]
    together = min(sent.users or len(sent.due_s), limits.max_num_seqs)
    longest: Floats = np.sort(sent.prompt_tokens + sent.output_tokens)[-together:].astype(np.float64)
    return int(np.ceil(longest / limits.block_size).sum()) + 1


def _cost(problem: RunProblem, i: int, blocks: int, step_time: StepTime) -> float:
    """Half of the robust sum of squares of a run with so many blocks."""
    benchmark = Benchmark(problem.runs[i], replace(problem.limits[i], kv_blocks=blocks))
    spread = np.array([SPREAD[metric] for metric in problem.metrics[i]])
    return 0.5 * float(np.log1p((problem.miss(i, step_time, benchmark) / spread) ** 2).sum())
