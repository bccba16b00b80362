"""Who asks, how often, and how much: the workload classes of a scenario."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from simlab.scenario import agents
from simlab.scenario.agents import Agent
from simlab.scenario.base import Fault, Model
from simlab.scenario.capabilities import Needs
from simlab.scenario.context import Context
from simlab.scenario.dist import NumberDist, SecondsDist, TokensDist
from simlab.scenario.latency import Latency
from simlab.scenario.limits import Caps
from simlab.scenario.reliability import Client
from simlab.scenario.slo import Slo
from simlab.scenario.tasks import Queries, Task
from simlab.scenario.units import NOTATIONS, Count, Factor, Rate, Seconds, Tokens


class Tenants(Model):
    """Who the requests of a class belong to."""

    count: Count = Field(1, ge=1, description="number of tenants, named t0, t1, …")
    skew: Factor = Field(
        0.0, ge=0, description="Zipf exponent of their shares: 0 is equal, 1 gives the k-th tenant 1/k of the first's"
    )
    users: Count = Field(1, ge=1, description="users of each tenant, all alike; for caches that keep them apart")


class RateProfile(Model):
    """Multipliers of the rate over time: by hour of day and day of week, or a step function."""

    hour_of_day: list[Annotated[Factor, Field(ge=0)]] | None = Field(
        None, description="24 multipliers, hour 0 first (of the scenario's `start`)"
    )
    day_of_week: list[Annotated[Factor, Field(ge=0)]] | None = Field(None, description="7 multipliers, Monday first")
    series: list[tuple[Seconds, Annotated[Factor, Field(ge=0)]]] | None = Field(
        None, description="step function [[time, multiplier], …]: each holds from its time (after the start) on"
    )
    period: Annotated[Seconds, Field(gt=0)] | None = Field(
        None, description="`series` starts again after this long; none: its last multiplier holds to the end"
    )

    def checks(self) -> Iterator[Fault]:
        """One of the two ways, the right number of multipliers, times that ascend from 0, and some traffic."""
        by_clock = self.hour_of_day is not None or self.day_of_week is not None
        if by_clock == (self.series is not None):
            yield Fault((), "give either hour_of_day and/or day_of_week, or series")
        for name, values, length in (("hour_of_day", self.hour_of_day, 24), ("day_of_week", self.day_of_week, 7)):
            if values is not None and len(values) != length:
                yield Fault((name,), f"read {len(values)} multipliers; it must have {length}")
            elif values is not None and sum(values) == 0:
                yield Fault((name,), "all multipliers are 0, so nothing would ever arrive; give at least one above 0")
        if self.series is not None:
            yield from self._check_series(self.series)
        elif self.period is not None:
            yield Fault(("period",), "period belongs to series; hours and days repeat by themselves")

    def _check_series(self, series: list[tuple[float, float]]) -> Iterator[Fault]:
        times = [time for time, _ in series]
        if not times:
            yield Fault(("series",), "it is empty; give at least [[0, 1]]")
            return
        if times[0] != 0:
            yield Fault(("series", 0, 0), f"read {times[0]:g} s; the first step must start at 0")
        for i, (before, after) in enumerate(pairwise(times), start=1):
            if after <= before:
                yield Fault(("series", i, 0), f"read {after:g} s after {before:g} s; times must ascend")
        if all(multiplier == 0 for _, multiplier in series):
            yield Fault(("series",), "all multipliers are 0, so nothing would ever arrive; give at least one above 0")
        if self.period is not None and self.period <= times[-1]:
            yield Fault(("period",), f"read {self.period:g} s; it must be after the last step at {times[-1]:g} s")


class _Renewal(Model):
    rate: Rate = Field(gt=0, description="mean arrivals, 1/s, where the profile's multiplier is 1")
    profile: RateProfile | None = Field(None, description="multipliers of the rate over time; none: constant")
    growth_per_month: Factor = Field(
        0.0, gt=-1, description="growth of the rate, compounded continuously: 0.1 is +10% every 730 h"
    )


class Poisson(_Renewal):
    """Independent arrivals."""

    kind: Literal["poisson"] = Field(description="poisson: independent users")


class Gamma(_Renewal):
    """Gamma-distributed times between arrivals (in operational time, so that a profile keeps the burstiness)."""

    kind: Literal["gamma"] = Field(description="gamma: bursty (cv above 1) or regular (cv below 1)")
    cv: Factor = Field(gt=0, description="coefficient of variation of the times between arrivals; 1 is poisson")


class Weibull(_Renewal):
    """Weibull-distributed times between arrivals."""

    kind: Literal["weibull"] = Field(description="weibull: bursty, with a heavier tail than gamma")
    cv: Factor = Field(gt=0, description="coefficient of variation of the times between arrivals; 1 is poisson")


class Closed(Model):
    """A fixed number of users, each waiting for the answer before the next request."""

    kind: Literal["closed"] = Field(description="closed: a fixed number of users, one request each at a time")
    users: Count = Field(ge=1, description="number of users")
    think_time: SecondsDist = Field(description="from the answer to the user's next request, s")


class TraceFormat(Model):
    """Which columns of a file mean what; for traces none of the built-in formats fits."""

    file_type: Literal["csv", "jsonl", "parquet"] | None = Field(
        None, description="none: by the file's name (.csv, .jsonl, .parquet, also .gz)"
    )
    arrival: str = Field(min_length=1, description="column of the arrival time")
    time_unit: Literal["s", "ms", "us", "ns", "datetime"] = Field(
        "s", description="unit of the arrival column; datetime: ISO 8601 text"
    )
    prompt_tokens: str = Field(min_length=1, description="column of the prompt's tokens")
    output_tokens: str = Field(min_length=1, description="column of the output's tokens")
    hash_ids: str | None = Field(None, description="column with the list of ids of the prompt's blocks; none: none")
    hash_block_tokens: Count = Field(512, ge=1, description="tokens in a block that `hash_ids` names")
    query: str | None = Field(None, description="column that names the question: equal values are the same; none: none")


class Trace(Model):
    """Replay of a recorded trace, request by request."""

    kind: Literal["trace"] = Field(description="trace: request by request from a file")
    file: str = Field(
        min_length=1, description="looked for beside the scenario, then in the folders of $SIMLAB_DATA"
    )
    format: Annotated[
        Annotated[str, Field(min_length=1), Tag("name")] | Annotated[TraceFormat, Tag("a map")],
        Discriminator(lambda raw: "a map" if isinstance(raw, dict | TraceFormat) else "name"),
    ] = Field(
        "auto",
        description="azure-2023, azure-2024, burstgpt, mooncake, servegen, generic, auto (told from the columns), or a "
        "map of the file's columns",
    )
    time_scale: Factor = Field(1.0, gt=0, description="stretches time: 2 is twice as slow")
    rate_scale: Factor = Field(
        1.0, gt=0, description="0.5 keeps half of the requests (drawn), 2 sends each twice (the copy drawn apart)"
    )
    from_: Seconds = Field(0.0, ge=0, alias="from", description="skip this much of the trace, s of its own time")
    to: Seconds | None = Field(None, description="stop at this time of the trace, s of its own time; none: its end")
    repeat: Annotated[
        Annotated[int, BeforeValidator(NOTATIONS["Repeat"].parse), Field(ge=1), Tag("times")]
        | Annotated[Literal["forever"], Tag("forever")],
        Discriminator(lambda raw: "forever" if raw == "forever" else "times"),
    ] = Field(
        1, description="play it this many times, or forever (to the horizon)"
    )

    def checks(self) -> Iterator[Fault]:
        """The cut must keep something."""
        if self.to is not None and self.to <= self.from_:
            yield Fault(("to",), f"read {self.to:g} s, but from is {self.from_:g} s; to must be later")


class Summary(Model):
    """Traffic drawn from what `simlab trace summarize` wrote: rates over time and a joint table of lengths."""

    kind: Literal["summary"] = Field(description="summary: rates and lengths of a trace, without the trace")
    file: str = Field(min_length=1, description="a bundled summary such as azure-2023-conv, or a JSON file")
    rate_scale: Factor = Field(1.0, gt=0, description="multiplies the rate")
    cv: Factor = Field(1.0, gt=0, description="coefficient of variation of the times between arrivals within a step")
    repeat: bool = Field(True, description="start again when it ends; false: silence after its end")


Arrivals = Annotated[Poisson | Gamma | Weibull | Closed | Trace | Summary, Field(discriminator="kind")]
"""How requests (or sessions) of a class arrive."""


class Lengths(Model):
    """How many tokens go in and come out: two distributions, or a joint table."""

    prompt: TokensDist | None = Field(None, description="prompt tokens of a request, without shared prefixes")
    output: TokensDist | None = Field(None, description="output tokens of a request")
    joint: str | None = Field(
        None, min_length=1, description="(prompt, output) pairs drawn together: a bundled summary's name or a CSV file"
    )

    def checks(self) -> Iterator[Fault]:
        """Either both distributions or a joint table."""
        if self.joint is not None and (self.prompt is not None or self.output is not None):
            yield Fault(("joint",), "joint already says both lengths; leave out prompt and output, or joint")
        elif self.joint is None:
            for name in ("prompt", "output"):
                if getattr(self, name) is None:
                    yield Fault((name,), "missing: give prompt and output, or joint")


class Documents(Model):
    """Documents put in front of prompts, some more popular than others."""

    count: Count = Field(ge=1, description="number of documents")
    tokens: Tokens = Field(ge=1, description="tokens of each")
    zipf: Factor = Field(1.0, ge=0, description="Zipf exponent of their popularity; 0: all alike")


class Prefix(Model):
    """Tokens many prompts of a class begin with, in this order, added in front of the drawn prompt length."""

    system: Tokens = Field(0, ge=0, description="tokens of the system prompt, the same in every request of the class")
    template: Tokens = Field(0, ge=0, description="tokens of a template after it, the same for all of a tenant")
    documents: Documents | None = Field(None, description="one document, drawn by popularity; none: no documents")


class Sessions(Model):
    """Conversations: each turn's prompt begins with everything said before."""

    turns: NumberDist = Field(description="turns of a conversation (at least 1)")
    think_time: SecondsDist = Field(description="from an answer to the next turn, s")
    max_context: Annotated[Tokens, Field(ge=1)] | None = Field(
        None, description="a conversation ends when its history would be longer, tokens; none: no limit"
    )


