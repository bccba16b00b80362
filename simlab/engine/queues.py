"""The two lists of a replica, linked through the slots: running in order of admission, waiting in order of service."""

from __future__ import annotations

from simlab.draws.kernel import inlined, kernel
from simlab.engine.arrays import NONE, RUNNING, WAITING
from simlab.engine.world import World, reps_of, slots_of


@inlined
def append_running(w: World, r: int, slot: int) -> None:
    """Enters a request into the batch, behind all others."""
    rep = reps_of(w)[r]
    s = slots_of(w)[slot]
    s.state = RUNNING
    s.prev = rep.run_tail
    s.next = NONE
    if rep.run_tail == NONE:
        rep.run_head = slot
    else:
        slots_of(w)[rep.run_tail].next = slot
    rep.run_tail = slot
    rep.n_running += 1
    s.admit = rep.admits
    rep.admits += 1


@inlined
def remove_running(w: World, r: int, slot: int) -> None:
    """Takes a request out of the batch."""
    rep = reps_of(w)[r]
    s = slots_of(w)[slot]
    if rep.pf_head == slot:
        rep.pf_head = s.next
    if s.prev == NONE:
        rep.run_head = s.next
    else:
        slots_of(w)[s.prev].next = s.next
    if s.next == NONE:
        rep.run_tail = s.prev
    else:
        slots_of(w)[s.next].prev = s.prev
    rep.n_running -= 1


@inlined
def insert_waiting(w: World, r: int, slot: int, after: int) -> None:
    """Links a slot into the waiting list behind ``after`` (NONE: at the front)."""
    rep = reps_of(w)[r]
    s = slots_of(w)[slot]
    s.state = WAITING
    s.prev = after
    if after == NONE:
        s.next = rep.wait_head
        rep.wait_head = slot
    else:
        s.next = slots_of(w)[after].next
        slots_of(w)[after].next = slot
    if s.next == NONE:
        rep.wait_tail = slot
    else:
        slots_of(w)[s.next].prev = slot
    rep.n_waiting += 1


@inlined
def remove_waiting(w: World, r: int, slot: int) -> None:
    """Takes a request out of the queue."""
    rep = reps_of(w)[r]
    s = slots_of(w)[slot]
    if s.prev == NONE:
        rep.wait_head = s.next
    else:
        slots_of(w)[s.prev].next = s.next
    if s.next == NONE:
        rep.wait_tail = s.prev
    else:
        slots_of(w)[s.next].prev = s.prev
    rep.n_waiting -= 1


@kernel
def queue_by_priority(w: World, r: int, slot: int) -> None:
    """Waiting order of vLLM's priority policy: lower ``prio`` first, then who came to the replica first (``place``)."""
    s = slots_of(w)[slot]
    at = reps_of(w)[r].wait_tail
    while at != NONE and (
        slots_of(w)[at].prio > s.prio or (slots_of(w)[at].prio == s.prio and slots_of(w)[at].place > s.place)
    ):
        at = slots_of(w)[at].prev
    insert_waiting(w, r, slot, at)
