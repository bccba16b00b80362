"""Limits, caps and context budgets, as numbers that the engine follows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from simlab.draws import Distribution
from simlab.engine import ApiSpec, CapSpec, ContextSpec, GatewaySpec, LimitSpec, TokenPrice
from simlab.engine import arrays as codes
from simlab.engine.limit_spec import NO_LIMIT
from simlab.policies.extras import Extras
from simlab.results import BackendFacts
from simlab.results.facts import TokenPrices

if TYPE_CHECKING:
    from simlab.scenario import Scenario
    from simlab.scenario.context import Summary
    from simlab.scenario.limits import Limit

DESK = "gateway"
"""Name of the backend on which the gateway books what it refuses itself."""

_OVER = {"reject": codes.REFUSE, "queue": codes.QUEUE, "degrade": codes.DEGRADE}
_ORDER = {"fifo": codes.FIFO, "fair": codes.FAIR, "priority": codes.BY_PRIORITY}
_AT_ONCE = Distribution.fixed(0.0)


def limits(scenario: Scenario) -> list[LimitSpec]:
    """The gateway's limits."""
    return [_limit(scenario, limit) for limit in scenario.gateway.limits]


def _limit(scenario: Scenario, limit: Limit) -> LimitSpec:
    spec = LimitSpec(
        rpm=limit.rpm or 0.0,
        tpm=limit.tpm or 0.0,
        burst=limit.burst or 0.0,
        burst_tokens=limit.burst_tokens or 0.0,
        concurrency=limit.concurrency or 0,
        requests_per_day=limit.requests_per_day or 0,
        usd_per_day=limit.usd_per_day or 0.0,
        over=_OVER[limit.when_over],
        keys=limit.keys,
    )
    if limit.degrade_to is not None:
        spec = replace(spec, degrade_to=scenario.backends.index(scenario.backend_called(limit.degrade_to)))
    if limit.of_calls:
        providers = list(dict.fromkeys(api.provider for api in scenario.apis.values()))
        covered = limit.apis or list(scenario.apis)
        of_apis = [
            providers.index(api.provider) if name in covered else -1 for name, api in scenario.apis.items()
        ]
        return replace(spec, of_backends=_dense([-1] * len(scenario.pools) + of_apis))
    of_class = _numbers(scenario, limit)
    covered = limit.classes or list(scenario.workload)
    table = [
        [
            of_class(name, tenant) if name in covered and (not limit.tenants or tenant in limit.tenants) else -1
            for tenant in range(cls.tenants.count)
        ]
        for name, cls in scenario.workload.items()
    ]
    flat = iter(_dense([number for row in table for number in row]))
    return replace(spec, of_tenants=[[next(flat) for _ in row] for row in table])


def _numbers(scenario: Scenario, limit: Limit) -> Callable[[str, int], int]:
    """Which allowance a class's tenant has."""
    if limit.per == "tenant":
        return lambda _name, tenant: tenant
    if limit.per == "class":
        classes = list(scenario.workload)
        return lambda name, _tenant: classes.index(name)
    if limit.per == "feature":
        features = list(dict.fromkeys(cls.feature for cls in scenario.workload.values()))
        return lambda name, _tenant: features.index(scenario.workload[name].feature)
    return lambda _name, _tenant: 0


def _dense(numbers: Sequence[int]) -> list[int]:
    """The numbers renumbered from 0, without gaps; -1 stays."""
    order = {number: i for i, number in enumerate(dict.fromkeys(number for number in numbers if number >= 0))}
    return [order.get(number, -1) for number in numbers]


def caps_of(scenario: Scenario, name: str) -> CapSpec | None:
    """The caps on a class's requests; None when there are none."""
    cls = scenario.workload[name]
    caps = scenario.gateway.caps if cls.caps is None else cls.caps.over(scenario.gateway.caps)
    output = caps.output_tokens
    if cls.context is not None and cls.context.caps.output is not None:
        output = min(cls.context.caps.output, output or NO_LIMIT)
    if not caps.any and output is None:
        return None
    return CapSpec(
        prompt=caps.input_tokens or NO_LIMIT,
        cut=caps.when_longer == "truncate",
        output=output or NO_LIMIT,
        tries=NO_LIMIT if caps.retries is None else caps.retries,
        usd=caps.usd or math.inf,
        session_usd=caps.conversation_usd or math.inf,
    )


def context_of(scenario: Scenario, name: str, extras: Extras) -> ContextSpec | None:
    """The parts of a class's prompts and their budget; None when it says nothing of them."""
    context = scenario.workload[name].context
    if context is None:
        return None
    retrieval, caps, summary = context.retrieval, context.caps, context.summary
    return ContextSpec(
        chunks=None if retrieval is None else retrieval.chunks.distribution(),
        chunk_tokens=0 if retrieval is None else retrieval.chunk_tokens,
        tools=None if context.tool_results is None else context.tool_results.distribution(),
        max_chunks=NO_LIMIT if caps.retrieval_chunks is None else caps.retrieval_chunks,
        max_tools=NO_LIMIT if caps.tool_results is None else caps.tool_results,
        max_history=caps.history or NO_LIMIT,
        summary_tokens=0 if summary is None else summary.tokens,
        helper=-1 if summary is None else _summariser(summary, extras),
    )


def _summariser(summary: Summary, extras: Extras) -> int:
    prices = TokenPrice(prompt=summary.input_usd_per_mtok / 1e6, output=summary.output_usd_per_mtok / 1e6)
    facts = BackendFacts(
        name=summary.model,
        kind="service",
        model=summary.model,
        token_prices=TokenPrices(summary.input_usd_per_mtok, summary.output_usd_per_mtok),
        price_source="stated in the scenario",
    )
    return extras.add(ApiSpec(summary.latency.distribution(), _AT_ONCE, price=prices), facts)


def with_limits(scenario: Scenario, spec: GatewaySpec, extras: Extras) -> GatewaySpec:
    """The gateway's settings with its lines, its shedding, its clock, and where it books what it refuses."""
    said = scenario.gateway
    start = scenario.start
    spec = replace(
        spec,
        order=_ORDER[said.queue.order],
        length=said.queue.length,
        queue_deadline_s=said.queue.deadline or math.inf,
        clock_s=start.hour * 3600.0 + start.minute * 60.0 + start.second + start.microsecond * 1e-6,
    )
    if said.shed is not None:
        spec = replace(
            spec,
            shed_queue=math.inf if said.shed.queue is None else float(said.shed.queue),
            shed_ttft_s=said.shed.ttft or math.inf,
            shed_keep=said.shed.keep,
        )
    late = said.deadline is not None and any(cls.latency is not None for cls in scenario.workload.values())
    if not late and not any(needed(scenario, name) for name in scenario.workload):
        return spec
    words = "what the gateway refuses by itself (limits, caps, shedding) is an attempt here that costs nothing"
    facts = BackendFacts(
        name=DESK, kind="canned", model=DESK, price_source="refusals cost nothing", assumptions=(words,)
    )
    return replace(spec, refused_at=extras.add(ApiSpec(_AT_ONCE, _AT_ONCE), facts))


def needed(scenario: Scenario, name: str) -> bool:
    """Whether a class's requests are held to anything."""
    said = scenario.gateway
    context = scenario.workload[name].context
    return bool(
        said.shed is not None
        or caps_of(scenario, name) is not None
        or (context is not None)
        or any(limit.of_calls or not limit.classes or name in limit.classes for limit in said.limits)
    )
