"""Caches of the gateway: answers given again, to the same question or to one that looks like it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field

from simlab.scenario.base import Fault, Model
from simlab.scenario.dist import Fixed, SecondsDist
from simlab.scenario.units import Count, Ratio, Seconds, Tokens, Usd, UsdPerMtok

Scope = Literal["tenant", "user", "prompt_version", "model_version", "corpus_version"]
"""What may have to be the same for an answer to be given again."""

_AT_ONCE = Fixed[Seconds](kind="fixed", value=0.005)


class AnswerCache(Model):
    """What all caches of answers have in common."""

    classes: list[str] = Field([], description="workload classes that ask it; empty: all")
    scope: list[Scope] = Field(
        ["tenant", "prompt_version", "model_version", "corpus_version"],
        description="what must be the same for an answer to be given again, besides class and question: any of tenant, "
        "user, prompt_version, model_version, corpus_version; empty: shared by all",
    )
    ttl: Annotated[Seconds, Field(gt=0)] | None = Field(
        None, description="time an answer keeps, s, from when it was stored; none: for ever"
    )
    ttl_by: dict[str, Annotated[Seconds, Field(gt=0)]] = Field(
        {}, description="another time for some domains: by workload class, or by feature, s"
    )
    refresh: bool = Field(False, description="a hit makes an answer new again")
    capacity: Annotated[Count, Field(ge=1)] | None = Field(
        None, description="most answers kept; the least recently used goes first; none: no limit"
    )
    hit_latency: SecondsDist = Field(_AT_ONCE, description="from the lookup to the whole answer, s")
    miss_latency: Seconds = Field(0.0, ge=0, description="what a lookup in vain adds to the latency, s")


class ExactCache(AnswerCache):
    """The same question gets the same answer."""


class ResultCache(AnswerCache):
    """Results of classes whose task is `deterministic`: they keep for ever unless a time is given."""


class Match(Model):
    """How well questions are recognised at one similarity threshold."""

    hit: Ratio = Field(description="chance that a question whose like was answered before, and still keeps, is found")
    false_hit: Ratio = Field(
        0.0, description="chance that a question that is not found gets the answer to another one, which is wrong"
    )


class Embedding(Model):
    """What turns a question into a vector, at every lookup."""

    model: str = Field("embedding", min_length=1, description="its name, for the ledger")
    latency: SecondsDist = Field(_AT_ONCE, description="time it takes, search included, s")
    usd_per_mtok: UsdPerMtok = Field(
        0.0, ge=0, description="its price, USD per million tokens of what is new in a prompt"
    )
    usd_per_call: Usd = Field(0.0, ge=0, description="and what each call costs besides, USD")


class SemanticCache(AnswerCache):
    """A question that looks like one that was answered gets that answer, right or wrong."""

    threshold: Ratio | None = Field(None, description="similarity above which two questions count as one; needs curve")
    curve: dict[Ratio, Match] = Field(
        {}, description="what was measured, by threshold: {0.8: {hit: 0.9, false_hit: 0.05}, …}; straight in between"
    )
    match: Match | None = Field(None, description="in place of threshold and curve: the two chances themselves")
    hit_ratio: Ratio | None = Field(
        None, description="in place of both: share of lookups that hit, whatever was asked before"
    )
    false_hit_ratio: Ratio = Field(
        0.0, description="with hit_ratio: share of lookups that get the answer to another question; a part of hit_ratio"
    )
    embedding: Embedding | None = Field(None, description="what each lookup costs; none: nothing")

    @property
    def matching(self) -> Match:
        """The chances at its threshold, or as stated."""
        if self.match is not None:
            return self.match
        if self.hit_ratio is not None:
            return Match(hit=self.hit_ratio, false_hit=self.false_hit_ratio)
        threshold = self.threshold or 0.0
        points = sorted(self.curve.items())
        for (low, below), (high, above) in pairwise(points):
            if low <= threshold <= high:
                part = (threshold - low) / (high - low)
                return Match(
                    hit=below.hit + part * (above.hit - below.hit),
                    false_hit=below.false_hit + part * (above.false_hit - below.false_hit),
                )
        return points[0][1]

    def checks(self) -> Iterator[Fault]:
        """One way to say how well it matches; a threshold that was measured; a stricter one that finds no more."""
        ways = [bool(self.curve), self.match is not None, self.hit_ratio is not None]
        if sum(ways) != 1:
            yield Fault((), "give one of: threshold and curve; match: {hit, false_hit}; hit_ratio")
            return
        if self.curve and self.threshold is None:
            yield Fault(("threshold",), "missing: the curve needs a threshold to be read at")
        if self.threshold is not None and not self.curve:
            yield Fault(("threshold",), "a threshold says nothing without the curve that was measured; give curve")
        points = sorted(self.curve.items())
        if points and self.threshold is not None and not points[0][0] <= self.threshold <= points[-1][0]:
            yield Fault(
                ("threshold",),
                f"read {self.threshold:g}; the curve was measured from {points[0][0]:g} to {points[-1][0]:g}",
            )
        for (low, below), (high, above) in pairwise(points):
            if above.hit > below.hit or above.false_hit > below.false_hit:
                yield Fault(("curve",), f"at {high:g} more is found than at {low:g}; a higher threshold finds no more")
        if self.hit_ratio is None and self.false_hit_ratio > 0:
            yield Fault(("false_hit_ratio",), "belongs to hit_ratio; elsewhere false_hit says it")
        elif self.hit_ratio is not None and self.false_hit_ratio > self.hit_ratio:
            yield Fault(
                ("false_hit_ratio",),
                f"read {self.false_hit_ratio:g}, above hit_ratio ({self.hit_ratio:g}), of which it is a part",
            )


class Caches(Model):
    """Caches of answers, asked in this order; the first that has one gives it."""

    results: ResultCache | None = Field(None, description="of classes whose task is deterministic; none: no such cache")
    exact: ExactCache | None = Field(None, description="the same question; none: no such cache")
    semantic: SemanticCache | None = Field(None, description="questions alike; none: no such cache")

    @property
    def layers(self) -> dict[str, AnswerCache]:
        """Those there are, by name, in order."""
        named = {"results": self.results, "exact": self.exact, "semantic": self.semantic}
        return {name: cache for name, cache in named.items() if cache is not None}


class PromptCache(Model):
    """A provider's cache of what prompts begin with; its prices are the API's."""

    min_tokens: Annotated[Tokens, Field(ge=1)] | None = Field(
        None, description="shorter beginnings are not cached, tokens; none: as the provider says, else 1,024"
    )
    block: Annotated[Tokens, Field(ge=1)] | None = Field(
        None, description="tokens are cached in multiples of this; none: as the provider says, else 128"
    )
    ttl: Annotated[Seconds, Field(gt=0)] | None = Field(
        None, description="time a beginning keeps after its last use, s; none: as the provider says, else 300"
    )
    key: Literal["account", "tenant"] = Field(
        "account", description="who shares it: all requests of the account, or each tenant has an account of its own"
    )
    history: bool = Field(
        True, description="conversations are cached to their end; false: only what many prompts begin with"
    )
