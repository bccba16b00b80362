"""The rough pace of a server: from a profile, and from the points that are done."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simlab.calibrate.bench.facts import guessed
from simlab.calibrate.bench.folder import Outcome
from simlab.calibrate.bench.outlook import Outlook
from simlab.calibrate.bench.pace import USUAL, Measured, Pace, expected
from simlab.calibrate.bench.plan import Plan, Point
from simlab.calibrate.run import Load

ROOM = {"sequences": 64, "kv_tokens": None}
TRUE = Pace(0.020, 0.0005, 2e-6, 1e-4, "the truth", client_start_s=0.0)


def loads() -> list[Load]:
    shapes = [(1, 128, 64), (1, 2048, 4), (4, 128, 64), (16, 128, 64), (4, 2048, 64), (16, 2048, 64), (None, 512, 128)]
    return [Load(concurrency=c, requests=100, prompt_tokens=i, output_tokens=o) for c, i, o in shapes]


def test_the_pace_is_learned_from_points():
    done = [Measured(load, TRUE.seconds(load, **ROOM)) for load in loads()]
    learned = expected("unknown-model", None).learned(done, **ROOM)
    for load in [*loads(), Load(concurrency=8, requests=50, prompt_tokens=512, output_tokens=256)]:
        assert learned.seconds(load, **ROOM) == pytest.approx(TRUE.seconds(load, **ROOM), rel=0.03)
    assert learned.source == "7 points measured"


def test_one_point_already_moves_it():
    load = loads()[0]
    before = expected("unknown-model", None)
    after = before.learned([Measured(load, 4 * before.seconds(load, **ROOM))], **ROOM)
    assert after.seconds(load, **ROOM) == pytest.approx(4 * before.seconds(load, **ROOM), rel=0.1)


def test_open_loops_teach_nothing():
    before = expected("unknown-model", None)
    open_load = Load(rate_rps=2.0, requests=100, prompt_tokens=128, output_tokens=64)
    assert before.learned([Measured(open_load, 999.0)], **ROOM) == before


def test_an_open_loop_lasts_as_long_as_it_is_sent_unless_it_is_too_much():
    load = Load(rate_rps=0.5, requests=40, prompt_tokens=128, output_tokens=64)
    alone_s = TRUE.request_s(load, 1)
    assert TRUE.seconds(load, **ROOM) == pytest.approx(80 + alone_s)
    flood = replace(load, rate_rps=1e6)
    assert TRUE.seconds(flood, **ROOM) == pytest.approx(40 / TRUE.throughput_rps(load, 40))


def test_the_kv_cache_bounds_the_house():
    load = Load(prompt_tokens=900, output_tokens=100)
    few = TRUE.capacity_rps(load, sequences=64, kv_tokens=8000)
    assert few == pytest.approx(TRUE.throughput_rps(load, 8))
    shared = replace(load, shared_tokens=800)
    assert TRUE.capacity_rps(shared, sequences=64, kv_tokens=8000) == pytest.approx(TRUE.throughput_rps(shared, 40))


def test_a_known_set_up_starts_from_its_profile():
    fast, slow = expected("llama-3.1-8b", "h100-sxm"), expected("llama-3.1-70b", "a100-sxm-80gb", 4)
    assert slow.base_s > fast.base_s
    assert "llama-3.1-8b.h100-sxm.tp1.bf16" in fast.source
    usual = expected("llama-3.1-8b", "no-such-gpu")
    assert usual.base_s == pytest.approx(USUAL.base_s + USUAL.per_seq_s)
    assert "in no table" in usual.source


def outlook(points: list[Point], outcomes: dict[str, Outcome]) -> Outlook:
    return Outlook(
        Plan("p", tuple(points)), guessed("some-model", ("--max-num-seqs", "64"), None, here=False), outcomes
    )


def test_rates_are_shares_of_the_fastest_point_of_the_same_lengths():
    lengths = {"prompt_tokens": 512, "output_tokens": 128}
    closed = [Point("", Load(concurrency=c, **lengths)) for c in (4, 16)]
    other = Point("", Load(concurrency=16, prompt_tokens=128, output_tokens=128))
    half = Point("", Load(**lengths), seconds=100, share=0.5)
    outcomes = {
        closed[0].name: Outcome("measured", requests=10, seconds=5.0, wall_s=15.0, throughput_rps=2.0),
        closed[1].name: Outcome("measured", requests=40, seconds=10.0, wall_s=20.0, throughput_rps=4.0),
        other.name: Outcome("measured", requests=90, seconds=10.0, wall_s=20.0, throughput_rps=9.0),
    }
    (step,) = outlook([*closed, other, half], outcomes).left()
    assert step.load.rate_rps == 2.0
    assert step.load.requests == 200
    assert step.capacity == "4 requests/s, measured at i512-o128-c16"
    assert 100 + 10 <= step.seconds <= 100 + 10 + 20  # the clients' starts took 10 s


def test_a_share_without_a_measured_capacity_says_so():
    half = Point("", Load(prompt_tokens=512, output_tokens=128), share=0.5)
    (step,) = outlook([half], {}).left()
    assert "estimated from an 8B model" in step.capacity
