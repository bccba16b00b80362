"""Planned operations: replicas that are added, drained or fail at a given time."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Literal

import simpy

from simlab.control.handle import Handle

Process = Generator[simpy.Event, None, None]


@dataclass(frozen=True)
class Order:
    """One planned operation.

    Args:
        at_s: when, s.
        pool: the pool's number.
        action: ``add`` (ready after `startup_s`), ``drain`` or ``fail``.
        replicas: how many; drain and fail take the newest, and no more than there are.
        startup_s: from ordering a replica to its first request, s.
    """

    at_s: float
    pool: int
    action: Literal["add", "drain", "fail"]
    replicas: int
    startup_s: float


def start_replica(env: simpy.Environment, engine: Handle, pool: int, startup_s: float) -> Process:
    """Orders a replica now and has it serve when it has started."""
    replica = engine.order_replica(pool)
    yield env.timeout(startup_s)
    engine.replica_ready(replica)


def operate(env: simpy.Environment, engine: Handle, orders: Sequence[Order]) -> Process:
    """Carries the orders out, each at its time."""
    for order in sorted(orders, key=lambda order: order.at_s):
        yield env.timeout(order.at_s - env.now)
        if order.action == "add":
            for _ in range(order.replicas):
                env.process(start_replica(env, engine, order.pool, order.startup_s))
            continue
        newest = engine.replicas(order.pool)[::-1][: order.replicas]
        for replica in newest:
            if order.action == "drain":
                engine.drain_replica(replica)
            else:
                engine.fail_replica(replica)
