"""Where time goes: the parts of a latency by hand, and that they add up to it whatever the gateway does."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from small_worlds import Plan, Run, arrivals, run

from simlab.draws import Distribution
from simlab.engine import (
    AnswerCacheSpec,
    ApiSpec,
    ChoiceSpec,
    ClassSpec,
    GatewaySpec,
    LimitSpec,
    PolicySpec,
    PoolSpec,
    RuleSpec,
    StepCoefficients,
)
from simlab.engine import arrays as a
from simlab.engine.meters import COARSE

fixed, exponential = Distribution.fixed, Distribution.exponential
BUDGET = [fixed(part_s) for part_s in (0.04, 0.015, 0.12, 0.06, 0.008, 0.05)]
"""Network (one way), application, retrieval, reranking, gateway, smoothing."""
MODEL = ApiSpec(fixed(0.5), fixed(0.01))
DESK = ApiSpec(fixed(0.0), fixed(0.0))
BEFORE = 0.04 + 0.015 + 0.12 + 0.06
AFTER = 0.04 + 0.05


def serve(
    times: list[float],
    *backends: ApiSpec | PoolSpec,
    gateway: dict[str, Any] | None = None,
    world: dict[str, Any] | None = None,
    output: int = 11,
    **policy: Any,
) -> Run:
    backends = backends or (MODEL,)
    n = len(backends)
    plan = Plan(
        classes=(ClassSpec(route=[1.0] + [0.0] * n),),
        chunks=(arrivals(times, [(10, output)] * len(times)),),
        backends=(*backends, DESK),
        gateway=GatewaySpec(**{"refused_at": n, **(gateway or {})}),
        policies=(PolicySpec(**{"latency": BUDGET, "timed": True, **policy}),),
        horizon_s=1e6,
        window_s=1e5,
        **(world or {}),
    )
    return run(plan)


def parts(done: Run, metric: int = 1) -> Any:
    """Seconds in each part, summed over all tasks: by TTFT (0) or E2E (1)."""
    return done.world.spans[metric, 0].sum(axis=0)


def adds_up(done: Run) -> None:
    """All of the tasks' time is in one part each, and no part is negative."""
    for metric, hist in ((0, 0), (1, 3)):
        found = parts(done, metric)
        assert found[0] == done.world.hist_count[hist].sum()
        assert found[1:].sum() == pytest.approx(np.sum(done.world.hist_sum[hist]), rel=1e-9)
        assert (found >= -1e-7).all()
        # Each bucket's tasks have its latency.
        rows = done.world.spans[metric, 0]
        for i in np.flatnonzero(rows[:, 0]):
            mean = rows[i, 1:].sum() / rows[i, 0]
            assert done.world.hist[hist].sum(axis=(0, 1))[i * COARSE : (i + 1) * COARSE].sum() == rows[i, 0]
            assert 1e-6 * (1.005 / 0.995) ** (i * COARSE - 1) * (1 - 1e-9) <= mean
    assert (done.world.slots["state"] == a.FREE).all()


def test_a_request_by_hand() -> None:
    done = serve([1.0])
    assert done.log["started_s"] == pytest.approx([1.0 + BEFORE + 0.008])
    assert np.sum(done.world.hist_sum[0]) == pytest.approx(BEFORE + 0.008 + 0.5 + AFTER)
    assert np.sum(done.world.hist_sum[3]) == pytest.approx(BEFORE + 0.008 + 0.5 + 0.1 + AFTER)
    expected = {
        a.SPAN_TASKS: 1, a.SPAN_NETWORK: 0.08, a.SPAN_APP: 0.015, a.SPAN_RETRIEVAL: 0.12, a.SPAN_RERANK: 0.06,
        a.SPAN_GATEWAY: 0.008, a.SPAN_MODEL: 0.5, a.SPAN_OUTPUT: 0.1, a.SPAN_SMOOTHING: 0.05,
    }  # fmt: skip
    assert parts(done).tolist() == pytest.approx([expected.get(i, 0.0) for i in range(a.SPANS)], abs=1e-9)
    expected[a.SPAN_OUTPUT] = 0.0
    assert parts(done, 0).tolist() == pytest.approx([expected.get(i, 0.0) for i in range(a.SPANS)], abs=1e-9)


