"""What the gateway makes of an attempt that ended: accept it, try again or elsewhere, or give the task up."""

from __future__ import annotations

from simlab.draws.kernel import kernel
from simlab.engine.answer_cache import keep_answer
from simlab.engine.arrays import ERROR, NONE, OK, ORPHAN, RETRY, TIMED_OUT
from simlab.engine.breaker import note_outcome
from simlab.engine.calls import book_end, cancel, detach, give_up, hand_over, promote
from simlab.engine.caps import may_go_on, note_cost
from simlab.engine.cascade import escalate, judge, judged, passes
from simlab.engine.fair_queue import release
from simlab.engine.fallback import fall_back, resume, whole_again
from simlab.engine.meters import meter_task
from simlab.engine.quality import right_answer
from simlab.engine.retry import tries_again, wait_to_retry
from simlab.engine.routing import note_latency
from simlab.engine.tasks import leave
from simlab.engine.world import World, backends_of, gateway_of, policies_of, slots_of, tickets_of


@kernel
def settle(w: World, slot: int, t: float, outcome: int, generated: int, billed: bool) -> None:
    """Books an attempt of a class with policies that is over, and goes on from there."""
    ticket = tickets_of(w)[slot]
    streamed = generated if billed and outcome == ERROR else 0
    refused = ticket.refused
    ticket.refused = 0
    outcome = book_end(w, slot, t, outcome, generated, billed)
    if gateway_of(w).breaker_on == 1 and refused == 0 and ticket.hit == 0:
        note_outcome(w, slots_of(w)[slot].backend, outcome, t)
    if ticket.parent != NONE:
        if ticket.parent == ORPHAN or outcome != OK:
            give_up(w, slot)
            return
        promote(w, slot, t)
    elif ticket.kid != NONE:
        if outcome != OK:
            hand_over(w, slot, t)
            return
        kid = ticket.kid
        ticket.kid = NONE
        cancel(w, kid, t)
    if outcome == OK:
        _answered(w, slot, t)
    else:
        failed(w, slot, t, outcome, streamed)


@kernel
def _answered(w: World, slot: int, t: float) -> None:
    """An attempt has its answer: from a cache as it is, else judged, and perhaps asked for again one level up."""
    s = slots_of(w)[slot]
    ticket = tickets_of(w)[slot]
    if ticket.hit == 0:
        note_latency(w, s.backend, s.first_s - s.started_s)
        ticket.wrong = 0 if right_answer(w, slot) else 1
        if judged(w, slot) and ticket.over == 0:
            t += judge(w, slot, t)
            if not passes(w, slot) and may_go_on(w, slot):
                escalate(w, slot, t)
                return
            s.first_s = t  # nobody saw a token before the answer had passed
    finish(w, slot, t, True)


@kernel
def let_go(w: World, slot: int, t: float) -> None:
    """An attempt timed out and its server is not told: it goes on, and the task goes on without it."""
    new = detach(w, slot, TIMED_OUT, t)
    if tickets_of(w)[new].kid != NONE:
        hand_over(w, new, t)
    else:
        failed(w, new, t, TIMED_OUT, 0)


@kernel
def failed(w: World, slot: int, t: float, outcome: int, streamed: int) -> None:
    """An attempt failed after ``streamed`` tokens: it is tried again, or elsewhere, or the task has failed."""
    ticket = tickets_of(w)[slot]
    if ticket.hit > 0:
        ticket.hit = 0  # the cache was too slow for the time-out: on as without it
        ticket.force = NONE
    if tries_again(w, slot, outcome):
        if streamed > 0 and gateway_of(w).resume == 1:
            resume(w, slot, streamed)
        wait_to_retry(w, slot, t, outcome)
    elif (
        ticket.over == 0
        and backends_of(w)[slots_of(w)[slot].backend].fallback != NONE
        and may_go_on(w, slot)
    ):
        fall_back(w, slot, t)
    else:
        finish(w, slot, t, False)


@kernel
def finish(w: World, slot: int, t: float, answered: bool) -> None:
    """The task is over; its answer is kept where it was looked for in vain."""
    whole_again(w, slot)
    release(w, slot, t)
    note_cost(w, slot)
    if answered and policies_of(w)[slots_of(w)[slot].cls].caches != 0:
        keep_answer(w, slot, t)
    right = tickets_of(w)[slot].wrong == 0
    if slots_of(w)[slot].reason == RETRY:
        slots_of(w)[slot].reason = tickets_of(w)[slot].came  # the task ends where an escalation or a fallback led it
    meter_task(w, slot, t, answered, right)
    leave(w, slot, t, answered)
