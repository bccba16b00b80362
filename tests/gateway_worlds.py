"""Small worlds with policies: pools, APIs, conversations and closed loops behind a gateway that may do anything."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
from small_worlds import TICK_S, Plan, small_world

from simlab.draws import Distribution
from simlab.engine import (
    QUALITY_POINTS,
    AnswerCacheSpec,
    ApiSpec,
    CapSpec,
    ChoiceSpec,
    ContextSpec,
    GatewaySpec,
    LimitSpec,
    PolicySpec,
    PoolSpec,
    PromptCacheSpec,
    RuleSpec,
    TokenPrice,
)
from simlab.engine import arrays as a

NEVER = 1 << 40


def _some(random: Random, *values: float) -> float:
    return random.choice([math.inf, *values])


def _law(random: Random, mean: float) -> Distribution:
    return random.choice([Distribution.fixed(mean), Distribution.exponential(mean)])


def _priced(random: Random, backend: PoolSpec | ApiSpec, b: int, n: int) -> PoolSpec | ApiSpec:
    fallback = random.randrange(b + 1, n) if b + 1 < n and random.random() < 0.5 else -1
    if isinstance(backend, PoolSpec):
        return replace(backend, usd_work_s=0.5, work_prefill_s=1e-3, work_decode_s=2e-3, fallback=fallback)
    cache = None
    if random.random() < 0.4:
        cache = PromptCacheSpec(
            min_tokens=random.choice([1, 16]), block=random.choice([1, 8]), ttl_s=random.choice([0.5, 300.0]),
            by_tenant=random.random() < 0.5, history=random.random() < 0.5,
        )  # fmt: skip
    return replace(
        backend,
        price=TokenPrice(1e-3, 1e-4, 2e-3, 4e-3),
        long_price=TokenPrice(2e-3, 2e-4, 4e-3, 8e-3),
        break_probability=random.choice([0.0, 0.3]),
        prompt_cache=cache,
        fallback=fallback,
    )


def _service(random: Random, price: TokenPrice | None = None) -> ApiSpec:
    law = _law(random, random.choice([TICK_S, 0.05]))
    return ApiSpec(law, Distribution.fixed(0.0), usd_call=0.01, price=price or TokenPrice())


class _Extras:
    """What answers behind the scenario's own backends."""

    def __init__(self, backends: list[PoolSpec | ApiSpec]) -> None:
        self.backends = backends

    def add(self, spec: ApiSpec) -> int:
        self.backends.append(spec)
        return len(self.backends) - 1


def _rule(random: Random, n: int, tiers: int, extras: _Extras) -> RuleSpec:
    mode = random.choice([a.BY_WEIGHTS, a.BY_PRICE, a.BY_LATENCY, a.BY_CLASSIFIER, a.BY_LEARNED, a.BY_CASCADE,
                          a.BY_OVERFLOW])  # fmt: skip
    order = random.sample(range(n), n)
    choices = [ChoiceSpec(b, weight=random.uniform(0.1, 2.0), context=random.choice([0, 0, 40])) for b in order]
    if mode in (a.BY_WEIGHTS, a.BY_PRICE, a.BY_LATENCY):
        return RuleSpec(mode, choices, explore=random.choice([0.0, 0.3]))
    helper = extras.add(_service(random)) if random.random() < 0.5 else -1
    if mode == a.BY_CLASSIFIER:
        guesses = [[random.uniform(0.1, 1.0) for _ in choices] for _ in range(tiers)]
        return RuleSpec(mode, choices, helper=helper, guesses=guesses)
    if mode == a.BY_LEARNED:
        weak = np.linspace(0.2, 0.9, QUALITY_POINTS).tolist()
        return RuleSpec(mode, [choices[0], choices[-1]], helper=helper, weak_chance=weak, top=0.9, strong_share=0.4)
    if mode == a.BY_CASCADE:
        levels = [
            replace(
                choice, context=0, accept_right=random.random(), accept_wrong=random.random(),
                samples=random.choice([1, 3]) if isinstance(extras.backends[choice.backend], ApiSpec) else 1,
                verifier=extras.add(_service(random)) if random.random() < 0.4 else -1,
            )
            for choice in choices
        ]  # fmt: skip
        return RuleSpec(mode, levels)
    return RuleSpec(
        mode, choices, queue_per_replica=_some(random, 0.0, 2.0), ttft_s=_some(random, 0.1), resume=random.random()
    )


