"""An API endpoint: latency laws, limits, failures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from small_worlds import Plan, Run, arrivals, run

from simlab.draws import Distribution
from simlab.engine import ApiSpec, ClassSpec, GatewaySpec
from simlab.engine import arrays as a

fixed = Distribution.fixed


def serve(api: ApiSpec, times: list[float], lengths: list[tuple[int, int]], **more: Any) -> Run:
    plan = Plan(
        classes=(ClassSpec(),), chunks=(arrivals(times, lengths),), backends=(api,), horizon_s=1e4, **more
    )
    return run(plan)


def test_latency_is_first_token_plus_a_gap_for_each_further_token() -> None:
    log = serve(ApiSpec(fixed(0.4), fixed(0.02), ttft_per_token_s=1e-3), [1.0, 2.0], [(100, 1), (300, 51)]).log
    np.testing.assert_allclose(log["first_token_s"], [1.5, 2.7])
    np.testing.assert_allclose(log["finish_s"], [1.5, 3.7])


def test_latency_is_drawn_from_its_law() -> None:
    n = 4000
    law, gap = Distribution.lognormal(0.5, 1.0), Distribution.exponential(0.02)
    log = serve(ApiSpec(law, gap), [0.1 * i for i in range(n)], [(10, 11)] * n).log
    ttft = log["first_token_s"] - log["arrival_s"]
    itl = (log["finish_s"] - log["first_token_s"]) / 10
    for sample, of in ((ttft, law), (itl, gap)):
        for p in (0.1, 0.5, 0.9):
            assert (sample <= of.quantile(p)).mean() == pytest.approx(p, abs=3.3 * (p * (1 - p) / n) ** 0.5)
    assert abs(np.corrcoef(ttft, itl)[0, 1]) < 0.06


@pytest.mark.parametrize("rpm", [60.0, 90.0, 1200.0])
def test_a_request_limit_accepts_its_bucket_and_its_rate(rpm: float) -> None:
    """A bucket of one minute's worth, full at the start: N(T) = rpm + T rpm / 60 at any rate above the limit."""
    rate, span_s = 40.0, 100.0
    times = [i / rate for i in range(int(rate * span_s))]
    log = serve(ApiSpec(fixed(0.1), fixed(0.0), rpm=rpm), times, [(1, 1)] * len(times)).log
    accepted = int((log["outcome"] == a.OK).sum())
    assert accepted == pytest.approx(rpm + times[-1] * rpm / 60, abs=1.0)
    assert (log["outcome"] != a.OK).sum() == len(times) - accepted
    limited = log[log["outcome"] == a.RATE_LIMITED]
    assert (limited["finish_s"] == limited["arrival_s"]).all()


def test_a_token_limit_counts_prompt_and_answer() -> None:
    times = [0.05 * i for i in range(2000)]
    log = serve(ApiSpec(fixed(0.1), fixed(0.0), tpm=6000.0), times, [(70, 30)] * len(times)).log
    accepted = int((log["outcome"] == a.OK).sum())
    assert accepted == pytest.approx((6000 + times[-1] * 100) / 100, abs=1.0)


def test_a_refused_request_takes_nothing_from_the_buckets() -> None:
    """Requests over the token limit leave the request bucket as it was."""
    api = ApiSpec(fixed(0.1), fixed(0.0), rpm=10.0, tpm=100.0)
    log = serve(api, [0.0] * 30, [(500, 1)] * 20 + [(9, 1)] * 10).log
    assert (log["outcome"] == a.OK).tolist() == [False] * 20 + [True] * 10


def test_a_bucket_never_holds_more_than_a_minutes_worth() -> None:
    times = [0.0] * 5 + [3600.0] * 30
    log = serve(ApiSpec(fixed(0.1), fixed(0.0), rpm=12.0), times, [(1, 1)] * 35).log
    late = log[log["arrival_s"] > 0]
    assert (late["outcome"] == a.OK).sum() == 12


def test_a_queue_at_the_concurrency_limit_is_served_in_order() -> None:
    log = serve(ApiSpec(fixed(1.0), fixed(0.0), concurrency=2), [0.0, 0.1, 0.2, 0.3, 0.4], [(1, 1)] * 5).log
    assert log["task"].tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(log["finish_s"], [1.0, 1.1, 2.0, 2.1, 3.0])
    assert (log["started_s"] == log["arrival_s"]).all()


def test_a_full_endpoint_may_reject() -> None:
    api = ApiSpec(fixed(1.0), fixed(0.0), concurrency=2, reject_full=True)
    log = serve(api, [0.0, 0.1, 0.2, 1.05], [(1, 1)] * 4).log
    outcome = log["outcome"][np.argsort(log["task"])]
    assert outcome.tolist() == [a.OK, a.OK, a.RATE_LIMITED, a.OK]


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_errors_come_at_their_probability_when_the_first_token_would(share: float) -> None:
    n = 4000
    api = ApiSpec(fixed(0.3), fixed(0.1), error_probability=share)
    log = serve(api, [0.01 * i for i in range(n)], [(9, 5)] * n).log
    failed = log[log["outcome"] == a.ERROR]
    assert len(failed) / n == pytest.approx(share, abs=3.5 * (share * (1 - share) / n) ** 0.5 + 1e-12)
    np.testing.assert_allclose(failed["finish_s"] - failed["arrival_s"], 0.3)
    assert (failed["output_tokens"] == 0).all()


