"""The twin is vLLM's scheduler, step by step; and the compiled replica is the twin (DESIGN.md I10)."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from oracle_cases import EXACT, limits
from recordings import COLUMNS, TOLERANCE_S, load, names
from small_worlds import Plan, traced
from small_worlds import run as serve
from twin import KVCache, twin_replay

from simlab.engine import ClassSpec, PoolSpec, StepCoefficients
from simlab.one_replica import replay

TICKS_PER_S = 512


@pytest.mark.parametrize("name", names())
def test_twin_equals_vllm_in_every_step(name: str) -> None:
    recording = load(name)
    run = twin_replay(recording["requests"], **recording["limits"])
    digest = hashlib.sha256()
    for step in run.steps:
        digest.update(json.dumps(list(step.tokens.items())).encode())
    assert len(run.steps) == recording["answer"]["steps"]
    assert digest.hexdigest() == recording["answer"]["batches_sha256"]
    for i, column in enumerate(COLUMNS):
        answer = [outcome[i] for outcome in run.outcomes]
        np.testing.assert_allclose(answer, recording["answer"][column], rtol=0, atol=1e-9, err_msg=column)


def test_a_request_that_can_never_fit_is_an_error() -> None:
    row = {"arrival_s": 0.0, "prompt_tokens": 50, "output_tokens": 1}
    with pytest.raises(RuntimeError, match="can never fit into 3 blocks"):
        twin_replay([row], EXACT, 4, 16, kv_blocks=3, block_size=16, prefix_caching=False)


@st.composite
def workloads(draw: st.DrawFn) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Few requests on a replica so small that every rule is met; all times exact, so that ties are ties."""
    block_size = draw(st.sampled_from([1, 2, 3, 8]))
    blocks = draw(st.integers(3, 24))
    room = (blocks - 1) * block_size
    seqs = draw(st.integers(1, 6))
    budget = seqs + draw(st.sampled_from([0, 1, 3, 10, 40]))
    segment = draw(st.lists(st.integers(1, max(1, room // 3)), min_size=4, max_size=4))
    gaps = st.sampled_from([0, 0, 0, 1, 2, 7, 40])
    tick = 0
    rows = []
    for _ in range(draw(st.integers(1, 14))):
        tick += draw(gaps)
        chain = draw(st.lists(st.integers(0, 3), max_size=3))
        while sum(segment[name] for name in chain) > room:
            chain.pop()
        shared = sum(segment[name] for name in chain)
        prompt = shared + draw(st.one_of(st.just(0), st.just(1), st.integers(0, room - shared)))
        prompt = min(max(prompt, 1), room)
        rows.append(
            {
                "arrival_s": tick / TICKS_PER_S,
                "prompt_tokens": prompt,
                "output_tokens": draw(st.integers(1, room - prompt + 1)),
                "segments": [[name, segment[name]] for name in chain],
            }
        )
    return rows, limits(seqs, budget, blocks, block_size, draw(st.booleans()), EXACT)


@st.composite
def identical_prompts(draw: st.DrawFn) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Requests that ask the very same: they get the same answer, so one can hit blocks of another's answer."""
    block_size = draw(st.sampled_from([1, 2, 3]))
    blocks = draw(st.integers(5, 14))
    room = (blocks - 1) * block_size
    prompts = [[[0, 1]], [[0, 1], [1, min(3, room - 2)]], [[2, draw(st.integers(1, room // 2))]]]
    seqs = draw(st.integers(2, 5))
    tick = 0
    rows = []
    for _ in range(draw(st.integers(2, 8))):
        tick += draw(st.sampled_from([0, 0, 1, 3, 12]))
        chain = draw(st.sampled_from(prompts))
        prompt = sum(tokens for _, tokens in chain)
        rows.append(
            {
                "arrival_s": tick / TICKS_PER_S,
                "prompt_tokens": prompt,
                "output_tokens": draw(st.integers(1, room - prompt + 1)),
                "segments": chain,
            }
        )
    return rows, limits(seqs, seqs + draw(st.sampled_from([0, 2, 30])), blocks, block_size, True, EXACT)


@settings(deadline=None, max_examples=500)
@given(st.one_of(workloads(), identical_prompts()))
def test_the_jump_equals_the_plain_loop(workload: tuple[list[dict[str, Any]], dict[str, Any]]) -> None:
    rows, replica = workload
    run = twin_replay(rows, **replica)
    for step in run.steps:
        note(f"{step.start_s * TICKS_PER_S:10.4f} {step.duration_s * TICKS_PER_S:8.4f} {step.tokens}")
    answer = replay(pd.DataFrame(rows), **{key: value for key, value in replica.items() if key != "scheduling"})
    for i, column in enumerate(COLUMNS):
        plain = np.array([outcome[i] for outcome in run.outcomes])
        np.testing.assert_allclose(answer[column], plain, rtol=0, atol=TOLERANCE_S, err_msg=column)


@settings(deadline=None, max_examples=200)
@given(st.one_of(workloads(), identical_prompts()), st.integers(1, 9), st.integers(1, 14))
def test_a_closed_loop_with_a_feed_equals_the_plain_loop(
    workload: tuple[list[dict[str, Any]], dict[str, Any]], users: int, chunk: int
) -> None:
    """Each user sends the next request of the feed when it is due and the last one is answered."""
    rows, replica = workload
    run = twin_replay(rows, **replica, users=users)
    log = serve_users(rows, replica, users, chunk)
    assert log["task"].tolist() == list(range(len(rows)))
    for i, column in enumerate(COLUMNS):
        plain = np.array([outcome[i] for outcome in run.outcomes])
        np.testing.assert_allclose(log[column], plain, rtol=0, atol=TOLERANCE_S, err_msg=column)
    assert in_flight(log) <= users


def serve_users(rows: list[dict[str, Any]], replica: dict[str, Any], users: int, chunk: int) -> NDArray[Any]:
    """The compiled engine's log, in the order of the rows, which come ``chunk`` at a time."""
    chunks = [
        traced([(r["arrival_s"], r["prompt_tokens"], r["output_tokens"], r["segments"]) for r in rows[i : i + chunk]])
        for i in range(0, len(rows), chunk)
    ]
    limits = {key: value for key, value in replica.items() if key not in ("scheduling", "step_time")}
    step = replica["step_time"]
    pool = PoolSpec(
        step=StepCoefficients(
            base_s=step["base_s"],
            prefill_token_s=step["per_prefill_token_s"],
            decode_seq_s=step["per_decode_seq_s"],
            decode_context_s=step["per_context_token_s"],
            prefill_context_s=step["per_context_token_s"],
        ),
        **limits,
    )
    cls = ClassSpec(users=users, segmented=True)
    plan = Plan(classes=(cls,), chunks=(tuple(chunks),), backends=(pool,), horizon_s=1e9, window_s=1e9)
    log = serve(plan).log
    return np.asarray(log[np.argsort(log["task"])])


def in_flight(log: NDArray[Any]) -> int:
    """Most requests under way at once; one that is sent when another is answered is not beside it."""
    changes = [(t, 1) for t in log["arrival_s"]] + [(t, -1) for t in log["finish_s"]]
    return int(np.cumsum([change for _, change in sorted(changes)]).max())


def test_a_preempted_request_recomputed_token_by_token_is_decoding() -> None:
    """The budget leaves it one token a step beside the others: for the step time that is a decoding sequence."""
    rows: list[dict[str, Any]] = [
        {"arrival_s": 0.0, "prompt_tokens": prompt, "output_tokens": output, "segments": segments}
        for prompt, output, segments in [
            (1, 13, [[0, 1]]),
            (1, 1, [[0, 1]]),
            (1, 12, [[0, 1]]),
            (4, 3, [[0, 1], [1, 3]]),
        ]
    ]
    replica = limits(3, 3, 8, 3, True, EXACT)
    replica.pop("scheduling")
    expected = pd.DataFrame(twin_replay(rows, **replica).outcomes)
    answer = replay(pd.DataFrame(rows), **replica)
    assert expected["preemptions"].sum() > 0
    for column in COLUMNS:
        np.testing.assert_allclose(answer[column], expected[column], rtol=0, atol=TOLERANCE_S, err_msg=column)



@settings(deadline=None)
@given(workloads())
def test_the_twin_keeps_its_books(workload: tuple[list[dict[str, Any]], dict[str, Any]]) -> None:
    """No limit is passed in any step, every token is computed or cached, and tokens of a request come in order."""
    rows, replica = workload
    run = twin_replay(rows, **replica)
    computed = dict.fromkeys(range(len(rows)), 0)
    now = 0.0
    for step in run.steps:
        assert step.start_s >= now
        now = step.start_s + step.duration_s
        assert len(step.tokens) <= replica["max_num_seqs"]
        assert sum(step.tokens.values()) <= replica["max_num_batched_tokens"]
        for row, tokens in step.tokens.items():
            assert step.start_s >= rows[row]["arrival_s"]
            computed[row] += tokens
    for row, (request, outcome) in enumerate(zip(rows, run.outcomes, strict=True)):
        assert request["arrival_s"] < outcome.first_token_s <= outcome.finish_s
        needed = request["prompt_tokens"] + request["output_tokens"] - 1 - outcome.cached_tokens
        assert (
            computed[row] == needed if outcome.preemptions == 0 else computed[row] >= needed - request["prompt_tokens"]
        )


def test_freed_blocks_queue_as_in_vllm() -> None:
    """Unnamed blocks go in front, named ones behind, the deepest first: the order that decides what is evicted."""
    from twin import Request

    cache = KVCache(kv_blocks=6, block_size=2, prefix_caching=True)
    one = Request(row=0, arrival_s=0.0, prompt=5, output=1, priority=0, segments=[])
    cache.take(one, 5)
    held = list(one.blocks)
    cache.release(one)
    assert cache.free == [held[2], *cache.blocks[3:], held[1], held[0]]
    assert [block.key is None for block in held] == [False, False, True]
