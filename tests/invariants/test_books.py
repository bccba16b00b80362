"""Nothing is lost and nothing is made up (DESIGN.md I1–I4, I6, I7): worlds are audited between events and the end."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest
from audit import audit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_worlds import Plan, Run, run, small_world

from simlab.engine import PoolSpec
from simlab.engine import arrays as a

END_S = 1e6
"""Long after everything has ended."""

worlds = st.builds(small_world, st.randoms(use_true_random=False))
stops = st.lists(st.integers(0, 9_000_000).map(lambda us: (us + 0.7) * 1e-6), max_size=8)
quick = settings(
    deadline=None, max_examples=500, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)

OUTCOMES = {
    a.OK: "succeeded",
    a.ERROR: "failed",
    a.RATE_LIMITED: "rate_limited",
    a.TIMED_OUT: "timed_out",
    a.REJECTED: "rejected",
    a.CANCELLED: "cancelled",
}


def check_attempts(done: Run) -> None:
    """The ledger's cells are the log, added up."""
    w = done.world
    for cell in w.cells:
        mine = done.of(cls=cell["cls"], tenant=cell["tenant"], backend=cell["backend"], reason=cell["reason"])
        assert cell["attempts"] == len(mine)
        for code, name in OUTCOMES.items():
            assert cell[name] == (mine["outcome"] == code).sum()
        sent = [a.OK, a.TIMED_OUT] + ([a.ERROR] if w.backends[cell["backend"]]["kind"] == a.POOL else [])
        billable = mine[np.isin(mine["outcome"], sent) & ((mine["output_tokens"] > 0) | (mine["outcome"] == a.OK))]
        assert cell["output_tokens"] == billable["output_tokens"].sum()
        assert cell["prompt_tokens"] >= billable["prompt_tokens"].sum()
        assert cell["prompt_tokens"] >= cell["cached_tokens"] >= 0
        assert cell["long_prompt_tokens"] <= cell["prompt_tokens"]
        assert cell["long_output_tokens"] <= cell["output_tokens"]
        assert cell["work_s"] >= 0
    windows = {name: w.windows[name].sum(axis=0) for name in ("prompt_tokens", "output_tokens")}
    for b in range(len(w.backends)):
        mine = w.cells[w.cells["backend"] == b]
        assert windows["output_tokens"][b] == mine["output_tokens"].sum()
        assert windows["prompt_tokens"][b] == mine["prompt_tokens"].sum()


def check_tasks(done: Run) -> None:
    """Each task ends once: its last attempt in the log says how; tenants, windows and histograms count the same."""
    w = done.world
    total, measured = w.tasks[1], w.tasks[0]
    for c in range(len(w.classes)):
        mine = done.of(cls=c)
        assert total[c]["succeeded"] == (mine["outcome"] == a.OK).sum()
        tasks = len(np.unique(mine["task"]))
        assert total[c]["arrived"] >= tasks
        retried = np.bincount(mine["task"])
        assert (retried <= w.gateway[0]["max_attempts"]).all()
        for task in np.flatnonzero(retried > 1):
            attempts = mine[mine["task"] == task]
            assert attempts["attempt"].tolist() == list(range(len(attempts)))
            assert (attempts["outcome"][:-1] != a.OK).all()
            assert (np.diff(attempts["started_s"]) >= 0).all()
            assert len(set(attempts["arrival_s"])) == 1
        tenants = w.tenants[w.tenants["cls"] == c]
        for name in ("arrived", "succeeded", "failed", "good"):
            assert tenants[name].sum() == measured[c][name]
        assert measured[c]["good"] <= measured[c]["succeeded"]
        for metric in (0, 3):
            assert w.hist_count[metric, c].sum() == measured[c]["succeeded"]
    assert w.windows["finished"].sum() == total["succeeded"].sum()
    assert w.windows["failed"].sum() == total["failed"].sum()
    assert w.windows["arrived"].sum() == total["arrived"].sum()
    assert (w.hist.sum(axis=3) == w.hist_count).all()
    assert w.hist.min() >= 0
    for i, metric in enumerate((0, 3)):
        assert w.window_hist[:, i].sum() == w.hist_count[metric].sum()
    late = done.log[(done.log["outcome"] == a.OK) & (done.log["arrival_s"] >= done.plan.warmup_s)]
    for metric, column in ((0, "first_token_s"), (3, "finish_s")):
        assert w.hist_sum[metric].sum() == pytest.approx((late[column] - late["arrival_s"]).sum(), rel=1e-9, abs=1e-9)


def check_times(done: Run) -> None:
    """Time never runs backward for a request (I3)."""
    log = done.log
    assert (log["arrival_s"] <= log["started_s"] + a.TIME_EPS_S).all()
    assert (log["started_s"] <= log["finish_s"] + a.TIME_EPS_S).all()
    ok = log[log["outcome"] == a.OK]
    assert (ok["started_s"] <= ok["first_token_s"] + a.TIME_EPS_S).all()
    assert (ok["first_token_s"] <= ok["finish_s"] + a.TIME_EPS_S).all()
    assert (ok["output_tokens"] >= 1).all()
    assert (log["cached_tokens"] >= 0).all()
    on_pool = log[np.isin(log["backend"], np.flatnonzero(done.world.backends["kind"] == a.POOL))]
    assert (on_pool["cached_tokens"] < on_pool["prompt_tokens"]).all()


