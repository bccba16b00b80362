"""The gateway's door: what comes is held to its context budget, its caps and its limits, and each call to its keys."""

from __future__ import annotations

import math

from simlab.draws.kernel import kernel
from simlab.engine.arrays import (
    BY_TROUGH,
    DEGRADE,
    NONE,
    QUEUE,
    RATE_LIMITED,
    REJECTED,
    TIME_EPS_S,
    TIMED_OUT,
)
from simlab.engine.caps import fits
from simlab.engine.context import fill
from simlab.engine.fair_queue import leave_line, pass_all, pass_by, turn_away, wait_in_line
from simlab.engine.limits import degrade, find_key, first_over, key_place, take_all, take_key
from simlab.engine.meters import meter_attempt
from simlab.engine.outcome import finish
from simlab.engine.routing import choose
from simlab.engine.shed import sheds
from simlab.engine.world import (
    World,
    allowances_of,
    backends_of,
    counters_of,
    gateway_of,
    limits_of,
    lines_of,
    policies_of,
    rules_of,
    slots_of,
    state_of,
    tickets_of,
    windows_of,
)


@kernel
def _refuse(w: World, slot: int, t: float, outcome: int) -> None:
    """The gateway turns the task away: an attempt that got no further than itself, and the end of the task."""
    s = slots_of(w)[slot]
    s.backend = gateway_of(w).refused_at
    s.started_s = t
    s.first_s = math.inf
    s.cached = 0
    s.written = 0
    s.preempts = 0
    s.prefilled = 0
    s.ctx_work = 0.0
    s.out_done = 0
    if s.attempt == 0:
        windows_of(w)[state_of(w).window, s.backend].arrived += 1
    meter_attempt(w, slot, t, outcome, 0, False)
    s.gen += 1
    tickets_of(w)[slot].over = 1
    finish(w, slot, t, False)


@kernel
def lets_in(w: World, slot: int, t: float) -> bool:
    """Whether the task may pass now; if not, it waits or has been refused."""
    p = policies_of(w)[slots_of(w)[slot].cls]
    fill(w, slot, t)
    if p.capped == 1 and not fits(w, slot):
        turn_away(w, slot, REJECTED, t)
        return False
    return p.limits_n == 0 or _within_limits(w, slot, t)


@kernel
def _within_limits(w: World, slot: int, t: float) -> bool:
    ticket = tickets_of(w)[slot]
    while True:
        i = first_over(w, slot, t, True)
        if i == NONE:
            break
        limit = limits_of(w)[allowances_of(w)[ticket.blocked].limit]
        if limit.over == QUEUE:
            slots_of(w)[slot].backend = gateway_of(w).refused_at
            wait_in_line(w, slot, NONE, t)
            return False
        if limit.over == DEGRADE:
            degrade(w, slot, i)
            continue
        limit.refused += 1
        counters_of(w)[slots_of(w)[slot].cls].refused += 1
        turn_away(w, slot, RATE_LIMITED, t)
        return False
    take_all(w, slot)
    pass_all(w, slot, NONE)
    return True


@kernel
def aim(w: World, slot: int, t: float) -> int:
    """The backend of the next attempt, whose limits it counts in; NONE: it waits for them, or was refused.

    An attempt that a limit turns away ends where it would have gone, as after the provider's own 429.
    """
    ticket = tickets_of(w)[slot]
    b = int(ticket.cleared)
    if b != NONE:
        ticket.cleared = NONE
        return b
    b = int(choose(w, slot))
    if gateway_of(w).guarded == 0:
        return b
    s = slots_of(w)[slot]
    patient = backends_of(w)[b].batch == 1 or (ticket.rule != NONE and rules_of(w)[ticket.rule].mode == BY_TROUGH)
    if s.attempt == 0 and ticket.parent == NONE and ticket.hit == 0 and not patient and sheds(w, slot, b):
        counters_of(w)[s.cls].shed += 1
        turn_away(w, slot, REJECTED, t)
        return NONE
    if backends_of(w)[b].limits_n == 0:
        return b
    return int(_clear(w, slot, b, t))


@kernel
def _clear(w: World, slot: int, b: int, t: float) -> int:
    """The backend that the call goes to: ``b``, or where its limits send it; NONE: it waits."""
    ticket = tickets_of(w)[slot]
    sent_on = False
    lane = find_key(w, slot, b, t, True)
    while lane == NONE:
        limit = limits_of(w)[allowances_of(w)[ticket.blocked].limit]
        if limit.over == QUEUE:
            wait_in_line(w, slot, b, t)
            return NONE
        if limit.over != DEGRADE or sent_on:
            limit.refused += 1
            backends_of(w)[b].retry_after_s = ticket.wait_s if ticket.wait_s < math.inf else 0.0
            ticket.turned = 1
            return b
        limit.degraded += 1
        sent_on = True
        b = int(limit.degrade_to)
        if backends_of(w)[b].limits_n == 0:
            return b
        lane = find_key(w, slot, b, t, True)
    take_key(w, slot, b, lane)
    for i in range(backends_of(w)[b].limits_n):
        pass_by(w, key_place(w, b, i, lane), slot)
    return b


@kernel
def dropped(w: World, slot: int, t: float) -> bool:
    """Refuses what was turned away, or has waited too long; True if that is a call, which fails now."""
    ticket = tickets_of(w)[slot]
    outcome = ticket.dropped - 1
    ticket.dropped = 0
    if outcome < 0:
        if ticket.line == NONE or t + TIME_EPS_S < ticket.joined_s + lines_of(w)[ticket.line].deadline_s:
            return False
        outcome = TIMED_OUT
        counters_of(w)[slots_of(w)[slot].cls].expired += 1
        leave_line(w, slot, t)
    if ticket.waits_for == NONE:
        _refuse(w, slot, t, outcome)
        return False
    ticket.cleared = ticket.waits_for
    ticket.turned = 1
    backends_of(w)[ticket.waits_for].retry_after_s = 0.0
    return True
