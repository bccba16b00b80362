"""What the twin found in the engine, each by hand: policies that meet, and what one of them forgot of the other."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from small_worlds import Plan, Run, arrivals, run

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

fixed = Distribution.fixed
DESK = ApiSpec(fixed(0.0), fixed(0.0))
TOKEN = TokenPrice(1.0, output=1.0)


def api(ttft_s: float, itl_s: float = 0.0, **more: Any) -> ApiSpec:
    return ApiSpec(fixed(ttft_s), fixed(itl_s), price=TOKEN, **more)


def serve(
    backends: tuple[ApiSpec, ...],
    times: list[float],
    *,
    lengths: list[tuple[int, int]] | None = None,
    gateway: dict[str, Any] | None = None,
    seed: int = 0,
    rules: tuple[RuleSpec, ...] = (),
    limits: tuple[LimitSpec, ...] = (),
    **policy: Any,
) -> Run:
    """Serves requests at the first of the backends, or by a rule; the gateway's own desk stands behind them."""
    n = len(backends)
    plan = Plan(
        classes=(ClassSpec(route=[1.0] + [0.0] * n),),
        chunks=(arrivals(times, lengths or [(10, 1)] * len(times)),),
        backends=(*backends, DESK),
        gateway=GatewaySpec(**{"refused_at": n, **(gateway or {})}),
        policies=(PolicySpec(**{"rules": [[0]] if rules else [], **policy}),),
        rules=rules,
        limits=limits,
        horizon_s=1e4,
        seed=seed,
    )
    return run(plan, until=1e6)


def by_start(done: Run) -> Any:
    return np.sort(done.log, order=["started_s", "attempt"])


# --- breakers ---


def test_a_call_from_before_it_opened_does_not_close_a_breaker() -> None:
    """Three time-outs open it at 1; the slow answer of a call from before comes at 5, while a probe is under way."""
    gateway = {"ttft_timeout_s": 1.0, "breaker_consecutive": 3, "breaker_cool_down_s": 2.0}
    late = api(0.5, 0.5)  # a first token in time, nine more until 5
    lengths = [(10, 10)] + [(2000, 1)] * 3 + [(2000, 1)] * 2 + [(10, 1)]
    slow = ApiSpec(late.ttft, late.itl, ttft_per_token_s=1e-3, price=TOKEN)
    done = serve((slow,), [0.0, 0.1, 0.1, 0.1, 4.5, 5.2, 5.3], lengths=lengths, gateway=gateway)
    assert done.log[np.argsort(done.log["task"])]["outcome"].tolist() == [
        a.OK, a.TIMED_OUT, a.TIMED_OUT, a.TIMED_OUT, a.TIMED_OUT, a.REJECTED, a.REJECTED
    ]  # fmt: skip


def test_a_called_off_probe_does_not_shut_a_breaker_for_ever() -> None:
    """Two at once: one is saved by its hedge, the other's hedge is refused; its time-out opens the breaker.

    The probe at 100 loses to its hedge, which says nothing of its backend; the call at 200 must be let through, too.
    """
    quick = ApiSpec(fixed(0.5), fixed(0.0), rpm=1.0)
    gateway = {"timeout_s": 2.0, "breaker_consecutive": 1, "breaker_cool_down_s": 5.0, "hedge_s": 1.0, "hedge_to": 1}
    done = serve((api(3.0), quick), [0.0, 0.0, 100.0, 200.0], gateway=gateway)
    assert done.world.backends[0]["openings"] == 1
    assert Counter(done.of(backend=0)["outcome"].tolist()) == {a.CANCELLED: 3, a.TIMED_OUT: 1}


def test_the_share_of_failures_counts_when_the_last_call_went_well() -> None:
    flaky = api(0.1, error_probability=0.5)
    gateway = {"breaker_ratio": 0.5, "breaker_minimum": 4, "breaker_window_s": 1e3, "breaker_cool_down_s": 1e3}
    for seed in range(20):
        log = np.sort(serve((flaky,), [float(i) for i in range(40)], gateway=gateway, seed=seed).log, order="task")
        bad = np.cumsum(log["outcome"] == a.ERROR)
        calls = np.arange(1, 41)
        open_after = np.flatnonzero((calls >= 4) & (bad >= 0.5 * calls))
        refused = np.flatnonzero(log["outcome"] == a.REJECTED)
        assert refused.min(initial=40) == (open_after[0] + 1 if len(open_after) else 40)


def test_a_breaker_hears_of_a_time_out_when_it_happens() -> None:
    """With servers that are not told, the call itself ends much later."""
    gateway = {"timeout_s": 1.0, "abort": False, "breaker_consecutive": 1, "breaker_cool_down_s": 100.0}
    log = np.sort(serve((api(50.0),), [0.0, 1.5], gateway=gateway).log, order="task")
    assert log["outcome"].tolist() == [a.TIMED_OUT, a.REJECTED]
    assert log["finish_s"].tolist() == [50.0, 1.5]