def _caches(random: Random, extras: _Extras, n_classes: int) -> list[AnswerCacheSpec]:
    found = []
    for layer in random.sample([a.RESULTS, a.EXACT, a.SEMANTIC], random.randint(0, 3)):
        semantic = layer == a.SEMANTIC
        helper = extras.add(_service(random, TokenPrice(prompt=1e-5))) if semantic and random.random() < 0.5 else -1
        found.append(
            AnswerCacheSpec(
                layer=layer,
                backend=extras.add(ApiSpec(_law(random, random.choice([TICK_S, 0.3])), Distribution.fixed(0.0))),
                scope=random.randrange(32),
                capacity=random.choice([0, 1, 5]),
                ttl_s=[random.choice([math.inf, 0.5, 3.0]) for _ in range(n_classes)] if random.random() < 0.7 else [],
                refresh=random.random() < 0.5,
                miss_s=random.choice([0.0, TICK_S]),
                helper=helper,
                hit=random.choice([0.5, 1.0]) if semantic else 1.0,
                false_hit=random.choice([0.0, 0.2]) if semantic else 0.0,
                stated=semantic and random.random() < 0.5,
            )
        )
    return found


def _limit(random: Random, plan: Plan, n: int, width: int) -> LimitSpec:
    over = random.choice([a.REFUSE, a.QUEUE, a.QUEUE, a.DEGRADE])
    amounts: dict[str, Any] = {}
    while not amounts:
        if random.random() < 0.3:
            amounts["rpm"], amounts["burst"] = random.choice([60.0, 600.0]), random.choice([0.0, 2.0])
        if random.random() < 0.3:
            amounts["tpm"], amounts["burst_tokens"] = 3000.0, random.choice([0.0, 50.0])
        if random.random() < 0.5:
            amounts["concurrency"] = random.choice([1, 3])
        if random.random() < 0.2:
            amounts["requests_per_day"] = random.choice([1, 10])
        if random.random() < 0.2:
            amounts["usd_per_day"] = 0.3
    degrade_to = random.randrange(n) if over == a.DEGRADE else -1
    if random.random() < 0.4:
        of_backends = [random.choice([-1, 0, 0]) for _ in range(n)] + [-1] * (width - n)
        if max(of_backends) >= 0:
            keys = random.choice([1, 1, 3])
            return LimitSpec(over=over, degrade_to=degrade_to, of_backends=of_backends, keys=keys, **amounts)
    by_tenant = random.random() < 0.5
    of_tenants = [
        [tenant if by_tenant else 0 for tenant in range(len(cls.tenant_weights))] for cls in plan.classes
    ]
    return LimitSpec(over=over, degrade_to=degrade_to, of_tenants=of_tenants, **amounts)


def _policy(
    random: Random, plan: Plan, c: int, extras: _Extras, rules: list[RuleSpec], caches: list[AnswerCacheSpec], n: int
) -> PolicySpec | None:
    cls = plan.classes[c]
    if random.random() < 0.15:
        return None
    tiers, tenants = random.choice([1, 2]), len(cls.tenant_weights)
    numbers: list[list[int]] = []
    if random.random() < 0.6:
        mine = [len(rules) + i for i in range(random.randint(1, 2))]
        rules += [_rule(random, n, tiers, extras) for _ in mine]
        numbers = [[random.choice([-1, *mine]) for _ in range(tiers)] for _ in range(tenants)]
    caps = context = None
    if random.random() < 0.4:
        caps = CapSpec(
            prompt=random.choice([NEVER, 30]), cut=random.random() < 0.6, output=random.choice([NEVER, 5]),
            tries=random.choice([NEVER, 1]), usd=_some(random, 0.1), session_usd=_some(random, 0.2),
        )  # fmt: skip
    if random.random() < 0.4 and not plan.chunks[c][:1] and cls.prompt is not None:
        context = ContextSpec(
            chunks=Distribution.geometric(3.0), chunk_tokens=5, tools=random.choice([None, Distribution.fixed(4.0)]),
            max_chunks=random.choice([NEVER, 2]), max_tools=random.choice([NEVER, 2]),
            max_history=random.choice([NEVER, 20]), summary_tokens=8,
            helper=extras.add(_service(random, TokenPrice(1e-5, output=1e-5))) if random.random() < 0.5 else -1,
        )  # fmt: skip
    patience_s = _some(random, 0.3)
    return PolicySpec(
        query_weights=[1.0 / (i + 1) for i in range(random.choice([1, 8]))] if random.random() < 0.7 else [],
        difficulty=random.choice([None, Distribution.exponential(0.5)]),
        tier_weights=[1.0, 3.0][:tiers],
        quality=[],
        rules=numbers,
        mean_output=5.0,
        patience_s=patience_s,
        resends=random.randint(1, 2) if patience_s < math.inf else 0,
        caches=tuple(cache.layer for cache in caches if random.random() < 0.8),
        tenant_users=random.choice([1, 3]),
        prompt_versions=random.choice([1, 2]),
        caps=caps,
        context=context,
    )


