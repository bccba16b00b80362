"""The three heaps against sorted lists."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from simlab.draws import Distribution
from simlab.engine import ClassSpec, Engine, PoolSpec, StepCoefficients, WorldSpec, heaps

quick = settings(deadline=None, max_examples=150)
ONE = Distribution.fixed(1.0)


def engine(replicas: int = 1) -> Engine:
    """A world where nothing happens, with room in its heaps."""
    return Engine(
        WorldSpec(
            classes=[ClassSpec(users=1, think=Distribution.fixed(1e9), prompt=ONE, output=ONE)],
            backends=[PoolSpec(step=StepCoefficients(0.01), replicas=replicas, max_replicas=replicas)],
            horizon_s=1.0,
        )
    )


@quick
@given(st.lists(st.one_of(st.none(), st.integers(0, 20)), max_size=60))
def test_timers_go_off_in_order_of_time(actions: list[int | None]) -> None:
    """None takes the earliest timer, a number sets one."""
    world = engine()
    state, timers = world.world.state[0], world.world.timers
    heaps.pop_timer(world._p)
    left: list[float] = []
    for action in actions:
        if action is not None:
            heaps.push_timer(world._p, float(action), 0, 1)
            left.append(float(action))
        elif left:
            assert timers[0]["t"] == min(left)
            left.remove(min(left))
            heaps.pop_timer(world._p)
        assert state["n_timers"] == len(left)
    assert sorted(timers["t"][: len(left)].tolist()) == sorted(left)


def test_a_timer_remembers_what_it_is_for() -> None:
    world = engine()
    world.world.slots[7]["gen"] = 5
    heaps.push_timer(world._p, 0.5, 7, 2)
    assert [int(world.world.timers[0][name]) for name in ("slot", "gen", "kind")] == [7, 5, 2]


@quick
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=80))
def test_finishes_can_leave_from_anywhere(actions: list[tuple[bool, int]]) -> None:
    """(enter, key): a sequence enters with a key, or the one at position ``key`` of those inside leaves."""
    world = engine()
    w = world.world
    inside: dict[int, int] = {}
    free = list(range(100, 200))
    for enter, key in actions:
        if enter:
            slot = free.pop()
            heaps.push_finish(world._p, 0, slot, key)
            inside[slot] = key
        elif inside:
            slot = sorted(inside)[key % len(inside)]
            heaps.remove_finish(world._p, 0, slot)
            assert w.slots[slot]["heap_pos"] == -1
            del inside[slot]
        n = int(w.reps[0]["heap_n"])
        entries = {int(entry["slot"]): int(entry["key"]) for entry in w.finish[0][:n]}
        assert entries == inside
        assert all(w.slots[entry["slot"]]["heap_pos"] == i for i, entry in enumerate(w.finish[0][:n]))
        if inside:
            assert w.finish[0][0]["key"] == min(inside.values())


@quick
@given(st.lists(st.tuples(st.integers(0, 6), st.sampled_from([0.5, 1.0, 2.0, 7.0, math.inf])), max_size=50))
def test_the_earliest_replica_is_on_top(moves: list[tuple[int, float]]) -> None:
    world = engine(replicas=7)
    times = dict.fromkeys(range(7), math.inf)
    for r, t in moves:
        heaps.set_event(world._p, r, t)
        times[r] = t
        w = world.world
        assert times[int(w.rep_heap[0])] == min(times.values())
        assert sorted(w.rep_heap.tolist()) == list(range(7))
        assert all(w.reps[r]["hpos"] == i for i, r in enumerate(w.rep_heap))
