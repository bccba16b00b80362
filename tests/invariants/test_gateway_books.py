"""Nothing is lost and nothing is made up behind a gateway with any policies (DESIGN.md I1, I3, I4)."""

from __future__ import annotations

import math
from collections import Counter
from random import Random
from typing import Any

import numpy as np
import pytest
from audit import IN_FLIGHT, audit_backends, chain
from gateway_worlds import gateway_world
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_worlds import Plan, Run, run

from simlab.engine import ApiSpec, Engine
from simlab.engine import arrays as a

END_S = 1e7
"""Long after everything has ended, days without budget included."""

NEARLY = {"rel": 1e-9, "abs": 1e-9}
OUTCOMES = {
    a.OK: "succeeded", a.ERROR: "failed", a.RATE_LIMITED: "rate_limited", a.TIMED_OUT: "timed_out",
    a.REJECTED: "rejected", a.CANCELLED: "cancelled",
}  # fmt: skip


def audit_gateway(engine: Engine) -> None:
    """Checks slots, tickets, limits, lines and stores between two events.

    Raises:
        AssertionError: something does not add up.
    """
    w = engine.world
    audit_backends(engine)
    state = w.state[0]
    slots = w.slots[: state["n_slots"]]
    tickets = w.tickets[: state["n_slots"]] if len(w.tickets) > 1 else None
    free = chain(w.slots, state["free_slot"])
    assert sorted(free) == np.flatnonzero(slots["state"] == a.FREE).tolist()
    busy = np.isin(slots["state"], IN_FLIGHT)
    tasks = busy.copy()
    if tickets is not None:
        policed = w.classes["policed"][slots["cls"]] == 1
        tasks &= ~policed | (tickets["parent"] == a.NONE)
        _kids(tickets, busy & policed)
    assert state["in_flight"] == tasks.sum()
    total = w.tasks[1]
    for c in range(len(w.classes)):
        open_tasks = total[c]["arrived"] - total[c]["succeeded"] - total[c]["failed"]
        assert open_tasks == (tasks & (slots["cls"] == c)).sum()
    used = sum(len(chain(w.segs, s["segs"])) for s in slots if s["state"] != a.FREE)
    assert used + state["spare_segs"] == state["n_segs"]
    watched = chain(w.slots, state["timeout_head"], "tnext")
    assert watched[::-1] == chain(w.slots, state["timeout_tail"], "tprev")
    assert (w.slots["started_s"][watched] + w.gateway[0]["timeout_s"] > state["now"] - a.TIME_EPS_S).all()
    if tickets is not None:
        _limits(engine, slots, tickets, tasks)
    _stores(w)


def _kids(tickets: Any, busy: Any) -> None:
    for slot in np.flatnonzero(busy):
        parent, kid = tickets[slot]["parent"], tickets[slot]["kid"]
        if parent >= 0:
            assert tickets[parent]["kid"] == slot
            assert tickets[parent]["parent"] == a.NONE
        if kid != a.NONE:
            assert tickets[kid]["parent"] == slot


def _limits(engine: Engine, slots: Any, tickets: Any, tasks: Any) -> None:
    w, plan_limits = engine.world, engine._spec.limits
    if not plan_limits:
        return
    inside = Counter[int]()
    for slot in np.flatnonzero(np.isin(slots["state"], IN_FLIGHT)):
        c, ticket = slots[slot]["cls"], tickets[slot]
        policy = w.policies[c]
        if w.classes["policed"][c] == 0:
            continue
        if tasks[slot]:
            at = policy["limits_at"] + slots[slot]["tenant"] * policy["limits_n"]
            inside.update(int(w.limit_places[at + i]) for i in range(policy["limits_n"]) if ticket["holds"] >> i & 1)
        if ticket["lane"] != a.NONE:
            be = w.backends[ticket["waits_for"]]
            at, n = be["limits_at"], be["keys"]
            inside.update(int(w.limit_places[at + i * n + ticket["lane"]]) for i in range(be["limits_n"]))
    for i, allowance in enumerate(w.allowances):
        assert allowance["in_flight"] == inside[i]
        limit = w.limits[allowance["limit"]]
        if limit["concurrency"]:
            assert allowance["in_flight"] <= limit["concurrency"]
    waiting = 0
    for line in w.lines:
        members = chain(w.slots, line["head"])
        assert members[::-1] == chain(w.slots, line["tail"], "prev")
        assert len(members) == line["waiting"] <= w.gateway[0]["length"]
        waiting += len(members)
    policed = w.classes["policed"][slots["cls"]] == 1
    assert waiting == (policed & np.isin(slots["state"], IN_FLIGHT) & (tickets["line"] != a.NONE)).sum()


