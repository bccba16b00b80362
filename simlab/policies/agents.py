"""Agents, and what users wait for beside the model, as numbers that the engine follows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from simlab.draws import Distribution
from simlab.engine import AgentSpec, ApiSpec
from simlab.engine.limit_spec import NO_LIMIT
from simlab.policies.extras import Extras
from simlab.results import BackendFacts
from simlab.results.facts import TokenPrices

if TYPE_CHECKING:
    from simlab.scenario import Scenario
    from simlab.scenario.agents import Tools

PARTS = ("network", "app", "retrieval", "rerank", "gateway", "smoothing")
"""What users wait for beside the model, in the engine's order."""

_AT_ONCE = Distribution.fixed(0.0)


def latency_of(scenario: Scenario, name: str) -> list[Distribution]:
    """The distributions of `PARTS` of a class; empty when it says nothing of them."""
    latency = scenario.workload[name].latency
    return [] if latency is None else [getattr(latency, part).distribution() for part in PARTS]


def timed(scenario: Scenario, name: str) -> bool:
    """Whether it is metered where the time of a class's tasks goes."""
    cls = scenario.workload[name]
    return cls.latency is not None or cls.agent is not None


def agent_of(scenario: Scenario, name: str, extras: Extras) -> AgentSpec | None:
    """The loop of a class's tasks; adds the tools to what answers beside the scenario's backends."""
    cls = scenario.workload[name]
    agent = cls.agent
    if agent is None:
        return None
    caps = scenario.gateway.caps if cls.caps is None else cls.caps.over(scenario.gateway.caps)
    tools, runaway = agent.tools, agent.runaway
    return AgentSpec(
        steps=agent.calls().distribution(),
        helper=_tools(tools, extras),
        tool_s=tools.latency.distribution(),
        calls=agent.call_tokens.distribution(),
        parallel=None if tools.parallel is None else tools.parallel.distribution(),
        results=tools.result_tokens.distribution(),
        failure=tools.failure_probability,
        retries=tools.retries,
        errors=tools.error_tokens.distribution(),
        max_steps=NO_LIMIT if caps.tool_steps is None else caps.tool_steps,
        partial=agent.when_stopped == "answer",
        runaway_share=0.0 if runaway is None else runaway.share,
        from_s=0.0 if runaway is None else runaway.from_,
        until_s=math.inf if runaway is None or runaway.until is None else runaway.until,
    )


def _tools(tools: Tools, extras: Extras) -> int:
    facts = BackendFacts(
        name=tools.name,
        kind="service",
        model=tools.name,
        token_prices=TokenPrices(0.0, 0.0),
        usd_per_call=tools.usd_per_call,
        price_source="stated in the scenario",
    )
    return extras.add(ApiSpec(tools.latency.distribution(), _AT_ONCE, usd_call=tools.usd_per_call), facts)
