"""Priority scheduling: who is served first, who is preempted, and what becomes of the others in that step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from by_priority import serve_by_priority
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle_cases import EXACT, limits
from recordings import COLUMNS, TOLERANCE_S
from test_twin import TICKS_PER_S, workloads
from twin import twin_replay

BY_PRIORITY = {"scheduling": "priority"}


def compare(rows: list[dict[str, Any]], replica: dict[str, Any]) -> None:
    """The compiled replica gives the twin's answers."""
    run = twin_replay(rows, **(replica | BY_PRIORITY))
    answer = serve_by_priority(rows, replica)
    for i, column in enumerate(COLUMNS):
        expected, read = ([outcome[i] for outcome in outcomes] for outcomes in (run.outcomes, answer))
        np.testing.assert_allclose(read, expected, rtol=0, atol=TOLERANCE_S, err_msg=column)


def row(tick: int, prompt: int, output: int, priority: int) -> dict[str, Any]:
    return {"arrival_s": tick / TICKS_PER_S, "prompt_tokens": prompt, "output_tokens": output, "priority": priority}


@pytest.mark.parametrize("caching", [True, False])
@pytest.mark.parametrize("outputs", [(6, 6), (8, 3), (3, 9)])
def test_who_gives_way_though_others_were_admitted_later(outputs: tuple[int, int], caching: bool) -> None:
    """The one that lacks a block is itself the least: vLLM ends the step's round there, and those after it pause."""
    rows = [row(0, 3, outputs[0], 1), row(1, 2, outputs[1], 0)]
    compare(rows, limits(4, 64, 11, 1, caching, EXACT))


def test_urgent_requests_are_admitted_first() -> None:
    rows = [row(0, 4, 20, 1), row(1, 4, 5, 2), row(2, 4, 5, 0), row(3, 4, 5, 1)]
    replica = limits(1, 64, 30, 4, False, EXACT)
    compare(rows, replica)
    first = [outcome[0] for outcome in serve_by_priority(rows, replica)]
    assert sorted(range(4), key=lambda i: first[i]) == [0, 2, 3, 1]


@settings(deadline=None, max_examples=300)
@given(workloads(), st.lists(st.integers(0, 2), min_size=14, max_size=14))
def test_priority_scheduling_equals_the_plain_loop(
    workload: tuple[list[dict[str, Any]], dict[str, Any]], priorities: list[int]
) -> None:
    rows, replica = workload
    # Equal arrivals of one priority are ordered by vLLM's request ids, which the engine does not have.
    ranked = [
        item | {"priority": priority, "arrival_s": item["arrival_s"] + i / TICKS_PER_S}
        for i, (item, priority) in enumerate(zip(rows, priorities, strict=False))
    ]
    compare(ranked, replica)