def _stores(w: Any) -> None:
    if len(w.stores) == 1:
        return
    for i, store in enumerate(w.stores):
        members = chain(w.entries, store["newest"], "older")
        assert len(members) == store["size"]
        assert all(w.entries[e]["store"] == i for e in members)
        if store["capacity"]:
            assert store["size"] <= store["capacity"]
    assert w.stores["size"].sum() + w.state[0]["spare_entries"] == w.state[0]["n_entries"]
    assert (w.savings["hits"] <= w.savings["lookups"]).all()
    assert (w.savings["wrong"] <= w.savings["hits"]).all()


def prices(plan: Plan, row: Any) -> tuple[float, float]:
    """What a billed call of so many tokens costs at an API, and the price of nothing but its tokens."""
    spec = plan.backends[row["backend"]]
    assert isinstance(spec, ApiSpec)
    long = spec.long_tokens > 0 and row["prompt_tokens"] > spec.long_tokens
    price = spec.long_price if long else spec.price
    fresh = row["prompt_tokens"] - row["cached_tokens"] - row["written_tokens"]
    tokens = (fresh, row["cached_tokens"], row["written_tokens"], row["output_tokens"])
    usd = sum(n * of for n, of in zip(tokens, (price.prompt, price.cached, price.written, price.output), strict=True))
    return float(spec.usd_call + usd), float(usd)


def check_attempts(done: Run) -> None:
    """Cells are the log, added up: attempts by outcome, tokens, money; what was lost is a part of what was spent."""
    w, plan = done.world, done.plan
    log = done.log
    spent = np.zeros(len(w.backends))
    for cell in w.cells:
        mine = done.of(cls=cell["cls"], tenant=cell["tenant"], group=cell["group"], backend=cell["backend"],
                       reason=cell["reason"])  # fmt: skip
        assert cell["attempts"] == len(mine) == sum(int(cell[name]) for name in OUTCOMES.values())
        for code, name in OUTCOMES.items():
            assert cell[name] == (mine["outcome"] == code).sum()
        usd = float(mine["usd"].sum())
        spent[cell["backend"]] += usd
        lost = sum(float(cell[f"{kind}_usd"]) for kind in ("timed_out", "cancelled", "discarded"))
        lost_work = sum(float(cell[f"{kind}_work_s"]) for kind in ("timed_out", "cancelled", "discarded"))
        assert lost <= cell["lost_usd"] + 1e-9
        assert lost_work <= cell["lost_work_s"] + 1e-9
        assert cell["lost_work_s"] <= cell["work_s"] + 1e-9
        spec = plan.backends[cell["backend"]]
        if isinstance(spec, ApiSpec):
            assert cell["lost_usd"] <= usd + 1e-9
            tokens = _cell_usd(cell, spec)
            billed = int((mine["usd"] > 0).sum())
            assert tokens + billed * spec.usd_call == pytest.approx(usd, **NEARLY)
            for row in mine[mine["usd"] > 0]:
                assert row["usd"] == pytest.approx(prices(plan, row)[0], **NEARLY)
        else:
            assert cell["work_s"] * spec.usd_work_s == pytest.approx(usd, **NEARLY)
    assert spent.sum() == pytest.approx(float(log["usd"].sum()), **NEARLY)
    assert w.cells["attempts"].sum() == len(log)


def _cell_usd(cell: Any, spec: ApiSpec) -> float:
    usd = 0.0
    for price, prefix, other in ((spec.long_price, "long_", ""), (spec.price, "", "long_")):
        n = {name: int(cell[f"{prefix}{name}_tokens"]) for name in ("prompt", "cached", "written", "output")}
        if other:
            n = {name: n[name] - int(cell[f"{other}{name}_tokens"]) for name in n}
        fresh = n["prompt"] - n["cached"] - n["written"]
        assert min(fresh, *n.values()) >= 0
        usd += fresh * price.prompt + n["cached"] * price.cached + n["written"] * price.written
        usd += n["output"] * price.output
    return usd