def test_the_network_is_drawn_for_each_way() -> None:
    n = 3000
    done = serve([float(i) for i in range(n)], latency=[exponential(0.1), *BUDGET[1:]])
    network = done.world.hist_sum[0].sum() / n - (BEFORE - 0.04 + 0.008 + 0.5 + 0.05)
    assert network == pytest.approx(0.2, abs=4 * 0.1 * math.sqrt(2 / n))
    assert parts(done)[a.SPAN_NETWORK] / n == pytest.approx(network)
    # Two ways with one draw would vary twice as much: var of the sum is 2 · 0.01, not 4 · 0.01.
    started = done.log["started_s"] - done.log["arrival_s"] - (BEFORE - 0.04 + 0.008)
    assert started.mean() == pytest.approx(0.1, abs=4 * 0.1 / math.sqrt(n))


def test_the_gateway_decides_when_a_request_reaches_it() -> None:
    """All are sent at once and come when their networks let them: the bucket sees them then, in that order."""
    limit = LimitSpec(of_tenants=[[0]], rpm=60.0, burst=1.0)
    spread = Distribution.empirical({0.0: 0.0, 1.0: 20.0})
    done = serve([0.0] * 50, latency=[spread, *[fixed(0.0)] * 5], world={"limits": (limit,)})
    seen = np.sort(done.log, order="started_s")
    assert np.ptp(seen["started_s"]) > 15.0
    level, last, expected = 1.0, 0.0, []
    for t in seen["started_s"]:
        level, last = min(1.0, level + t - last), t
        expected.append(a.OK if level >= 1.0 else a.RATE_LIMITED)
        level -= level >= 1.0
    assert seen["outcome"].tolist() == expected
    assert 10 <= expected.count(a.OK) <= 21


def test_waiting_at_a_limit_is_a_part() -> None:
    limit = LimitSpec(of_tenants=[[0]], concurrency=1, over=a.QUEUE)
    done = serve([0.0, 0.0], world={"limits": (limit,)})
    # The second may go when the first has its answer at the gateway, whose own time is not begun before.
    assert parts(done)[a.SPAN_LIMITS] == pytest.approx(0.608)
    adds_up(done)


def test_waiting_at_the_backend_is_a_part() -> None:
    done = serve([0.0, 0.0], ApiSpec(fixed(0.5), fixed(0.01), concurrency=1))
    assert parts(done)[a.SPAN_QUEUE] == pytest.approx(0.6)
    adds_up(done)
    pool = PoolSpec(StepCoefficients(0.1), max_num_seqs=1, overhead_s=0.03)
    done = serve([0.0, 0.0], pool)
    # The second waits for all eleven steps of the first; a pool's overhead is of the model's time to its first token.
    assert parts(done)[a.SPAN_QUEUE] == pytest.approx(1.1)
    assert parts(done)[a.SPAN_MODEL] == pytest.approx(2 * (0.1 + 0.03))
    assert parts(done)[a.SPAN_OUTPUT] == pytest.approx(2 * 1.0)
    adds_up(done)


def test_what_was_tried_in_vain_is_a_part() -> None:
    flaky = ApiSpec(fixed(0.5), fixed(0.01), error_probability=0.5)
    gateway = {"max_attempts": 9, "backoff_s": 1.0, "backoff_factor": 1.0, "jitter": 0.0}
    done = serve([10.0 * i for i in range(200)], flaky, gateway=gateway)
    failed = len(done.of(outcome=a.ERROR))
    dropped = 9 * done.world.tasks[1, 0]["failed"]
    assert parts(done)[a.SPAN_RETRIES] == pytest.approx((failed - dropped) * 1.5)
    adds_up(done)


def test_a_stream_that_is_resumed_is_the_answers_time() -> None:
    breaks = ApiSpec(fixed(0.5), fixed(0.01), break_probability=0.6)
    gateway = {"max_attempts": 30, "backoff_s": 1.0, "resume": True}
    done = serve([10.0 * i for i in range(200)], breaks, gateway=gateway)
    assert len(done.of(reason=a.RETRY)) > 100
    assert parts(done)[a.SPAN_MODEL] == pytest.approx(200 * 0.5)
    assert parts(done)[a.SPAN_RETRIES] == pytest.approx(0.0, abs=1e-6)
    adds_up(done)