def _gateway(random: Random, basic: GatewaySpec, n: int, desk: int) -> GatewaySpec:
    breaker = random.choice(["", "row", "ratio"])
    return replace(
        basic,
        ttft_timeout_s=_some(random, 16 * TICK_S, 0.3),
        deadline_s=_some(random, 0.4, 2.0),
        abort=random.random() < 0.6,
        retry_after=random.random() < 0.5,
        retry_budget=random.choice([0.0, 0.1]),
        retry_burst=random.choice([1.0, 5.0]),
        hedge_s=_some(random, 4 * TICK_S, 0.2),
        hedge_max=random.randint(1, 2),
        hedge_to=random.choice([-1, random.randrange(n)]),
        breaker_consecutive=2 if breaker == "row" else 0,
        breaker_ratio=0.3 if breaker == "ratio" else 0.0,
        breaker_window_s=1.0,
        breaker_minimum=3,
        breaker_cool_down_s=random.choice([0.2, 2.0]),
        breaker_probes=random.randint(1, 2),
        dedupe=random.random() < 0.5,
        resume=random.random() < 0.5,
        refused_at=desk,
        order=random.choice([a.FIFO, a.FAIR, a.BY_PRIORITY]),
        length=random.choice([1, 4, NEVER]),
        queue_deadline_s=_some(random, 0.3),
        shed_queue=_some(random, 1.0, 4.0),
        shed_ttft_s=_some(random, 0.2),
        shed_keep=random.choice([0, 1]),
        clock_s=random.choice([0.0, 86400.0 - 1.0]),
    )


def gateway_world(random: Random) -> Plan:
    """A small world whose gateway has any of the policies, in any combination."""
    plan = small_world(random)
    n = len(plan.backends)
    extras = _Extras([_priced(random, backend, b, n) for b, backend in enumerate(plan.backends)])
    desk = extras.add(ApiSpec(Distribution.fixed(0.0), Distribution.fixed(0.0)))
    rules: list[RuleSpec] = []
    caches = _caches(random, extras, len(plan.classes))
    policies = [_policy(random, plan, c, extras, rules, caches, n) for c in range(len(plan.classes))]
    width = len(extras.backends)
    if random.random() < 0.7:
        policies = [
            policy
            and replace(
                policy,
                quality=[
                    [np.linspace(random.random(), random.random(), QUALITY_POINTS).tolist() for _ in range(width)]
                    for _ in policy.tier_weights
                ],
            )
            for policy in policies
        ]
    pad = [0.0] * (width - n)
    # Only classes with policies are held to limits.
    limits = [_limit(random, plan, n, width) for _ in range(random.choice([0, 1, 2]))]
    limits = [
        replace(
            limit,
            of_tenants=[row if policies[c] else [-1] * len(row) for c, row in enumerate(limit.of_tenants)],
        )
        for limit in limits
    ]
    if any(limit.of_backends and limit.over == a.DEGRADE for limit in limits):
        # A fallback that leads back to the limit would be a circle, which a scenario may not have.
        extras.backends = [replace(backend, fallback=-1) for backend in extras.backends]
    return replace(
        plan,
        classes=tuple(replace(cls, route=[*cls.route, *pad]) for cls in plan.classes),
        backends=tuple(extras.backends),
        gateway=_gateway(random, plan.gateway, n, desk),
        orders=tuple(replace(order, weights=(*order.weights, *pad)) for order in plan.orders),
        policies=tuple(policies),
        rules=tuple(rules),
        caches=tuple(caches),
        limits=tuple(limits),
    )
