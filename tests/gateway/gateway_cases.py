"""Gateways of every kind for twin and engine, and what must be the same of both."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
from gateway_twin import twin
from small_worlds import Plan, Run, run
from twin_desk import Row, TwinRun

from simlab.draws import Distribution
from simlab.engine import (
    QUALITY_POINTS,
    AnswerCacheSpec,
    ApiSpec,
    CapSpec,
    ChoiceSpec,
    ClassSpec,
    GatewaySpec,
    LimitSpec,
    PolicySpec,
    RuleSpec,
    TokenPrice,
)
from simlab.engine import arrays as a
from simlab.workload import Chunk

END_S = 1e7
TINY_S = 1e-6
DESK = ApiSpec(Distribution.fixed(0.0), Distribution.fixed(0.0))


def _law(random: Random, mean: float) -> Distribution:
    kind = random.randint(0, 2)
    if kind == 0:
        return Distribution.fixed(mean * random.uniform(0.7, 1.3))
    if kind == 1:
        return Distribution.exponential(mean)
    return Distribution.lognormal(mean, 2.0 * mean)


def _api(random: Random, fallback: int) -> ApiSpec:
    concurrency = random.choice([0, 0, 2, 5])
    price = TokenPrice(prompt=random.choice([1e-3, 2e-3]), output=random.choice([3e-3, 1e-2]))
    return ApiSpec(
        ttft=_law(random, random.choice([0.2, 1.0])),
        itl=random.choice([Distribution.fixed(0.0), _law(random, 0.05)]),
        ttft_per_token_s=random.choice([0.0, 1e-3]),
        concurrency=concurrency,
        reject_full=concurrency > 0 and random.random() < 0.4,
        rpm=random.choice([0.0, 0.0, 40.0]),
        tpm=random.choice([0.0, 0.0, 2000.0]),
        error_probability=random.choice([0.0, 0.0, 0.15, 0.6]),
        break_probability=random.choice([0.0, 0.0, 0.3]),
        usd_call=random.choice([0.0, 0.01]),
        price=price,
        fallback=fallback,
    )


def _gateway(random: Random, n: int, desk: int) -> GatewaySpec:
    def some(*values: float) -> float:
        return random.choice([math.inf, *values])

    breaker = random.choice(["", "", "row", "ratio"])
    return GatewaySpec(
        timeout_s=some(1.3, 4.1),
        max_attempts=random.randint(1, 4),
        backoff_s=random.choice([0.113, 0.71]),
        max_backoff_s=2.3,
        jitter=random.choice([0.0, 0.25, 1.0]),
        retry_rate_limited=random.random() < 0.7,
        retry_error=random.random() < 0.8,
        retry_timed_out=random.random() < 0.7,
        retry_rejected=random.random() < 0.3,
        ttft_timeout_s=some(0.57),
        deadline_s=some(3.7),
        abort=random.random() < 0.6,
        retry_budget=random.choice([0.0, 0.0, 0.15]),
        retry_burst=random.choice([1.0, 4.0]),
        hedge_s=some(0.41, 0.83),
        hedge_max=random.randint(1, 2),
        hedge_to=random.choice([-1, random.randrange(n)]),
        breaker_consecutive=3 if breaker == "row" else 0,
        breaker_ratio=0.4 if breaker == "ratio" else 0.0,
        breaker_window_s=9.0,
        breaker_minimum=4,
        breaker_cool_down_s=random.choice([1.7, 6.1]),
        breaker_probes=random.randint(1, 2),
        dedupe=random.random() < 0.5,
        resume=random.random() < 0.5,
        refused_at=desk,
        order=random.choice([a.FIFO, a.FAIR, a.BY_PRIORITY]),
        length=random.choice([1, 3, 1000]),
        queue_deadline_s=some(2.9),
        shed_queue=some(2.0),
        shed_keep=random.choice([0, 5]),
        clock_s=random.choice([0.0, 86400.0 - 31.0]),
    )


def _limit(random: Random, tenants: int, n: int, backends: int) -> LimitSpec:
    calls = random.random() < 0.4
    over = random.choice([a.REFUSE, a.QUEUE, a.QUEUE, a.DEGRADE])
    amounts: dict[str, Any] = {}
    while not amounts:
        if random.random() < 0.4:
            amounts["rpm"], amounts["burst"] = 30.0, random.choice([0.0, 2.0])
        if random.random() < 0.4:
            amounts["tpm"], amounts["burst_tokens"] = 1500.0, random.choice([0.0, 60.0])
        if random.random() < 0.4:
            amounts["concurrency"] = random.choice([1, 3])
        if random.random() < 0.15:
            amounts["requests_per_day"] = 25
        if random.random() < 0.15:
            amounts["usd_per_day"] = 2.0
    degrade_to = random.randrange(n) if over == a.DEGRADE else -1
    if calls:
        members = [random.choice([-1, 0, 0]) for _ in range(n)]
        if max(members) < 0:
            members[0] = 0
        of_backends = members + [-1] * (backends - n)
        keys = random.choice([1, 1, 3])
        return LimitSpec(over=over, degrade_to=degrade_to, of_backends=of_backends, keys=keys, **amounts)
    of_tenants = random.choice([[0] * tenants, list(range(tenants)), [-1] + [0] * (tenants - 1)])
    if max(of_tenants) < 0:
        of_tenants = [0] * tenants
    return LimitSpec(over=over, degrade_to=degrade_to, of_tenants=[of_tenants], **amounts)


def gateway_plan(random: Random, requests: int = 120) -> Plan:
    """A gateway with any of the policies that the twin knows, before one to three providers."""
    n = random.randint(1, 3)
    models = [_api(random, b + 1 if random.random() < 0.4 and b + 1 < n else -1) for b in range(n)]
    backends = [*models, DESK]
    desk = n
    tenants = random.randint(1, 3)
    rules: list[RuleSpec] = []
    kind = random.choice(["weights", "weights", "cascade", "classifier"])
    tiers = random.choice([1, 2])
    if kind == "cascade" and n > 1:
        levels = []
        for b in range(n - 1):
            verifier = -1
            if random.random() < 0.4:
                verifier = len(backends)
                backends.append(replace(DESK, ttft=_law(random, 0.2), usd_call=0.02))
            right, wrong = random.uniform(0.6, 1.0), random.uniform(0.0, 0.5)
            levels.append(
                ChoiceSpec(b, accept_right=right, accept_wrong=wrong, samples=random.choice([1, 3]), verifier=verifier)
            )
        rules.append(RuleSpec(a.BY_CASCADE, [*levels, ChoiceSpec(n - 1)]))
    elif kind == "classifier":
        helper = random.choice([-1, len(backends)])
        if helper >= 0:
            backends.append(replace(DESK, ttft=_law(random, 0.1), usd_call=0.003))
        guesses = [[random.uniform(0.1, 1.0) for _ in range(n)] for _ in range(tiers)]
        rules.append(RuleSpec(a.BY_CLASSIFIER, [ChoiceSpec(b) for b in range(n)], helper=helper, guesses=guesses))
    layers = random.choice([[], [], [a.EXACT], [a.SEMANTIC], [a.EXACT, a.SEMANTIC], [a.RESULTS, a.SEMANTIC]])
    caches = []
    for layer in layers:
        helper = -1
        if layer == a.SEMANTIC and random.random() < 0.5:
            helper = len(backends)
            backends.append(replace(DESK, ttft=_law(random, 0.05), price=TokenPrice(prompt=1e-5)))
        backends.append(replace(DESK, ttft=Distribution.fixed(0.007)))
        semantic = layer == a.SEMANTIC
        caches.append(
            AnswerCacheSpec(
                layer, len(backends) - 1, scope=random.choice([0, a.SAME_TENANT]), capacity=random.choice([0, 4]),
                ttl_s=[random.choice([math.inf, 7.3])], refresh=random.random() < 0.5,
                miss_s=random.choice([0.0, 0.011]), helper=helper, hit=random.choice([1.0, 0.6]) if semantic else 1.0,
                false_hit=random.choice([0.0, 0.1]) if semantic else 0.0, stated=semantic and random.random() < 0.4,
            )
        )  # fmt: skip
    quality: list[Any] = []
    if random.random() < 0.7:
        quality = [
            [np.linspace(random.random(), random.random(), QUALITY_POINTS).tolist() for _ in backends]
            for _ in range(tiers)
        ]
    limits = [_limit(random, tenants, n, len(backends)) for _ in range(random.choice([0, 0, 1, 2]))]
    if len(limits) == 2 and bool(limits[0].of_backends) == bool(limits[1].of_backends):
        # When the head of one line is looked at for the sake of another line's limit, the manual leaves open.
        limits.pop()
    if any(limit.of_backends and limit.over == a.DEGRADE for limit in limits):
        # A fallback that leads back to the limit would be a circle, which a scenario may not have.
        backends = [replace(backend, fallback=-1) for backend in backends]
    caps = None
    if random.random() < 0.3:
        caps = CapSpec(
            prompt=random.choice([1 << 40, 60]), cut=random.random() < 0.5, output=random.choice([1 << 40, 15]),
            tries=random.choice([1 << 40, 2]), usd=random.choice([math.inf, 0.2]),
        )  # fmt: skip
    patience_s = random.choice([math.inf, math.inf, 1.9])
    policy = PolicySpec(
        query_weights=[1.0 / (i + 1) for i in range(12)] if caches else [],
        difficulty=random.choice([None, Distribution.exponential(0.4)]),
        tier_weights=[1.0, 2.0][:tiers],
        quality=quality,
        rules=[[0] * tiers for _ in range(tenants)] if rules else [],
        patience_s=patience_s,
        resends=random.randint(1, 2) if patience_s < math.inf else 0,
        caches=tuple(layers),
        caps=caps,
    )
    rate = random.choice([0.3, 1.5, 4.0])
    times = np.cumsum([random.expovariate(rate) for _ in range(requests)])
    lengths = np.array([[random.randint(1, 90), random.randint(1, 30)] for _ in range(requests)], np.int64)
    weights = [random.choice([0.0, 1.0, 2.0]) for _ in range(n)]
    if not sum(weights):
        weights[0] = 1.0
    route = weights + [0.0] * (len(backends) - n)
    cls = ClassSpec(route=route, tenant_weights=[1.0, 2.0, 0.5][:tenants], priority=random.choice([0, 3]))
    return Plan(
        classes=(cls,),
        chunks=((Chunk(times, lengths[:, 0].copy(), lengths[:, 1].copy()),),),
        backends=tuple(backends),
        gateway=_gateway(random, n, desk),
        horizon_s=float(times[-1]) + 1.0,
        window_s=10.0,
        seed=random.randint(0, 1 << 40),
        policies=(policy,),
        rules=tuple(rules),
        caches=tuple(caches),
        limits=tuple(limits),
    )


def _sorted(rows: Any) -> Any:
    keys = (rows["reason"], rows["backend"], rows["started_s"].round(6), rows["attempt"], rows["task"])
    return rows[np.lexsort(keys)]


def twin_rows(seen: TwinRun) -> Any:
    """The twin's calls as an array with the log's names."""
    names = Row._fields
    dtype = [(name, "f8" if name in ("started_s", "finish_s", "usd") else "i8") for name in names]
    return np.array([tuple(row) for row in seen.rows], dtype)


def same(done: Run, seen: TwinRun) -> None:
    """Engine and twin did the same, request by request, up to the first instant whose order nobody has promised.

    Raises:
        AssertionError: they did not; it says which call is the first that differs.
    """
    w = done.world
    mine, theirs = (
        _sorted(rows[rows["finish_s"] < seen.tied_s - TINY_S]) for rows in (twin_rows(seen), done.log)
    )
    for twins, engines in zip(mine, theirs, strict=False):
        for name in mine.dtype.names:
            close = math.isclose(twins[name], engines[name], rel_tol=1e-9, abs_tol=2e-6)
            assert close, f"{name}: twin {twins}, engine {engines[list(mine.dtype.names)]}"
    assert len(mine) == len(theirs), f"twin {len(mine)} calls, engine {len(theirs)}"
    if seen.tied_s < math.inf:
        return
    tasks = w.tasks[1, 0]
    assert tasks["succeeded"] == sum(end.right for end in seen.ends)
    assert tasks["wrong"] == sum(end.answered and not end.right for end in seen.ends)
    assert tasks["arrived"] == len(seen.ends)
    for metric, name in ((0, "ttft_s"), (3, "e2e_s")):
        total = math.fsum(getattr(end, name) for end in seen.ends if end.answered)
        assert math.isclose(w.hist_sum[metric, 0].sum(), total, rel_tol=1e-6, abs_tol=1e-4), name
    assert w.policies[0]["joined"] == seen.joined
    assert w.gateway[0]["retries_refused"] == seen.retries_refused
    for name in w.counters.dtype.names:
        assert math.isclose(w.counters[0][name], seen.counters.get(name, 0), abs_tol=1e-4), name
    for record, limit in zip(w.limits, seen.limits, strict=False):
        assert {name: int(record[name]) for name in limit} == limit
    for layer, saved in seen.saved.items():
        books = w.savings.reshape(-1, a.LAYERS)[:, layer]
        for name, value in saved.items():
            assert math.isclose(books[name].sum(), value, rel_tol=1e-9, abs_tol=1e-9), f"{name} of layer {layer}"
    assert w.backends["openings"].tolist() == seen.openings


def compare(plan: Plan) -> tuple[Run, TwinRun]:
    """Runs both on the same luck and compares them."""
    done, seen = run(plan, until=END_S), twin(plan)
    same(done, seen)
    return done, seen
