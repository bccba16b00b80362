"""Batch endpoints: when requests are handed in, what waits, what expires, and what is paid."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from small_worlds import Plan, Run, arrivals, run

from simlab.draws import Distribution
from simlab.engine import ApiSpec, BatchSpec, ClassSpec, GatewaySpec, PolicySpec, TokenPrice
from simlab.engine import arrays as a

fixed = Distribution.fixed
FINE = ApiSpec(fixed(1.0), fixed(0.0), price=TokenPrice(1.0, output=1.0))


def batches(law: Distribution, window_s: float = 100.0, *, concurrency: int = 0, **batch: Any) -> ApiSpec:
    return ApiSpec(
        law, fixed(0.0), concurrency=concurrency, price=TokenPrice(0.5, output=0.5), batch=BatchSpec(window_s, **batch)
    )


def serve(
    endpoint: ApiSpec,
    times: list[float],
    lengths: list[tuple[int, int]] | None = None,
    *,
    gateway: dict[str, Any] | None = None,
    horizon_s: float = 1e6,
    **policy: Any,
) -> Run:
    plan = Plan(
        classes=(ClassSpec(route=[1.0, 0.0]),),
        chunks=(arrivals(times, lengths or [(10, 1)] * len(times)),),
        backends=(endpoint, FINE),
        gateway=GatewaySpec(**(gateway or {})),
        policies=(PolicySpec(**{"deadline_s": 1000.0, **policy}),),
        horizon_s=horizon_s,
    )
    return run(plan)


def finished(done: Run) -> list[float]:
    """When each task's last attempt ended, in order of arrival, s."""
    return [float(done.of(task=task)["finish_s"][-1]) for task in range(len(np.unique(done.log["task"])))]


def empty_again(done: Run) -> None:
    """Nothing is handed in, waits or forms when everything has ended."""
    endpoint = done.world.backends[0]
    for name in ("in_flight", "queued", "forming", "queued_tokens"):
        assert endpoint[name] == 0, name
    assert (done.world.slots["state"] == a.FREE).all()
    tasks = done.world.tasks[1, 0]
    assert tasks["arrived"] == tasks["succeeded"] + tasks["failed"]
    counters = done.world.counters[0]
    assert counters["in_time"] + counters["missed"] == tasks["arrived"]


def test_an_answer_comes_as_a_whole_after_its_time() -> None:
    done = serve(batches(fixed(7.0)), [1.0, 2.0], [(10, 5), (20, 9)])
    assert finished(done) == [8.0, 9.0]
    assert done.log["first_token_s"].tolist() == [8.0, 9.0]
    assert done.log["usd"].tolist() == [7.5, 14.5]
    assert done.world.hist_count[1].sum() == 0  # no tokens one after the other
    empty_again(done)


@pytest.mark.parametrize(
    ("batch", "ends"),
    [
        ({"collect_s": 5.0}, [6.0, 6.0, 6.0, 11.5]),
        ({"collect_s": 5.0, "requests": 2}, [3.0, 3.0, 6.5, 6.5]),
        ({"collect_s": 5.0, "requests": 3}, [5.5, 5.5, 5.5, 11.5]),
        ({}, [1.0, 3.0, 5.5, 6.5]),
    ],
)
def test_a_batch_leaves_when_its_first_has_waited_long_enough_or_it_is_full(
    batch: dict[str, Any], ends: list[float]
) -> None:
    times = [0.0, 2.0, 4.5, 5.5]
    done = serve(batches(fixed(1.0), **batch), times)
    assert finished(done) == ends
    empty_again(done)


def test_prompts_above_what_the_provider_queues_wait_in_order() -> None:
    lengths = [(60, 1), (30, 1), (20, 1), (500, 1), (5, 1)]
    done = serve(batches(fixed(10.0), queued_tokens=100), [0.0] * 5, lengths)
    # 60 and 30 go; 20 takes the place of 60; 500 is above the limit by itself and goes alone, and 5 not before it.
    assert finished(done) == [10.0, 10.0, 20.0, 30.0, 40.0]
    empty_again(done)
    two = serve(batches(fixed(10.0), concurrency=2), [0.0] * 5)
    assert finished(two) == [10.0, 10.0, 20.0, 20.0, 30.0]
    empty_again(two)


def test_what_waits_in_the_queue_joins_no_later_batch() -> None:
    done = serve(batches(fixed(10.0), concurrency=1, collect_s=4.0), [0.0, 1.0, 5.0])
    # Handed in at 4 (two, of which one waits) and at 9 (one more, behind it).
    assert finished(done) == [14.0, 24.0, 34.0]
    empty_again(done)