def test_what_a_verifier_takes_and_levels_that_did_not_pass() -> None:
    verifier = ApiSpec(fixed(0.25), fixed(0.0))
    rule = RuleSpec(a.BY_CASCADE, [ChoiceSpec(0, accept_right=0.5, verifier=2), ChoiceSpec(1)])
    done = serve(
        [float(i) for i in range(100)],
        *(MODEL, ApiSpec(fixed(1.0), fixed(0.01)), verifier),
        rules=[[0]],
        world={"rules": (rule,)},
    )
    up = len(done.of(backend=1))
    assert 20 < up < 80
    assert parts(done)[a.SPAN_HELPERS] == pytest.approx(100 * 0.25)
    assert parts(done)[a.SPAN_RETRIES] == pytest.approx(up * 0.6)  # the level that did not pass
    adds_up(done)


def test_caches_that_are_asked_in_vain_and_those_that_answer() -> None:
    cache = AnswerCacheSpec(a.EXACT, 1, miss_s=0.02)
    done = serve(
        [0.0, 10.0], MODEL, ApiSpec(fixed(0.005), fixed(0.0)),
        caches=[a.EXACT], query_weights=[1.0], world={"caches": (cache,)},
    )  # fmt: skip
    assert len(done.of(backend=1)) == 1
    assert parts(done)[a.SPAN_HELPERS] == pytest.approx(0.02)
    assert parts(done)[a.SPAN_MODEL] == pytest.approx(0.5 + 0.005)
    adds_up(done)


def test_a_deadline_counts_from_the_users_send() -> None:
    # It passes before the gateway has seen the request: the gateway's desk books the end.
    done = serve([0.0], gateway={"deadline_s": 0.1})
    assert done.world.tasks[1, 0]["failed"] == 1
    assert not len(done.log)
    cells = done.world.cells
    assert cells["tasks_failed"][cells["backend"] == 1].sum() == 1
    assert parts(done)[0] == 0
    assert (done.world.slots["state"] == a.FREE).all()


def test_everything_at_once_adds_up() -> None:
    n = 600
    slow = ApiSpec(exponential(0.5), exponential(0.02), concurrency=6, error_probability=0.1, break_probability=0.1)
    stand_in = ApiSpec(exponential(0.2), fixed(0.01), error_probability=0.2)
    limits = (
        LimitSpec(of_tenants=[[0]], concurrency=12, over=a.QUEUE),
        LimitSpec(of_backends=[0, -1, -1], rpm=300.0, over=a.QUEUE),
    )
    gateway = {
        "max_attempts": 3, "timeout_s": 2.0, "hedge_s": 0.7, "hedge_to": 1, "resume": True, "abort": False,
        "deadline_s": 20.0, "queue_deadline_s": 5.0,
    }  # fmt: skip
    rng = np.random.default_rng(7)
    done = serve(
        np.cumsum(rng.exponential(0.2, n)).tolist(),
        *(slow, stand_in),
        gateway=gateway,
        world={"limits": limits},
        patience_s=6.0,
        resends=1,
        latency=[exponential(0.05), exponential(0.02), exponential(0.1), fixed(0.0), fixed(0.01), exponential(0.02)],
    )
    tasks = done.world.tasks[1, 0]
    assert tasks["arrived"] == tasks["succeeded"] + tasks["failed"] == n
    assert tasks["succeeded"] > n / 2
    adds_up(done)


def test_who_does_not_ask_pays_nothing() -> None:
    plain = serve([0.0], latency=[], timed=False, patience_s=9.0, resends=1)
    assert plain.world.spans.size == 1
    assert np.sum(plain.world.hist_sum[3]) == pytest.approx(0.6)


def test_a_users_next_request_waits_for_the_way_back() -> None:
    plan = Plan(
        classes=(ClassSpec(users=1, think=fixed(1.0), prompt=fixed(10.0), output=fixed(11.0)),),
        chunks=((),),
        backends=(MODEL,),
        policies=(PolicySpec(latency=BUDGET, timed=True),),
        horizon_s=10.0,
    )
    starts = run(plan).log["arrival_s"]
    assert np.diff(starts) == pytest.approx([1.0 + BEFORE + 0.008 + 0.6 + AFTER] * (len(starts) - 1))
