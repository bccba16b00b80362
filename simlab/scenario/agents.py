"""Agents: tasks that are loops of model calls and tool calls, and those of them that do not end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from simlab.scenario.base import Fault, Model
from simlab.scenario.dist import Fixed, Geometric, NumberDist, SecondsDist, TokensDist
from simlab.scenario.units import Count, Number, Ratio, Seconds, TokenCount, Usd

if TYPE_CHECKING:
    from simlab.scenario.scenario import Scenario
    from simlab.scenario.workload import WorkloadClass


class Tools(Model):
    """What the model calls between its own calls."""

    name: str = Field("tools", min_length=1, description="name, for the ledger")
    latency: SecondsDist = Field(description="of one call, s; a step waits for the slowest of its tools")
    parallel: NumberDist | None = Field(
        None, description="tools that a step calls at once, at least 1, at most 16; none: one"
    )
    result_tokens: TokensDist = Field(
        Fixed[TokenCount](kind="fixed", value=200), description="tokens of one result, read by all later model calls"
    )
    failure_probability: Annotated[Ratio, Field(lt=1)] = Field(0.0, description="share of calls that fail")
    retries: Count = Field(0, ge=0, le=5, description="a failed call is made again so often, at once")
    error_tokens: TokensDist = Field(
        Fixed[TokenCount](kind="fixed", value=50), description="what the model reads instead when that did not help"
    )
    usd_per_call: Usd = Field(0.0, ge=0, description="price of a call, failed ones too, USD")


class Runaway(Model):
    """Tasks that never come to an answer, until a limit stops them: what alerts are for."""

    share: Annotated[Ratio, Field(gt=0)] = Field(description="share of the tasks that arrive in this time")
    from_: Seconds = Field(0.0, ge=0, alias="from", description="from when on, s")
    until: Annotated[Seconds, Field(gt=0)] | None = Field(None, description="until when, s; none: to the end")

    def checks(self) -> Iterator[Fault]:
        """It lasts."""
        if self.until is not None and self.until <= self.from_:
            yield Fault(("until",), f"read {self.until:g} s, but from is {self.from_:g} s; until must be later")


class Agent(Model):
    """A task is a loop: the model asks for tools, reads what they say, and asks again, until it answers."""

    steps: NumberDist | None = Field(None, description="model calls of a task, at least 1; the last one answers")
    finish: Annotated[Ratio, Field(gt=0)] | None = Field(
        None, description="in place of steps: the chance that a model call is the last"
    )
    call_tokens: TokensDist = Field(
        Fixed[TokenCount](kind="fixed", value=100), description="output of a model call that asks for tools, tokens"
    )
    tools: Tools = Field(description="what it calls in between")
    when_stopped: Literal["fail", "answer"] = Field(
        "fail",
        description="a task stopped by a cap fails, or answers with what it has, which counts as a wrong answer",
    )
    runaway: Runaway | None = Field(None, description="tasks that do not end by themselves; none: all do")

    def calls(self) -> Geometric[Number] | NumberDist:
        """The model calls of a task."""
        if self.finish is not None:
            return Geometric[Number](kind="geometric", mean=1.0 / self.finish)
        assert self.steps is not None
        return self.steps

    def checks(self) -> Iterator[Fault]:
        """One way to say how long a loop is."""
        if (self.steps is None) == (self.finish is None):
            yield Fault((), "give one of steps (model calls of a task) and finish (the chance that a call is the last)")


def class_faults(cls: WorkloadClass) -> Iterator[Fault]:
    """Yields what does not go with an agent in its own class."""
    if cls.agent is None:
        return
    if cls.arrivals.kind == "trace":
        yield Fault(("agent",), "not with trace arrivals: the calls of its loops are in the trace; leave agent out")
    if cls.client is not None:
        yield Fault(("client",), "not with agent: a loop runs on a server, and nobody sends it again; leave client out")
    if cls.context is not None and cls.context.tool_results is not None:
        yield Fault(
            ("context", "tool_results"), "not with agent: its tools say their own (agent.tools.result_tokens); drop it"
        )


def faults(scenario: Scenario) -> Iterator[Fault]:
    """Yields caps on loops that are not there, and loops that nothing ends."""
    looped = [name for name, cls in scenario.workload.items() if cls.agent is not None]
    if scenario.gateway.caps.tool_steps is not None and not looped:
        yield Fault(("gateway", "caps", "tool_steps"), "no class has an agent, so nobody calls tools; drop it")
    for name, cls in scenario.workload.items():
        path = ("workload", name)
        if cls.agent is None:
            if cls.caps is not None and cls.caps.tool_steps is not None:
                yield Fault((*path, "caps", "tool_steps"), "the class has no agent, so it calls no tools; drop it")
            continue
        runaway = cls.agent.runaway
        if runaway is None:
            continue
        if runaway.from_ > scenario.horizon:
            message = f"read {runaway.from_:g} s, after the horizon ({scenario.horizon:g} s); it would never happen"
            yield Fault((*path, "agent", "runaway", "from"), message)
        caps = scenario.gateway.caps if cls.caps is None else cls.caps.over(scenario.gateway.caps)
        ends = caps.tool_steps is not None or caps.usd is not None or scenario.gateway.deadline is not None
        if not ends and (caps.input_tokens is None or caps.when_longer != "reject"):
            yield Fault(
                (*path, "agent", "runaway"),
                f"nothing ever stops such a task; give workload.{name}.caps.tool_steps or usd, or gateway.deadline",
            )
