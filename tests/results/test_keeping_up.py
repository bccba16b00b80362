"""Which backends count as overloaded."""

from __future__ import annotations

from dataclasses import replace

import synthetic_run

from simlab.results.keeping_up import overloaded

PLAIN = synthetic_run.measurements(0)
POOL, API = 0, 1


def left_waiting(requests: float) -> list[bool]:
    windows = PLAIN.windows.copy()
    windows["waiting_s"][-1, POOL] = requests * PLAIN.window_s
    return overloaded(replace(PLAIN, windows=windows)).tolist()


def test_a_plan_that_keeps_up() -> None:
    assert overloaded(PLAIN).tolist() == [False, False]


def test_a_queue_that_is_left_at_the_end() -> None:
    calls = PLAIN.cells["attempts"][PLAIN.cells["backend"] == POOL].sum()
    assert left_waiting(0.02 * calls + 1) == [True, False]
    assert left_waiting(0.005 * calls) == [False, False]


def test_one_request_of_few_is_no_queue() -> None:
    empty = synthetic_run.measurements(0, empty=True)
    windows = empty.windows.copy()
    windows["waiting_s"][-1, POOL] = 0.9 * empty.window_s
    assert overloaded(replace(empty, windows=windows)).tolist() == [False, False]
    assert overloaded(empty).tolist() == [False, False]


def test_calls_that_time_out() -> None:
    cells = PLAIN.cells.copy()
    mine = cells["backend"] == POOL
    cells["timed_out"][mine] = 0.02 * cells["attempts"][mine]
    assert overloaded(replace(PLAIN, cells=cells)).tolist() == [True, False]