class WorkloadClass(Model):
    """One kind of requests: arrivals, lengths, who sends them and what they are worth."""

    feature: str = Field("default", min_length=1, description="product feature the cost is booked on")
    tenants: Tenants = Field(Tenants(), description="who sends the requests")
    priority: int = Field(0, description="lower is served first where a pool's scheduling is priority")
    arrivals: Arrivals = Field(description="how requests (with sessions: conversations) arrive")
    lengths: Lengths | None = Field(
        None, description="tokens in and out; may be left out for trace and summary arrivals, which bring their own"
    )
    prefix: Prefix | None = Field(None, description="shared beginnings of prompts; none: every prompt is its own")
    sessions: Sessions | None = Field(None, description="multi-turn conversations; none: single requests")
    slo: Slo | None = Field(None, description="this class's own objectives; none: the scenario's")
    task: Task = Field(Task(), description="what is to be done, for policies that look at it")
    needs: Needs = Field(Needs(), description="what a backend must offer to serve it; a way to another is an error")
    client: Client | None = Field(None, description="who waits for the answers; none: they wait as long as it takes")
    caps: Caps | None = Field(None, description="caps on its requests, in place of the gateway's where they say so")
    context: Context | None = Field(
        None, description="what its prompts consist of besides lengths.prompt, and how much of it may be; none: nothing"
    )
    agent: Agent | None = Field(None, description="its tasks are loops of model and tool calls; none: single calls")
    latency: Latency | None = Field(
        None, description="what its users wait for beside the model; none: nothing, and nobody meters where time goes"
    )
    queries: Queries | None = Field(
        None, description="how often the same question is asked again; none: no two requests are alike"
    )

    def checks(self) -> Iterator[Fault]:
        """Which parts go together."""
        kind = self.arrivals.kind
        if self.lengths is None and kind not in ("trace", "summary"):
            yield Fault(
                ("lengths",),
                f"missing: {kind} arrivals need lengths, e.g. "
                "{prompt: {kind: lognormal, mean: 800, p95: 2400}, output: 250}",
            )
        if kind == "trace":
            for name in ("lengths", "prefix", "sessions", "context"):
                if getattr(self, name) is not None:
                    yield Fault((name,), f"not with trace arrivals: the trace says it; leave {name} out")
        if kind == "closed" and self.sessions is not None:
            yield Fault(("sessions",), "not with closed arrivals: use turns with poisson, or closed without sessions")
        yield from agents.class_faults(self)
