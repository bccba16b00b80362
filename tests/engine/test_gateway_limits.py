"""Limits of the gateway: buckets, calls in flight, days, keys, and what is done with what is above them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from small_worlds import Plan, Run, arrivals, run

from simlab.draws import Distribution
from simlab.engine import ApiSpec, CapSpec, ClassSpec, GatewaySpec, LimitSpec, PolicySpec, TokenPrice
from simlab.engine import arrays as a

fixed = Distribution.fixed
DESK = ApiSpec(fixed(0.0), fixed(0.0))
"""Where the gateway books what it refuses itself."""
FINE = ApiSpec(fixed(1.0), fixed(0.0), price=TokenPrice(output=1.0))


def serve(
    times: list[float],
    *limits: LimitSpec,
    backends: tuple[ApiSpec, ...] = (FINE,),
    lengths: list[tuple[int, int]] | None = None,
    tenants: int = 1,
    gateway: dict[str, Any] | None = None,
    horizon_s: float = 1e6,
    log: bool = True,
    **policy: Any,
) -> Run:
    n = len(backends)
    plan = Plan(
        classes=(ClassSpec(route=[1.0] + [0.0] * n, tenant_weights=[1.0] * tenants),),
        chunks=(arrivals(times, lengths or [(10, 1)] * len(times)),),
        backends=(*backends, DESK),
        gateway=GatewaySpec(**{"refused_at": n, **(gateway or {})}),
        policies=(PolicySpec(**policy),),
        limits=limits,
        horizon_s=horizon_s,
    )
    return run(plan)


def everybody(**limit: Any) -> LimitSpec:
    """A limit that all tasks of the only class share."""
    return LimitSpec(of_tenants=[[0] * limit.pop("tenants", 1)], **limit)


def outcomes(done: Run) -> list[int]:
    """How each task's last attempt ended, in order of arrival."""
    return [int(done.of(task=task)["outcome"][-1]) for task in range(len(np.unique(done.log["task"])))]


def free_again(done: Run) -> None:
    """Nothing is held or waits when everything has ended."""
    assert (done.world.allowances["in_flight"] == 0).all()
    assert (done.world.lines["waiting"] == 0).all()
    assert (done.world.lines["head"] == a.NONE).all()
    assert (done.world.slots["state"] == a.FREE).all()
    tasks = done.world.tasks[1]
    assert (tasks["arrived"] == tasks["succeeded"] + tasks["failed"]).all()


def test_a_bucket_lets_its_burst_through_and_then_its_rate() -> None:
    times = [0.0] * 10 + [6.0, 6.0, 11.99, 12.0]
    done = serve(times, everybody(rpm=10.0, burst=4.0))
    assert outcomes(done) == [a.OK] * 4 + [a.RATE_LIMITED] * 6 + [a.OK, a.RATE_LIMITED, a.RATE_LIMITED, a.OK]
    assert done.world.limits[0]["refused"] == done.world.counters[0]["refused"] == 8
    refused = done.of(outcome=a.RATE_LIMITED)
    assert (refused["backend"] == 1).all()
    assert (refused["usd"] == 0).all()
    free_again(done)


def test_tokens_are_those_of_prompt_and_answer_and_a_large_request_leaves_a_debt() -> None:
    lengths = [(30, 10), (30, 10), (900, 100), (5, 5), (5, 5)]
    times = [0.0, 0.0, 60.0, 119.0, 60.0 + 600.0 + 6.0 + 0.01]
    # A bucket of 60, 60 a minute: 40, 40 (20 left: refused), full again at 60, 1000 leaves -940, which 10 fit in after
    # 950 s; so the last but one and the last are refused; see the next run for when it has room again.
    done = serve(times, everybody(tpm=60.0), lengths=lengths)
    assert outcomes(done) == [a.OK, a.RATE_LIMITED, a.OK, a.RATE_LIMITED, a.RATE_LIMITED]
    late = serve([*times[:3], 60.0 + 949.9, 60.0 + 950.1], everybody(tpm=60.0), lengths=lengths)
    assert outcomes(late) == [a.OK, a.RATE_LIMITED, a.OK, a.RATE_LIMITED, a.OK]


def test_concurrency_is_freed_in_whatever_way_a_task_ends() -> None:
    slow = ApiSpec(fixed(10.0), fixed(0.0), error_probability=0.3, break_probability=0.3)
    gateway = {
        "timeout_s": 12.0, "deadline_s": 25.0, "max_attempts": 3, "hedge_s": 4.0, "hedge_to": 1, "abort": False,
        "backoff_s": 1.0,
    }  # fmt: skip
    other = ApiSpec(Distribution.exponential(9.0), fixed(0.0))
    times = [0.7 * i for i in range(300)]
    done = serve(
        times, everybody(concurrency=8), LimitSpec(concurrency=5, of_backends=[0, 0], over=a.QUEUE),
        backends=(slow, other), gateway=gateway, patience_s=15.0, resends=1,
    )  # fmt: skip
    free_again(done)
    assert 0 < done.world.limits[0]["refused"] < 300
    assert done.world.limits[1]["queued"] > 0


def test_a_daily_quota_and_budget_begin_again_at_midnight() -> None:
    gateway = {"clock_s": 86400.0 - 100.0}
    times = [0.0, 10.0, 20.0, 99.0, 101.0, 102.0, 103.0]
    quota = serve(times, everybody(requests_per_day=2), gateway=gateway)
    ok, no = a.OK, a.RATE_LIMITED
    assert outcomes(quota) == [ok, ok, no, no, ok, ok, no]
    # Each answer costs 1 USD when it comes, a second later: the budget is spent after two.
    assert outcomes(serve(times, everybody(usd_per_day=2.0), gateway=gateway)) == [ok, ok, no, no, ok, ok, ok]
    assert outcomes(serve([0.0, 1.0, 2.5, 99.0], everybody(usd_per_day=1.5), gateway=gateway)) == [ok, ok, no, no]


