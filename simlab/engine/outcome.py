"""What the gateway makes of an attempt that ended: accept it, try again or elsewhere, or give the task up."""

from __future__ import annotations

import math

from simlab.draws.kernel import kernel
from simlab.engine.agent import next_step
from simlab.engine.answer_cache import keep_answer
from simlab.engine.arrays import BACKOFF, ERROR, NEVER, NONE, OK, ORPHAN, RETRY, T_JUDGED, TIMED_OUT
from simlab.engine.breaker import note_outcome
from simlab.engine.calls import book_end, cancel, detach, give_up, hand_over, promote, set_adrift
from simlab.engine.caps import may_go_on, note_cost
from simlab.engine.cascade import escalate, judge, judged, passes
from simlab.engine.fair_queue import release
from simlab.engine.fallback import fall_back, resume, whole_again
from simlab.engine.heaps import push_timer
from simlab.engine.meters import meter_task
from simlab.engine.parts import meter_parts, note_call
from simlab.engine.quality import right_answer
from simlab.engine.retry import wait_to_retry, what_next
from simlab.engine.routing import note_latency
from simlab.engine.tasks import leave
from simlab.engine.world import (
    World,
    agents_of,
    counters_of,
    gateway_of,
    policies_of,
    slots_of,
    tickets_of,
)


@kernel
def settle(w: World, slot: int, t: float, outcome: int, generated: int, billed: bool) -> None:
    """Books an attempt of a class with policies that is over, and goes on from there."""
    ticket = tickets_of(w)[slot]
    streamed = generated if billed and outcome == ERROR else 0
    outcome = book_end(w, slot, t, outcome, generated, billed)
    if ticket.parent != ORPHAN:
        note_outcome(w, slot, outcome, t)
    ticket.refused = 0
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
        cancel(w, kid, slot, t)
    if outcome == OK:
        _answered(w, slot, t)
    else:
        failed(w, slot, t, outcome, streamed)


@kernel
def _answered(w: World, slot: int, t: float) -> None:
    """An attempt has its answer: from a cache as it is, else judged, which may take its time."""
    s = slots_of(w)[slot]
    ticket = tickets_of(w)[slot]
    if ticket.hit > 0:
        note_call(w, slot, t)
        finish(w, slot, t, True)
        return
    note_latency(w, s.backend, s.first_s - s.started_s)
    ticket.wrong = 0 if right_answer(w, slot) else 1
    if not judged(w, slot) or ticket.over == 1:
        note_call(w, slot, t)
        _take(w, slot, t)
        return
    delay = judge(w, slot, t)
    ticket.helped_s += delay
    ticket.judged_s = t
    if delay > 0.0:
        s.state = BACKOFF
        ticket.judging = 1
        push_timer(w, t + delay, slot, T_JUDGED)
    else:
        pronounce(w, slot, t)


@kernel
def pronounce(w: World, slot: int, t: float) -> None:
    """An answer has been looked at: it is taken, or asked for again one level up."""
    ticket = tickets_of(w)[slot]
    ticket.judging = 0
    if not passes(w, slot) and may_go_on(w, slot):
        escalate(w, slot, t)
        return
    note_call(w, slot, ticket.judged_s)
    slots_of(w)[slot].first_s = t  # nobody saw a token before the answer had passed
    ticket.first_s = t
    _take(w, slot, t)


@kernel
def _take(w: World, slot: int, t: float) -> None:
    """The answer is taken: the task is over, or, in a loop, it was a call of tools and the model is asked again."""
    s = slots_of(w)[slot]
    ticket = tickets_of(w)[slot]
    if ticket.step + 1 >= ticket.steps:
        finish(w, slot, t, True)
        return
    stops = next_step(w, slot, t)
    if stops < NEVER:
        partial = agents_of(w)[s.cls].partial == 1 and ticket.over == 0
        ticket.wrong = 1
        s.first_s = stops
        counters_of(w)[s.cls].stopped_loops += 1
        ticket.results_key = 0  # no cache keeps half an answer
        ticket.exact_key = 0
        ticket.semantic_key = 0
        finish(w, slot, stops, partial)


@kernel
def let_go(w: World, slot: int, t: float) -> None:
    """An attempt timed out and its server is not told: it goes on, and the task goes on without it."""
    note_outcome(w, slot, TIMED_OUT, t)
    if tickets_of(w)[slot].parent != NONE:
        set_adrift(w, slot, TIMED_OUT)
        return
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
    reason = what_next(w, slot, outcome)
    if reason == NONE:
        finish(w, slot, t, False)
        return
    if streamed > 0 and gateway_of(w).resume == 1:
        resume(w, slot, streamed)
    if reason == RETRY:
        wait_to_retry(w, slot, t, outcome)
    else:
        fall_back(w, slot, t)


@kernel
def _note_deadline(w: World, slot: int, t: float, answered: bool) -> None:
    """Counts whether work that may wait was done in time."""
    s = slots_of(w)[slot]
    deadline_s = policies_of(w)[s.cls].deadline_s
    if deadline_s == math.inf:
        return
    if answered and t <= s.arrival_s + deadline_s:
        counters_of(w)[s.cls].in_time += 1
    else:
        counters_of(w)[s.cls].missed += 1


@kernel
def finish(w: World, slot: int, t: float, answered: bool) -> None:
    """The task is over; its answer is kept where it was looked for in vain."""
    s = slots_of(w)[slot]
    ticket = tickets_of(w)[slot]
    p = policies_of(w)[s.cls]
    whole_again(w, slot)
    release(w, slot, t)
    note_cost(w, slot)
    if answered and p.caches != 0:
        keep_answer(w, slot, t)
    right = ticket.wrong == 0
    if p.looped == 1:
        s.attempt -= min(s.attempt, ticket.step)  # the calls of a loop are no retries
        counters_of(w)[s.cls].loops += 1
        counters_of(w)[s.cls].tool_steps += ticket.step
        s.history = 0  # a conversation goes on from the whole prompt, and nothing else from this one
    if p.timed == 1:
        t = meter_parts(w, slot, t, answered)
    _note_deadline(w, slot, t, answered)
    if s.reason == RETRY:
        s.reason = ticket.came  # the task ends where an escalation or a fallback led it
    meter_task(w, slot, t, answered, right)
    leave(w, slot, t, answered)