def test_what_is_not_done_in_the_window_expires_unpaid_and_may_go_elsewhere() -> None:
    late = batches(fixed(50.0), 20.0)
    lost = serve(late, [0.0, 1.0])
    assert lost.log["outcome"].tolist() == [a.TIMED_OUT] * 2
    assert finished(lost) == [20.0, 21.0]
    assert lost.log["usd"].sum() == 0
    assert lost.world.cells["prompt_tokens"].sum() == 0
    assert lost.world.counters[0]["missed"] == 2
    again = serve(late, [0.0], gateway={"max_attempts": 2, "backoff_s": 1.0, "jitter": 0.0})
    assert finished(again) == [41.0]
    plan = Plan(
        classes=(ClassSpec(route=[1.0, 0.0]),),
        chunks=(arrivals([0.0], [(10, 5)]),),
        backends=(ApiSpec(fixed(50.0), fixed(0.0), fallback=1, batch=BatchSpec(20.0)), FINE),
        policies=(PolicySpec(deadline_s=21.0),),
        horizon_s=1e3,
    )
    saved = run(plan)
    assert saved.log["reason"].tolist() == [a.FIRST, a.FALLBACK]
    assert saved.log["finish_s"].max() == 21.0
    assert saved.log["usd"].sum() == 15.0
    assert saved.world.counters[0]["in_time"] == 1


def test_the_window_itself_is_in_time_and_a_deadline_is_counted() -> None:
    done = serve(batches(fixed(20.0), 20.0), [0.0, 1.0], deadline_s=20.0)
    assert (done.log["outcome"] == a.OK).all()
    assert done.world.counters[0]["in_time"] == 2
    late = serve(batches(fixed(20.0), 20.0), [0.0, 1.0], deadline_s=19.0)
    assert late.world.counters[0]["missed"] == late.world.tasks[1, 0]["succeeded"] == 2


def test_tasks_past_their_deadline_at_the_end_are_overdue() -> None:
    done = serve(batches(fixed(50.0)), [0.0, 10.0, 20.0], deadline_s=15.0, horizon_s=30.0)
    assert done.engine.overdue().tolist() == [2]
    assert done.world.counters[0]["missed"] == 0


def test_no_time_out_hedge_or_deadline_of_the_gateway_reaches_a_batch() -> None:
    gateway = {"timeout_s": 1.0, "ttft_timeout_s": 1.0, "deadline_s": 2.0, "hedge_s": 0.5, "hedge_to": 1}
    done = serve(batches(fixed(50.0)), [0.0, 1.0], gateway=gateway)
    assert done.log["outcome"].tolist() == [a.OK] * 2
    assert finished(done) == [50.0, 51.0]


def test_a_client_who_sends_again_leaves_the_batch_that_forms() -> None:
    done = serve(batches(fixed(1.0), collect_s=10.0), [0.0, 20.0], patience_s=3.0, resends=1)
    # Sent again at 3, in a batch that begins then and is handed in at 13.
    assert finished(done) == [14.0, 34.0]
    assert (done.log["outcome"] == a.CANCELLED).sum() == 2
    empty_again(done)


def test_the_share_that_expires_is_the_tail_and_the_rest_costs_half() -> None:
    n, mean_s, window_s = 20_000, 40.0, 100.0
    endpoint = batches(Distribution.exponential(mean_s), window_s, collect_s=30.0)
    done = serve(endpoint, [0.5 * i for i in range(n)])
    tail = math.exp(-window_s / mean_s)
    expired = done.log["outcome"] == a.TIMED_OUT
    assert expired.mean() == pytest.approx(tail, abs=4.0 * math.sqrt(tail * (1 - tail) / n))
    ok = done.log[~expired]
    assert ok["usd"].sum() == pytest.approx(0.5 * (ok["prompt_tokens"] + ok["output_tokens"]).sum())
    assert done.log["usd"][expired].sum() == 0
    empty_again(done)


@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_lost_under_everything_at_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 300
    times = np.sort(rng.uniform(0.0, 200.0, n)).tolist()
    lengths = [(int(p), int(o)) for p, o in rng.integers(1, 60, (n, 2))]
    endpoint = ApiSpec(
        Distribution.exponential(15.0), fixed(0.0), concurrency=int(rng.integers(0, 2)) * 8, rpm=200.0,
        error_probability=0.2, price=TokenPrice(0.5, output=0.5), fallback=int(rng.integers(-1, 2)) or -1,
        batch=BatchSpec(30.0, collect_s=float(rng.integers(0, 2)) * 7.0, requests=11, queued_tokens=200),
    )  # fmt: skip
    plan = Plan(
        classes=(ClassSpec(route=[1.0, 0.2]),),
        chunks=(arrivals(times, lengths),),
        backends=(endpoint, FINE),
        gateway=GatewaySpec(
            max_attempts=3, retry_rejected=True, hedge_s=0.3, hedge_to=1, breaker_consecutive=6,
            breaker_cool_down_s=5.0, abort=bool(seed % 2), timeout_s=0.9,
        ),
        policies=(PolicySpec(deadline_s=40.0, patience_s=25.0, resends=2),),
        horizon_s=1e6,
    )  # fmt: skip
    done = run(plan)
    empty_again(done)
    ok = done.log["outcome"] == a.OK
    paid = done.log["usd"][ok & (done.log["backend"] == 0)]
    tokens = (done.log["prompt_tokens"] + done.log["output_tokens"])[ok & (done.log["backend"] == 0)]
    np.testing.assert_allclose(paid, 0.5 * tokens)