def test_each_tenant_has_an_allowance_of_its_own() -> None:
    each = LimitSpec(requests_per_day=3, of_tenants=[[0, 1, 2, -1]])
    done = serve([float(i) for i in range(200)], each, tenants=4)
    for tenant in range(4):
        passed = (done.of(tenant=tenant)["outcome"] == a.OK).sum()
        assert passed == (3 if tenant < 3 else len(done.of(tenant=tenant)))


def test_keys_of_a_provider_are_taken_in_turn() -> None:
    keys = LimitSpec(concurrency=2, of_backends=[0, 0], keys=3)
    done = serve([0.0] * 8, keys)
    assert sorted(outcomes(done)) == [a.OK] * 6 + [a.RATE_LIMITED] * 2
    assert (done.of(outcome=a.RATE_LIMITED)["backend"] == 0).all()
    assert [int(x) for x in done.world.allowances["used"]] == [2, 2, 2]
    free_again(done)


def test_a_full_key_s_refusal_is_tried_again_when_it_says() -> None:
    limit = LimitSpec(rpm=6.0, burst=1.0, of_backends=[0])
    gateway = {"max_attempts": 2, "backoff_s": 0.0, "retry_after": True}
    done = serve([0.0, 0.0], limit, gateway=gateway)
    assert done.log["outcome"].tolist().count(a.RATE_LIMITED) == 1
    assert done.log["started_s"].max() == pytest.approx(10.0)


def test_what_is_above_a_limit_is_served_elsewhere() -> None:
    cheap = ApiSpec(fixed(0.5), fixed(0.0))
    done = serve([0.0] * 5, everybody(concurrency=2, over=a.DEGRADE, degrade_to=1), backends=(FINE, cheap))
    assert sorted(done.log["backend"]) == [0, 0, 1, 1, 1]
    assert (done.log["outcome"] == a.OK).all()
    assert done.world.limits[0]["degraded"] == 3
    calls = LimitSpec(concurrency=2, of_backends=[0, -1, -1], over=a.DEGRADE, degrade_to=1)
    done = serve([0.0] * 5, calls, backends=(FINE, cheap))
    assert sorted(done.log["backend"]) == [0, 0, 1, 1, 1]
    free_again(done)


def test_caps_refuse_or_cut_what_is_too_long() -> None:
    lengths = [(100, 5), (50, 50), (20, 20)]
    strict = serve([0.0] * 3, lengths=lengths, caps=CapSpec(prompt=60, output=30))
    assert outcomes(strict) == [a.REJECTED, a.OK, a.OK]
    assert strict.log["output_tokens"].max() == 30
    counters = strict.world.counters[0]
    assert (counters["long_prompts"], counters["cut_answers"]) == (1, 1)
    cut = serve([0.0] * 3, lengths=lengths, caps=CapSpec(prompt=60, cut=True))
    assert sorted(cut.log["prompt_tokens"]) == [20, 50, 60]
    assert cut.world.counters[0]["cut_prompts"] == 1


@pytest.mark.parametrize(("caps", "attempts"), [(CapSpec(tries=2), 3), (CapSpec(usd=2.5), 3), (CapSpec(usd=1.0), 1)])
def test_a_task_stops_when_it_has_tried_or_cost_enough(caps: CapSpec, attempts: int) -> None:
    dead = ApiSpec(fixed(1.0), fixed(0.0), break_probability=1.0, price=TokenPrice(prompt=0.1))
    gateway = {"max_attempts": 9, "backoff_s": 0.0}
    done = serve([0.0], backends=(dead,), lengths=[(10, 9)], gateway=gateway, caps=caps)
    assert len(done.log) == attempts
    counters = done.world.counters[0]
    assert counters["stopped_tries"] + counters["stopped_usd"] == 1
    assert counters["over_usd"] == (1 if math.isfinite(caps.usd) and attempts > 1 else 0)


def test_a_conversation_that_has_cost_enough_ends() -> None:
    plan = Plan(
        classes=(
            ClassSpec(prompt=fixed(10), output=fixed(5), turns=fixed(6), think=fixed(1.0), route=[1.0, 0.0]),
        ),
        chunks=(arrivals([0.0, 3.0]),),
        backends=(FINE, DESK),
        gateway=GatewaySpec(refused_at=1),
        policies=(PolicySpec(caps=CapSpec(session_usd=12.0)),),
        horizon_s=1e3,
    )
    done = run(plan)
    assert (done.log["outcome"] == a.OK).sum() == 6  # 5 USD a turn: three turns each, then no more
    assert done.world.counters[0]["over_session_usd"] == 2


@pytest.mark.parametrize("rate_rps", [0.5, 2.0])
def test_in_the_long_run_a_bucket_admits_the_lesser_of_rate_and_demand(rate_rps: float) -> None:
    n = 20_000
    times = np.cumsum(np.random.default_rng(7).exponential(1.0 / rate_rps, n))
    done = serve(times.tolist(), everybody(rpm=60.0, burst=20.0))
    admitted = int((done.log["outcome"] == a.OK).sum())
    assert admitted == _by_hand(times, 1.0, 20.0)
    assert admitted == pytest.approx(min(rate_rps, 1.0) * times[-1], rel=0.02)


def _by_hand(times: Any, rate_rps: float, burst: float) -> int:
    """A token bucket in plain Python."""
    level, before, admitted = burst, 0.0, 0
    for t in times:
        level, before = min(burst, level + (t - before) * rate_rps), t
        if level >= 1.0:
            level -= 1.0
            admitted += 1
    return admitted
