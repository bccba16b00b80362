"""Time-outs, retries, hedges, breakers, fallbacks and impatient clients, worked out by hand and by closed forms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from small_worlds import Plan, Run, arrivals, run

from simlab.draws import Distribution
from simlab.engine import ApiSpec, ClassSpec, GatewaySpec, PolicySpec, PoolSpec, StepCoefficients, TokenPrice
from simlab.engine import arrays as a

fixed = Distribution.fixed
DEAD = ApiSpec(fixed(0.25), fixed(0.0), error_probability=1.0)
FINE = ApiSpec(fixed(0.25), fixed(0.0))
SLOW = ApiSpec(fixed(4.0), fixed(0.0), price=TokenPrice(1.0, output=1.0))
POOL = PoolSpec(step=StepCoefficients(base_s=1.0), max_num_seqs=4, max_num_batched_tokens=64, kv_blocks=100)


def serve(
    backends: tuple[ApiSpec | PoolSpec, ...],
    times: list[float],
    lengths: list[tuple[int, int]] | None = None,
    *,
    gateway: dict[str, Any] | None = None,
    horizon_s: float = 1e4,
    **policy: Any,
) -> Run:
    plan = Plan(
        classes=(ClassSpec(route=[1.0] + [0.0] * (len(backends) - 1)),),
        chunks=(arrivals(times, lengths or [(10, 1)] * len(times)),),
        backends=backends,
        gateway=GatewaySpec(**(gateway or {})),
        policies=(PolicySpec(**policy),),
        horizon_s=horizon_s,
    )
    return run(plan)


def test_every_task_ends_once_whatever_the_gateway_does() -> None:
    done = serve((SLOW, FINE), [0.0] * 50, gateway={"hedge_s": 1.0, "hedge_to": 1, "deadline_s": 3.0})
    tasks = done.world.tasks[1, 0]
    assert tasks["arrived"] == tasks["succeeded"] == 50
    assert (done.world.slots["state"] == a.FREE).all()
    assert done.world.state[0]["in_flight"] == 0


def test_a_late_first_token_ends_an_attempt_and_a_late_answer_does_not() -> None:
    talkative = ApiSpec(fixed(0.5), fixed(1.0))
    gateway = {"ttft_timeout_s": 1.0}
    assert serve((talkative,), [0.0], [(10, 20)], gateway=gateway).log["outcome"].tolist() == [a.OK]
    late = serve((SLOW,), [0.0], [(10, 20)], gateway=gateway).log
    assert late["outcome"].tolist() == [a.TIMED_OUT]
    assert late["finish_s"].tolist() == [1.0]


@pytest.mark.parametrize("abort", [True, False])
def test_a_server_that_is_not_told_goes_on_and_is_paid(abort: bool) -> None:
    gateway = {"timeout_s": 3.5, "abort": abort, "max_attempts": 2, "backoff_s": 0.0}
    done = serve((POOL,), [0.0], [(4, 8)], gateway=gateway)
    first, second = np.sort(done.log, order="started_s")
    assert (first["outcome"], second["outcome"]) == (a.TIMED_OUT, a.TIMED_OUT)
    assert second["started_s"] == (4.0 if abort else 3.5)  # a replica lets go at the end of its step
    assert first["finish_s"] == (4.0 if abort else 8.0)
    assert first["output_tokens"] == (4 if abort else 8)
    assert done.world.tasks[1, 0]["failed"] == 1


def test_jitter_and_retry_after() -> None:
    limited = ApiSpec(fixed(0.25), fixed(0.0), rpm=6.0)
    gateway = {"max_attempts": 3, "backoff_s": 0.5, "jitter": 0.0, "retry_after": True}
    log = serve((limited,), [0.0] * 7, gateway=gateway).log
    assert log["outcome"].tolist().count(a.RATE_LIMITED) == 1
    # Six calls a minute: the seventh may come ten seconds later, which the 429 says.
    assert log["started_s"].max() == pytest.approx(10.0)
    blind = serve((limited,), [0.0] * 7, gateway=gateway | {"retry_after": False}).log
    np.testing.assert_allclose(np.sort(blind["started_s"])[-2:], [0.5, 1.5])


@pytest.mark.parametrize("p", [0.2, 0.5])
def test_retries_multiply_the_load_as_the_geometric_series_says(p: float) -> None:
    n, m = 20_000, 4
    flaky = ApiSpec(fixed(0.01), fixed(0.0), error_probability=p)
    gateway = {"max_attempts": m, "backoff_s": 0.01, "jitter": 1.0}
    attempts = len(serve((flaky,), [0.1 * i for i in range(n)], gateway=gateway).log)
    mean = (1 - p**m) / (1 - p)
    spread = math.sqrt(sum((2 * k + 1) * p**k for k in range(m)) - mean**2)
    assert attempts / n == pytest.approx(mean, abs=3.3 * spread / math.sqrt(n))


def test_a_budget_caps_the_amplification() -> None:
    n = 2000
    gateway = {"max_attempts": 10, "backoff_s": 0.01, "retry_budget": 0.1, "retry_burst": 5.0}
    done = serve((DEAD,), [0.5 * i for i in range(n)], gateway=gateway)
    assert len(done.log) == n + 5 + n // 10 - 1  # what was saved up, then a tenth of the tasks, one not yet whole
    assert done.world.gateway[0]["retries_refused"] == n


def test_a_hedge_wins_and_the_loser_is_stopped_and_paid() -> None:
    done = serve((SLOW, FINE), [0.0], [(10, 4)], gateway={"hedge_s": 1.0, "hedge_to": 1})
    loser, winner = np.sort(done.log, order="backend")
    assert (loser["outcome"], winner["outcome"]) == (a.CANCELLED, a.OK)
    assert (loser["reason"], winner["reason"]) == (a.FIRST, a.HEDGE)
    assert winner["finish_s"] == loser["finish_s"] == 1.25
    assert loser["prompt_tokens"] == 10
    assert done.world.cells["cancelled"].sum() == 1
    assert done.world.cells["lost_usd"].sum() == 10.0


def test_a_hedge_that_loses_is_stopped() -> None:
    done = serve((ApiSpec(fixed(1.5), fixed(0.0)), SLOW), [0.0], gateway={"hedge_s": 1.0, "hedge_to": 1})
    first, hedge = np.sort(done.log, order="backend")
    assert (first["outcome"], hedge["outcome"]) == (a.OK, a.CANCELLED)
    assert hedge["finish_s"] == first["finish_s"] == 1.5
    assert done.world.tasks[1, 0]["succeeded"] == 1


def test_a_hedge_takes_over_when_the_first_fails() -> None:
    dies = ApiSpec(fixed(2.0), fixed(0.0), error_probability=1.0)
    done = serve((dies, ApiSpec(fixed(3.0), fixed(0.0))), [0.0], gateway={"hedge_s": 1.0, "hedge_to": 1})
    assert np.sort(done.log, order="backend")["outcome"].tolist() == [a.ERROR, a.OK]
    assert done.log["finish_s"].max() == 4.0
    assert done.world.tasks[1, 0]["succeeded"] == 1


def test_hedges_on_replicas_leave_at_the_end_of_a_step() -> None:
    done = serve((POOL, POOL), [0.0, 0.25], [(60, 3), (60, 3)], gateway={"hedge_s": 1.5, "hedge_to": 1})
    # The second prompt does not fit into the first step's budget of 64 tokens, so its first token is late.
    assert done.world.tasks[1, 0]["succeeded"] == 2
    assert (done.log["outcome"] == a.CANCELLED).sum() == (done.log["reason"] == a.HEDGE).sum()
    assert (done.world.slots["state"] == a.FREE).all()
    assert (done.world.reps["n_running"] == 0).all()


def test_a_breaker_opens_probes_and_closes() -> None:
    gateway = {"breaker_consecutive": 3, "breaker_cool_down_s": 10.0}
    log = serve((DEAD,), [float(i) for i in range(20)], gateway=gateway).log
    # Errors at 0.25, 1.25, 2.25 open it until 12.25; the probe at 13 fails and opens it again.
    expected = [a.ERROR] * 3 + [a.REJECTED] * 10 + [a.ERROR] + [a.REJECTED] * 6
    assert np.sort(log, order="task")["outcome"].tolist() == expected


def test_the_duty_cycle_of_a_breaker() -> None:
    """Closed for as long as failures need to come in a row, open for the cool-down: the mean of many cycles."""
    p, n, rate = 0.5, 40_000, 10.0
    flaky = ApiSpec(fixed(1e-6), fixed(0.0), error_probability=p)
    gateway = {"breaker_consecutive": 3, "breaker_cool_down_s": 2.0, "breaker_probes": 1}
    log = serve((flaky,), [i / rate for i in range(n)], gateway=gateway).log
    # Calls until 3 failures in a row: (1 − p³)/((1 − p)·p³) = 14; then 20 refused, then probes until one passes: each
    # failed one costs a call and 20 refusals more, (p/(1−p)) = 1 on average; the call that passes is the next.
    calls = (1 - p**3) / ((1 - p) * p**3) + 1 / (1 - p)
    refused = 20.0 / (1 - p)
    share = (log["outcome"] == a.REJECTED).mean()
    assert share == pytest.approx(refused / (refused + calls), abs=0.02)


def test_a_share_of_failures_opens_a_breaker_too() -> None:
    gateway = {"breaker_ratio": 0.5, "breaker_minimum": 4, "breaker_window_s": 100.0, "breaker_cool_down_s": 1e3}
    log = serve((DEAD,), [float(i) for i in range(10)], gateway=gateway).log
    assert np.sort(log, order="task")["outcome"].tolist() == [a.ERROR] * 4 + [a.REJECTED] * 6


def test_a_chain_of_fallbacks_ends_with_the_one_that_answers() -> None:
    chain = (
        ApiSpec(fixed(0.25), fixed(0.0), error_probability=1.0, fallback=1),
        ApiSpec(fixed(0.5), fixed(0.0), error_probability=1.0, fallback=2),
        ApiSpec(fixed(0.125), fixed(0.0)),
    )
    log = serve(chain, [0.0], gateway={"max_attempts": 2, "backoff_s": 1.0, "jitter": 0.0}).log
    assert log["backend"].tolist() == [0, 0, 1, 1, 2]
    assert log["reason"].tolist() == [a.FIRST, a.RETRY, a.FALLBACK, a.RETRY, a.FALLBACK]
    assert log["finish_s"].max() == 0.25 + 1 + 0.25 + 0.5 + 1 + 0.5 + 0.125


def test_a_deadline_ends_a_task_in_whatever_it_is_doing() -> None:
    gateway = {"deadline_s": 2.0, "max_attempts": 100, "backoff_s": 0.5, "backoff_factor": 1.0, "jitter": 0.0}
    waiting = serve((DEAD,), [0.0], gateway=gateway)
    assert waiting.log["started_s"].tolist() == [0.0, 0.75, 1.5]
    assert waiting.world.tasks[1, 0]["failed"] == 1
    calling = serve((SLOW,), [0.0], gateway=gateway)
    assert calling.log["finish_s"].tolist() == [2.0]
    assert calling.log["outcome"].tolist() == [a.TIMED_OUT]
    batched = serve((POOL,), [0.0], [(4, 30)], gateway=gateway)
    assert batched.log["finish_s"].tolist() == [2.0]
    assert batched.world.tasks[1, 0]["failed"] == 1


@pytest.mark.parametrize(("dedupe", "abort"), [(True, True), (False, True), (False, False)])
def test_an_impatient_client_joins_or_pays_twice(dedupe: bool, abort: bool) -> None:
    done = serve((SLOW,), [0.0], patience_s=3.0, resends=1, gateway={"dedupe": dedupe, "abort": abort})
    log = np.sort(done.log, order="started_s")
    if dedupe:
        assert log["finish_s"].tolist() == [4.0]
        assert done.world.policies[0]["joined"] == 1
    else:
        assert log["reason"].tolist() == [a.FIRST, a.DUPLICATE]
        assert log["outcome"].tolist() == [a.CANCELLED, a.OK]
        assert log["finish_s"].tolist() == [3.0 if abort else 4.0, 7.0]
        assert log["output_tokens"].tolist() == [0 if abort else 1, 1]
    assert done.world.tasks[1, 0]["succeeded"] == 1


@pytest.mark.parametrize("resume", [True, False])
def test_a_broken_stream_is_continued_or_begun_again(resume: bool) -> None:
    n = 100
    brittle = ApiSpec(fixed(1.0), fixed(0.5), break_probability=0.5)
    gateway = {"resume": resume, "max_attempts": 100, "backoff_s": 0.0, "jitter": 0.0}
    done = serve((brittle,), [100.0 * i for i in range(n)], [(10, 9)] * n, gateway=gateway)
    assert done.world.tasks[1, 0]["succeeded"] == n
    log = done.log
    assert (log["output_tokens"] > 0).all()
    if resume:
        # Every token of the answer is made once, whichever attempt made it.
        assert log["output_tokens"].sum() == 9 * n
        assert np.sum(done.world.hist_sum[0]) == pytest.approx(1.0 * n)  # the user saw the first one at once
    else:
        assert log["output_tokens"].sum() > 10 * n
        assert (log["prompt_tokens"] == 10).all()
