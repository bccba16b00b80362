"""Where a class's weights send an attempt."""

from __future__ import annotations

from simlab.draws.counter import key, uniform
from simlab.draws.kernel import inlined
from simlab.engine.arrays import FOR_ROUTE
from simlab.engine.world import World, backends_of, routes_of, slots_of


@inlined
def drawn_backend(w: World, slot: int) -> int:
    """The backend drawn by the weights of the class's route; a retry draws again."""
    s = slots_of(w)[slot]
    last = len(backends_of(w)) - 1
    if routes_of(w)[s.cls, 0] >= 1.0 or last == 0:
        return 0
    u = uniform(key(s.task, FOR_ROUTE + 64 * s.attempt))
    b = 0
    while b < last and u >= routes_of(w)[s.cls, b]:
        b += 1
    return b
