"""Reads the engine's meters every now and then while it runs: the stream that alerts look at.

The ledger's meters only grow, so what happened in a window is the difference of two readings; the engine does not know
that it is watched, and a run that nobody watches pays nothing.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np
import simpy
from numpy.typing import NDArray

from simlab.engine import Engine
from simlab.engine.arrays import LAYERS
from simlab.results import BackendFacts
from simlab.results.ledger import token_usd
from simlab.results.stream import Stream

_ERRORS = ("failed", "timed_out")
_REFUSALS = ("rate_limited", "rejected")


class Recorder:
    """Keeps readings of one engine.

    Args:
        engine: whose meters are read.
        backends: its backends, in order.
        tenants_of_class: number of tenants of each class.
        window_s: time between two readings, s.
    """

    def __init__(
        self, engine: Engine, backends: Sequence[BackendFacts], tenants_of_class: Sequence[int], window_s: float
    ) -> None:
        self._engine = engine
        self._backends = backends
        self._window_s = window_s
        cells = engine.world.cells
        first = np.concatenate(([0], np.cumsum(tenants_of_class)))
        self._tenants = int(first[-1])
        self._tenant = first[cells["cls"]] + cells["tenant"]
        self._readings = [self._read()]

    def record(self, env: simpy.Environment) -> Generator[simpy.Event, None, None]:
        """The process that reads at the end of every window."""
        while True:
            yield env.timeout(self._window_s * len(self._readings) - env.now)
            self._readings.append(self._read())

    def stream(self) -> Stream:
        """What happened in each whole window so far."""
        tables = (np.diff(np.array(table), axis=0) for table in zip(*self._readings, strict=True))
        return Stream(self._window_s, *tables)

    def _read(self) -> tuple[NDArray[np.float64], ...]:
        """The tables of `Stream`, summed up since the start."""
        w = self._engine.world
        cells = w.cells
        usd = cells["work_s"] * w.backends["usd_work_s"][cells["backend"]]
        for b, facts in enumerate(self._backends):
            mine = cells["backend"] == b
            usd[mine] += token_usd(cells[mine], facts)

        def by_backend(*names: str) -> NDArray[np.float64]:
            return _sums(cells["backend"], np.sum([cells[name] for name in names], axis=0), len(self._backends))

        caches = w.savings.reshape(-1, LAYERS) if len(w.savings) > 1 else np.zeros((1, LAYERS), w.savings.dtype)
        return (
            _sums(self._tenant, usd, self._tenants),
            _sums(self._tenant, cells["attempts"], self._tenants),
            by_backend("attempts"),
            by_backend(*_ERRORS),
            by_backend(*_REFUSALS),
            caches["lookups"].sum(axis=0).astype(np.float64),
            caches["hits"].sum(axis=0).astype(np.float64),
        )


def _sums(place: NDArray[np.int64], values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """The values added up by place, float64 [count]."""
    return np.bincount(place, weights=values, minlength=count).astype(np.float64)