def test_a_failed_call_is_not_billed() -> None:
    w = serve(ApiSpec(fixed(0.3), fixed(0.1), error_probability=1.0), [0.0] * 5, [(9, 5)] * 5).world
    assert w.cells["failed"].sum() == 5
    assert w.cells["prompt_tokens"].sum() == w.cells["output_tokens"].sum() == 0


@pytest.mark.parametrize(
    ("timeout_s", "generated"), [(0.25, 0), (0.4999, 0), (0.5, 1), (0.55, 1), (0.6, 2), (0.99, 5), (1.35, 9)]
)
def test_a_client_that_hangs_up_pays_for_what_was_made(timeout_s: float, generated: int) -> None:
    """The first token at 0.5 s, one more every 0.1 s: those made by the time-out are billed, the prompt too."""
    done = serve(
        ApiSpec(fixed(0.5), fixed(0.1)), [0.0], [(70, 10)], gateway=GatewaySpec(timeout_s=timeout_s)
    )
    assert done.log["outcome"].tolist() == [a.TIMED_OUT]
    assert done.log["output_tokens"].tolist() == [generated]
    assert done.log["finish_s"].tolist() == [timeout_s]
    cell = done.world.cells[0]
    assert (cell["prompt_tokens"], cell["output_tokens"], cell["timed_out"]) == (70, generated, 1)


def test_hanging_up_gives_the_place_to_the_next_in_the_queue() -> None:
    """The second is taken up when the first is given up at 0.7 s, for 0.1 s; the third when the second is."""
    api = ApiSpec(fixed(1.0), fixed(0.0), concurrency=1)
    done = serve(api, [0.0, 0.1, 0.2], [(1, 1)] * 3, gateway=GatewaySpec(timeout_s=0.7))
    assert (done.log["outcome"] == a.TIMED_OUT).all()
    np.testing.assert_allclose(done.log["finish_s"], [0.7, 0.8, 0.9])
    np.testing.assert_allclose(done.log["first_token_s"], [1.0, 1.7, 1.8])
    assert done.world.backends[0]["in_flight"] == 0
    assert done.world.cells[0]["prompt_tokens"] == 3


def test_who_is_given_up_in_the_queue_is_not_billed() -> None:
    """Whoever comes while one long call has the only place is given up before it is called."""
    api = ApiSpec(fixed(100.0), fixed(0.0), concurrency=1)
    done = serve(api, [0.0, 0.0, 0.0], [(7, 1)] * 3, gateway=GatewaySpec(timeout_s=5.0))
    assert (done.log["outcome"] == a.TIMED_OUT).all()
    assert (done.log["finish_s"] == 5.0).all()
    cells = done.world.cells
    assert cells["timed_out"].sum() == 3
    assert cells["prompt_tokens"].sum() <= 3 * 7
    waited = ApiSpec(fixed(4.0), fixed(0.0), concurrency=1)
    done = serve(waited, [0.0, 3.0, 3.5], [(7, 1)] * 3, gateway=GatewaySpec(timeout_s=4.25))
    # The third waits from 3.5 to 7.25, when the second is given up, and is itself given up at 7.75.
    assert done.log["outcome"].tolist() == [a.OK, a.TIMED_OUT, a.TIMED_OUT]
    np.testing.assert_allclose(done.log["finish_s"], [4.0, 7.25, 7.75])


def test_shared_prefix_is_billed_as_cached_and_long_prompts_apart() -> None:
    api = ApiSpec(fixed(0.1), fixed(0.0), cached_ratio=0.5, long_tokens=200)
    cls = ClassSpec(prompt=fixed(50.0), output=fixed(10.0), system_tokens=100)
    long = ClassSpec(prompt=fixed(150.0), output=fixed(20.0), system_tokens=100)
    plan = Plan(classes=(cls, long), chunks=(arrivals([0.0, 1.0]), arrivals([0.0])), backends=(api,))
    cells = run(plan).world.cells
    assert cells["prompt_tokens"].tolist() == [300, 250]
    assert cells["cached_tokens"].tolist() == [100, 50]
    assert cells["output_tokens"].tolist() == [20, 20]
    assert cells["long_prompt_tokens"].tolist() == [0, 250]
    assert cells["long_cached_tokens"].tolist() == [0, 50]
    assert cells["long_output_tokens"].tolist() == [0, 20]


@pytest.mark.parametrize("rpm", [0.5, 0.2])
def test_less_than_a_request_a_minute_is_a_limit_not_a_ban(rpm: float) -> None:
    times = [60.0 * i for i in range(21)]
    log = serve(ApiSpec(fixed(0.1), fixed(0.0), rpm=rpm), times, [(1, 1)] * 21).log
    assert (log["outcome"] == a.OK).sum() == pytest.approx(20 * rpm, abs=1.0)
