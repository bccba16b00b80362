"""The list of attempts that can time out; all have the same time-out, so it is in order of their starts."""

from __future__ import annotations

from simlab.draws.kernel import inlined, kernel
from simlab.engine.arrays import NONE
from simlab.engine.world import World, slots_of, state_of


@kernel
def watch(w: World, slot: int) -> None:
    """Puts the attempt, which starts now, at the end of the list."""
    state = state_of(w)
    s = slots_of(w)[slot]
    s.tprev = state.timeout_tail
    s.tnext = NONE
    if state.timeout_tail == NONE:
        state.timeout_head = slot
    else:
        slots_of(w)[state.timeout_tail].tnext = slot
    state.timeout_tail = slot
    s.link = 1


@inlined
def unwatch(w: World, slot: int) -> None:
    """Takes the attempt off the list, if it is on it."""
    state = state_of(w)
    s = slots_of(w)[slot]
    if s.link == 0:
        return
    s.link = 0
    if s.tprev == NONE:
        state.timeout_head = s.tnext
    else:
        slots_of(w)[s.tprev].tnext = s.tnext
    if s.tnext == NONE:
        state.timeout_tail = s.tprev
    else:
        slots_of(w)[s.tnext].tprev = s.tprev
