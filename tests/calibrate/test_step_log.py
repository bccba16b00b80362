"""Bursts, blocks and shapes of step logs."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from made_steps import random_batches

from simlab.calibrate.run import Steps
from simlab.calibrate.step_log import BLOCK, BURST, DECODE, MIXED, PREFILL, joined


def log_of(*batches: tuple[int, int, int]) -> Steps:
    """Steps of (prompt tokens, start, decodes), lasting 1, 2, 3 … s."""
    prefill, start, decodes = np.array(batches, dtype=float).T
    count = len(batches)
    seconds = np.arange(1.0, count + 1.0)
    real = np.ones(count, dtype=bool)
    return Steps(seconds, prefill, np.minimum(prefill, 1.0), start, decodes, 100 * decodes, prefill * 0.0, real)


def test_a_burst_is_its_steps_with_prompts_and_the_decodes_beside_them() -> None:
    log = joined([log_of((0, 0, 4), (0, 0, 4), (900, 0, 4), (300, 900, 4), (0, 0, 5), (0, 0, 5))])
    assert log.bursts.tolist() == [[1, 4]]
    assert log.burst_sums(log.seconds).tolist() == [2 + 3 + 4 + 5]
    assert log.phase.tolist() == [DECODE, DECODE, MIXED, MIXED, DECODE, DECODE]


def test_a_prompt_that_comes_to_an_idle_server_begins_a_new_burst() -> None:
    log = joined([log_of((100, 0, 0), (100, 0, 0), (100, 0, 0), (50, 100, 0))])
    assert log.bursts.tolist() == [[0, 0], [1, 1], [2, 3]]
    assert set(log.phase.tolist()) == {PREFILL}


def test_long_bursts_are_cut_and_logs_do_not_run_together() -> None:
    busy = log_of(*[(100, 100, 1)] * (BURST + 2))
    log = joined([busy, busy])
    assert log.bursts.tolist() == [
        [0, BURST - 1],
        [BURST, BURST + 1],
        [BURST + 2, 2 * BURST + 1],
        [2 * BURST + 2, 2 * BURST + 3],
    ]
    assert log.log.tolist() == [0] * len(busy.seconds) + [1] * len(busy.seconds)
    assert not set(log.block[log.log == 0]) & set(log.block[log.log == 1])


@given(st.integers(0, 2**32 - 1), st.integers(1, 400))
def test_bursts_hold_every_step_with_prompts_once(seed: int, count: int) -> None:
    steps = random_batches(count, np.random.default_rng(seed))
    log = joined([steps])
    held = np.zeros(count, dtype=int)
    for first, last in log.bursts:
        held[first : last + 1] += log.phase[first : last + 1] != DECODE
    assert (held == (log.phase != DECODE)).all()
    rows = np.random.default_rng(seed).random(count) < 0.8
    assert log.whole_bursts(rows).tolist() == [rows[first : last + 1].all() for first, last in log.bursts]
    assert np.bincount(log.block).max() <= BLOCK


def test_thinning_spreads_evenly_and_keeps_the_rare() -> None:
    log = joined([random_batches(2000, np.random.default_rng(0), prompts=0.02)])
    kept = log.thinned(100)
    assert 100 <= kept[log.phase == DECODE].sum() <= 220
    assert kept[log.phase == MIXED].all()
    assert np.diff(np.flatnonzero(kept)).max() < 60


def test_no_logs_make_an_empty_one() -> None:
    empty = random_batches(1, np.random.default_rng(0))
    empty = Steps(*(getattr(empty, entry.name)[:0] for entry in fields(Steps)))
    assert len(joined([])) == len(joined([empty])) == 0


def test_shapes_are_alike_where_batches_are() -> None:
    log = joined([log_of((0, 0, 4), (10, 0, 4), (0, 0, 4), (10, 0, 3))])
    shapes = log.shapes()
    assert shapes[0] == shapes[2]
    assert len(set(shapes.tolist())) == 3
