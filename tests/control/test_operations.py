"""Planned operations against an engine that only writes down what it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import simpy

from simlab.control import Order, operate, start_replica
from simlab.engine import PoolSignals


@dataclass
class Recorder:
    """An engine that writes its orders down; ``up`` are the serving replicas of each pool."""

    env: simpy.Environment
    up: dict[int, list[int]] = field(default_factory=lambda: {0: [0, 1, 2], 1: [3]})
    told: list[tuple[float, str, int]] = field(default_factory=list)
    leased: int = 10

    def _tell(self, what: str, replica: int) -> None:
        self.told.append((self.env.now, what, replica))

    def order_replica(self, pool: int) -> int:
        self.leased += 1
        self._tell("order", self.leased)
        self.up[pool].append(self.leased)
        return self.leased

    def replica_ready(self, replica: int) -> None:
        self._tell("ready", replica)

    def drain_replica(self, replica: int) -> None:
        self._tell("drain", replica)

    def fail_replica(self, replica: int) -> None:
        self._tell("fail", replica)

    def set_route(self, cls: int, weights: Sequence[float]) -> None:
        raise AssertionError("no planned operation changes a route")

    def set_endpoint(self, backend: int, slowdown: float, error_probability: float) -> None:
        raise AssertionError("no operation on a pool changes an endpoint")

    def replicas(self, pool: int) -> list[int]:
        return list(self.up[pool])

    def signals(self, pool: int) -> Any:
        return PoolSignals(len(self.up[pool]), 0, 0, 0, 0, 0.0)


def told(*orders: Order, until: float = 1000.0) -> list[tuple[float, str, int]]:
    env = simpy.Environment()
    engine = Recorder(env)
    env.process(operate(env, engine, orders))
    env.run(until)
    return engine.told


def test_an_added_replica_is_ready_after_its_start_up() -> None:
    assert told(Order(5.0, 0, "add", 1, 30.0)) == [(5.0, "order", 11), (35.0, "ready", 11)]


def test_several_replicas_start_side_by_side() -> None:
    assert told(Order(5.0, 0, "add", 2, 30.0)) == [
        (5.0, "order", 11),
        (5.0, "order", 12),
        (35.0, "ready", 11),
        (35.0, "ready", 12),
    ]


def test_orders_do_not_wait_for_start_ups() -> None:
    assert told(Order(5.0, 0, "add", 1, 300.0), Order(6.0, 1, "fail", 1, 0.0)) == [
        (5.0, "order", 11),
        (6.0, "fail", 3),
        (305.0, "ready", 11),
    ]


@pytest.mark.parametrize("action", ["drain", "fail"])
def test_the_newest_replicas_go_first_and_no_more_than_there_are(action: Any) -> None:
    assert told(Order(5.0, 0, action, 2, 0.0)) == [(5.0, action, 2), (5.0, action, 1)]
    assert told(Order(5.0, 1, action, 9, 0.0)) == [(5.0, action, 3)]


def test_orders_are_carried_out_by_time_and_equal_times_as_given() -> None:
    late, early, same = Order(9.0, 0, "drain", 1, 0.0), Order(0.0, 1, "fail", 1, 0.0), Order(9.0, 1, "drain", 1, 0.0)
    assert told(late, early, same) == [(0.0, "fail", 3), (9.0, "drain", 2), (9.0, "drain", 3)]


def test_what_lies_beyond_the_end_is_not_done() -> None:
    assert told(Order(5.0, 0, "add", 1, 30.0), Order(50.0, 0, "fail", 1, 0.0), until=20.0) == [(5.0, "order", 11)]


def test_no_orders_nothing_happens() -> None:
    assert told() == []


def test_a_process_of_ones_own_can_start_a_replica() -> None:
    env = simpy.Environment()
    engine = Recorder(env)
    env.process(start_replica(env, engine, 1, 12.5))
    env.run(100.0)
    assert engine.told == [(0.0, "order", 11), (12.5, "ready", 11)]
