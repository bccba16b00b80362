"""Calls beside a task's main attempt, each in a slot of its own: hedges, and what nobody waits for any more."""

from __future__ import annotations

from simlab.draws.kernel import kernel
from simlab.engine.arrays import BACKOFF, CANCELLED, FREE, HEDGE, NONE, ON_API, ORPHAN, QUEUED_API, T_HEDGE, T_RETRY
from simlab.engine.breaker import note_outcome
from simlab.engine.caps import may_go_on
from simlab.engine.endpoint import hang_up
from simlab.engine.fair_queue import release_key, withdraw
from simlab.engine.heaps import push_timer
from simlab.engine.limits import spend
from simlab.engine.lockstep import output_tokens
from simlab.engine.meters import attempt_usd, meter_attempt
from simlab.engine.replica import abort
from simlab.engine.tasks import free_slot, new_segment, new_slot
from simlab.engine.timers import arm_task
from simlab.engine.watch import unwatch
from simlab.engine.world import World, gateway_of, segs_of, slots_of, tickets_of


@kernel
def clone(w: World, slot: int) -> int:
    """A new slot with the same request in it, prompt segments included, doing nothing yet; its ticket is a copy too.

    The loop has made sure that there is a slot and room for the segments.
    """
    new = new_slot(w, slots_of(w)[slot].cls)
    gen = slots_of(w)[new].gen
    life = slots_of(w)[new].life
    slots_of(w)[new] = slots_of(w)[slot]
    s = slots_of(w)[new]
    s.gen = gen
    s.life = life
    s.state = FREE
    s.refs = NONE
    s.n_refs = 0
    s.run = NONE
    s.heap_pos = NONE
    s.link = 0
    s.blocks = 0
    s.aborting = 0
    s.segs = NONE
    last = NONE
    seg = slots_of(w)[slot].segs
    while seg != NONE:
        copy = new_segment(w)
        segs_of(w)[copy].key = segs_of(w)[seg].key
        segs_of(w)[copy].end = segs_of(w)[seg].end
        segs_of(w)[copy].next = NONE
        if last == NONE:
            s.segs = copy
        else:
            segs_of(w)[last].next = copy
        last = copy
        seg = segs_of(w)[seg].next
    tickets_of(w)[new] = tickets_of(w)[slot]
    ticket = tickets_of(w)[new]
    ticket.lane = NONE  # the call in the old slot goes on counting in its key
    ticket.line = NONE
    ticket.cleared = NONE
    ticket.probe = 0
    return new


@kernel
def book_end(w: World, slot: int, t: float, outcome: int, generated: int, billed: bool) -> int:
    """Books the end of an attempt; returns how it ended as far as its task is concerned."""
    ticket = tickets_of(w)[slot]
    if ticket.verdict != NONE:
        outcome = ticket.verdict
    billed = billed and ticket.hit == 0  # a kept answer was paid for when it was made
    meter_attempt(w, slot, t, outcome, generated, billed)
    if billed:
        usd = attempt_usd(w, slot, generated)
        ticket.usd += usd
        spend(w, slot, slots_of(w)[slot].backend, usd)
    release_key(w, slot, t)
    slots_of(w)[slot].gen += 1
    return outcome


@kernel
def set_adrift(w: World, slot: int, verdict: int) -> None:
    """Nobody waits for the call in the slot any more, which goes on; it is booked as ``verdict`` when it ends."""
    ticket = tickets_of(w)[slot]
    if ticket.parent >= 0:
        tickets_of(w)[ticket.parent].kid = NONE
    ticket.parent = ORPHAN
    ticket.verdict = verdict
    unwatch(w, slot)


