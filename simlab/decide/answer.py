"""Self-hosting against an API over volume: what each replication found, and the answer over all of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import simlab
from simlab.decide.capacity import TOLERANCE, Staircase
from simlab.decide.crossing import Crossings, crossings
from simlab.decide.sides import Sides
from simlab.results import Estimate, words
from simlab.results.facts import FIXED, SAMPLED
from simlab.results.interval import Draws, student
from simlab.results.ledger import HOURS_PER_MONTH
from simlab.results.result import finite

if TYPE_CHECKING:
    import pandas as pd

    from simlab.assemble import Beyond

SCHEMA_VERSION = 1
"""Version of the break-even JSON."""

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
        drawn: the same stairs with a step time drawn from the uncertainty of the pool's profile; None: not looked at.
        beyond: where the pool at full load goes beyond what its profile was measured on.
    """

    stairs: Staircase
    tokens_per_month: float
    tasks_per_s: float
    api_usd_per_month: float
    drawn: Staircase | None = None
    beyond: tuple[Beyond, ...] = ()


@dataclass(frozen=True)
class Crossing:
    """A volume at which self-hosting becomes cheaper.

    Args:
        tokens_per_month: mean over the replications that have one, with Student's interval.
        tasks_per_s: the mean rate of tasks at that volume, 1/s.
        replicas: replicas there (the median of replications).
        usd_per_month: the bill of either side there.
        found: in so many replications.
        drawn: in so many of them with a drawn step time, too; None: not looked at.
    """

    tokens_per_month: Estimate
    tasks_per_s: float
    replicas: int
    usd_per_month: float
    found: int
    drawn: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """As in the JSON."""
        return {
            "tokens_per_month": self.tokens_per_month.as_dict(),
            "tasks_per_s": self.tasks_per_s,
            "replicas": self.replicas,
            "usd_per_month": self.usd_per_month,
            "replications": self.found,
            "draws": self.drawn,
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
    def drawn_capacity(self) -> NDArray[np.float64] | None:
        """The same with drawn step times; None: not looked at."""
        stairs = [luck.drawn for luck in self.lucks if luck.drawn is not None]
        if len(stairs) < len(self.lucks):
            return None
        tokens = [luck.tokens_per_month for luck in self.lucks]
        return np.array([np.array(each.capacity) * a_month for each, a_month in zip(stairs, tokens, strict=True)])

    @cached_property
    def steps(self) -> list[tuple[int, Estimate, float]]:
        """The staircase: (replicas, tokens a month they carry, their bill of a month, USD)."""
        found = []
        for n in range(1, self.max_replicas + 1):
            draws = None
            if self.drawn_capacity is not None:
                carried = self.drawn_capacity[:, n - 1]
                draws = Draws(carried, carried == 0.0)
            capacity = student(self.capacity[:, n - 1], "tokens/month", draws=draws)
            found.append((n, capacity, self.selfhost_usd_per_month(n)))
        return found

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

    def _crossings(self, capacity: NDArray[np.float64]) -> list[Crossings]:
        costs = [self.selfhost_usd_per_month(n) for n in range(1, self.max_replicas + 1)]
        return [
            crossings(ends.tolist(), costs, luck.api_usd_per_month / luck.tokens_per_month)
            for ends, luck in zip(capacity, self.lucks, strict=True)
        ]

    @cached_property
    def _fitted(self) -> list[Crossings]:
        return self._crossings(self.capacity)

    @cached_property
    def _drawn(self) -> list[Crossings] | None:
        return None if self.drawn_capacity is None else self._crossings(self.drawn_capacity)

    @cached_property
    def first(self) -> Crossing | None:
        """Where self-hosting first becomes cheaper; None: nowhere in most replications."""
        drawn = None if self._drawn is None else [(each.first, each.first_step) for each in self._drawn]
        return self._crossing([(each.first, each.first_step) for each in self._fitted], drawn)

    @cached_property
    def durable(self) -> Crossing | None:
        """Beyond where it stays cheaper, up to `most_tokens_per_month`; None: nowhere in most replications."""
        drawn = None if self._drawn is None else [(each.durable, each.durable_step) for each in self._drawn]
        return self._crossing([(each.durable, each.durable_step) for each in self._fitted], drawn)

    def _crossing(
        self, found: list[tuple[float | None, int]], drawn: list[tuple[float | None, int]] | None
    ) -> Crossing | None:
        known = [(i, volume, step) for i, (volume, step) in enumerate(found) if volume is not None]
        if 2 * len(known) <= len(found):
            return None
        draws = None
        if drawn is not None:
            # A crossing on another step is a leap, which says nothing of how far one the other way would be.
            leaps = [step != other for (_, step), (_, other) in zip(found, drawn, strict=True)]
            draws = Draws(_volumes(drawn), np.array(leaps))
        volume = student(_volumes(found), "tokens/month", draws=draws)
        tasks = np.mean([v / self.lucks[i].tokens_per_month * self.lucks[i].tasks_per_s for i, v, _ in known])
        usd = np.mean([v / self.lucks[i].tokens_per_month * self.lucks[i].api_usd_per_month for i, v, _ in known])
        replicas = sorted(step for _, _, step in known)[len(known) // 2]
        in_draws = None if drawn is None else sum(each is not None for each, _ in drawn)
        return Crossing(volume, float(tasks), replicas, float(usd), len(known), in_draws)

    @cached_property
    def warnings(self) -> list[str]:
        """What a reader must know before using the numbers, in sentences."""
        found = list(self.sides.warnings)
        worst: dict[str, Beyond] = {}
        for one in (one for luck in self.lucks for one in luck.beyond):
            if one.limit not in worst or one.log_sd > worst[one.limit].log_sd:
                worst[one.limit] = one
        found += [
            f"{self.sides.pool} at full load goes beyond what its profile was measured on: {one.sentence}"
            for one in worst.values()
        ]
        if self._drawn is None or self.drawn_capacity is None or not self.feasible:
            return found
        draws = f"of {self.replications} draws of the calibration"
        if failed := int((self.drawn_capacity[:, -1] == 0.0).sum()):
            found.append(f"in {failed} {draws} no number of replicas meets the SLO")
        missing = sum(each.first is None for each in self._drawn) - failed
        if self.first is not None and missing > 0:
            found.append(f"in {missing} {draws} {self.sides.api_label} stays cheaper all along")
        if self.first is None and (there := sum(each.first is not None for each in self._drawn)):
            found.append(f"in {there} {draws} {self.sides.selfhost_label} does become cheaper")
        return found

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
            replications and draws), ``selfhost_usd_per_month, api_usd_per_month, cheaper``; replicas are None where
            the most that were tried do not meet the SLO.
        """
        means = self.capacity.mean(axis=0)
        rate = float(np.mean([luck.tasks_per_s / luck.tokens_per_month for luck in self.lucks]))
        api = (self.api_usd_per_mtok.value or 0.0) / 1e6
        rows = []
        for volume in self.volumes:
            replicas = _fewest(means, volume)
            every = [self.capacity] if self.drawn_capacity is None else [self.capacity, self.drawn_capacity]
            each = [_fewest(ends, volume) for ends in np.concatenate(every)]
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
            "calibration": {
                "mode": FIXED if self.drawn_capacity is None else SAMPLED,
                "draws": 0 if self.drawn_capacity is None else self.replications,
            },
            "warnings": self.warnings,
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


def _volumes(found: Sequence[tuple[float | None, int]]) -> NDArray[np.float64]:
    return np.array([np.nan if volume is None else volume for volume, _ in found])


def _tokens(volume: float) -> str:
    return words.number(volume, "tokens")


def _volume(found: Crossing) -> str:
    ends = words.interval(found.tokens_per_month)
    replicas = f"{found.replicas} replica{'s' if found.replicas > 1 else ''}"
    return (
        f"{_tokens(found.tokens_per_month.value or 0.0)} tokens a month ({ends + '; ' if ends else ''}{replicas}, "
        f"{words.digits(found.tasks_per_s)} tasks/s)"
    )