def check_tasks(done: Run) -> None:
    """Every task ends once, in one cell; nobody tries more often than the policies allow."""
    w, g = done.world, done.plan.gateway
    total = w.tasks[1]
    for c in range(len(w.classes)):
        mine = w.cells[w.cells["cls"] == c]
        assert mine["tasks_right"].sum() == total[c]["succeeded"]
        assert mine["tasks_wrong"].sum() == total[c]["wrong"]
        assert (mine["tasks_wrong"] + mine["tasks_failed"]).sum() == total[c]["failed"]
        log = done.of(cls=c)
        policy = done.plan.policies[c]
        asked = log[log["reason"] != a.HELPER]
        numbers = asked["task"] * 100_000 + asked["attempt"]
        assert len(np.unique(numbers)) == len(numbers), "two attempts of a task with one number"
        if policy is None:
            continue
        for reason, most in ((a.FIRST, 1), (a.HEDGE, g.hedge_max), (a.DUPLICATE, policy.resends)):
            made = np.bincount(asked["task"][asked["reason"] == reason], minlength=1)
            assert made.max() <= most, reason
        if policy.caps is not None:
            paid = asked[asked["usd"] > 0]
            if not g.resume:
                assert (paid["prompt_tokens"] <= policy.caps.prompt).all()
            assert (paid["output_tokens"] <= policy.caps.output).all()
            tries = asked[~np.isin(asked["reason"], (a.FIRST, a.DUPLICATE))]
            assert (tries["attempt"] <= policy.caps.tries + policy.resends).all()
    if g.retry_budget > 0 and all(policy is not None for policy in done.plan.policies):
        earned = g.retry_burst + g.retry_budget * total["arrived"].sum()
        assert (done.log["reason"] == a.RETRY).sum() <= earned + 1e-9
    assert w.windows["finished"].sum() + w.windows["failed"].sum() == (total["succeeded"] + total["failed"]).sum()
    for i, cache in enumerate(done.plan.caches):
        del i
        hits = w.savings.reshape(-1, a.LAYERS)["hits"][:, cache.layer].sum()
        answered = done.of(backend=cache.backend, reason=a.FIRST)
        assert len(answered) <= hits
        assert not answered["usd"].any()


def check_times(done: Run) -> None:
    """Time never runs backward for a call (I3)."""
    log = done.log
    assert (log["arrival_s"] <= log["started_s"] + a.TIME_EPS_S).all()
    assert (log["started_s"] <= log["finish_s"] + a.TIME_EPS_S).all()
    ok = log[log["outcome"] == a.OK]
    assert (ok["started_s"] <= ok["first_token_s"] + a.TIME_EPS_S).all()
    assert (ok["first_token_s"] <= ok["finish_s"] + a.TIME_EPS_S).all()


def check_end(done: Run) -> None:
    """When all is over nothing is held anywhere."""
    w = done.world
    total = w.tasks[1]
    assert (total["arrived"] == total["succeeded"] + total["failed"]).all()
    assert w.state[0]["in_flight"] == 0
    assert (w.slots["state"] == a.FREE).all()
    assert w.state[0]["spare_segs"] == w.state[0]["n_segs"]
    assert (w.allowances["in_flight"] == 0).all()
    assert (w.lines["waiting"] == 0).all()
    assert (w.backends["in_flight"] == 0).all()
    assert (w.backends["queued"] == 0).all()
    assert (w.reps["n_running"] + w.reps["n_waiting"] == 0).all()
    first = done.of(reason=a.FIRST)
    for c, policy in enumerate(done.plan.policies):
        if policy is None:
            assert (first["cls"] == c).sum() == total[c]["arrived"]
    for cache in done.plan.caches:
        if math.isinf(done.plan.gateway.deadline_s):
            hits = w.savings.reshape(-1, a.LAYERS)["hits"][:, cache.layer].sum()
            assert len(done.of(backend=cache.backend, reason=a.FIRST)) == hits


def check(plan: Plan, where: list[float]) -> None:
    """Everything of one world."""
    halfway = run(plan, where, audit_gateway)
    for look in (check_attempts, check_tasks, check_times):
        look(halfway)
    if plan.ends:
        done = run(plan, where, audit_gateway, until=END_S)
        for look in (check_attempts, check_tasks, check_times, check_end):
            look(done)


stops = st.lists(st.integers(0, 9_000_000).map(lambda us: (us + 0.7) * 1e-6), max_size=4)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.builds(gateway_world, st.randoms(use_true_random=False)), stops)
def test_the_books_of_any_gateway_balance(plan: Plan, where: list[float]) -> None:
    check(plan, where)


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(10))
def test_the_books_of_thousands_of_gateways_balance(batch: int) -> None:
    for seed in range(500 * batch, 500 * batch + 500):
        random = Random(seed)
        plan = gateway_world(random)
        check(plan, [random.uniform(0.0, plan.horizon_s) for _ in range(random.randint(0, 4))])
