"""Replicas that come, drain and fail while requests are on them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from small_worlds import Order, Plan, Run, arrivals, run

from simlab.engine import ClassSpec, Engine, GatewaySpec, PoolSpec, StepCoefficients
from simlab.engine import arrays as a

STEP = StepCoefficients(base_s=0.125)


def serve(
    lengths: list[tuple[int, int]],
    orders: list[Order],
    *,
    replicas: int = 1,
    most: int = 4,
    gap_s: float = 0.0,
    gateway: GatewaySpec | None = None,
    horizon_s: float = 100.0,
    **more: Any,
) -> Run:
    pool = PoolSpec(step=STEP, replicas=replicas, max_replicas=most, **more)
    return run(
        Plan(
            classes=(ClassSpec(),),
            chunks=(arrivals([gap_s * i for i in range(len(lengths))], lengths),),
            backends=(pool,),
            gateway=gateway or GatewaySpec(),
            orders=tuple(orders),
            horizon_s=horizon_s,
        )
    )


def test_a_failing_replica_fails_its_requests_and_they_are_tried_elsewhere() -> None:
    gateway = GatewaySpec(max_attempts=2, backoff_s=0.25, jitter=0.0)
    done = serve([(8, 16)] * 4, [Order(1.0625, "fail", 0, 0)], replicas=2, gateway=gateway)
    first, second = done.of(attempt=0), done.of(attempt=1)
    failed = first[first["outcome"] == a.ERROR]
    assert sorted(failed["task"].tolist()) == [0, 2]
    assert (failed["finish_s"] == 1.0625).all()
    assert (failed["output_tokens"] == 8).all(), "eight whole steps were done"
    assert (second["started_s"] == 1.0625 + 0.25).all()
    assert (second["outcome"] == a.OK).all()
    rep = done.world.reps[0]
    assert (rep["state"], rep["stop_s"], rep["busy_s"], rep["steps"]) == (a.STOPPED, 1.0625, 1.0625, 8)
    assert done.world.tasks[1, 0]["succeeded"] == 4
    assert done.world.tasks[1, 0]["retries"] == 2
    assert done.world.cells["output_tokens"].sum() == 4 * 16 + 2 * 8


@pytest.mark.parametrize("at_s", [0.0, 0.0625, 0.125, 0.3125, 1.0, 5.0])
@pytest.mark.parametrize("caching", [True, False])
def test_a_replica_can_fail_at_any_moment(at_s: float, caching: bool) -> None:
    done = serve(
        [(100, 20)] * 12, [Order(at_s, "fail")], gap_s=0.03125, max_num_seqs=3, max_num_batched_tokens=32,
        block_size=4, kv_blocks=70, prefix_caching=caching,
    )  # fmt: skip
    log = done.log
    assert len(log) == 12
    assert (log["outcome"][log["arrival_s"] > at_s] == a.ERROR).all()
    assert (log["finish_s"] <= np.maximum(log["arrival_s"], at_s)).all()
    rep = done.world.reps[0]
    assert rep["stop_s"] == at_s
    assert rep["free"] == rep["plain"] == 69


def test_failing_loses_the_work_of_a_step_but_not_of_the_steps_before() -> None:
    """A long prompt beside a decoding request: whole steps count, wherever in the stretch the failure comes."""
    done = serve(
        [(4, 200), (4000, 5)], [Order(2.5625, "fail")], gap_s=0.25, max_num_batched_tokens=64, prefix_caching=False
    )
    by_task = {int(row["task"]): row for row in done.log}
    assert by_task[0]["output_tokens"] == 20
    assert done.world.reps[0]["steps"] == 20
    assert done.world.reps[0]["decode_tokens"] == 19


def test_a_draining_replica_finishes_what_it_has_and_gets_nothing_new() -> None:
    done = serve([(8, 16)] * 8, [Order(1.0, "drain", 0, 0)], replicas=2, gap_s=0.25)
    assert (done.log["outcome"] == a.OK).all()
    one, two = done.world.reps[0], done.world.reps[1]
    assert one["state"] == a.STOPPED
    assert one["prompt_tokens"] == 8 * 2 + 8 * (0.25 * 4 <= 1.0)
    assert one["prompt_tokens"] + two["prompt_tokens"] == 64
    last = done.log["finish_s"][done.log["arrival_s"] <= 1.0]
    assert one["stop_s"] in last.tolist()
    assert two["stop_s"] == math.inf
    assert done.world.windows["up_s"].sum() == pytest.approx(100.0 + one["stop_s"])


def test_an_empty_replica_drains_at_once() -> None:
    rep = serve([], [Order(3.0, "drain")]).world.reps[0]
    assert (rep["state"], rep["stop_s"]) == (a.STOPPED, 3.0)


def test_a_draining_replica_stops_when_its_last_request_is_given_up() -> None:
    done = serve([(8, 10_000)], [Order(0.5, "drain")], gateway=GatewaySpec(timeout_s=1.0))
    assert done.world.reps[0]["stop_s"] == 1.0
    assert done.log["outcome"].tolist() == [a.TIMED_OUT]


def test_a_draining_replica_serves_those_who_wait_on_it_too() -> None:
    done = serve([(8, 4)] * 5, [Order(0.0625, "drain")], max_num_seqs=1, max_num_batched_tokens=64)
    assert (done.log["outcome"] == a.OK).all()
    assert done.world.reps[0]["stop_s"] == pytest.approx(5 * 4 * 0.125)


def test_an_added_replica_serves_after_its_start_up_and_is_leased_from_the_order() -> None:
    orders = [Order(1.0, "add"), Order(3.0, "ready", 0, 1)]
    done = serve([(8, 2)] * 60, orders, gap_s=0.1, horizon_s=10.0, dispatch=a.ROUND_ROBIN)
    rep = done.world.reps[1]
    assert (rep["start_s"], rep["ready_s"], rep["stop_s"]) == (1.0, 3.0, math.inf)
    assert rep["prompt_tokens"] == 8 * 15
    assert done.world.windows["up_s"].sum() == pytest.approx(10.0 + 7.0)


def test_a_starting_replica_can_be_given_up() -> None:
    done = serve([(8, 2)], [Order(1.0, "add"), Order(2.0, "drain", 0, 1), Order(3.0, "ready", 0, 1)])
    rep = done.world.reps[1]
    assert (rep["state"], rep["start_s"], rep["stop_s"]) == (a.STOPPED, 1.0, 2.0)
    assert done.world.windows["up_s"].sum() == pytest.approx(100.0)


def test_no_more_replicas_than_planned_for() -> None:
    engine = Engine(Plan(classes=(ClassSpec(),), chunks=((),), backends=(PoolSpec(STEP, 1, 2),)).spec())
    assert engine.order_replica(0) == 1
    with pytest.raises(ValueError, match="cannot lease another replica"):
        engine.order_replica(0)


def test_signals_say_how_a_pool_is() -> None:
    seen = []

    def look(engine: Engine) -> None:
        seen.append(engine.signals(0))

    pool = PoolSpec(STEP, 2, 3, max_num_seqs=2, max_num_batched_tokens=64, block_size=4, kv_blocks=101)
    plan = Plan(
        classes=(ClassSpec(),),
        chunks=(arrivals([0.0] * 6, [(8, 8)] * 6),),
        backends=(pool,),
        orders=(Order(0.03125, "add"),),
    )
    run(plan, [0.0625], look)
    busy, idle = seen[1], seen[-1]
    assert (busy.up, busy.starting, busy.draining, busy.waiting, busy.running) == (2, 1, 0, 2, 4)
    # Four requests of 8 tokens hold two blocks each of 200.
    assert busy.kv_used == pytest.approx(8 / 200)
    assert (idle.up, idle.waiting, idle.running, idle.kv_used) == (2, 0, 0, 0.0)


def test_orders_outside_the_life_of_a_replica_do_nothing() -> None:
    orders = [Order(1.0, "fail"), Order(2.0, "drain"), Order(3.0, "fail"), Order(4.0, "ready")]
    rep = serve([(8, 100)], orders).world.reps[0]
    assert (rep["state"], rep["stop_s"]) == (a.STOPPED, 1.0)
