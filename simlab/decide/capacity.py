"""The most traffic that so many replicas can serve within the SLO, found by simulation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from simlab.decide.traffic import scaled
from simlab.results.keeping_up import LEAST_LEFT
from simlab.simulation import measure
from simlab.workload import open_class

if TYPE_CHECKING:
    from simlab.assemble import Overreach
    from simlab.results.measurements import Measurements
    from simlab.scenario import Scenario

TOLERANCE = 0.01
"""Relative width to which a capacity is narrowed down."""

_LEAST_TASKS = (200.0, 60.0, 20.0)
"""Tasks in the least traffic that is tried, less and less while the SLO is missed: 20 hardly tell a share of 95 %."""

_MOST_STEPS = 60
"""Steps up or down before the search gives up."""


@dataclass(frozen=True)
class Staircase:
    """What one replication found.

    Args:
        capacity: `capacity[n - 1]` is the largest traffic, as a factor of the scenario's, at which n replicas meet the
            SLO; not decreasing; 0 where none was found.
        share: share of tasks that met the SLO in the least traffic that was tried (of the class that did worst).
        runs: simulations it took.
        met: the last run of each number of replicas that met the SLO: what they do at full load.
    """

    capacity: tuple[float, ...]
    share: float
    runs: int
    met: tuple[Measurements, ...] = ()


def shortfall(scenario: Scenario, measured: Measurements) -> tuple[float, float]:
    """How far the worst class is from its target; below 0: the SLO is missed.

    Only finished tasks have latencies, so the plan must also keep up: of all that arrived, no more than the share that
    may miss the SLO (and 1 % at least) may be left waiting at the end.

    Returns:
        (the worst class's share of finished tasks that met every limit, minus its target; that share). A class in
        which tasks arrived and none finished has a share of 0; classes without an SLO or without tasks are left out.
    """
    worst, worst_share, allowed = math.inf, 1.0, 0.0
    for index, name in enumerate(scenario.workload):
        slo = scenario.slo_of(name)
        tasks = measured.tasks[index]
        if slo is None or not tasks["arrived"]:
            continue
        finished = int(tasks["succeeded"] + tasks["failed"])
        share = int(tasks["good"]) / finished if finished else 0.0
        allowed = max(allowed, 1.0 - slo.target, LEAST_LEFT)
        if share - slo.target < worst:
            worst, worst_share = share - slo.target, share
    arrived = int(measured.tasks["arrived"].sum())
    if arrived:
        last_s = measured.horizon_s - (len(measured.windows) - 1) * measured.window_s
        waiting = float(measured.windows["waiting_s"][-1].sum()) / last_s
        worst = min(worst, allowed - waiting / arrived)
    return worst, worst_share


def staircase(
    scenario: Scenario,
    pool: str,
    seed: int,
    max_replicas: int,
    progress: Callable[[float], None],
    *,
    overreach: Overreach | None = None,
    like: Staircase | None = None,
) -> Staircase:
    """The capacity of 1, 2, … `max_replicas` replicas under one replication's luck.

    Args:
        scenario: its metrics are those of the peak (see `simlab.decide.traffic.busiest`).
        pool: whose replicas are varied.
        seed: of the replication.
        max_replicas: the most replicas that are tried.
        progress: called with the share that is done.
        overreach: draw step times, as for `simlab.simulation.measure`; None: as fitted.
        like: capacities that these will be near, where to begin to look.
    """
    runs = 0
    met: dict[int, Measurements] = {}

    def meets(replicas: int, factor: float) -> bool:
        return tried(replicas, factor)[0] >= 0.0

    def tried(replicas: int, factor: float) -> tuple[float, float]:
        nonlocal runs
        runs += 1
        resized = scenario.pools[pool].model_copy(update={"replicas": replicas})
        plan = scaled(scenario, factor).model_copy(update={"pools": {**scenario.pools, pool: resized}})
        measured = measure(plan, seed, overreach)
        margin, share = shortfall(plan, measured)
        if margin >= 0.0:
            met[replicas] = measured
        return margin, share

    for least in least_factors(scenario, seed):
        margin, share = tried(1, least)
        if margin >= 0.0:
            break
    else:
        return Staircase((0.0,) * max_replicas, share, runs)
    capacity: list[float] = []
    for replicas in range(1, max_replicas + 1):
        if replicas == 1:
            known = like.capacity[0] if like is not None else 0.0
            found = most(partial(meets, 1), max(known, least), 1.0 + 8.0 * TOLERANCE if known > least else 2.0)
        else:
            # Replicas share what one alone would queue, so n of them carry at least n times as much, or nearly.
            guess = capacity[-1] * replicas / (replicas - 1)
            if like is not None and like.capacity[replicas - 2]:
                guess = capacity[-1] * like.capacity[replicas - 1] / like.capacity[replicas - 2]
            found = most(partial(meets, replicas), guess, 1.0 + 4.0 * TOLERANCE)
        capacity.append(max(found, capacity[-1] if capacity else 0.0))
        progress(replicas * (replicas + 1) / (max_replicas * (max_replicas + 1)))
    return Staircase(tuple(capacity), share, runs, tuple(met.values()))


def most(meets: Callable[[float], bool], guess: float, step: float) -> float:
    """The largest factor that meets, to `TOLERANCE`: steps up or down from a guess, then bisection of its logarithm.

    Args:
        meets: whether a factor does; taken to hold below some factor and not above.
        guess: where to begin.
        step: factor of the first step, above 1; steps double in logarithm.
    """
    low = high = guess
    jump = math.log(step)
    if meets(guess):
        for _ in range(_MOST_STEPS):
            high = low * math.exp(jump)
            if not meets(high):
                break
            low, jump = high, min(2.0 * jump, math.log(2.0))
        else:
            return math.inf
    else:
        for _ in range(_MOST_STEPS):
            low = high * math.exp(-jump)
            if meets(low):
                break
            high, jump = low, min(2.0 * jump, math.log(2.0))
        else:
            return 0.0
    while high > low * (1.0 + TOLERANCE):
        middle = math.sqrt(low * high)
        if meets(middle):
            low = middle
        else:
            high = middle
    return low


def least_factors(scenario: Scenario, seed: int) -> list[float]:
    """Factors of the traffic to begin with: `_LEAST_TASKS`, or one user of each closed loop; at most 1."""
    closed = [1.0 / cls.arrivals.users for cls in scenario.workload.values() if cls.arrivals.kind == "closed"]
    expected = expected_tasks(scenario, seed)
    if expected <= 0.0:
        return [min(1.0, max(closed, default=1.0))]
    return [min(1.0, max([*closed, tasks / expected])) for tasks in _LEAST_TASKS]


def expected_tasks(scenario: Scenario, seed: int) -> float:
    """About how many tasks of open classes arrive after warm-up."""
    total = 0.0
    for name in scenario.workload:
        stream = open_class(scenario, name, seed)
        rate = stream.load.mean_rate_rps
        if not stream.closed_users and np.isfinite(rate):
            total += rate * (scenario.horizon - scenario.warmup)
    return total