# --- hedges ---


def test_a_loser_whose_server_is_not_told_goes_on_and_is_paid() -> None:
    gateway = {"hedge_s": 1.0, "hedge_to": 1, "abort": False}
    loser, winner = np.sort(serve((api(4.0), api(0.25)), [0.0], gateway=gateway).log, order="backend")
    assert (winner["outcome"], winner["finish_s"]) == (a.OK, 1.25)
    assert (loser["outcome"], loser["finish_s"], loser["usd"]) == (a.CANCELLED, 4.0, 11.0)
    late = serve((api(0.1, 1.0), api(9.0)), [0.0], lengths=[(10, 5)], gateway={**gateway, "ttft_timeout_s": 2.0})
    assert late.log["outcome"].tolist() == [a.OK]
    both = serve((api(9.0), api(9.0)), [0.0], gateway={**gateway, "timeout_s": 2.0})
    assert both.log["outcome"].tolist() == [a.TIMED_OUT] * 2
    assert both.log["finish_s"].tolist() == [9.0, 10.0]


def test_what_a_loser_took_counts_for_the_cap() -> None:
    done = serve((api(4.0), api(0.25)), [0.0], gateway={"hedge_s": 1.0, "hedge_to": 1}, caps=CapSpec(usd=15.0))
    assert done.log["usd"].sum() == 21.0
    assert done.world.counters[0]["over_usd"] == 1


def test_after_a_hedge_the_route_draws_again() -> None:
    """Both calls fail; the retry goes where the route says, and not where the hedge went."""
    gateway = {"hedge_s": 1.0, "hedge_to": 1, "max_attempts": 2, "backoff_s": 1.0, "jitter": 0.0}
    dead = {"error_probability": 1.0}
    log = by_start(serve((api(2.0, **dead), api(3.0, **dead)), [0.0], gateway=gateway))
    assert log["backend"].tolist() == [0, 1, 0]
    assert log["reason"].tolist() == [a.FIRST, a.HEDGE, a.RETRY]
    assert log["started_s"].tolist() == [0.0, 1.0, 5.0]


def test_a_call_that_takes_over_may_be_hedged_too() -> None:
    gateway = {"hedge_s": 1.0, "hedge_max": 2}
    dead = api(1.5, error_probability=1.0)
    log = by_start(serve((dead, api(9.0)), [0.0], gateway={**gateway, "hedge_to": 1}))
    assert log["started_s"].tolist() == [0.0, 1.0, 2.0]
    assert log["reason"].tolist() == [a.FIRST, a.HEDGE, a.HEDGE]


def test_an_answer_out_of_a_cache_is_not_hedged() -> None:
    """A hit took longer than a hedge waits; the hedge went to a provider for nothing, and was not paid."""
    chunk = Chunk(
        np.array([0.0, 5.0]), np.array([10, 10]), np.array([1, 1]), query=np.array([1, 1], np.int64)
    )  # fmt: skip
    plan = Plan(
        classes=(ClassSpec(route=[1.0, 0.0]),),
        chunks=((chunk,),),
        backends=(api(0.25), ApiSpec(fixed(2.0), fixed(0.0))),
        gateway=GatewaySpec(hedge_s=1.0, hedge_to=0),
        policies=(PolicySpec(caches=(a.EXACT,)),),
        caches=(AnswerCacheSpec(a.EXACT, backend=1),),
        horizon_s=100.0,
    )
    assert by_start(run(plan))["backend"].tolist() == [0, 1]


# --- streams, cascades, deadlines ---


def test_a_stream_that_is_cut_before_it_breaks_is_paid_as_far_as_it_came() -> None:
    brittle = api(1.0, 1.0, break_probability=1.0)
    log = serve((brittle,), [0.0] * 20, lengths=[(10, 100)] * 20, gateway={"timeout_s": 5.5}).log
    cut = log[log["outcome"] == a.TIMED_OUT]
    assert len(cut) > 10
    assert (cut["output_tokens"] == 5).all()
    assert (cut["usd"] == 15.0).all()


def levels(*choices: ChoiceSpec) -> tuple[RuleSpec, ...]:
    return (RuleSpec(a.BY_CASCADE, choices),)


WEAK = ChoiceSpec(0, accept_right=0.0, accept_wrong=0.0)


