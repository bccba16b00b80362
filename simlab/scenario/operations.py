"""Planned operations and incidents: replicas that come, go or fail, APIs that are slow or fail for a while."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from simlab.scenario.base import Fault, Model
from simlab.scenario.units import Count, Factor, Ratio, Seconds

_ON_POOLS = ("add", "drain", "fail")
_ON_APIS = ("slow_down", "errors")


class Operation(Model):
    """One thing that happens to a pool or to an API at a given time."""

    at: Seconds = Field(ge=0, description="when, s after the start")
    pool: str | None = Field(None, min_length=1, description="which pool, for add, drain and fail")
    api: str | None = Field(None, min_length=1, description="which API, for slow_down and errors")
    action: Literal["add", "drain", "fail", "slow_down", "errors"] = Field(
        description="add: order replicas (ready after `startup`); drain: finish what they have, then stop; "
        "fail: stop at once; slow_down: calls that begin take `factor` times as long; errors: a `share` of the calls "
        "that begin fails, beside what `error_probability` says"
    )
    replicas: Count = Field(1, ge=1, description="how many; for pools")
    for_: Annotated[Seconds, Field(gt=0)] | None = Field(
        None, alias="for",
        description="how long an API stays so, s; none: to the end. Of several at once factors multiply",
    )
    factor: Annotated[Factor, Field(gt=0)] | None = Field(
        None, description="for slow_down: 4 makes calls four times as long, to the first token and after it"
    )
    share: Annotated[Ratio, Field(gt=0)] = Field(1.0, description="for errors: 100% is an outage")

    @property
    def until(self) -> float | None:
        """When it is over, s after the start; None: never."""
        return None if self.for_ is None else self.at + self.for_

    def checks(self) -> Iterator[Fault]:
        """A pool or an API, with what can happen to it and what says how much."""
        if (self.pool is None) == (self.api is None):
            yield Fault((), "it happens to one pool or to one API: give either pool or api")
            return
        allowed = _ON_APIS if self.pool is None else _ON_POOLS
        if self.action not in allowed:
            here, there = ("an API", "a pool") if self.pool is None else ("a pool", "an API")
            message = f"read {self.action}, which {there} can do; for {here}: {', '.join(allowed)}"
            yield Fault(("action",), message)
            return
        for name, said, belongs in (
            ("replicas", self.replicas != 1, self.pool is not None),
            ("for", self.for_ is not None, self.pool is None),
            ("factor", self.factor is not None, self.action == "slow_down"),
            ("share", self.share != 1.0, self.action == "errors"),
        ):
            if said and not belongs:
                yield Fault((name,), f"an operation {self.action} has no {name}; leave it out")
        if self.action == "slow_down" and self.factor is None:
            yield Fault(("factor",), "missing: how many times as long calls take, e.g. factor: 4")