@kernel
def cancel(w: World, slot: int, heir: int, t: float) -> None:
    """Nobody waits for this call any more: it is stopped, and the task in slot ``heir`` bears what it took.

    A replica drops it at the end of its running step. A server that is not told goes on.
    """
    s = slots_of(w)[slot]
    ticket = tickets_of(w)[slot]
    set_adrift(w, slot, CANCELLED)
    if s.state == BACKOFF:
        withdraw(w, slot, t)
        free_slot(w, slot)
        return
    note_outcome(w, slot, CANCELLED, t)
    if gateway_of(w).abort == 0:
        return
    if s.state in (ON_API, QUEUED_API):
        called = s.state == ON_API
        generated = hang_up(w, slot, t)
        ticket.usd = 0.0
        book_end(w, slot, t, CANCELLED, generated, called)
        tickets_of(w)[heir].usd += ticket.usd
        free_slot(w, slot)
        return
    if s.aborting == 0 and abort(w, s.replica, slot, t, 0):
        book_end(w, slot, t, CANCELLED, output_tokens(w, slot), True)
        free_slot(w, slot)


@kernel
def detach(w: World, slot: int, verdict: int, t: float) -> int:
    """The task moves on to a new slot, which it returns; the old attempt goes on without anybody waiting for it."""
    new = clone(w, slot)
    ticket = tickets_of(w)[slot]
    if ticket.kid != NONE:
        tickets_of(w)[ticket.kid].parent = new
    ticket.kid = NONE
    ticket.usd = 0.0
    set_adrift(w, slot, verdict)
    slots_of(w)[slot].life += 1
    arm_task(w, new, t)
    return new


@kernel
def hedge(w: World, slot: int, t: float) -> None:
    """Asks once more, beside an attempt whose first token has not come; the first answer wins.

    Not beside a cache, nor beside a call that is given up already.
    """
    ticket = tickets_of(w)[slot]
    g = gateway_of(w)
    if ticket.parent != NONE or slots_of(w)[slot].first_s <= t or ticket.kid != NONE or ticket.hedges >= g.hedge_max:
        return
    if ticket.hit > 0 or slots_of(w)[slot].aborting > 0 or not may_go_on(w, slot):
        return
    new = clone(w, slot)
    ticket.kid = new
    ticket.hedges += 1
    ticket.tries += 1
    kid = tickets_of(w)[new]
    kid.parent = slot
    kid.kid = NONE
    kid.usd = 0.0
    kid.force = g.hedge_to if g.hedge_to != NONE else ticket.force
    s = slots_of(w)[new]
    s.attempt = ticket.tries
    s.reason = HEDGE
    s.state = BACKOFF
    push_timer(w, t, new, T_RETRY)


@kernel
def promote(w: World, slot: int, t: float) -> None:
    """An extra call has the answer: it is the task's main attempt from now on, and the other is stopped."""
    ticket = tickets_of(w)[slot]
    parent = ticket.parent
    ticket.parent = NONE
    ticket.usd += tickets_of(w)[parent].usd
    ticket.hedges = tickets_of(w)[parent].hedges
    ticket.tries = tickets_of(w)[parent].tries
    ticket.resends = tickets_of(w)[parent].resends
    ticket.force = tickets_of(w)[parent].force
    tickets_of(w)[parent].kid = NONE
    slots_of(w)[parent].life += 1
    arm_task(w, slot, t)
    cancel(w, parent, slot, t)


@kernel
def hand_over(w: World, slot: int, t: float) -> None:
    """The main attempt failed while an extra call goes on: that one is the task from now on, and may be hedged too."""
    ticket = tickets_of(w)[slot]
    g = gateway_of(w)
    kid = ticket.kid
    tickets_of(w)[kid].parent = NONE
    tickets_of(w)[kid].usd += ticket.usd
    tickets_of(w)[kid].hedges = ticket.hedges
    tickets_of(w)[kid].tries = ticket.tries
    tickets_of(w)[kid].resends = ticket.resends
    tickets_of(w)[kid].force = ticket.force
    arm_task(w, kid, t)
    if slots_of(w)[kid].state != BACKOFF and ticket.hedges < g.hedge_max:
        push_timer(w, max(slots_of(w)[kid].started_s + g.hedge_s, t), kid, T_HEDGE)
    free_slot(w, slot)


@kernel
def give_up(w: World, slot: int) -> None:
    """An extra call ended without an answer: the main attempt goes on alone."""
    ticket = tickets_of(w)[slot]
    if ticket.parent >= 0:
        tickets_of(w)[ticket.parent].kid = NONE
        tickets_of(w)[ticket.parent].usd += ticket.usd
    free_slot(w, slot)
