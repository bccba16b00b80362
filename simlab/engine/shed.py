"""Load shedding: while a backend is overloaded, tasks of low priority are refused before they are sent to it."""

from __future__ import annotations

import math

from simlab.draws.kernel import kernel
from simlab.engine.arrays import API, NONE
from simlab.engine.world import World, backends_of, gateway_of, reps_of, slots_of, state_of

_MEMORY = 10.0
"""A time to first token that was heard of longer ago than this many times the threshold says nothing of now."""


@kernel
def waiting_at(w: World, b: int) -> int:
    """Requests that wait at a backend."""
    be = backends_of(w)[b]
    if be.kind == API:
        return int(be.queued)
    waiting = 0
    r = be.rep_head
    while r != NONE:
        waiting += reps_of(w)[r].n_waiting
        r = reps_of(w)[r].next_rep
    return waiting


@kernel
def sheds(w: World, slot: int, b: int) -> bool:
    """Whether the task must not go to backend ``b`` now."""
    g = gateway_of(w)
    if slots_of(w)[slot].prio <= g.shed_keep:
        return False
    if g.shed_queue < math.inf and waiting_at(w, b) >= g.shed_queue:
        return True
    be = backends_of(w)[b]
    heard = state_of(w).now - be.heard_s < _MEMORY * g.shed_ttft_s
    return bool(be.recent_ttft_s > g.shed_ttft_s and heard)
