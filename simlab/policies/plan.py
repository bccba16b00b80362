"""The policies of a scenario, put together: what each class has, and what answers beside the scenario's backends."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from simlab.engine import (
    AgentSpec,
    AnswerCacheSpec,
    ApiSpec,
    ContextSpec,
    GatewaySpec,
    LimitSpec,
    PolicySpec,
    RuleSpec,
)
from simlab.policies import agents, caches, limits, offline, quality, reliability, routing, versions
from simlab.policies.extras import Extras
from simlab.results import BackendFacts

if TYPE_CHECKING:
    from simlab.scenario import Scenario


@dataclass(frozen=True)
class Plan:
    """What the gateway of a scenario does.

    Args:
        classes: policies of each class, None where it has none beyond route, time-out and retries.
        rules: routes that are more than weights.
        specs, facts: backends behind the scenario's own.
        caches: of answers.
        gateway: settings of all classes.
        canned: backend index of each canned answer.
        limits: on tasks and calls, then the lines of those who wait for room in a pool.
    """

    classes: tuple[PolicySpec | None, ...]
    rules: tuple[RuleSpec, ...]
    specs: tuple[ApiSpec, ...]
    facts: tuple[BackendFacts, ...]
    caches: tuple[AnswerCacheSpec, ...]
    gateway: GatewaySpec
    canned: dict[str, int]
    limits: tuple[LimitSpec, ...]


def plan(scenario: Scenario) -> Plan:
    """The policies of each class of a scenario, in order."""
    extras = Extras(len(scenario.backends))
    rules: list[RuleSpec] = []
    rule_numbers = [routing.rules_of(scenario, name, rules, extras) for name in scenario.workload]
    layers = caches.caches(scenario, extras)
    canned = reliability.answers(scenario, extras)
    contexts = [limits.context_of(scenario, name, extras) for name in scenario.workload]
    loops = [agents.agent_of(scenario, name, extras) for name in scenario.workload]
    gateway = limits.with_limits(scenario, reliability.gateway(scenario), extras)
    n_backends = len(scenario.backends) + len(extras.specs)
    classes = [
        _of_class(scenario, name, numbers, n_backends, canned, context, agent)
        for name, numbers, context, agent in zip(scenario.workload, rule_numbers, contexts, loops, strict=True)
    ]
    return Plan(
        classes=tuple(classes),
        rules=tuple(rules),
        specs=tuple(extras.specs),
        facts=tuple(extras.facts),
        caches=tuple(layers),
        gateway=gateway,
        canned=canned,
        limits=(*limits.limits(scenario), *offline.troughs(scenario)),
    )


def _of_class(
    scenario: Scenario, name: str, rule_numbers: list[list[int]], n_backends: int, canned: dict[str, int],
    context: ContextSpec | None, agent: AgentSpec | None,
) -> PolicySpec | None:
    cls = scenario.workload[name]
    stated = {index: scenario.gateway.answers[answer].quality for answer, index in canned.items()}
    worth = quality.tables(scenario, name, n_backends, stated)
    layers = caches.layers_of(scenario, name)
    several = len(cls.task.shares) > 1 or len(versions.prompt_versions(cls.task)) > 1  # which the ledger keeps apart
    held = limits.needed(scenario, name) or reliability.needed(scenario, name)
    timed = agents.timed(scenario, name)
    if not (several or worth or rule_numbers or layers or held or timed or cls.task.deadline):
        return None
    queries, difficulty = cls.queries, cls.task.difficulty
    output = None if cls.lengths is None else cls.lengths.output
    return PolicySpec(
        query_weights=[] if queries is None else np.arange(1, queries.count + 1, dtype=float) ** -queries.zipf,
        difficulty=None if difficulty is None else difficulty.distribution(),
        tier_weights=list(cls.task.shares.values()),
        quality=worth,
        rules=rule_numbers,
        mean_output=1.0 if output is None else output.distribution().mean(),
        caches=layers,
        tenant_users=cls.tenants.users,
        patience_s=math.inf if cls.client is None else cls.client.patience,
        resends=0 if cls.client is None else cls.client.resends,
        prompt_versions=len(versions.prompt_versions(cls.task)),
        caps=limits.caps_of(scenario, name),
        context=context,
        deadline_s=cls.task.deadline or math.inf,
        latency=agents.latency_of(scenario, name),
        timed=timed,
        agent=agent,
    )
