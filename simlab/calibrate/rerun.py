"""A world that is run from its start again and again, each time with other step times.

Building an engine takes several times as long as running some hundred requests through it, and a fit runs the same
requests thousands of times. So one engine is built, what its run changes is kept, and put back before the next run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simlab.engine import Engine, PoolSpec, StepCoefficients, WorldSpec

_CHANGED = (
    "state",
    "classes",
    "backends",
    "reps",
    "rep_heap",
    "phases",
    "decode_cls",
    "slots",
    "timers",
    "segs",
    "refs",
    "blocks",
    "buckets",
    "cells",
    "tasks",
    "tenants",
    "windows",
)
"""Arrays of a world that a run changes and that the next one reads; histograms and log are only written."""
_SMALL_BYTES = 4 << 20
"""Of arrays larger than this, most of it is never touched, and building anew is cheaper than putting back."""
_TABLES = ("knots", "prefill_knots")
_TERMS = tuple(field.name for field in fields(StepCoefficients) if field.name not in _TABLES)


class Rerun:
    """One class of requests on one pool.

    Args:
        make: the world of a pool, of which nothing but step and overhead differs from run to run.
        pool: the pool.
    """

    def __init__(self, make: Callable[[PoolSpec], WorldSpec], pool: PoolSpec) -> None:
        self._make = make
        self._pool = pool
        self._engine: Engine | None = None
        self._kept: dict[str, NDArray[np.uint8]] = {}
        self._rows: list[NDArray[Any]] = []

    def run(self, pool: PoolSpec) -> NDArray[Any]:
        """The log of all requests, in the order in which they were sent, with the pool's step and overhead."""
        if self._engine is None or not self._rewind(self._engine, pool):
            self._build(pool)
        assert self._engine is not None
        self._rows.clear()
        self._engine.advance(math.inf)
        self._engine.flush_log()
        log = self._rows[0] if len(self._rows) == 1 else np.concatenate(self._rows)
        return np.asarray(log[np.argsort(log["task"], kind="stable")])

    def _build(self, pool: PoolSpec) -> None:
        self._engine = Engine(self._make(pool), self._rows.append)
        self._pool = pool
        world = self._engine.world
        if sum(getattr(world, name).nbytes for name in _CHANGED) > _SMALL_BYTES:
            self._kept = {}
            return
        self._kept = {name: _bytes(getattr(world, name)).copy() for name in _CHANGED}

    def _rewind(self, engine: Engine, pool: PoolSpec) -> bool:
        """Puts everything back to the start, with another step time; False where that cannot be."""
        world = engine.world
        step, before = pool.step, self._pool.step
        if not self._kept or any(len(getattr(step, name)) != len(getattr(before, name)) for name in _TABLES):
            return False
        for name, kept in self._kept.items():
            memory = _bytes(getattr(world, name))
            # What had to grow during the run is larger now, and empty behind what there was.
            memory[: len(kept)] = kept
            memory[len(kept) :] = 0
        record = world.backends[0]
        for name in _TERMS:
            record[name] = getattr(step, name)
        record["overhead_s"] = pool.overhead_s
        for name in _TABLES:
            at = int(record[f"{name}_at"])
            numbers = np.array(getattr(step, name), np.float64).ravel()
            world.tables[at : at + len(numbers)] = numbers
        return True


def _bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    """The memory of an array; copying records field by field takes ten times as long."""
    return array.reshape(-1).view(np.uint8)
