"""A benchmark simulated as it was driven: against a plain loop, `simlab.replay`, and what clients report."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
from made_runs import LIMITS, SERVER, TRUTH, known, made_run

from simlab import replay
from simlab.calibrate.benchmark import Benchmark, Limits, client_metrics, simulate_requests, simulate_run
from simlab.calibrate.run import Load, Requests
from simlab.profiles import StepTime

LENGTHS = [(30 + 97 * i % 700, 2 + 31 * i % 60) for i in range(60)]
PLAIN = StepTime(
    base_s=9e-3, per_seq_s=3e-4, per_kv_token_s=5e-7, per_prefill_kv_token_s=5e-7, per_prefill_token_s=1.5e-4
)


@dataclass(eq=False)
class Asked:
    """A request in the plain loop."""

    row: int
    sent_s: float
    prompt: int
    output: int
    computed: int = 0
    made: int = 0


def plain_loop(
    lengths: list[tuple[int, int]], users: int, step_time: StepTime, budget: int, seqs: int
) -> list[tuple[float, float, float]]:
    """(sent, first token, end) of each request: one step at a time, and a heap of users who come back."""
    coming = [(0.0, user) for user in range(users)]
    row, now = 0, 0.0
    waiting: list[Asked] = []
    running: list[Asked] = []
    answers: list[tuple[float, float, float]] = [(0.0, 0.0, 0.0)] * len(lengths)
    while True:
        if not waiting and not running:
            if row == len(lengths):
                return answers
            now = max(now, coming[0][0])
        while coming and coming[0][0] <= now + 1e-12 and row < len(lengths):
            t, _ = heapq.heappop(coming)
            waiting.append(Asked(row, t, *lengths[row]))
            row += 1
        chunks: list[tuple[Asked, int]] = []
        left = budget
        for one in running:
            chunk = min(left, one.prompt + one.made - one.computed)
            chunks.append((one, chunk))
            left -= chunk
        while waiting and left > 0 and len(running) < seqs:
            one = waiting.pop(0)
            chunk = min(left, one.prompt)
            running.append(one)
            chunks.append((one, chunk))
            left -= chunk
        old = [one for one, _ in chunks if one.made > 0]
        new = [(one, chunk) for one, chunk in chunks if one.made == 0 and chunk > 0]
        now += step_time.step_s(
            sum(chunk for _, chunk in new),
            len(old),
            sum(one.computed + 1 for one in old),
            sum(one.computed + chunk for one, chunk in new),
            sum(chunk * (one.computed + (chunk + 1) / 2) for one, chunk in new),
            len(new),
        )
        for one, chunk in chunks:
            one.computed += chunk
            if chunk == 0 or one.computed < one.prompt:
                continue
            one.made += 1
            seen = now + step_time.overhead_s
            if one.made == 1:
                answers[one.row] = (one.sent_s, seen, seen)
            if one.made == one.output:
                answers[one.row] = (one.sent_s, answers[one.row][1], seen)
                running.remove(one)
                heapq.heappush(coming, (seen, one.row))


@pytest.mark.parametrize("users", [1, 3, 20])
@pytest.mark.parametrize("law", [TRUTH, PLAIN], ids=["truth", "plain"])
def test_a_closed_loop_is_the_plain_loop(users: int, law: StepTime) -> None:
    load = Load(concurrency=users, requests=len(LENGTHS), prompt_tokens=1, output_tokens=1)
    run = known([0.0] * len(LENGTHS), LENGTHS, load)
    found = simulate_requests(run, law, replace(LIMITS, max_num_seqs=16, max_num_batched_tokens=512))
    sent, first, end = np.array(plain_loop(LENGTHS, users, law, 512, 16)).T
    np.testing.assert_allclose(found.start_s, sent, atol=1e-7)
    np.testing.assert_allclose(found.start_s + found.ttft_s, first, atol=1e-7)
    np.testing.assert_allclose(found.start_s + found.e2e_s, end, atol=1e-7)


def test_an_open_loop_is_replay() -> None:
    start = np.cumsum(np.random.default_rng(0).exponential(0.05, len(LENGTHS)))
    load = Load(rate_rps=20.0, requests=len(LENGTHS), prompt_tokens=1, output_tokens=1)
    limits = Limits(max_num_seqs=8, max_num_batched_tokens=256, kv_blocks=300, block_size=4)
    found = simulate_requests(known(start.tolist(), LENGTHS, load), PLAIN, limits)
    prompts, outputs = np.array(LENGTHS).T
    answer = replay(
        pd.DataFrame({"arrival_s": start - start[0], "prompt_tokens": prompts, "output_tokens": outputs}),
        step_time={
            "base_s": PLAIN.base_s,
            "per_prefill_token_s": PLAIN.per_prefill_token_s,
            "per_decode_seq_s": PLAIN.per_seq_s,
            "per_context_token_s": PLAIN.per_kv_token_s,
        },
        max_num_seqs=8,
        max_num_batched_tokens=256,
        kv_blocks=300,
        block_size=4,
        prefix_caching=True,
    )
    assert answer["preemptions"].sum() > 0
    np.testing.assert_allclose(found.start_s + found.ttft_s, answer["first_token_s"], atol=1e-7)
    np.testing.assert_allclose(found.start_s + found.e2e_s, answer["finish_s"], atol=1e-7)


def test_one_user_waits_for_prefill_and_decode_steps_in_closed_form() -> None:
    load = Load(concurrency=1, requests=5, prompt_tokens=100, output_tokens=20)
    found = simulate_run(made_run(load), TRUTH, LIMITS)
    first = TRUTH.step_s(100, 0, 0, 100, 100 * 101 / 2, 1) + TRUTH.overhead_s
    further = sum(TRUTH.step_s(0, 1, 100 + token) for token in range(1, 20))
    assert found["ttft_s_mean"] == pytest.approx(first, rel=1e-9)
    assert found["ttft_s_p99"] == pytest.approx(first, rel=1e-9)
    assert found["itl_s_mean"] == found["tpot_s_mean"] == pytest.approx(further / 19, rel=1e-9)
    assert found["e2e_s_mean"] == pytest.approx(first + further, rel=1e-9)
    assert found["output_tokens_per_s"] == pytest.approx(20 / (first + further), rel=1e-6)


def test_what_the_client_reports() -> None:
    """Means and percentiles over requests; ITL over tokens; a request of one token has neither ITL nor TPOT."""
    found = client_metrics(
        Requests(
            start_s=np.array([0.0, 1.0, 2.0]),
            prompt_tokens=np.array([1, 1, 1]),
            output_tokens=np.array([11, 1, 3]),
            ttft_s=np.array([0.5, 0.2, 0.9]),
            e2e_s=np.array([1.5, 0.2, 1.5]),
        )
    )
    assert found["ttft_s_mean"] == pytest.approx(1.6 / 3)
    assert found["ttft_s_p50"] == 0.5
    assert found["ttft_s_p99"] == pytest.approx(np.percentile([0.5, 0.2, 0.9], 99))
    assert found["itl_s_mean"] == pytest.approx((1.0 + 0.6) / (10 + 2))
    assert found["tpot_s_mean"] == pytest.approx((0.1 + 0.3) / 2)
    assert found["output_tokens_per_s"] == pytest.approx(15 / 3.5)


def test_a_shared_beginning_is_computed_once_where_it_is_cached() -> None:
    load = Load(concurrency=1, requests=20, prompt_tokens=700, output_tokens=4, shared_tokens=640, shared_kinds=2)
    run = made_run(load)
    cached = simulate_requests(run, TRUTH, LIMITS)
    anew = simulate_requests(run, TRUTH, replace(LIMITS, prefix_caching=False))
    hit = TRUTH.step_s(60, 0, 0, 700, 60 * (640 + 61 / 2), 1) + TRUTH.overhead_s
    np.testing.assert_allclose(np.sort(cached.ttft_s)[:18], hit, rtol=1e-9)
    np.testing.assert_allclose(np.sort(cached.ttft_s)[18:], anew.ttft_s[:2], rtol=1e-9)


def test_ranks_share_the_users_and_their_tokens_add_up() -> None:
    one = Load(concurrency=4, requests=40, prompt_tokens=300, output_tokens=50)
    both = replace(one, concurrency=8, requests=80)
    single = simulate_run(made_run(one), TRUTH, LIMITS)
    double = simulate_run(made_run(both, server=replace(SERVER, dp=2)), TRUTH, LIMITS)
    assert double.pop("output_tokens_per_s") == pytest.approx(2 * single.pop("output_tokens_per_s"), rel=1e-3)
    # The second of two users of a rank is sent a little later.
    assert double == pytest.approx(single, rel=5e-3)


def test_a_cache_that_could_not_hold_the_longest_request_is_as_large_as_that() -> None:
    load = Load(concurrency=2, requests=4, prompt_tokens=100, output_tokens=30)
    tiny = simulate_requests(made_run(load), TRUTH, replace(LIMITS, kv_blocks=3))
    assert len(tiny.ttft_s) == 4
    alone = simulate_requests(made_run(replace(load, concurrency=1)), TRUTH, LIMITS)
    # There is room for one: the other user waits until it has ended.
    assert np.sort(tiny.ttft_s)[-1] == pytest.approx(alone.e2e_s.max() + alone.ttft_s.min(), rel=0.1)


def test_a_full_cache_delays_first_tokens() -> None:
    load = Load(concurrency=32, requests=96, prompt_tokens=200, output_tokens=200)
    free, full = (
        simulate_run(made_run(load), TRUTH, replace(LIMITS, kv_blocks=blocks)) for blocks in (4000, 32 * 25 // 2)
    )
    assert full["ttft_s_mean"] > 3 * free["ttft_s_mean"]


@pytest.mark.parametrize(
    "load",
    [
        Load(concurrency=9, requests=60, prompt_tokens=300, output_tokens=40, low=0.5, high=1.5),
        Load(rate_rps=30.0, requests=1500, prompt_tokens=300, output_tokens=40, low=0.5, high=1.5),
        Load(concurrency=9, requests=60, prompt_tokens=300, output_tokens=40, shared_tokens=200, shared_kinds=3),
    ],
    ids=["closed", "overloaded", "shared"],
)
@pytest.mark.parametrize("blocks", [120, 4000])
def test_running_again_is_running_anew(load: Load, blocks: int) -> None:
    """The same engine with other step times, whether or not its arrays grew, gives what a new one gives."""
    laws = [
        TRUTH,
        TRUTH.scaled({"base_s": 3.0, "overhead_s": 0.0}),
        replace(TRUTH, linear=((0.0, 0.0), (8.0, 1e-3), (16.0, 4e-3))),
        replace(TRUTH, linear=((0.0, 0.0), (4.0, 2e-3), (32.0, 3e-3))),
        TRUTH,
    ]
    limits = replace(LIMITS, kv_blocks=blocks)
    again = Benchmark(made_run(load), limits)
    for law in laws:
        assert again.metrics(law) == simulate_run(made_run(load), law, limits)


def test_less_time_a_step_is_less_time_for_everything() -> None:
    load = Load(concurrency=12, requests=120, prompt_tokens=400, output_tokens=60, low=0.5, high=1.5)
    slow, fast = (simulate_run(made_run(load), TRUTH.scaled({"base_s": f}), LIMITS) for f in (1.3, 1.0))
    assert fast.pop("output_tokens_per_s") > slow.pop("output_tokens_per_s")
    assert all(fast[name] < slow[name] for name in fast)


def test_littles_law_holds() -> None:
    """Users = throughput × time in the system, but for the beginning and the end, where fewer are under way."""
    load = Load(concurrency=10, requests=1000, prompt_tokens=200, output_tokens=40, low=0.5, high=1.5)
    found = simulate_run(made_run(load), TRUTH, LIMITS)
    inside = found["output_tokens_per_s"] / 40 * found["e2e_s_mean"]
    assert inside == pytest.approx(10.0, rel=0.02)
    assert math.isfinite(found["ttft_s_p99"])
