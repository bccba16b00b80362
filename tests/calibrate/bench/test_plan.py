"""The grids: what they hold, their order, and what a server's limits leave of them."""

from __future__ import annotations

import math

import pytest

from simlab.calibrate.bench.grid import BASE, GRIDS, LADDER, MIXED, PREFILL, PREFIX, SATURATION, plan
from simlab.calibrate.bench.limits import Limits
from simlab.calibrate.bench.plan import MOST_REQUESTS, Plan, Point, in_rounds
from simlab.calibrate.run import Load
from simlab.errors import InputError


@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_tells_all_coefficients(name):
    points = plan(name).points
    assert {point.tells for point in points} == {BASE, PREFILL, LADDER, SATURATION, PREFIX, MIXED}
    assert len({point.name for point in points}) == len(points)
    assert len({point.seed for point in points}) == len(points)
    alone = {point.load.prompt_tokens for point in points if point.tells == PREFILL and point.load.concurrency == 1}
    assert max(alone) / min(alone) >= 32  # attention grows with the square, a token's time does not
    ladder = {(point.load.prompt_tokens, point.load.concurrency) for point in points if point.tells == LADDER}
    for context in (128, 2048):  # two contexts tell sequences and KV tokens apart
        assert len({concurrency for prompt, concurrency in ladder if prompt == context}) >= 3
    shares = {point.share for point in points if point.tells == MIXED}
    assert {0.3, 0.6, 0.85} <= shares


@pytest.mark.parametrize(("name", "low", "high"), [("quick", 7, 15), ("full", 40, 65)])
def test_a_grid_takes_as_long_as_it_says(name, low, high):
    points = plan(name).points
    assert low <= sum(point.seconds + 12 for point in points) / 60 <= high


def test_each_kind_has_its_turn_before_any_has_a_second():
    ordered = in_rounds(plan("full").points)
    assert sorted(point.name for point in ordered) == sorted(point.name for point in plan("full").points)
    kinds = len({point.tells for point in ordered})
    assert len({point.tells for point in ordered[:kinds]}) == kinds


@pytest.mark.parametrize("name", GRIDS)
def test_the_capacity_is_measured_before_its_shares(name):
    ordered = in_rounds(plan(name).points)
    for i, point in enumerate(ordered):
        if point.share is not None:
            assert any(before.like(point) and not before.open for before in ordered[:i])


def test_the_capacity_comes_first_also_where_the_file_has_it_last():
    load = Load(prompt_tokens=8, output_tokens=8)
    points = [Point("a", load, 5, share=0.5), Point("a", load, 60)]
    assert [point.share for point in in_rounds(points)] == [None, 0.5]


def test_seeds_follow_from_the_sessions_seed():
    assert {point.seed for point in plan("quick", 0).points}.isdisjoint(point.seed for point in plan("quick", 1).points)
    assert plan("quick", 3) == plan("quick", 3)


def test_requests_fill_the_time_but_are_never_too_few():
    point = Point("", Load(concurrency=4, prompt_tokens=8, output_tokens=8), seconds=20)
    assert point.settled(10.0, 0.0).requests == 200
    assert point.settled(0.1, 0.0).requests == 8
    assert point.settled(1e6, 0.0).requests == MOST_REQUESTS
    wide = Point("", Load(concurrency=64, prompt_tokens=8, output_tokens=8), seconds=20)
    assert wide.settled(1.0, 0.0).requests == 128  # at least two waves


def test_a_share_becomes_a_rate():
    point = Point("", Load(prompt_tokens=8, output_tokens=8), seconds=30, share=0.6)
    load = point.settled(throughput_rps=99.0, capacity_rps=7.7777)
    assert load.rate_rps == 4.67
    assert load.requests == math.ceil(30 * 4.67)


def test_kinds_of_prefixes_are_used_equally_often():
    load = Load(concurrency=4, prompt_tokens=100, output_tokens=8, shared_tokens=64, shared_kinds=7)
    requests = Point("", load, seconds=20).settled(5.0, 0.0).requests
    assert requests % 7 == 0
    assert 100 <= requests < 107


