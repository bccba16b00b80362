"""The gateway between users and backends: weighted routes, a timeout, one retry policy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from simlab.scenario.base import Fault, Model
from simlab.scenario.units import Count, Factor, Ratio, Seconds


class Route(Model):
    """Where requests of some classes go."""

    classes: list[str] = Field([], description="workload classes it is for; empty: all that no earlier route takes")
    to: dict[str, Annotated[Factor, Field(ge=0)]] = Field(
        description="backends (pools and apis) and their weights; shares are weight / sum of weights", min_length=1
    )

    def checks(self) -> Iterator[Fault]:
        """Somewhere to go."""
        if sum(self.to.values()) == 0:
            yield Fault(("to",), "all weights are 0; give at least one backend a weight above 0")


class Retry(Model):
    """When an attempt fails: how often, and how long to wait before the next one."""

    max_attempts: Count = Field(1, ge=1, le=100, description="attempts in all; 1: never retry")
    backoff: Seconds = Field(0.5, ge=0, description="wait before the second attempt, s")
    multiplier: Factor = Field(2.0, ge=1, description="each further wait is this many times longer")
    max_backoff: Seconds = Field(8.0, ge=0, description="longest wait, s")
    jitter: Ratio = Field(0.25, description="up to this share of the wait, drawn evenly, is taken off")
    on: list[Literal["rate_limit", "error", "timeout", "reject"]] = Field(
        ["rate_limit", "error", "timeout"], description="outcomes that are tried again"
    )

    def checks(self) -> Iterator[Fault]:
        """The first wait is not above the longest."""
        if self.max_backoff < self.backoff:
            yield Fault(
                ("max_backoff",), f"read {self.max_backoff:g} s, below backoff ({self.backoff:g} s); raise it"
            )


class Gateway(Model):
    """Where each request goes, and what happens when that fails."""

    routes: list[Route] = Field(
        [], description="first route whose classes match is taken; empty: the only backend gets everything"
    )
    timeout: Annotated[Seconds, Field(gt=0)] | None = Field(
        None, description="the gateway aborts an attempt after this long, s; none: never"
    )
    retry: Retry = Field(Retry(), description="what is tried again, and when")