def test_who_stood_in_does_not_stand_in_for_the_next_level() -> None:
    dead = api(0.25, error_probability=1.0, fallback=2)
    done = serve((dead, api(1.0), api(0.5)), [0.0], rules=levels(WEAK, ChoiceSpec(1)))
    assert by_start(done)["backend"].tolist() == [0, 2, 1]
    hedged = serve((api(2.0), api(1.0), api(0.5)), [0.0], rules=levels(WEAK, ChoiceSpec(1)),
                   gateway={"hedge_s": 1.0, "hedge_to": 2})  # fmt: skip
    assert by_start(hedged)["backend"].tolist() == [0, 2, 1]


def test_the_next_level_begins_the_answer_anew() -> None:
    """Level one answers in pieces; level two gets the prompt as it was, and the user sees its first token."""
    brittle = api(0.5, 0.5, break_probability=0.5)
    gateway = {"resume": True, "max_attempts": 50, "backoff_s": 0.0, "jitter": 0.0}
    done = serve((brittle, api(1.0)), [0.0, 50.0, 100.0], lengths=[(10, 9)] * 3, gateway=gateway,
                 rules=levels(WEAK, ChoiceSpec(1)))  # fmt: skip
    assert (done.of(backend=0)["outcome"] == a.ERROR).any()
    up = done.of(backend=1)
    assert up["prompt_tokens"].tolist() == [10] * 3
    assert up["output_tokens"].tolist() == [9] * 3
    passed = serve((brittle, api(1.0)), [0.0] * 9, lengths=[(10, 9)] * 9, gateway=gateway,
                   rules=levels(ChoiceSpec(0), ChoiceSpec(1)))  # fmt: skip
    assert (passed.log["outcome"] == a.ERROR).any()
    # Nobody saw a token before the whole answer had passed.
    assert passed.world.hist_sum[0].sum() == pytest.approx(passed.world.hist_sum[3].sum())


def test_whoever_stands_in_continues_a_broken_stream() -> None:
    brittle = api(0.5, 0.5, break_probability=1.0, fallback=1)
    done = serve((brittle, api(1.0)), [0.0] * 5, lengths=[(10, 9)] * 5, gateway={"resume": True})
    assert done.world.tasks[1, 0]["succeeded"] == 5
    assert done.log["output_tokens"].sum() == 5 * 9
    again = serve((brittle, api(1.0)), [0.0] * 5, lengths=[(10, 9)] * 5)
    assert (again.of(backend=1)["output_tokens"] == 9).all()


def test_a_judge_does_not_stop_the_clock() -> None:
    """The answer is there at 1, judged at 4; the deadline is 3: the task has failed, and its answer was in vain."""
    slow_judge = ChoiceSpec(0, verifier=2)
    done = serve((api(1.0), api(1.0), ApiSpec(fixed(3.0), fixed(0.0))), [0.0], rules=levels(slow_judge, ChoiceSpec(1)),
                 gateway={"deadline_s": 3.0}, limits=(LimitSpec(concurrency=1, of_tenants=[[0]]),))  # fmt: skip
    assert done.world.tasks[1, 0]["failed"] == 1
    assert done.world.cells["discarded_usd"].sum() == 11.0
    held = serve((api(1.0), api(1.0), ApiSpec(fixed(3.0), fixed(0.0))), [0.0, 2.0, 4.5],
                 rules=levels(slow_judge, ChoiceSpec(1)),
                 limits=(LimitSpec(concurrency=1, of_tenants=[[0]]),))  # fmt: skip
    assert held.world.counters[0]["refused"] == 1  # the first one's place is taken until its answer has passed


def test_more_samples_of_a_long_prompt_cost_what_long_prompts_cost() -> None:
    dear = ApiSpec(fixed(1.0), fixed(0.0), price=TOKEN, long_price=TokenPrice(2.0, output=2.0), long_tokens=5)
    done = serve((dear, api(1.0)), [0.0], rules=levels(ChoiceSpec(0, samples=3), ChoiceSpec(1)))
    assert done.log["usd"].tolist() == [22.0] * 3
    assert done.world.cells["long_prompt_tokens"].sum() == 30


def test_a_duplicate_asks_anew_and_takes_no_hedge_of_the_old_call_along() -> None:
    gateway = {"hedge_s": 1.0, "hedge_to": 1}
    log = by_start(serve((api(3.5), api(9.0)), [0.0], gateway=gateway, patience_s=2.0, resends=1))
    assert log["reason"].tolist() == [a.FIRST, a.HEDGE, a.DUPLICATE]
    assert log["outcome"].tolist() == [a.CANCELLED, a.CANCELLED, a.OK]
    assert log["finish_s"].tolist() == [2.0, 2.0, 5.5]


def test_a_resend_that_joined_is_counted_once_when_a_hedge_takes_over() -> None:
    dies = api(3.0, error_probability=1.0)
    gateway = {"hedge_s": 1.0, "hedge_to": 1, "dedupe": True}
    done = serve((dies, api(9.0)), [0.0], gateway=gateway, patience_s=2.0, resends=1)
    assert done.world.policies[0]["joined"] == 1