def test_a_servers_limits_leave_points_out_with_the_reason():
    limits = Limits(max_num_seqs=64, max_model_len=8192, kv_blocks=1000, block_size=16)
    reasons = plan("quick").left_out(limits)
    # Sixteen requests of 1152 tokens fit: most of those are the same.
    assert set(reasons) == {"i16384-o4-c1", "i128-o128-c64", "i128-o128-c256", "i2048-o128-c16", "i2048-o128-c64"}
    assert "max_model_len 8192" in reasons["i16384-o4-c1"]
    assert "max_num_seqs 64" in reasons["i128-o128-c256"]
    assert "KV cache of 16000" in reasons["i2048-o128-c16"]


def test_a_plan_of_the_users_own_may_make_a_server_preempt():
    point = Point("", Load(concurrency=16, prompt_tokens=2048, output_tokens=128))
    limits = Limits(max_num_seqs=8, max_model_len=4096, kv_blocks=10, block_size=16)
    assert not Plan("own", (point,), designed=False).left_out(limits)
    assert Plan("own", (point,)).left_out(limits)


def test_two_ranks_have_room_for_twice_as_much():
    one, two = Limits(max_num_seqs=64, kv_blocks=100, block_size=16), Limits(2, 64, kv_blocks=100, block_size=16)
    assert (two.sequences, two.kv_tokens) == (2 * one.sequences, 3200)


def test_a_plan_file(tmp_path):
    path = tmp_path / "own.json"
    path.write_text(
        '{"points": [{"prompt_tokens": 512, "output_tokens": 64, "concurrency": 4, "requests": 20, "spread": 0.5},'
        ' {"prompt_tokens": 640, "output_tokens": 64, "share": 0.5, "shared_tokens": 512, "tells": "reuse"}]}'
    )
    found = plan(str(path))
    assert not found.designed
    assert [point.name for point in found.points] == ["i512-o64-c4-l0.5-1.5", "i640-o64-u0.5-p512x1"]
    first, second = found.points
    assert (first.load.requests, first.load.low, first.load.high) == (20, 0.5, 1.5)
    assert (second.share, second.load.shared_tokens, second.tells) == (0.5, 512, "reuse")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"points": []}', "points: the list is empty"),
        ('{"points": [{"prompt_tokens": 1}]}', "points.0.output_tokens: Field required"),
        ('{"points": [{"prompt_tokens": 0, "output_tokens": 1}]}', "points.0.prompt_tokens: read 0; must be 1 or more"),
        (
            '{"points": [{"prompt_tokens": 8, "output_tokens": 8, "sare": 1}]}',
            "points.0.sare: there is no such field; did you mean share?",
        ),
        ('{"points": [{"prompt_tokens": 8, "output_tokens": 8, "share": 1, "rate_rps": 1}]}', "leave one out"),
        ('{"points": [{"prompt_tokens": 8, "output_tokens": 8, "shared_tokens": 8}]}', "must be below prompt_tokens"),
        ('{"points": [{"prompt_tokens": 8, "output_tokens": 8, "spread": 1}]}', "points.0.spread: read 1"),
        ('{"points": [{"prompt_tokens": 8, "output_tokens": 8, "rate_rps": 0}]}', "points.0.rate_rps: read 0"),
        (
            '{"points": [{"prompt_tokens": 8, "output_tokens": 8}, {"prompt_tokens": 8, "output_tokens": 8}]}',
            "points.1: the same operating point i8-o8-inf",
        ),
        (
            '{"points": [{"prompt_tokens": 8, "output_tokens": 8, "shared_tokens": 4, "shared_kinds": 3, '
            '"requests": 4}]}',
            "multiple of shared_kinds 3",
        ),
        ('{"points": ', "Invalid JSON"),
    ],
)
def test_a_broken_plan_file_says_where(tmp_path, text, message):
    path = tmp_path / "own.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        plan(str(path))
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_an_unknown_plan_names_the_known_ones():
    with pytest.raises(InputError, match="did you mean quick"):
        plan("quik")
    with pytest.raises(InputError, match=r"nowhere\.json: the plan cannot be read"):
        plan("nowhere.json")