def check_time_integrals(done: Run) -> None:
    """Busy, up, waiting and running time of the windows are those of the replicas and of the requests (I6)."""
    w = done.world
    now = done.engine.now
    for b, be in enumerate(w.backends):
        if be["kind"] != a.POOL:
            continue
        mine = w.windows[:, b]
        reps = w.reps[(w.reps["backend"] == b) & (w.reps["state"] != a.UNLEASED)]
        served = reps[np.isfinite(reps["ready_s"])]
        up_s = (np.minimum(served["stop_s"], now) - served["ready_s"]).sum()
        assert mine["up_s"].sum() == pytest.approx(up_s, rel=1e-9, abs=1e-9)
        assert mine["busy_s"].sum() == pytest.approx(reps["busy_s"].sum(), rel=1e-9, abs=1e-9)
        assert (mine["busy_s"] <= mine["up_s"] + 1e-9).all()
        assert (mine["kv_block_s"] <= mine["kv_total_block_s"] + 1e-6).all()
        assert (mine["kv_block_s"] >= -1e-9).all()
        if done.plan.ends and now == END_S:
            log = done.of(backend=b)
            inside = log[~np.isin(log["outcome"], (a.REJECTED,))]
            over = np.where(inside["outcome"] == a.OK, be["overhead_s"], 0.0)
            stay_s = float((inside["finish_s"] - inside["started_s"] - over).sum())
            assert mine["waiting_s"].sum() + mine["running_s"].sum() == pytest.approx(stay_s, rel=1e-6, abs=1e-6)


def check_end(done: Run) -> None:
    """When all is over nothing is held: no slot, timer that matters, segment, hold or block."""
    w = done.world
    state = w.state[0]
    assert state["in_flight"] == 0
    total = w.tasks[1]
    assert (total["arrived"] == total["succeeded"] + total["failed"]).all()
    assert (w.slots[: state["n_slots"]]["state"] == a.FREE).all()
    assert state["spare_segs"] == state["n_segs"]
    assert state["n_timers"] == 0
    assert (w.slots[: state["n_slots"]]["run"] == a.NONE).all()
    leased = w.reps[~np.isin(w.reps["state"], (a.UNLEASED,))]
    blocks = w.backends["kv_blocks"][leased["backend"]] - 1
    assert (leased["free"] == blocks).all()
    assert (w.blocks["refs"] == 0).all()
    assert (leased["stop_s"][leased["state"] == a.DRAINING] < math.inf).all()
    for b, be in enumerate(w.backends):
        if be["kind"] == a.POOL and not done.plan.orders:
            ok = done.of(backend=b)
            mine = leased[leased["backend"] == b]
            if (ok["outcome"] == a.OK).all():
                assert mine["decode_tokens"].sum() + len(ok) == ok["output_tokens"].sum()
                assert mine["cached_tokens"].sum() == ok["cached_tokens"].sum()
                assert mine["preemptions"].sum() == ok["preemptions"].sum()
                if not ok["preemptions"].any():
                    computed = (ok["prompt_tokens"] - ok["cached_tokens"]).sum()
                    assert mine["prefill_tokens"].sum() == computed


def check(plan: Plan, where: list[float]) -> None:
    """Everything of one world."""
    halfway = run(plan, where, audit)
    for look in (check_attempts, check_tasks, check_times, check_time_integrals):
        look(halfway)
    if plan.ends:
        done = run(plan, where, audit, until=END_S)
        for look in (check_attempts, check_tasks, check_times, check_time_integrals, check_end):
            look(done)


@quick
@given(worlds, stops)
def test_the_books_of_any_world_balance(plan: Plan, where: list[float]) -> None:
    check(plan, where)


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(10))
def test_the_books_of_thousands_of_worlds_balance(batch: int) -> None:
    for seed in range(1000 * batch, 1000 * batch + 1000):
        random = Random(seed)
        plan = small_world(random)
        check(plan, [random.uniform(0.0, plan.horizon_s) for _ in range(random.randint(0, 5))])


def test_the_makers_of_worlds_reach_what_they_should() -> None:
    """A test that meets no retry, no preemption and no cache hit would prove little."""
    met = {"ok": 0, "error": 0, "limited": 0, "timed out": 0, "rejected": 0, "retried": 0, "preempted": 0, "cached": 0}
    for seed in range(200):
        plan = small_world(Random(seed))
        if not any(isinstance(backend, PoolSpec) for backend in plan.backends):
            continue
        log = run(plan).log
        for name, code in zip(met, (a.OK, a.ERROR, a.RATE_LIMITED, a.TIMED_OUT, a.REJECTED), strict=False):
            met[name] += int((log["outcome"] == code).sum())
        met["retried"] += int((log["attempt"] > 0).sum())
        met["preempted"] += int(log["preemptions"].sum())
        met["cached"] += int((log["cached_tokens"] > 0).sum())
    assert min(met.values()) >= 10, met
