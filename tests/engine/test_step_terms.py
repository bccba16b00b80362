"""The jump equals the plain loop for every term of the step-time family (DESIGN.md I10)."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from small_worlds import Plan, run, traced
from twin import twin_replay

from simlab.assemble import coefficients
from simlab.engine import ClassSpec, PoolSpec
from simlab.profiles import StepTime

STAIRS = ((1.0, 0.0), (2.0, 0.25), (3.0, 0.5), (4.0, 0.5), (5.0, 1.0), (8.0, 1.0), (9.0, 1.5), (64.0, 1.5))
LAW = StepTime(
    base_s=2**-6,
    per_seq_s=2**-10,
    per_kv_token_s=2**-13,
    per_prefill_kv_token_s=2**-14,
    attn_s=2**-16,
    per_prefill_token_s=2**-11,
    per_prefill_seq_s=2**-8,
    linear=STAIRS,
    prefill_linear=((1.0, 0.125), (16.0, 0.125), (17.0, 0.25), (32.0, 0.5)),
)
COLUMNS = ("first_token_s", "finish_s", "preemptions", "cached_tokens")


@st.composite
def workloads(draw: st.DrawFn) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Few requests, some longer than a step's budget, on a replica that may run out of blocks."""
    seqs = draw(st.integers(1, 12))
    blocks = draw(st.integers(12, 60))
    tick = 0
    rows = []
    for _ in range(draw(st.integers(1, 16))):
        tick += draw(st.sampled_from([0, 0, 1, 5, 40]))
        rows.append(
            {
                "arrival_s": tick / 8,
                "prompt_tokens": draw(st.integers(1, 24)),
                "output_tokens": draw(st.integers(1, 16)),
                "segments": [],
            }
        )
    return rows, {
        "max_num_seqs": seqs,
        "max_num_batched_tokens": seqs + draw(st.sampled_from([0, 3, 20])),
        "kv_blocks": blocks,
        "block_size": 4,
        "prefix_caching": False,
    }


@settings(deadline=None, max_examples=200)
@given(workloads())
def test_every_term_keeps_the_jump_exact(workload: tuple[list[dict[str, Any]], dict[str, Any]]) -> None:
    rows, limits = workload
    plain = twin_replay(rows, LAW, **limits).outcomes
    pool = PoolSpec(step=coefficients(LAW), **limits)
    feed = traced([(r["arrival_s"], r["prompt_tokens"], r["output_tokens"], r["segments"]) for r in rows])
    log = run(Plan((ClassSpec(segmented=True),), ((feed,),), (pool,), horizon_s=1e9, window_s=1e9)).log
    log = log[np.argsort(log["task"])]
    for i, column in enumerate(COLUMNS):
        expected = np.array([outcome[i] for outcome in plain])
        np.testing.assert_allclose(log[column], expected, rtol=0, atol=1e-8, err_msg=column)
