"""Routes, time-outs, retries."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from small_worlds import Order, Plan, Run, arrivals, run, traced

from simlab.draws import Distribution
from simlab.engine import ApiSpec, ClassSpec, GatewaySpec, PoolSpec, StepCoefficients
from simlab.engine import arrays as a

fixed = Distribution.fixed
DEAD = ApiSpec(fixed(0.25), fixed(0.0), error_probability=1.0)
FINE = ApiSpec(fixed(0.25), fixed(0.0))
STEP = StepCoefficients(base_s=0.125)


def serve(
    backends: tuple[PoolSpec | ApiSpec, ...], times: list[float], lengths: list[tuple[int, int]], **more: Any
) -> Run:
    route = more.pop("route", [1.0] * len(backends))
    plan = Plan(
        classes=(ClassSpec(route=route),),
        chunks=(arrivals(times, lengths),),
        backends=backends,
        horizon_s=1e4,
        **more,
    )
    return run(plan)


def test_routes_share_traffic_by_weight() -> None:
    n = 20_000
    weights = [1.0, 0.0, 5.0, 2.0]
    log = serve((FINE,) * 4, [0.01 * i for i in range(n)], [(1, 1)] * n, route=weights).log
    shares = np.bincount(log["backend"], minlength=4) / n
    assert shares[1] == 0
    for share, weight in zip(shares, weights, strict=True):
        p = weight / 8
        assert share == pytest.approx(p, abs=3.5 * math.sqrt(p * (1 - p) / n) + 1e-12)


def test_a_route_can_change_while_running() -> None:
    plan = Plan(
        classes=(ClassSpec(route=[1.0, 0.0]),),
        chunks=(arrivals([0.5, 1.0, 1.5, 2.0], [(1, 1)] * 4),),
        backends=(FINE, FINE),
        orders=(Order(1.25, "route", which=0, weights=(0.0, 1.0)),),
    )
    assert run(plan).log["backend"].tolist() == [0, 0, 1, 1]


def test_routes_do_not_depend_on_the_rest_of_the_world() -> None:
    """Common random numbers: a slower provider gets the same requests."""
    slow = ApiSpec(fixed(9.0), fixed(0.0))
    one, other = (
        serve((FINE, backend), [0.1 * i for i in range(200)], [(1, 1)] * 200).log for backend in (FINE, slow)
    )
    order = [np.argsort(log["task"]) for log in (one, other)]
    assert one["backend"][order[0]].tolist() == other["backend"][order[1]].tolist()


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_retries_wait_exactly_as_the_policy_says(attempts: int) -> None:
    gateway = GatewaySpec(max_attempts=attempts, backoff_s=0.5, backoff_factor=3.0, max_backoff_s=6.0, jitter=0.0)
    done = serve((DEAD,), [1.0], [(1, 1)], gateway=gateway)
    log = done.log
    assert log["attempt"].tolist() == list(range(attempts))
    start, starts = 1.0, []
    for attempt in range(attempts):
        starts.append(start)
        start += 0.25 + min(6.0, 0.5 * 3.0**attempt)
    np.testing.assert_allclose(log["started_s"], starts, rtol=1e-14)
    np.testing.assert_allclose(log["finish_s"], np.array(starts) + 0.25, rtol=1e-14)
    assert (log["arrival_s"] == 1.0).all()
    tasks = done.world.tasks[1, 0]
    assert (tasks["arrived"], tasks["failed"], tasks["retries"]) == (1, 1, attempts - 1)
    cells = done.world.cells
    assert cells["attempts"].tolist() == ([1, attempts - 1] if attempts > 1 else [1])
    assert cells["reason"].tolist() == [a.FIRST, a.RETRY][: len(cells)]


def test_jitter_takes_up_to_its_share_off_evenly() -> None:
    n = 3000
    gateway = GatewaySpec(max_attempts=2, backoff_s=1.0, jitter=0.4)
    log = serve((DEAD,), [0.0] * n, [(1, 1)] * n, gateway=gateway).log
    first, second = (log[log["attempt"] == i] for i in (0, 1))
    waits = np.sort(second["started_s"]) - first["finish_s"][0]
    assert 0.6 <= waits.min() < 0.602
    assert 0.998 < waits.max() <= 1.0
    assert waits.mean() == pytest.approx(0.8, abs=4 * 0.4 / math.sqrt(12 * n))


def test_a_task_that_succeeds_in_the_end_succeeds() -> None:
    n = 2000
    half = ApiSpec(fixed(0.25), fixed(0.0), error_probability=0.5)
    done = serve((half,), [0.01 * i for i in range(n)], [(1, 1)] * n, gateway=GatewaySpec(max_attempts=3))
    tasks = done.world.tasks[1, 0]
    assert tasks["succeeded"] + tasks["failed"] == n
    # Each attempt has luck of its own: (1/2)^3 of the tasks fail thrice, and 1/2 + 1/4 more attempts are made.
    assert tasks["failed"] / n == pytest.approx(1 / 8, abs=4 * math.sqrt(7 / 64 / n))
    assert tasks["retries"] / n == pytest.approx(0.75, abs=0.08)
    ok = done.log[done.log["outcome"] == a.OK]
    assert done.world.hist_sum[3].sum() == pytest.approx((ok["finish_s"] - ok["arrival_s"]).sum())


def test_a_retry_is_routed_again() -> None:
    n = 400
    done = serve((FINE, DEAD), [0.0] * n, [(1, 1)] * n, gateway=GatewaySpec(max_attempts=8))
    assert done.world.tasks[1, 0]["failed"] <= 8
    assert (done.of(attempt=1)["backend"] == 0).any()
    assert (done.of(attempt=1)["backend"] == 1).any()


OUTCOMES = {
    "retry_error": (DEAD, a.ERROR),
    "retry_rate_limited": (ApiSpec(fixed(50.0), fixed(0.0), concurrency=1, reject_full=True), a.RATE_LIMITED),
    "retry_timed_out": (ApiSpec(fixed(50.0), fixed(0.0)), a.TIMED_OUT),
    "retry_rejected": (PoolSpec(step=STEP, max_model_len=9), a.REJECTED),
}


@pytest.mark.parametrize("which", OUTCOMES)
@pytest.mark.parametrize("on", [True, False])
def test_only_the_outcomes_named_are_tried_again(which: str, on: bool) -> None:
    backend, outcome = OUTCOMES[which]
    policy = dict.fromkeys(OUTCOMES, not on) | {which: on}
    done = serve((backend,), [0.0, 0.0], [(10, 10)] * 2, gateway=GatewaySpec(timeout_s=5.0, max_attempts=3, **policy))
    second = done.of(task=1)
    assert second["outcome"][0] == outcome
    if on and which != "retry_rate_limited":
        assert second["outcome"].tolist() == [outcome] * 3
    if not on:
        assert len(second) == 1
    assert done.world.tasks[1, 0]["arrived"] == 2


def test_a_replica_drops_a_timed_out_request_at_the_end_of_its_step() -> None:
    """Steps of 1/8 s from 1/16 s on: given up at 1 s, gone at the next boundary, blocks free, its tokens paid for."""
    pool = PoolSpec(step=STEP, block_size=4, kv_blocks=101, prefix_caching=False)
    done = serve((pool,), [0.0625], [(40, 50)], gateway=GatewaySpec(timeout_s=0.9375))
    (row,) = done.log
    assert (row["outcome"], row["started_s"], row["finish_s"]) == (a.TIMED_OUT, 0.0625, 1.0625)
    assert row["output_tokens"] == done.world.reps[0]["steps"] == 8
    assert done.world.reps[0]["free"] == 100
    cell = done.world.cells[0]
    assert (cell["prompt_tokens"], cell["output_tokens"], cell["timed_out"]) == (40, 8, 1)


def test_a_request_given_up_at_the_very_end_of_a_step_goes_then() -> None:
    pool = PoolSpec(step=STEP, block_size=4, kv_blocks=101, prefix_caching=False)
    (row,) = serve((pool,), [0.0625], [(40, 50)], gateway=GatewaySpec(timeout_s=1.0)).log
    assert (row["finish_s"], row["output_tokens"]) == (1.0625, 8)


def test_a_waiting_request_that_times_out_is_gone_at_once_and_not_billed_for_tokens() -> None:
    pool = PoolSpec(step=STEP, max_num_seqs=1, max_num_batched_tokens=64, prefix_caching=False)
    done = serve((pool,), [0.0, 0.0], [(8, 8), (8, 8)], gateway=GatewaySpec(timeout_s=0.5625))
    log = done.log
    assert log["finish_s"].tolist() == [0.5625, 0.625]
    assert log["output_tokens"].tolist() == [0, 5]
    assert done.world.cells[0]["timed_out"] == 2
    assert done.world.cells[0]["output_tokens"] == 5


def test_a_request_that_ends_just_in_time_is_fine() -> None:
    pool = PoolSpec(step=STEP, prefix_caching=False)
    for output, outcome in ((8, a.OK), (9, a.TIMED_OUT)):
        assert serve((pool,), [0.0], [(8, output)], gateway=GatewaySpec(timeout_s=1.0)).log["outcome"] == [outcome]


def test_a_timeout_frees_a_place_for_the_next() -> None:
    pool = PoolSpec(step=STEP, max_num_seqs=1, max_num_batched_tokens=64, prefix_caching=False)
    plan = Plan(
        classes=(ClassSpec(),),
        chunks=(arrivals([0.0, 0.5], [(8, 1000), (8, 2)]),),
        backends=(pool,),
        gateway=GatewaySpec(timeout_s=1.0),
    )
    log = run(plan).log
    assert log["task"].tolist() == [0, 1]
    assert log["finish_s"].tolist() == [1.0, 1.25]


def test_a_request_tried_again_finds_its_own_prompt_cached() -> None:
    """Its blocks are content of its own, which nobody else could hit; the time-out kept them for it."""
    pool = PoolSpec(step=STEP, block_size=16, kv_blocks=1001)
    gateway = GatewaySpec(timeout_s=1.0, max_attempts=3, backoff_s=0.5, jitter=0.0)
    log = serve((pool,), [0.0], [(200, 100)], gateway=gateway).log
    # 200 tokens are 12 full blocks; the first attempt also left the 7 whole tokens of its answers, in no full block.
    assert log["cached_tokens"].tolist() == [0, 192, 192]
    assert log["outcome"].tolist() == [a.TIMED_OUT] * 3


def test_a_retry_finds_nothing_where_others_have_taken_its_blocks() -> None:
    pool = PoolSpec(step=STEP, block_size=16, kv_blocks=21, max_num_seqs=1, max_num_batched_tokens=512)
    gateway = GatewaySpec(timeout_s=1.0, max_attempts=2, backoff_s=1.5, max_backoff_s=9.0, jitter=0.0)
    plan = Plan(
        classes=(ClassSpec(),),
        chunks=(arrivals([0.0, 1.5], [(200, 100), (300, 2)]),),
        backends=(pool,),
        gateway=gateway,
    )
    log = run(plan).of(task=0)
    assert log["cached_tokens"].tolist() == [0, 16]


def test_a_shared_prefix_survives_a_timeout() -> None:
    pool = PoolSpec(step=STEP, block_size=16, kv_blocks=1001)
    rows = [(0.0, 100, 50, [(1, 64)]), (10.0, 100, 2, [(1, 64)])]
    plan = Plan(
        classes=(ClassSpec(segmented=True),),
        chunks=((traced(rows),),),
        backends=(pool,),
        gateway=GatewaySpec(timeout_s=1.0),
    )
    assert run(plan).log["cached_tokens"].tolist() == [0, 64]


@pytest.mark.parametrize(
    ("prompt", "output", "fits"), [(30, 31, True), (31, 31, False), (60, 1, True), (61, 1, False), (1, 60, True)]
)
def test_requests_beyond_the_models_length_are_rejected(prompt: int, output: int, fits: bool) -> None:
    done = serve((PoolSpec(step=STEP, max_model_len=61),), [0.0], [(prompt, output)])
    assert (done.log["outcome"] == (a.OK if fits else a.REJECTED)).all()
    assert done.world.cells[0]["rejected"] == (not fits)


@pytest.mark.parametrize(("output", "fits"), [(25, True), (26, False)])
def test_requests_beyond_the_blocks_are_rejected(output: int, fits: bool) -> None:
    """Ten blocks, one of them the null block: 36 tokens; the last token of an answer needs no place."""
    pool = PoolSpec(step=STEP, block_size=4, kv_blocks=10, max_num_seqs=2, prefix_caching=False)
    done = serve((pool,), [0.0], [(12, output)])
    assert (done.log["outcome"] == (a.OK if fits else a.REJECTED)).all()


def test_good_tasks_meet_every_limit() -> None:
    api = ApiSpec(fixed(0.5), fixed(0.125))
    limits = {
        "ttft": ({"slo_ttft_s": 0.5}, {"slo_ttft_s": 0.49}),
        "itl": ({"slo_itl_s": 0.125}, {"slo_itl_s": 0.12}),
        "e2e": ({"slo_e2e_s": 1.0}, {"slo_e2e_s": 0.99}),
    }
    for met, missed in limits.values():
        for limit, good in ((met, 1), (missed, 0)):
            plan = Plan(classes=(ClassSpec(**limit),), chunks=(arrivals([0.0], [(1, 5)]),), backends=(api,))
            assert run(plan).world.tasks[1, 0]["good"] == good
