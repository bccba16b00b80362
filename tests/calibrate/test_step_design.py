"""Columns, tables and step-times say the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_steps import random_batches

from simlab.calibrate.run import Steps
from simlab.calibrate.step_design import Column, Contents, columns, contents, matrix, step_seconds, step_time_of
from simlab.profiles import StepTime

LAW = StepTime(
    base_s=0.01,
    per_seq_s=1e-4,
    per_kv_token_s=2e-8,
    per_prefill_kv_token_s=3e-8,
    attn_s=1e-9,
    per_prefill_token_s=2e-6,
    per_prefill_seq_s=1e-3,
    linear=((1.0, 0.0), (8.0, 0.0), (9.0, 0.002), (512.0, 0.01)),
    prefill_linear=((1.0, 0.003), (512.0, 0.003), (513.0, 0.01), (1024.0, 0.01)),
)


def test_a_whole_log_takes_what_its_steps_take() -> None:
    steps = random_batches(300, np.random.default_rng(1))
    batch = contents(steps)
    seconds = step_seconds(LAW, steps)
    for i in range(300):
        expected = LAW.step_s(
            batch.prefill[i],
            batch.decodes[i],
            batch.decode_context[i],
            batch.prefill_context[i],
            batch.work[i],
            batch.requests[i],
        )
        assert seconds[i] == pytest.approx(expected, rel=1e-12)


@given(st.integers(0, 2**32 - 1), st.integers(1, 200))
def test_any_solution_is_a_step_time_that_gives_the_very_same(seed: int, most: int) -> None:
    """Also it never falls: `StepTime` refuses tables that do."""
    rng = np.random.default_rng(seed)
    batch = contents(random_batches(60, rng, most=most))
    chosen = columns(batch)
    solution = rng.exponential(1e-3, len(chosen)) * (rng.random(len(chosen)) < 0.7)
    found = step_seconds(step_time_of(chosen, solution), batch)
    np.testing.assert_allclose(found, matrix(batch, chosen) @ solution, rtol=1e-9, atol=1e-15)


def test_a_table_is_level_below_the_smallest_step_and_after_a_stair() -> None:
    law = step_time_of([Column("base", "base_s"), Column("stairs", "linear", 16, 17)], np.array([1.0, 0.5]))
    assert [law.step_s(0, n, 0) for n in (1, 16, 17, 1000)] == [1.0, 1.0, 1.5, 1.5]
    batch = contents(random_batches(100, np.random.default_rng(0), most=64, prompts=0.0))
    large = batch.part(batch.decodes >= 20)
    lowest = min(column.low for column in columns(large) if column.term == "linear")
    assert lowest >= 20


def test_what_a_log_does_not_tell_is_filled_in() -> None:
    nan = np.full(3, np.nan)
    known = np.array([np.nan, 1000.0, np.nan])
    steps = Steps(
        np.ones(3), np.array([100.0, 0.0, 0.0]), nan, nan, np.array([2.0, 4.0, 8.0]), known, nan, np.ones(3, dtype=bool)
    )
    batch = contents(steps)
    assert batch.requests.tolist() == [1.0, 0.0, 0.0]
    assert batch.decode_context.tolist() == [500.0, 1000.0, 2000.0]
    assert batch.prefill_context.tolist() == [100.0, 0.0, 0.0]
    assert batch.work.tolist() == [5050.0, 0.0, 0.0]


def test_columns_are_made_only_of_what_occurs() -> None:
    decodes = contents(random_batches(50, np.random.default_rng(0), prompts=0.0))
    assert {column.group for column in columns(decodes)} <= {"base", "curve", "kv", "seq", "knee", "stairs"}
    beyond = Contents(*(np.array([value]) for value in (4096.0, 1.0, 0.0, 0.0, 4096.0, 8e6)))
    assert "attention" in {column.group for column in columns(decodes, beyond)}
