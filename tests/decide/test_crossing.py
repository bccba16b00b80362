"""Where a staircase crosses a line, against looking at every volume."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simlab.decide.crossing import Crossings, crossings


def test_one_step_crosses_where_line_and_cost_meet() -> None:
    assert crossings([10.0], [6.0], 2.0) == Crossings(3.0, 3.0, 1, 1)


def test_a_step_up_can_undo_a_crossing() -> None:
    # Step 1 costs 7 until 10, step 2 costs 14 until 20, step 3 costs 21 until 30.
    assert crossings([10.0, 20.0, 30.0], [7.0, 14.0, 21.0], 1.0) == Crossings(7.0, 21.0, 1, 3)


def test_cheaper_and_then_dearer_again_is_not_durable() -> None:
    assert crossings([10.0, 12.0], [7.0, 14.0], 1.0) == Crossings(7.0, None, 1, 0)


@pytest.mark.parametrize("slope", [0.0, 0.1])
def test_no_crossing(slope: float) -> None:
    assert crossings([10.0, 20.0], [7.0, 14.0], slope) == Crossings(None, None)


def test_steps_of_no_length_are_passed_over() -> None:
    assert crossings([0.0, 0.0, 9.0], [1.0, 2.0, 3.0], 1.0) == Crossings(3.0, 3.0, 3, 3)


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=8),
    st.integers(0, 30),
    st.integers(1, 20),
    st.integers(1, 8),
)
def test_agrees_with_looking_everywhere(lengths: list[int], fixed: int, each: int, slope: int) -> None:
    ends = np.cumsum(lengths).astype(float)
    costs = [float(fixed + each * (n + 1)) for n in range(len(lengths))]
    found = crossings(ends.tolist(), costs, float(slope))
    # Just above every place where anything can change: step ends and where a cost meets the line.
    places = sorted({0.0, *ends.tolist(), *(cost / slope for cost in costs)})
    probes = [place + 1e-6 for place in places if place + 1e-6 < ends[-1]]
    below = [costs[int(np.searchsorted(ends, v))] < slope * v for v in probes]
    first = next((place for place, is_below in zip(probes, below, strict=True) if is_below), None)
    lasting = None
    for place, is_below in zip(reversed(probes), reversed(below), strict=True):
        if not is_below:
            break
        lasting = place
    for got, wanted in ((found.first, first), (found.durable, lasting)):
        assert (got is None) == (wanted is None)
        assert got is None or got == pytest.approx(wanted, abs=2e-6)
