"""Time-outs, retries, hedges, breakers and fallbacks, as numbers that the engine follows."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from simlab.draws import Distribution
from simlab.engine import ApiSpec, GatewaySpec, PoolSpec
from simlab.policies.extras import Extras
from simlab.results import BackendFacts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simlab.scenario import Scenario


def gateway(scenario: Scenario) -> GatewaySpec:
    """The gateway's settings."""
    said = scenario.gateway
    retry, hedge, breaker = said.retry, said.hedge, said.breaker
    spec = GatewaySpec(
        timeout_s=said.timeout or math.inf,
        max_attempts=retry.max_attempts,
        backoff_s=retry.backoff,
        backoff_factor=retry.multiplier,
        max_backoff_s=retry.max_backoff,
        jitter=retry.jitter,
        retry_rate_limited="rate_limit" in retry.on,
        retry_error="error" in retry.on,
        retry_timed_out="timeout" in retry.on,
        retry_rejected="reject" in retry.on,
        ttft_timeout_s=said.ttft_timeout or math.inf,
        deadline_s=said.deadline or math.inf,
        abort=said.abort,
        retry_after=retry.honour_retry_after,
        dedupe=said.dedupe,
        resume=said.stream_resume,
    )
    if retry.budget is not None:
        spec = replace(spec, retry_budget=retry.budget.ratio, retry_burst=retry.budget.burst)
    if hedge is not None:
        to = -1 if hedge.to is None else scenario.backends.index(scenario.backend_called(hedge.to))
        spec = replace(spec, hedge_s=hedge.after, hedge_max=hedge.max_per_task, hedge_to=to)
    if breaker is not None:
        spec = replace(
            spec,
            breaker_consecutive=breaker.consecutive or 0,
            breaker_ratio=breaker.ratio or 0.0,
            breaker_window_s=breaker.window,
            breaker_minimum=breaker.minimum_calls,
            breaker_cool_down_s=breaker.cool_down,
            breaker_probes=breaker.probes,
        )
    return spec


def needed(scenario: Scenario, name: str) -> bool:
    """Whether a class's requests need more than one time-out and one retry policy."""
    said = scenario.gateway
    return bool(
        said.ttft_timeout
        or said.deadline
        or not said.abort
        or said.hedge
        or said.breaker
        or said.fallback
        or said.stream_resume
        or said.retry.honour_retry_after
        or said.retry.budget
        or scenario.workload[name].client
    )


def answers(scenario: Scenario, extras: Extras) -> dict[str, int]:
    """Backend index of each canned answer."""
    found = {}
    for name, answer in scenario.gateway.answers.items():
        spec = ApiSpec(answer.latency.distribution(), Distribution.fixed(0.0), canned=True)
        facts = BackendFacts(name=name, kind="canned", model=name, price_source="given by the gateway itself, free")
        found[name] = extras.add(spec, facts)
    return found


def with_fallbacks(
    scenario: Scenario, specs: Sequence[PoolSpec | ApiSpec], canned: dict[str, int]
) -> tuple[PoolSpec | ApiSpec, ...]:
    """The backends, each with the one that stands in for it."""
    indices = {name: i for i, name in enumerate(scenario.backends)} | canned
    stand_ins = {indices[failed]: indices[stands_in] for failed, stands_in in scenario.gateway.fallback.items()}
    return tuple(replace(spec, fallback=stand_ins.get(i, -1)) for i, spec in enumerate(specs))
