"""Filling troughs: what waits for room in a pool, in which order it goes, and what goes when time is short."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from small_worlds import Plan, Run, arrivals, run

from simlab.draws import Distribution
from simlab.engine import (
    ApiSpec,
    ChoiceSpec,
    ClassSpec,
    GatewaySpec,
    LimitSpec,
    PolicySpec,
    PoolSpec,
    RuleSpec,
    StepCoefficients,
    TroughSpec,
)
from simlab.engine import arrays as a

fixed = Distribution.fixed
QUICK = ApiSpec(fixed(0.25), fixed(0.0))
STEP = StepCoefficients(base_s=1.0)


def pool(**said: Any) -> PoolSpec:
    return PoolSpec(**{"step": STEP, "max_num_seqs": 4, "max_num_batched_tokens": 4096, "kv_blocks": 1000, **said})


def serve(
    offline: list[tuple[list[float], float]],
    *,
    lengths: tuple[int, int] = (4, 8),
    interactive: tuple[list[float], list[tuple[int, int]]] = ([], []),
    with_policies: bool = False,
    to: PoolSpec | None = None,
    elsewhere: bool = False,
    gateway: dict[str, Any] | None = None,
    horizon_s: float = 1e5,
    **trough: Any,
) -> Run:
    """Interactive work of class 0 on backend 0, and classes (arrivals, deadline) of offline work in its troughs."""
    said = {"lead_s": -math.inf, "fill_to": 0.5, "waiting": 100.0, "kv": 1.0, "every_s": 0.5} | trough
    gate = TroughSpec(route=3, pool=0, **said)
    times, sizes = interactive
    n = len(offline)
    choices = [ChoiceSpec(0), ChoiceSpec(1)] if elsewhere else [ChoiceSpec(0)]
    plan = Plan(
        classes=(ClassSpec(route=[1.0, 0.0]), *(ClassSpec(route=[1.0, 0.0], priority=1) for _ in offline)),
        chunks=(arrivals(times, sizes), *(arrivals(t, [lengths] * len(t)) for t, _ in offline)),
        backends=(to or pool(), QUICK),
        gateway=GatewaySpec(**(gateway or {})),
        policies=(
            PolicySpec() if with_policies else None,
            *(PolicySpec(deadline_s=deadline, rules=[[0]]) for _, deadline in offline),
        ),
        rules=(RuleSpec(a.BY_TROUGH, choices, gate=3, lead_s=gate.lead_s),),
        limits=(LimitSpec(over=a.QUEUE, of_backends=[0, -1], trough=gate),) if n else (),
        horizon_s=horizon_s,
    )
    done = run(plan)
    assert (done.world.lines["waiting"] == 0).all()
    assert (done.world.allowances["in_flight"] == 0).all()
    assert (done.world.slots["state"] == a.FREE).all()
    tasks = done.world.tasks[1]
    assert (tasks["arrived"] == tasks["succeeded"] + tasks["failed"]).all()
    return done


def starts(done: Run, cls: int = 1) -> list[float]:
    """When the attempts of a class began, in order of arrival, s."""
    return [float(x) for x in np.sort(done.of(cls=cls), order="task")["started_s"]]


def test_no_more_are_sent_than_fill_their_share_and_the_next_when_one_ends() -> None:
    done = serve([([0.0] * 6, 1e3)])
    assert starts(done) == [0.0, 0.0, 8.0, 8.0, 16.0, 16.0]
    assert done.of(cls=1)["finish_s"].max() == 24.0
    assert done.world.counters[1]["in_time"] == 6
    assert done.world.counters[1]["queued"] == 4
    assert done.world.counters[1]["waited_s"] == 2 * 8.0 + 2 * 16.0


@pytest.mark.parametrize("with_policies", [False, True])
def test_it_waits_while_the_pool_is_taken_and_never_holds_others_up(with_policies: bool) -> None:
    interactive = ([0.0, 0.0, 3.2], [(4, 10), (4, 10), (4, 2)])
    done = serve([([2.0, 2.0], 1e3)], interactive=interactive, with_policies=with_policies)
    assert starts(done, 0) == [0.0, 0.0, 3.2]
    # Two run until 10. The gateway sees it then if it counts their calls, else when it looks next.
    assert starts(done) == ([10.0] * 2 if with_policies else [10.5] * 2)


def test_it_looks_at_the_pool_every_so_often() -> None:
    done = serve([([2.25], 1e3)], interactive=([0.0, 0.0], [(4, 10), (4, 10)]), every_s=3.0)
    assert starts(done) == [11.25]


def test_looks_do_not_add_up_while_others_come_and_go() -> None:
    short = [3.0 + 2.0 * i for i in range(400)]
    interactive = ([0.0, 0.0, *short], [(4, 1000), (4, 1000), *[(4, 1)] * len(short)])
    done = serve([([1.25], 1e5)], interactive=interactive, with_policies=True)
    assert starts(done) == [1000.0]
    # Two looks a second, one at each end of the others, and a few events of each and of each step.
    assert done.world.state[0]["events"] < 2 * 1000 + 6 * 400 + 2 * 1000


def test_few_may_wait_in_the_pool() -> None:
    done = serve([([0.0] * 3, 1e3)], fill_to=1.0, waiting=1.0, every_s=0.25)
    # One at a time is waiting: the first until its step begins at 0, the second until that step ends at 1.
    assert starts(done) == [0.0, 0.25, 1.25]


def test_it_waits_for_kv_blocks() -> None:
    small = pool(kv_blocks=101, block_size=1, max_num_seqs=8)
    interactive = ([0.0], [(60, 10)])
    held = serve([([2.5], 1e3)], lengths=(5, 2), interactive=interactive, to=small, kv=0.5)
    assert starts(held) == [10.5]
    free = serve([([2.5], 1e3)], lengths=(5, 2), interactive=interactive, to=small, kv=0.7)
    assert starts(free) == [2.5]


def test_the_nearest_deadline_goes_first() -> None:
    one = pool(max_num_seqs=1)
    patient = [0.0, 0.5, 1.0, 1.5]
    done = serve([(patient, 1e4), ([2.0, 2.5], 50.0), ([3.0], 49.25)], lengths=(4, 2), to=one, fill_to=1.0)
    assert starts(done) == [0.0, 8.0, 10.0, 12.0]
    assert starts(done, 2) == [2.0, 6.0]
    assert starts(done, 3) == [4.0]


@pytest.mark.parametrize("elsewhere", [False, True])
def test_what_is_near_its_deadline_waits_no_longer(elsewhere: bool) -> None:
    interactive = ([0.0, 0.0], [(4, 100), (4, 100)])
    done = serve([([5.3], 20.0)], interactive=interactive, lead_s=6.0, elsewhere=elsewhere)
    assert starts(done) == pytest.approx([5.3 + 14.0])
    assert done.of(cls=1)["backend"].tolist() == [1 if elsewhere else 0]
    # Its first step begins at the next second, and it takes eight; elsewhere a quarter.
    assert done.world.counters[1]["in_time"] == (1 if elsewhere else 0)
    waits = serve([([5.3], 20.0)], interactive=interactive, elsewhere=elsewhere)
    assert starts(waits)[0] >= 100.0
    hopeless = serve([([5.3], 3.0)], interactive=interactive, lead_s=6.0, elsewhere=elsewhere)
    assert starts(hopeless) == [5.3]


def test_a_pool_without_replicas_has_no_room() -> None:
    done = serve([([1.0], 20.0)], to=pool(replicas=0), lead_s=5.0, elsewhere=True)
    assert starts(done) == [16.0]
    assert done.log["backend"].tolist() == [1]


def test_its_line_is_not_that_of_limits() -> None:
    gateway = {"length": 1, "queue_deadline_s": 1.0, "deadline_s": 2.0, "shed_queue": 1.0, "shed_keep": 0}
    done = serve([([0.0] * 6, 1e3)], gateway=gateway)
    assert starts(done) == [0.0, 0.0, 8.0, 8.0, 16.0, 16.0]


def test_no_room_is_left_unused() -> None:
    """Work conservation: a pool that takes all it can hold works as if everything had been sent at once."""
    rng = np.random.default_rng(3)
    times = np.sort(rng.uniform(0.0, 300.0, 400)).tolist()
    step = StepCoefficients(base_s=0.5, decode_seq_s=0.25)
    busy = pool(step=step, replicas=2)
    gated = serve([(times, 1e6)], to=busy, fill_to=1.0, every_s=0.1)
    free = serve([(times, 1e6)], to=busy, fill_to=1.0, lead_s=1e7)  # all of it is urgent
    assert (free.world.counters["queued"] == 0).all()
    assert gated.world.counters["queued"].sum() > 300
    assert gated.log["finish_s"].max() == pytest.approx(free.log["finish_s"].max(), rel=0.01)


def test_more_than_the_pool_can_do_misses_deadlines_as_the_backlog_grows() -> None:
    """One at a time, a second each, one every half second: the k-th ends k/2 + 1 after it came."""
    n, deadline_s = 60, 10.25
    one = pool(max_num_seqs=1)
    done = serve([([0.5 * i for i in range(n)], deadline_s)], lengths=(4, 1), to=one, fill_to=1.0)
    in_time = sum(0.5 * k + 1.0 <= deadline_s for k in range(n))
    assert in_time == 19
    assert done.world.counters[1]["in_time"] == in_time
    assert done.world.counters[1]["missed"] == n - in_time
    assert done.world.tasks[1, 1]["succeeded"] == n
    enough = serve([([1.5 * i for i in range(n)], deadline_s)], lengths=(4, 1), to=one, fill_to=1.0)
    assert enough.world.counters[1]["missed"] == 0


def test_what_fails_waits_for_room_again() -> None:
    gateway = {"max_attempts": 3, "timeout_s": 2.5, "backoff_s": 0.0, "retry_timed_out": True}
    done = serve([([0.0, 0.0, 0.0], 1e3)], fill_to=0.5, gateway=gateway)
    assert len(done.of(cls=1)) == 9
    begun, ended = np.sort(done.log["started_s"]), np.sort(done.log["finish_s"])
    for t in begun:
        assert (begun <= t).sum() - (ended <= t).sum() <= 2


@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_lost_under_everything_at_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    both = [np.sort(rng.uniform(0.0, 120.0, 80)).tolist() for _ in range(3)]
    gateway = {
        "max_attempts": 2, "timeout_s": float(rng.choice([6.5, math.inf])), "hedge_s": 4.0, "hedge_to": 1,
        "breaker_consecutive": 4, "breaker_cool_down_s": 3.0, "abort": bool(seed % 2), "retry_rejected": True,
    }  # fmt: skip
    done = serve(
        [(both[0], 30.0), (both[1], 90.0)],
        interactive=(both[2], [(int(p), int(o)) for p, o in rng.integers(1, 30, (80, 2))]),
        with_policies=bool(seed % 3),
        to=pool(replicas=int(rng.integers(1, 3)), priority=bool(seed % 2), kv_blocks=60, block_size=2),
        elsewhere=bool(rng.integers(0, 2)),
        gateway=gateway,
        fill_to=0.75,
        waiting=1.5,
        kv=0.6,
        lead_s=10.0,
    )
    counters = done.world.counters
    arrived = done.world.tasks[1]["arrived"]
    assert (counters["in_time"] + counters["missed"])[1:].tolist() == arrived[1:].tolist()