def test_a_cap_on_tries_stops_a_task_once() -> None:
    dead = api(0.5, error_probability=1.0, fallback=1)
    done = serve((dead, api(1.0)), [0.0], gateway={"max_attempts": 5, "backoff_s": 0.1}, caps=CapSpec(tries=2))
    assert len(done.log) == 3
    assert done.world.counters[0]["stopped_tries"] == 1


# --- limits ---


def test_tokens_come_back_while_requests_are_refused() -> None:
    """A bucket of 60 requests and one of 60 tokens; refusals for want of requests took the tokens' time away."""
    tight = ApiSpec(fixed(0.1), fixed(0.0), rpm=1.0, tpm=120.0)
    times = [0.0, *(10.0 + i for i in range(50)), 60.0]
    lengths = [(110, 10)] * len(times)
    log = np.sort(serve((tight,), times, lengths=lengths).log, order="task")
    assert log["outcome"].tolist() == [a.OK, *([a.RATE_LIMITED] * 50), a.OK]


@pytest.mark.parametrize("rpm", [7.0, 11.0, 13.0, 90.0, 700.0])
def test_who_comes_back_when_told_is_let_in(rpm: float) -> None:
    """The bucket may lack the last digit of a request then."""
    limited = ApiSpec(fixed(0.01), fixed(0.0), rpm=rpm)
    n = int(rpm) + 1
    for at in (0.1, 1234.567, 98765.4321):
        gateway = {"max_attempts": 2, "backoff_s": 0.0, "retry_after": True}
        log = serve((limited,), [at] * n, gateway=gateway).log
        assert (log["outcome"] == a.RATE_LIMITED).sum() == 1


def test_a_line_wakes_up_for_a_task_in_the_place_of_one_that_gave_up() -> None:
    """Room comes every 10 s. The second waits from 1 and gives up at 4, the third takes its slot at 5: room at 10."""
    limit = LimitSpec(rpm=6.0, burst=1.0, of_tenants=[[0]], over=a.QUEUE)
    done = serve((api(0.5),), [0.0, 1.0, 5.0], limits=(limit,), gateway={"deadline_s": 8.0, "queue_deadline_s": 3.0})
    early = serve((api(0.5),), [0.0, 1.0, 8.0], limits=(limit,), gateway={"queue_deadline_s": 3.0})
    assert done.log["outcome"].tolist() == [a.OK, a.TIMED_OUT, a.TIMED_OUT]
    log = np.sort(early.log, order="task")
    assert log["outcome"].tolist() == [a.OK, a.TIMED_OUT, a.OK]
    assert log["started_s"][2] == pytest.approx(10.0)


@pytest.mark.parametrize("clock_s", [0.1, 12345.678, 86399.9, 33333.333333])
def test_midnight_comes_for_who_waits_for_it(clock_s: float) -> None:
    limit = LimitSpec(requests_per_day=1, of_tenants=[[0]], over=a.QUEUE)
    done = serve((api(0.5),), [1.0 / 3.0] * 4, limits=(limit,), gateway={"clock_s": clock_s})
    midnight = 86400.0 - clock_s + (86400.0 if clock_s > 86399.7 else 0.0)
    days = midnight + 86400.0 * np.arange(3)
    np.testing.assert_allclose(np.sort(done.log["started_s"]), [1.0 / 3.0, *days], atol=1e-6)


def test_a_task_that_ends_before_its_first_call_is_booked_at_the_gateway() -> None:
    """Its deadline comes while the classifier thinks; slots are used again, and so was what stood in them."""
    helper = ApiSpec(fixed(5.0), fixed(0.0))
    rule = (RuleSpec(a.BY_CLASSIFIER, [ChoiceSpec(1)], helper=2, guesses=[[1.0]]),)
    done = serve((api(1.0), api(1.0), helper), [0.0, 10.0], rules=rule, gateway={"deadline_s": 2.0})
    failed = done.world.cells[done.world.cells["tasks_failed"] > 0]
    assert failed["backend"].tolist() == [3]
    assert failed["tasks_failed"].tolist() == [2]


def test_qualities_are_of_the_backend_that_answers() -> None:
    """A fallback's answer is judged by what the fallback is worth."""
    dead = api(0.25, error_probability=1.0, fallback=1)
    quality = [[[0.0] * QUALITY_POINTS, [1.0] * QUALITY_POINTS, [0.0] * QUALITY_POINTS]]
    assert serve((dead, api(1.0)), [0.0], quality=quality).world.tasks[1, 0]["succeeded"] == 1
