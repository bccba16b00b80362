"""Steps rebuilt from token times: against a plain scheduler whose steps are known, and against logs of real servers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from engine.twin import TwinRun, twin_replay
from hypothesis import given, settings
from hypothesis import strategies as st

from simlab.calibrate.run import Requests, Steps
from simlab.calibrate.step_fit import fit_steps
from simlab.calibrate.step_samples import step_samples, with_context
from simlab.profiles import StepTime

LAW = StepTime(base_s=0.02, per_seq_s=5e-4, per_kv_token_s=1e-6, attn_s=1e-8, linear=((1.0, 0.0), (4096.0, 0.8)))
BUDGET = 512


def rows(rng: np.random.Generator, count: int, rate_rps: float, prompt: int, output: int) -> list[dict[str, Any]]:
    """An open stream of requests."""
    times = np.cumsum(rng.exponential(1 / rate_rps, count))
    return [
        {"arrival_s": t, "prompt_tokens": int(p), "output_tokens": int(o)}
        for t, p, o in zip(times, rng.integers(1, prompt, count), rng.integers(1, output, count), strict=True)
    ]


def served(requests: list[dict[str, Any]], kv_blocks: int = 4000) -> TwinRun:
    return twin_replay(requests, LAW, 32, BUDGET, kv_blocks, 16, prefix_caching=False)


def measured(requests: list[dict[str, Any]], run: TwinRun, *, delay_s: float = 0.0, seed: int = 0) -> Requests:
    """What a client sees: tokens at the ends of steps; ``delay_s``: each is later by up to that much."""
    rng = np.random.default_rng(seed)
    times: list[list[float]] = [[] for _ in requests]
    computed = [0] * len(requests)
    for step in run.steps:
        for row, tokens in step.tokens.items():
            computed[row] += tokens
            if computed[row] >= requests[row]["prompt_tokens"]:
                times[row].append(step.start_s + step.duration_s + delay_s * rng.random())
    start = np.array([r["arrival_s"] for r in requests])
    return Requests(
        start_s=start,
        prompt_tokens=np.array([r["prompt_tokens"] for r in requests]),
        output_tokens=np.array([r["output_tokens"] for r in requests]),
        ttft_s=np.array([at[0] for at in times]) - start,
        e2e_s=np.array([at[-1] for at in times]) - start,
        itl_s=tuple(np.diff(at) for at in times),
    )


def truth(requests: list[dict[str, Any]], run: TwinRun) -> list[tuple[int, int, int, int]]:
    """(prompt tokens, prefilling requests, decodes, context of these) of each step."""
    computed = [0] * len(requests)
    found = []
    for step in run.steps:
        prompts = [tokens for row, tokens in step.tokens.items() if computed[row] < requests[row]["prompt_tokens"]]
        decodes = [row for row in step.tokens if computed[row] >= requests[row]["prompt_tokens"]]
        found.append((sum(prompts), len(prompts), len(decodes), sum(computed[row] + 1 for row in decodes)))
        for row, tokens in step.tokens.items():
            computed[row] += tokens
    return found


def batches(steps: Steps) -> list[tuple[float, ...]]:
    parts = (steps.prefill_tokens, steps.prefill_requests, steps.decode_requests, steps.decode_context_tokens)
    return list(zip(*(part.tolist() for part in parts), strict=True))


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.floats(0.5, 8.0), st.sampled_from([60, 600, 1500]))
def test_batches_are_those_of_the_scheduler(seed: int, rate_rps: float, prompt: int) -> None:
    """Prompts above the budget are in chunks. Steps whose beginning nobody saw are missing; few others are."""
    asked = rows(np.random.default_rng(seed), 40, rate_rps, prompt, 40)
    run = served(asked)
    samples = step_samples(measured(asked, run), token_budget=BUDGET)
    expected = set(truth(asked, run))
    right = sum(batch in expected for batch in batches(samples.steps))
    assert right >= 0.97 * len(samples.steps.seconds)
    assert samples.found <= len(run.steps)
    assert len(samples.steps.seconds) + samples.idle + samples.unclear == samples.found
    assert samples.unclear <= 0.05 * samples.found + 2


def test_each_step_has_its_own_time() -> None:
    asked = rows(np.random.default_rng(1), 60, 4.0, 300, 60)
    run = served(asked)
    samples = step_samples(measured(asked, run), token_budget=BUDGET)
    lasting = {batch: step.duration_s for batch, step in zip(truth(asked, run), run.steps, strict=True)}
    for batch, seconds in zip(batches(samples.steps), samples.steps.seconds, strict=True):
        assert seconds == pytest.approx(lasting[batch], rel=1e-6)


def test_late_tokens_do_not_bias_the_fit() -> None:
    """Each token comes up to 3 ms late: a burst begins with its first one, and what that lacks cancels out."""
    asked = rows(np.random.default_rng(2), 250, 5.0, 300, 80)
    run = served(asked)
    clean = fit_steps([step_samples(measured(asked, run), token_budget=BUDGET).steps]).step_time
    late = step_samples(measured(asked, run, delay_s=0.003), token_budget=BUDGET)
    assert len(late.steps.seconds) > 0.95 * late.found
    found = fit_steps([late.steps]).step_time
    for shape in [(0, 4, 1200), (0, 16, 4800), (200, 8, 2400, 200, 20_100)]:
        assert found.step_s(*shape) == pytest.approx(LAW.step_s(*shape), rel=0.02)
        assert clean.step_s(*shape) == pytest.approx(LAW.step_s(*shape), rel=0.01)


def test_preempted_requests_make_only_their_own_steps_unclear() -> None:
    asked = rows(np.random.default_rng(3), 40, 20.0, 60, 80)
    run = served(asked, kv_blocks=60)
    assert sum(outcome.preemptions for outcome in run.outcomes) > 0
    requests = measured(asked, run)
    # The twin's preempted requests recompute what they had made: their prompt has grown, which no client sees.
    samples = step_samples(requests, token_budget=BUDGET)
    assert 0 < samples.unclear < 0.9 * samples.found
    assert len(samples.steps.seconds) > 0


def test_two_tokens_in_a_response_are_two_steps() -> None:
    """While others get a token in between, so that the step is seen."""
    asked = rows(np.random.default_rng(4), 20, 100.0, 100, 40)
    run = served(asked)
    requests = measured(asked, run)
    assert requests.itl_s is not None
    longest = int(np.argmax(requests.output_tokens))
    itl = requests.itl_s[longest]
    merged = np.concatenate([itl[:5], [itl[5] + itl[6]], itl[7:]])
    itls = tuple(merged if i == longest else other for i, other in enumerate(requests.itl_s))
    whole = step_samples(requests, token_budget=BUDGET)
    less = step_samples(replace(requests, itl_s=itls), token_budget=BUDGET)
    missing = set(batches(whole.steps)) - set(batches(less.steps))
    assert len(missing) <= 2


def test_prompts_that_may_be_cached_are_left_out() -> None:
    asked = rows(np.random.default_rng(5), 30, 4.0, 100, 40)
    samples = step_samples(measured(asked, served(asked)), token_budget=BUDGET, may_be_cached=True)
    assert (samples.steps.prefill_tokens == 0).all()
    assert samples.unclear > 0


def test_without_token_times_there_are_no_steps() -> None:
    asked = rows(np.random.default_rng(6), 5, 4.0, 100, 40)
    samples = step_samples(replace(measured(asked, served(asked)), itl_s=None))
    assert samples.found == len(samples.steps.seconds) == 0


def bench(folder: Path, name: str) -> Requests:
    """The requests of a result of ``vllm bench serve --save-detailed``."""
    result = json.loads((folder / "results" / f"{name}.json").read_text())
    arrays = {key: np.array(result[key]) for key in ("start_times", "input_lens", "output_lens", "ttfts", "latencies")}
    return Requests(
        start_s=arrays["start_times"] - arrays["start_times"].min(),
        prompt_tokens=arrays["input_lens"],
        output_tokens=arrays["output_lens"],
        ttft_s=arrays["ttfts"],
        e2e_s=arrays["latencies"],
        itl_s=tuple(np.array(times) for times in result["itls"]),
    )


@pytest.mark.parametrize(
    ("name", "budget"),
    [("A-i1024-o32-c16", 2048), ("A-i128-o64-r2", 2048), ("A-i128-o64-c8-rep2", 2048), ("B-i512-o128-c8", 256)],
)
def test_a_real_server_logged_the_same_steps(shared_data: Path, name: str, budget: int) -> None:
    """The server's own log has the same batches in the same order, and each step 1 to 4 ms shorter (its README, 6)."""
    folder = shared_data / "vllm-cpu"
    requests = bench(folder, name)
    samples = step_samples(requests, token_budget=budget)
    log = pd.read_csv(folder / "server_side" / f"{name}.iterations.csv.gz")
    assert abs(samples.found - len(log)) <= 2
    kept = samples.steps
    logged = list(zip(log["context_tokens"], log["generation_requests"], log["elapsed_ms"], strict=True))
    at, gaps = 0, []
    for prefill, decodes, seconds in zip(kept.prefill_tokens, kept.decode_requests, kept.seconds, strict=True):
        ahead = [i for i in range(at, min(at + 60, len(logged))) if logged[i][:2] == (prefill, decodes)]
        if ahead:
            at = ahead[0] + 1
            gaps.append(1e3 * seconds - logged[ahead[0]][2])
    assert len(gaps) > 0.99 * len(kept.seconds)
    assert 1.0 < np.median(gaps) < 4.0

    nan = np.full(len(log), np.nan)
    prefill = log["context_tokens"].to_numpy(float)
    unknown = Steps(
        seconds=log["elapsed_ms"].to_numpy(float) / 1e3,
        prefill_tokens=prefill,
        prefill_requests=log["context_requests"].to_numpy(float),
        prefill_start_tokens=nan,
        decode_requests=log["generation_requests"].to_numpy(float),
        decode_context_tokens=nan,
        work=nan,
        real=np.ones(len(log), dtype=bool),
    )
    told = with_context(unknown, requests, token_budget=budget).decode_context_tokens
    assert np.isfinite(told).mean() > 0.98
    each = told[np.isfinite(told) & (unknown.decode_requests > 0)]
    longest = (requests.prompt_tokens + requests.output_tokens).max()
    assert (each <= (unknown.decode_requests * longest)[np.isfinite(told) & (unknown.decode_requests > 0)]).all()
