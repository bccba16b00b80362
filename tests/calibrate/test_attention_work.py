"""Attention work from sums, against prompts taken one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simlab.calibrate.attention_work import attention_work


def by_tokens(chunks: list[tuple[int, int]]) -> int:
    """Each prompt token attends to what is before it, and to itself."""
    return sum(position for start, length in chunks for position in range(start + 1, start + length + 1))


@given(st.integers(0, 500), st.integers(1, 300), st.lists(st.integers(1, 400), max_size=4))
def test_whole_prompts_beside_the_rest_of_one_are_exact(start: int, rest: int, whole: list[int]) -> None:
    chunks = [(start, rest), *((0, length) for length in whole)]
    prompts = np.array([start + rest, *whole], dtype=float)
    tokens = float(sum(length for _, length in chunks))
    found = attention_work(
        np.array([tokens]), np.array([float(len(chunks))]), np.array([float(start)]), np.array([prompts.var()])
    )
    assert found[0] == pytest.approx(by_tokens(chunks), rel=1e-9)


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(1, 300)), min_size=1, max_size=5))
def test_it_is_never_less_than_the_tokens_alone_must_work(chunks: list[tuple[int, int]]) -> None:
    tokens = float(sum(length for _, length in chunks))
    starts = float(sum(start for start, _ in chunks))
    found = attention_work(np.array([tokens]), np.array([float(len(chunks))]), np.array([starts]))[0]
    assert found >= tokens * (tokens / len(chunks) + 1.0) / 2.0 * (1 - 1e-12)


def test_no_prompt_no_work() -> None:
    assert attention_work(np.zeros(2), np.zeros(2), np.zeros(2)).tolist() == [0.0, 0.0]
