"""From which volume on do whole GPUs cost less than tokens?

For each replication, all with the seeds the two plans share: the largest traffic that 1, 2, … replicas carry within
the SLO at the peak, found by simulation; the bill of so many replicas; the tokens and the API's bill of the same
traffic. Where the staircase of GPU hours crosses the API's line is a volume; its spread over replications is the
interval (`simlab.decide.answer`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from simlab import assemble
from simlab.decide.answer import BreakEven, Luck
from simlab.decide.capacity import TOLERANCE, expected_tasks, least_factors, shortfall, staircase
from simlab.decide.sides import Sides, sides
from simlab.decide.traffic import busiest, scaled
from simlab.draws.kernel import compiled_before
from simlab.results import words
from simlab.results.ledger import HOURS_PER_MONTH, bill
from simlab.simulation import (
    COMPILING,
    OUTPUT_ASSUMPTION,
    POOL_ASSUMPTIONS,
    Calibration,
    Progress,
    in_processes,
    measure,
    replication_seed,
)

if TYPE_CHECKING:
    from simlab.scenario import Scenario

MOST_API_TASKS = 200_000
"""Tasks after which tokens and bill of the API are known well enough; more traffic is thinned to about this."""


def break_even(
    api: Scenario,
    selfhost: Scenario,
    *,
    volumes: Sequence[float] = (),
    max_replicas: int = 12,
    replications: int = 5,
    seed: int | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
    calibration: Calibration = "sampled",
) -> BreakEven:
    """The traffic volume from which self-hosting is cheaper than an API.

    Args:
        api: all its traffic goes to APIs (in either order: the two may be given the other way round).
        selfhost: all its traffic goes to one pool; the pool's number of replicas is what is searched.
        volumes: volumes to tabulate, tokens per month; empty: from few to the most that `max_replicas` carry.
        max_replicas: the most replicas to try.
        replications: complete analyses with a luck of their own; their spread gives the intervals.
        seed: of all draws; None: the API scenario's.
        workers: processes; None: one for each core.
        executor: runs the replications instead.
        progress: called while it runs.
        calibration: ``"sampled"``: with two or more replications each is searched again with the pool's step time drawn
            from the uncertainty of its profile, and intervals hold that error too; ``"fixed"``: it is taken as fitted.

    Raises:
        InputError: the two are not an API and a pool, have no SLO or no price, or cannot be simulated.
        ValueError: `max_replicas` or `replications` below 1, or a volume that is not positive.
    """
    if max_replicas < 1 or replications < 1 or any(not volume > 0.0 for volume in volumes):
        raise ValueError("max_replicas and replications must be at least 1, volumes positive")
    compared = sides(api, selfhost)
    seed = compared.api.seed if seed is None else seed
    seeds = [replication_seed(seed, i) for i in range(replications)]
    peak, stretch = busiest(compared.selfhost)
    report = progress or (lambda done, total, note="": None)
    if not compiled_before():
        report(0, replications, COMPILING)
        # Here, once, with hardly any traffic: worker processes would each compile for themselves.
        for plan in (compared.api, peak):
            measure(scaled(plan, least_factors(plan, seeds[0])[-1]), seeds[0])
    drawing = calibration == "sampled" and replications > 1
    job = partial(one_luck, compared.api, peak, compared.pool, max_replicas, drawing)
    lucks = _all(job, seeds, workers, executor, report)
    found = BreakEven(
        compared,
        lucks,
        volumes=volumes,
        seed=seed,
        peak=stretch,
        assumptions=_assumptions(compared, stretch, max_replicas, lucks),
    )
    found.api_check = _api_check(found, seeds[0])
    return found


def one_luck(
    api: Scenario,
    peak: Scenario,
    pool: str,
    max_replicas: int,
    drawing: bool,
    seed: int,
    progress: Callable[[float], None] | None = None,
) -> Luck:
    """One replication, all by itself: what a worker process does.

    Args:
        api: the API side, its whole horizon.
        peak: the self-hosted side, its busiest stretch.
        pool: whose replicas are searched.
        max_replicas: the most.
        drawing: also with a step time drawn from the uncertainty of the pool's profile.
        seed: of the replication.
        progress: called with the share that is done.
    """
    expected = expected_tasks(api, seed)
    thinned = min(1.0, MOST_API_TASKS / expected) if expected > 0.0 else 1.0
    plan = api if thinned == 1.0 else scaled(api, thinned)
    measured = measure(plan, seed)
    a_month = HOURS_PER_MONTH * 3600.0 / measured.horizon_s / thinned
    tokens = int(measured.cells["prompt_tokens"].sum() + measured.cells["output_tokens"].sum())
    usd = sum(part["api_usd"] for part in bill(measured, assemble.backends(plan).facts))
    tasks = int(measured.tasks_total["arrived"].sum())
    report = progress or (lambda share: None)
    backends = assemble.backends(peak)
    parts = 2 if drawing else 1
    stairs = staircase(peak, pool, seed, max_replicas, lambda share: report(share / parts))
    overreach = backends.overreach(stairs.met)
    again = None
    if drawing and (backends.uncertain or any(overreach)):
        again = staircase(
            peak,
            pool,
            seed,
            max_replicas,
            lambda share: report((1 + share) / parts),
            overreach=overreach,
            like=stairs,
        )
    return Luck(
        replace(stairs, met=()),
        max(tokens, 1) * a_month,
        tasks / measured.horizon_s / thinned,
        usd * a_month,
        None if again is None else replace(again, met=()),
        overreach[0],
    )


def _all(
    job: Callable[..., Luck], seeds: Sequence[int], workers: int | None, executor: Executor | None, report: Progress
) -> list[Luck]:
    """Every replication, here or in processes, in the order of the seeds."""
    total = len(seeds)
    workers = min(total, workers or os.cpu_count() or 1)
    if executor is None and workers < 2:
        return [job(seed, lambda share, i=i: report(i + share, total)) for i, seed in enumerate(seeds)]
    return in_processes(job, seeds, workers, executor, lambda done: report(done, total))


def _api_check(found: BreakEven, seed: int) -> tuple[str, str] | None:
    """Whether the API itself keeps the SLO where it is compared."""
    sides = found.sides
    if not found.feasible or not any(sides.api.slo_of(name) for name in sides.api.workload):
        return None
    luck = found.lucks[0]
    if found.first is not None:
        volume, where = found.first.tokens_per_month.value or 0.0, "at the crossing"
    else:
        volume, where = found.most_tokens_per_month, "at the largest volume"
    peak = scaled(busiest(sides.api)[0], volume / luck.tokens_per_month)
    margin, share = shortfall(peak, measure(peak, seed))
    keeps = "meets" if margin >= 0.0 else "misses"
    sentence = f"{where} {sides.api_label} {keeps} the SLO itself ({words.percent(share)} of tasks at the peak)"
    return "met" if margin >= 0.0 else "missed", sentence


def _assumptions(compared: Sides, stretch: str, max_replicas: int, lucks: Sequence[Luck]) -> list[str]:
    facts = compared.pool_facts
    runs = sum(stairs.runs for luck in lucks for stairs in (luck.stairs, luck.drawn) if stairs is not None)
    error = (
        "each again with the pool's step time drawn from the uncertainty of its profile: the interval holds luck and "
        "calibration error"
        if lucks[0].drawn is not None
        else "with the pool's step time as fitted: the interval holds luck, but no calibration error"
    )
    found = [
        f"{compared.selfhost_label} has the fewest replicas of 1 to {max_replicas} that meet the SLO over {stretch}; "
        f"found by {runs:,} simulations, each capacity to {TOLERANCE:.0%}",
        f"every replica is leased for all of a month of {HOURS_PER_MONTH:.0f} h: {facts.gpus_per_replica} GPUs at "
        f"{words.usd(facts.usd_per_gpu_hour)} an hour ({facts.price_source.partition(' (')[0]}); stated operations "
        f"cost {words.usd(facts.operations_usd_per_month)} a month, whatever the number of replicas",
        f"{compared.api_label} is billed by the simulated tokens of the same traffic, in proportion to the volume; "
        "volume is billable prompt and output tokens, and the run's horizon stands for the month",
        "volumes scale the arrivals of every class alike; lengths and mix stay as they are",
        "a crossing's value is the mean over replications, each of them a whole analysis with its own luck, and "
        f"{error}",
    ]
    found += [*POOL_ASSUMPTIONS, OUTPUT_ASSUMPTION, *(f"{facts.name}: {text}" for text in facts.assumptions)]
    found += [f"{api.name}: {text}" for api in compared.api_facts for text in api.assumptions]
    return [*found, *compared.notes]
