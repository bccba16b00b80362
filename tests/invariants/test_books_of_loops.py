"""The books of agents and of latency parts balance in any small world, beside time-outs, hedges, limits and caps."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from audit import audit_backends
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_worlds import Plan, Run, run, small_world
from test_books import END_S, OUTCOMES

from simlab.draws import Distribution
from simlab.engine import AgentSpec, ApiSpec, CapSpec, LimitSpec, PolicySpec
from simlab.engine import arrays as a

fixed, exponential = Distribution.fixed, Distribution.exponential
TOOL_USD = 0.5


def _agent(random: Random, tools: int) -> AgentSpec:
    return AgentSpec(
        Distribution.geometric(random.choice([1.0, 2.0, 4.0])),
        tools,
        random.choice([fixed(0.0), exponential(0.1)]),
        fixed(random.randint(1, 9)),
        parallel=random.choice([None, fixed(2), Distribution.geometric(2.0)]),
        results=fixed(random.randint(0, 20)),
        failure=random.choice([0.0, 0.3]),
        retries=random.randint(0, 2),
        max_steps=random.choice([1 << 40, 0, 2]),
        partial=random.random() < 0.5,
        runaway_share=random.choice([0.0, 0.2]),
    )


def _policy(random: Random, tools: int, looped: bool) -> PolicySpec:
    agent = _agent(random, tools) if looped else None
    caps = CapSpec(
        prompt=random.choice([1 << 40, 60]),
        cut=random.random() < 0.5,
        tries=random.choice([1 << 40, 1]),
        usd=random.choice([math.inf, 1.2]),
    )
    if agent is not None and agent.runaway_share and agent.max_steps > 2:
        agent = replace(agent, max_steps=9)  # something has to stop it
    latency = [random.choice([fixed(0.0), exponential(0.05)]) for _ in range(6)]
    return PolicySpec(
        agent=agent,
        timed=True,
        latency=latency if random.random() < 0.7 else (),
        caps=caps if random.random() < 0.5 else None,
        patience_s=math.inf if looped else random.choice([math.inf, 0.3]),
        resends=0 if looped else 1,
    )


def looped_world(random: Random) -> Plan:
    """A small world whose gateway has policies, and some of whose classes have agents."""
    plan = small_world(random)
    tools = len(plan.backends)
    classes = tuple(replace(cls, route=[*cls.route, 0.0, 0.0]) for cls in plan.classes)
    plain = [all(chunk.prompt_tokens is None for chunk in chunks) and not cls.segmented for cls, chunks in
             zip(plan.classes, plan.chunks, strict=True)]  # fmt: skip
    limits = []
    if random.random() < 0.4:
        over = random.choice([a.REFUSE, a.QUEUE])
        of_tenants = [[0] * len(cls.tenant_weights) for cls in classes]
        limits.append(LimitSpec(of_tenants=of_tenants, concurrency=random.randint(1, 4), over=over))
    gateway = replace(
        plan.gateway,
        refused_at=tools + 1,
        deadline_s=random.choice([math.inf, 3.0]),
        hedge_s=random.choice([math.inf, 0.2]),
        abort=random.random() < 0.7,
        resume=random.random() < 0.5,
        queue_deadline_s=random.choice([math.inf, 1.0]),
    )
    return replace(
        plan,
        classes=classes,
        backends=(*plan.backends, ApiSpec(fixed(0.0), fixed(0.0), usd_call=TOOL_USD), ApiSpec(fixed(0.0), fixed(0.0))),
        gateway=gateway,
        orders=(),
        policies=tuple(_policy(random, tools, mine and random.random() < 0.8) for mine in plain),
        limits=tuple(limits),
    )


def check_books(done: Run) -> None:
    """Attempts and money of the cells are the log's, and parts of latencies add up to them."""
    w = done.world
    for cell in w.cells:
        mine = done.of(cls=cell["cls"], tenant=cell["tenant"], backend=cell["backend"], reason=cell["reason"])
        assert cell["attempts"] == len(mine)
        for code, name in OUTCOMES.items():
            assert cell[name] == (mine["outcome"] == code).sum()
    tools = len(w.backends) - 2
    calls = done.of(backend=tools)
    assert len(calls) == w.counters["tool_calls"].sum()
    assert (calls["outcome"] == a.ERROR).sum() == w.counters["tool_failures"].sum()
    assert calls["usd"].sum() == pytest.approx(TOOL_USD * len(calls))
    total = w.tasks[1]
    ended = total["succeeded"] + total["failed"]
    looped = w.policies["looped"] == 1
    assert (w.counters["loops"][looped] == ended[looped]).all()
    cells = w.cells
    assert cells["tasks_right"].sum() + cells["tasks_wrong"].sum() + cells["tasks_failed"].sum() == ended.sum()
    for metric, hist in ((0, 0), (1, 3)):
        for c in range(len(w.classes)):
            rows = w.spans[metric, c]
            assert rows[:, 0].sum() == w.hist_count[hist, c].sum()
            assert rows[:, 1:].sum() == pytest.approx(w.hist_sum[hist, c].sum(), rel=1e-9, abs=1e-6)
            assert rows.min() >= -1e-6


def check_end(done: Run) -> None:
    """When all is over nothing is held."""
    w = done.world
    state = w.state[0]
    total = w.tasks[1]
    assert (total["arrived"] == total["succeeded"] + total["failed"]).all()
    assert (w.slots[: state["n_slots"]]["state"] == a.FREE).all()
    assert state["spare_segs"] == state["n_segs"]
    assert (w.blocks["refs"] == 0).all()
    leased = w.reps[w.reps["state"] != a.UNLEASED]
    assert (leased["free"] == w.backends["kv_blocks"][leased["backend"]] - 1).all()
    assert (w.allowances["in_flight"] == 0).all()


worlds = st.builds(looped_world, st.randoms(use_true_random=False))
stops = st.lists(st.integers(0, 9_000_000).map(lambda us: (us + 0.7) * 1e-6), max_size=8)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(worlds, stops)
def test_the_books_of_any_loops_balance(plan: Plan, where: list[float]) -> None:
    check_books(run(plan, where, audit_backends))
    if plan.ends:
        done = run(plan, where, audit_backends, until=END_S)
        check_books(done)
        check_end(done)


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(5))
def test_the_books_of_thousands_of_loops_balance(batch: int) -> None:
    for seed in range(500 * batch, 500 * batch + 500):
        plan = looped_world(Random(seed))
        if plan.ends:
            done = run(plan, [], audit_backends, until=END_S)
            check_books(done)
            check_end(done)


def test_the_makers_of_loops_reach_what_they_should() -> None:
    met: dict[str, int] = dict.fromkeys(("tool_calls", "tool_failures", "stopped_steps", "stopped_usd", "runaways"), 0)
    met |= {"hedged": 0, "tried again": 0, "read from a cache": 0}
    for seed in range(100):
        done = run(looped_world(Random(seed)))
        for name in list(met)[:5]:
            met[name] += int(done.world.counters[name].sum())
        met["hedged"] += len(done.of(reason=a.HEDGE))
        met["tried again"] += len(done.of(reason=a.RETRY))
        met["read from a cache"] += int((done.log["cached_tokens"] > 0).sum())
    assert min(met.values()) >= 10, met
    assert np.isfinite(list(met.values())).all()
