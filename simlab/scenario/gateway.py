"""The gateway between users and backends: where requests go, and what happens when that fails."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from simlab.scenario.base import Fault, Model, Name
from simlab.scenario.caches import Caches
from simlab.scenario.limits import Caps, Limit, Queue, Shed
from simlab.scenario.reliability import Breaker, CannedAnswer, Hedge, Retry
from simlab.scenario.routing import Route
from simlab.scenario.units import Seconds


class Gateway(Model):
    """Where each request goes, and what happens when that fails."""

    routes: list[Route] = Field(
        [], description="the first route that matches class, tier and tenant is taken; empty: the only backend gets all"
    )
    aliases: dict[Name, str] = Field(
        {}, description="other names of backends, for routes: a change of provider is then a change of one line"
    )
    timeout: Annotated[Seconds, Field(gt=0)] | None = Field(
        None, description="the gateway aborts an attempt after this long, s; none: never"
    )
    ttft_timeout: Annotated[Seconds, Field(gt=0)] | None = Field(
        None, description="the gateway aborts an attempt without a first token after this long, s; none: never"
    )
    deadline: Annotated[Seconds, Field(gt=0)] | None = Field(
        None, description="a task fails this long after its arrival, whatever it is doing, s; none: never"
    )
    abort: bool = Field(
        True, description="a server is told when nobody waits any more; false: it goes on generating, and costs"
    )
    retry: Retry = Field(Retry(), description="what is tried again, and when")
    hedge: Hedge | None = Field(None, description="asking twice when an answer is slow; none: never")
    breaker: Breaker | None = Field(None, description="leaving a failing backend alone, each by itself; none: never")
    fallback: dict[str, str] = Field(
        {}, description="who stands in when a backend has failed for good: {backend: backend or canned answer}"
    )
    answers: dict[Name, CannedAnswer] = Field({}, description="canned answers that can stand in, by name")
    dedupe: bool = Field(
        False, description="a client's repeated request joins the one that runs (idempotency keys); false: pays twice"
    )
    stream_resume: bool = Field(
        False, description="a stream that broke off is continued by the next attempt; false: begun again"
    )
    caches: Caches = Field(Caches(), description="answers that are given again")
    limits: list[Limit] = Field([], description="rates, quotas, budgets and concurrency; a task must pass all of them")
    queue: Queue = Field(Queue(), description="who waits for a limit, in which order, for how long")
    shed: Shed | None = Field(None, description="refusing unimportant tasks while a backend is overloaded; none: never")
    caps: Caps = Field(Caps(), description="the most that one request may be and cost, of every class")

    @property
    def limit_names(self) -> tuple[str, ...]:
        """What the limits are called in results."""
        return tuple(limit.name or f"{limit.per} {i}" for i, limit in enumerate(self.limits, start=1))

    def checks(self) -> Iterator[Fault]:
        """Time-outs in their order."""
        if self.timeout is not None and self.ttft_timeout is not None and self.ttft_timeout > self.timeout:
            yield Fault(
                ("ttft_timeout",),
                f"read {self.ttft_timeout:g} s, above timeout ({self.timeout:g} s), which would always come first",
            )
        if self.hedge is not None and self.timeout is not None and self.hedge.after >= self.timeout:
            yield Fault(
                ("hedge", "after"), f"read {self.hedge.after:g} s, but an attempt ends at timeout ({self.timeout:g} s)"
            )
