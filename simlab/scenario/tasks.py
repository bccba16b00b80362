"""What the users of a class want done: how hard it is, which prompt it runs under, how often the same is asked."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated

from pydantic import Field

from simlab.scenario.base import Fault, Model
from simlab.scenario.dist import NumberDist
from simlab.scenario.units import Count, Factor, Seconds

_TIER = "medium"


class Queries(Model):
    """How alike the requests of a class are: what a cache of answers lives on."""

    count: Count = Field(ge=1, le=10_000_000, description="different questions that are asked at all")
    zipf: Factor = Field(1.0, ge=0, description="Zipf exponent of their popularity; 0: all alike")


class Change(Model):
    """New versions from a time on; those not named stay."""

    at: Seconds = Field(ge=0, description="when, s from the start")
    prompt_version: str | None = Field(None, min_length=1, description="of the prompt; none: stays")
    model_version: str | None = Field(None, min_length=1, description="of what gives the answers; none: stays")
    corpus_version: str | None = Field(None, min_length=1, description="of what is looked up; none: stays")

    def checks(self) -> Iterator[Fault]:
        """Something changes."""
        if self.prompt_version is self.model_version is self.corpus_version is None:
            yield Fault((), "nothing changes: give prompt_version, model_version or corpus_version")


class Task(Model):
    """One kind of work, as the gateway's policies see it."""

    tier: str = Field(_TIER, min_length=1, description="low, medium, high, or a name of your own")
    tiers: dict[str, Annotated[Factor, Field(ge=0)]] = Field(
        {}, description="in place of tier: shares of several tiers, drawn for each task"
    )
    difficulty: NumberDist | None = Field(
        None, description="from 0 (any model can) to 1, drawn for each task and cut to that range; none: 0"
    )
    prompt_version: str = Field("v1", min_length=1, description="version of the prompt; a new one empties caches")
    model_version: str = Field("v1", min_length=1, description="version of what gives the answers, for caches of them")
    corpus_version: str = Field("v1", min_length=1, description="version of what is looked up, for caches of answers")
    changes: list[Change] = Field([], description="new versions while it runs, in order of time")
    deterministic: bool = Field(False, description="the same call always has the same result: for the cache of results")
    deadline: Annotated[Seconds, Field(gt=0)] | None = Field(
        None, description="work that may wait this long after its arrival, s; none: somebody waits for the answer"
    )

    @property
    def shares(self) -> dict[str, float]:
        """Tiers and their shares, which add up to 1."""
        if not self.tiers:
            return {self.tier: 1.0}
        total = sum(self.tiers.values())
        return {tier: weight / total for tier, weight in self.tiers.items() if weight > 0}

    def checks(self) -> Iterator[Fault]:
        """One way to say the tier; changes in order."""
        if self.tiers and sum(self.tiers.values()) == 0:
            yield Fault(("tiers",), "all shares are 0; give at least one above 0")
        for i, (before, after) in enumerate(pairwise(self.changes), start=1):
            if after.at <= before.at:
                yield Fault(("changes", i, "at"), f"read {after.at:g} s after {before.at:g} s; times must ascend")
        if self.tiers and self.tier != _TIER:
            yield Fault(("tier",), "tiers already says it; give one of the two")
