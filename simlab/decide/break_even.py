"""From which volume on do whole GPUs cost less than tokens?

For each replication, all with the seeds the two plans share: the largest traffic that 1, 2, … replicas carry within
the SLO at the peak, found by simulation; the bill of so many replicas; the tokens and the API's bill of the same
traffic. Where the staircase of GPU hours crosses the API's line is a volume; its spread over replications is the
interval.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import simlab
from simlab import assemble
from simlab.decide.capacity import TOLERANCE, Staircase, expected_tasks, least_factors, shortfall, staircase
from simlab.decide.crossing import Crossings, crossings
from simlab.decide.sides import Sides, sides
from simlab.decide.traffic import busiest, scaled
from simlab.draws.kernel import compiled_before
from simlab.results import Estimate, words
from simlab.results.interval import student
from simlab.results.ledger import HOURS_PER_MONTH, bill
from simlab.results.result import finite
from simlab.simulation import (
    COMPILING,
    OUTPUT_ASSUMPTION,
    POOL_ASSUMPTIONS,
    Progress,
    in_processes,
    measure,
    replication_seed,
)

if TYPE_CHECKING:
    import pandas as pd

    from simlab.scenario import Scenario

SCHEMA_VERSION = 1
"""Version of the break-even JSON."""

MOST_API_TASKS = 200_000
"""Tasks after which tokens and bill of the API are known well enough; more traffic is thinned to about this."""

POINTS = 13
"""Volumes of the table when none are asked for."""


@dataclass(frozen=True)
class Luck:
    """What one replication found; amounts per month are those of the scenario's own traffic (factor 1).

    Args:
        stairs: capacity of 1, 2, … replicas, as factors of the scenario's traffic.
        tokens_per_month: billable prompt and output tokens.
        tasks_per_s: arriving tasks, mean over the horizon, 1/s.
        api_usd_per_month: what the API takes for them.
    """

    stairs: Staircase
    tokens_per_month: float
    tasks_per_s: float
    api_usd_per_month: float


@dataclass(frozen=True)
class Crossing:
    """A volume at which self-hosting becomes cheaper.

    Args:
        tokens_per_month: mean over the replications that have one, with Student's interval.
        tasks_per_s: the mean rate of tasks at that volume, 1/s.
        replicas: replicas there (the median of replications).
        usd_per_month: the bill of either side there.
        found: in so many replications.
    """

    tokens_per_month: Estimate
    tasks_per_s: float
    replicas: int
    usd_per_month: float
    found: int

    def as_dict(self) -> dict[str, Any]:
        """As in the JSON."""
        return {
            "tokens_per_month": self.tokens_per_month.as_dict(),
            "tasks_per_s": self.tasks_per_s,
            "replicas": self.replicas,
            "usd_per_month": self.usd_per_month,
            "replications": self.found,
        }


class BreakEven:
    """Self-hosting against an API over volume.

    Args:
        compared: the two sides.
        lucks: one for each replication.
        volumes: volumes of the table, tokens per month; empty: from few to the most that was looked at.
        seed: the replications' seeds were derived from it.
        peak: what stretch the SLO was asked of, in words.
        api_check: what became of the API's own SLO at the crossing (or at the most that was looked at): its kind and
            a sentence; None: it promises nothing.
        assumptions: in sentences.
    """

    def __init__(
        self,
        compared: Sides,
        lucks: Sequence[Luck],
        *,
        volumes: Sequence[float] = (),
        seed: int = 0,
        peak: str = "",
        assumptions: Sequence[str] = (),
    ) -> None:
        self.sides = compared
        self.lucks = tuple(lucks)
        self.seed = seed
        self.peak = peak
        self.assumptions = list(dict.fromkeys(assumptions))
        self.api_check: tuple[str, str] | None = None
        self._volumes = tuple(volumes)

    @property
    def name(self) -> str:
        """The scenario's name."""
        return self.sides.api.name

    @property
    def replications(self) -> int:
        """Number of replications."""
        return len(self.lucks)

    @property
    def max_replicas(self) -> int:
        """The most replicas that were tried."""
        return len(self.lucks[0].stairs.capacity)

    def selfhost_usd_per_month(self, replicas: int) -> float:
        """The bill of a month of so many replicas: replicas · GPUs each · 730 h · USD per GPU hour + operations."""
        facts = self.sides.pool_facts
        hours = replicas * facts.gpus_per_replica * HOURS_PER_MONTH
        return hours * (facts.usd_per_gpu_hour or 0.0) + facts.operations_usd_per_month

    @cached_property
    def capacity(self) -> NDArray[np.float64]:
        """Tokens a month that 1, 2, … replicas carry within the SLO, float64 [replications, replicas]."""
        return np.array([np.array(luck.stairs.capacity) * luck.tokens_per_month for luck in self.lucks])

    @cached_property
    def steps(self) -> list[tuple[int, Estimate, float]]:
        """The staircase: (replicas, tokens a month they carry, their bill of a month, USD)."""
        return [
            (n, student(self.capacity[:, n - 1].tolist(), "tokens/month"), self.selfhost_usd_per_month(n))
            for n in range(1, self.max_replicas + 1)
        ]

    @cached_property
    def api_usd_per_mtok(self) -> Estimate:
        """What the API takes for a million billable tokens of this traffic, prompt and output together."""
        return student([luck.api_usd_per_month / luck.tokens_per_month * 1e6 for luck in self.lucks], "USD/Mtok")

    @property
    def feasible(self) -> bool:
        """Whether replicas can meet the SLO at all."""
        return bool((self.capacity[:, -1] > 0.0).mean() > 0.5)

    @property
    def most_tokens_per_month(self) -> float:
        """The most that was looked at: what `max_replicas` carry."""
        return float(self.capacity[:, -1].mean())

    @cached_property
    def _crossings(self) -> list[Crossings]:
        costs = [self.selfhost_usd_per_month(n) for n in range(1, self.max_replicas + 1)]
        return [
            crossings(ends.tolist(), costs, luck.api_usd_per_month / luck.tokens_per_month)
            for ends, luck in zip(self.capacity, self.lucks, strict=True)
        ]

    @cached_property
    def first(self) -> Crossing | None:
        """Where self-hosting first becomes cheaper; None: nowhere in most replications."""
        return self._crossing([(found.first, found.first_step) for found in self._crossings])

    @cached_property
    def durable(self) -> Crossing | None:
        """Beyond where it stays cheaper, up to `most_tokens_per_month`; None: nowhere in most replications."""
        return self._crossing([(found.durable, found.durable_step) for found in self._crossings])

    def _crossing(self, found: list[tuple[float | None, int]]) -> Crossing | None:
        known = [(i, volume, step) for i, (volume, step) in enumerate(found) if volume is not None]
        if 2 * len(known) <= len(found):
            return None
        volume = student([volume for _, volume, _ in known], "tokens/month")
        tasks = np.mean([v / self.lucks[i].tokens_per_month * self.lucks[i].tasks_per_s for i, v, _ in known])
        usd = np.mean([v / self.lucks[i].tokens_per_month * self.lucks[i].api_usd_per_month for i, v, _ in known])
        replicas = sorted(step for _, _, step in known)[len(known) // 2]
        return Crossing(volume, float(tasks), replicas, float(usd), len(known))

    @cached_property
    def volumes(self) -> list[float]:
        """The volumes of the table, tokens per month, ascending."""
        if self._volumes:
            return sorted(self._volumes)
        least = self.first.tokens_per_month.value if self.first is not None else float(self.capacity[:, 0].mean())
        top = self.most_tokens_per_month
        if not least or not top:
            return []
        return [float(v) for v in np.geomspace(min(least / 4.0, top / 2.0), top * (1.0 - 2.0 * TOLERANCE), POINTS)]

    def points(self) -> list[dict[str, Any]]:
        """Each volume: the fewest replicas that carry it, and what either side costs a month.

        Returns:
            ``tokens_per_month, tasks_per_s, replicas`` (by mean capacity), ``replicas_low, replicas_high`` (over the
            replications), ``selfhost_usd_per_month, api_usd_per_month, cheaper``; replicas are None where the most
            that were tried do not meet the SLO.
        """
        means = self.capacity.mean(axis=0)
        rate = float(np.mean([luck.tasks_per_s / luck.tokens_per_month for luck in self.lucks]))
        api = (self.api_usd_per_mtok.value or 0.0) / 1e6
        rows = []
        for volume in self.volumes:
            replicas = _fewest(means, volume)
            each = [_fewest(ends, volume) for ends in self.capacity]
            usd = None if replicas is None else self.selfhost_usd_per_month(replicas)
            rows.append(
                {
                    "tokens_per_month": volume,
                    "tasks_per_s": volume * rate,
                    "replicas": replicas,
                    "replicas_low": min((n for n in each if n is not None), default=None),
                    "replicas_high": None if None in each else max(n for n in each if n is not None),
                    "selfhost_usd_per_month": usd,
                    "api_usd_per_month": volume * api,
                    "cheaper": None if usd is None else "selfhost" if usd < volume * api else "api",
                }
            )
        return rows

    def table(self) -> pd.DataFrame:
        """The rows of `points`."""
        import pandas as pd

        return pd.DataFrame(self.points())

    @cached_property
    def headline(self) -> str:
        """The answer in one sentence."""
        api, own = self.sides.api_label, self.sides.selfhost_label
        if not self.feasible:
            share = float(np.mean([luck.stairs.share for luck in self.lucks]))
            return (
                f"{self.name}: {own} cannot meet the SLO with any number of replicas: with next to no traffic only "
                f"{words.percent(share)} of tasks do."
            )
        top = f"{_tokens(self.most_tokens_per_month)} tokens a month, the most that {self.max_replicas} replicas carry"
        full = self.selfhost_usd_per_month(self.max_replicas) / self.most_tokens_per_month * 1e6
        rates = (
            f"(full replicas cost {words.usd(full)} per million tokens, {api} {words.usd(self.api_usd_per_mtok.value)})"
        )
        if self.first is None:
            return f"{self.name}: {api} stays cheaper than {own} up to {top} {rates}."
        begin = f"{self.name}: {own} becomes cheaper than {api} at {_volume(self.first)}"
        if self.durable is None:
            return f"{begin}, but not for good: at {top}, {api} is cheaper again {rates}."
        if self.durable.tokens_per_month == self.first.tokens_per_month:
            return f"{begin}, and stays so up to {top} {rates}."
        return f"{begin}, and for good from {_volume(self.durable)} on, up to {top} {rates}."

    @property
    def exit_code(self) -> int:
        """1 when no number of replicas meets the SLO, else 0: every other answer is an answer."""
        return 0 if self.feasible else 1

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values; undefined numbers are None."""
        data = {
            "schema_version": SCHEMA_VERSION,
            "simlab_version": simlab.__version__,
            "seed": self.seed,
            "replications": self.replications,
            "headline": self.headline,
            "between": {"api": self.sides.api_label, "selfhost": self.sides.selfhost_label},
            "first": None if self.first is None else self.first.as_dict(),
            "durable": None if self.durable is None else self.durable.as_dict(),
            "feasible": self.feasible,
            "max_replicas": self.max_replicas,
            "most_tokens_per_month": self.most_tokens_per_month,
            "api_usd_per_mtok": self.api_usd_per_mtok.as_dict(),
            "steps": [
                {"replicas": n, "capacity_tokens_per_month": capacity.as_dict(), "usd_per_month": usd}
                for n, capacity, usd in self.steps
            ],
            "points": self.points(),
            "slo_stretch": self.peak,
            "api_slo": None if self.api_check is None else self.api_check[1],
            "warnings": list(self.sides.warnings),
            "assumptions": self.assumptions,
            "scenarios": {
                "api": self.sides.api.model_dump(mode="json", by_alias=True),
                "selfhost": self.sides.selfhost.model_dump(mode="json", by_alias=True),
            },
        }
        plain: dict[str, Any] = finite(data)
        return plain

    def to_json(self) -> str:
        """As JSON text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _fewest(ends: NDArray[np.float64], volume: float) -> int | None:
    """The fewest replicas that carry a volume."""
    enough = np.flatnonzero(ends >= volume)
    return int(enough[0]) + 1 if len(enough) else None


def _tokens(volume: float) -> str:
    return words.number(volume, "tokens")


def _volume(found: Crossing) -> str:
    ends = words.interval(found.tokens_per_month)
    replicas = f"{found.replicas} replica{'s' if found.replicas > 1 else ''}"
    return (
        f"{_tokens(found.tokens_per_month.value or 0.0)} tokens a month ({ends + '; ' if ends else ''}{replicas}, "
        f"{words.digits(found.tasks_per_s)} tasks/s)"
    )


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
    job = partial(one_luck, compared.api, peak, compared.pool, max_replicas)
    lucks = _all(job, seeds, workers, executor, report)
    found = BreakEven(
        compared,
        lucks,
        volumes=volumes,
        seed=seed,
        peak=stretch,
        assumptions=_assumptions(compared, stretch, max_replicas, sum(luck.stairs.runs for luck in lucks)),
    )
    found.api_check = _api_check(found, seeds[0])
    return found


def one_luck(
    api: Scenario,
    peak: Scenario,
    pool: str,
    max_replicas: int,
    seed: int,
    progress: Callable[[float], None] | None = None,
) -> Luck:
    """One replication, all by itself: what a worker process does.

    Args:
        api: the API side, its whole horizon.
        peak: the self-hosted side, its busiest stretch.
        pool: whose replicas are searched.
        max_replicas: the most.
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
    return Luck(
        staircase(peak, pool, seed, max_replicas, progress or (lambda share: None)),
        max(tokens, 1) * a_month,
        tasks / measured.horizon_s / thinned,
        usd * a_month,
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


def _assumptions(compared: Sides, stretch: str, max_replicas: int, runs: int) -> list[str]:
    facts = compared.pool_facts
    found = [
        f"{compared.selfhost_label} has the fewest replicas of 1 to {max_replicas} that meet the SLO over {stretch}; "
        f"found by {runs:,} simulations, each capacity to {TOLERANCE:.0%}",
        f"every replica is leased for all of a month of {HOURS_PER_MONTH:.0f} h: {facts.gpus_per_replica} GPUs at "
        f"{words.usd(facts.usd_per_gpu_hour)} an hour ({facts.price_source.partition(' (')[0]}); stated operations "
        f"cost {words.usd(facts.operations_usd_per_month)} a month, whatever the number of replicas",
        f"{compared.api_label} is billed by the simulated tokens of the same traffic, in proportion to the volume; "
        "volume is billable prompt and output tokens, and the run's horizon stands for the month",
        "volumes scale the arrivals of every class alike; lengths and mix stay as they are",
        "a crossing's value is the mean, its interval Student's (95%), over replications, each of them a whole "
        "analysis with its own luck",
    ]
    found += [*POOL_ASSUMPTIONS, OUTPUT_ASSUMPTION, *(f"{facts.name}: {text}" for text in facts.assumptions)]
    found += [f"{api.name}: {text}" for api in compared.api_facts for text in api.assumptions]
    return [*found, *compared.notes]
