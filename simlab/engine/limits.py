"""Limits: token buckets, calls in flight, what a day allows; each kept for a tenant, a feature, a key and so on.

A bucket refills evenly and holds its burst. A request takes one of the requests and, of the tokens, those of its prompt
and its answer, as if the gateway knew how long that will be. One with more tokens than the bucket holds passes when the
bucket is full, and leaves it in debt: the long-run rate holds for any mix. Money is booked when it is spent, so what is
in flight when a budget runs out is still paid: a budget refuses what comes after it is spent.
"""

from __future__ import annotations

import math

from simlab.draws.kernel import inlined, kernel
from simlab.engine.arrays import ENOUGH, NONE, QUEUE, TIME_EPS_S
from simlab.engine.trough import room_in_pool, urgent
from simlab.engine.world import (
    World,
    allowances_of,
    backends_of,
    gateway_of,
    limit_places_of,
    limits_of,
    lines_of,
    policies_of,
    rules_of,
    slots_of,
    state_of,
    tickets_of,
)

DAY_S = 86400.0


@inlined
def place(w: World, slot: int, i: int) -> int:
    """The allowance that the task has of the i-th limit of its class; NONE: it has no part in it."""
    s = slots_of(w)[slot]
    p = policies_of(w)[s.cls]
    return int(limit_places_of(w)[p.limits_at + s.tenant * p.limits_n + i])


@inlined
def key_place(w: World, b: int, i: int, lane: int) -> int:
    """The allowance of the i-th limit of backend ``b`` that its key ``lane`` counts in."""
    be = backends_of(w)[b]
    return int(limit_places_of(w)[be.limits_at + i * be.keys + lane])


@kernel
def _turn_day(w: World, at: int, t: float) -> float:
    """Begins a new day where one has begun; returns when the next will, s."""
    allowance = allowances_of(w)[at]
    clock = t + gateway_of(w).clock_s
    day = int((clock + TIME_EPS_S) / DAY_S)  # who waited for midnight finds it there, whatever the last digit says
    if day != allowance.day:
        allowance.day = day
        allowance.used = 0
        allowance.usd = 0.0
    return float((day + 1) * DAY_S - gateway_of(w).clock_s)


@kernel
def room_in(w: World, at: int, slot: int, t: float) -> float:
    """How long until an allowance has room for the request, s: 0 if it has, infinite if nobody can say."""
    allowance = allowances_of(w)[at]
    limit = limits_of(w)[allowance.limit]
    if limit.gate != NONE:
        return float(room_in_pool(w, at, slot, t))
    if limit.concurrency > 0 and allowance.in_flight >= limit.concurrency:
        return math.inf
    wait = 0.0
    dt = t - allowance.level_t
    allowance.level_t = t
    if limit.rpm > 0.0:
        allowance.requests = min(limit.burst, allowance.requests + dt * limit.rpm / 60.0)
        if allowance.requests < ENOUGH:
            wait = (1.0 - allowance.requests) * 60.0 / limit.rpm
    if limit.tpm > 0.0:
        allowance.tokens = min(limit.burst_tokens, allowance.tokens + dt * limit.tpm / 60.0)
        need = min(float(slots_of(w)[slot].prompt + slots_of(w)[slot].output), limit.burst_tokens)
        if allowance.tokens < need * ENOUGH:
            wait = max(wait, (need - allowance.tokens) * 60.0 / limit.tpm)
    if limit.requests_per_day > 0 or limit.usd_per_day > 0.0:
        midnight = _turn_day(w, at, t)
        used_up = limit.requests_per_day > 0 and allowance.used >= limit.requests_per_day
        if used_up or (limit.usd_per_day > 0.0 and allowance.usd >= limit.usd_per_day):
            wait = max(wait, midnight - t)
    return wait


@kernel
def take(w: World, at: int, slot: int) -> None:
    """Takes the request from an allowance that has room for it."""
    allowance = allowances_of(w)[at]
    allowance.in_flight += 1
    allowance.requests -= 1.0
    allowance.tokens -= slots_of(w)[slot].prompt + slots_of(w)[slot].output
    allowance.used += 1


@inlined
def _has_line(w: World, at: int) -> bool:
    """Whether others wait for the allowance already."""
    allowance = allowances_of(w)[at]
    return bool(limits_of(w)[allowance.limit].over == QUEUE and lines_of(w)[allowance.line].head != NONE)


@kernel
def first_over(w: World, slot: int, t: float, comes: bool) -> int:
    """The first of its class's limits, but those it was sent past, that has no room for the task; NONE: all have.

    One that only ``comes`` does not go before those who wait.
    """
    ticket = tickets_of(w)[slot]
    for i in range(policies_of(w)[slots_of(w)[slot].cls].limits_n):
        at = place(w, slot, i)
        if at == NONE or ticket.passed & (1 << i):
            continue
        ticket.wait_s = room_in(w, at, slot, t)
        if ticket.wait_s > 0.0 or (comes and _has_line(w, at)):
            ticket.blocked = at
            return i
    return NONE


@kernel
def take_all(w: World, slot: int) -> None:
    """Counts the task in its class's limits, but those it was sent past."""
    ticket = tickets_of(w)[slot]
    ticket.holds = 0
    for i in range(policies_of(w)[slots_of(w)[slot].cls].limits_n):
        at = place(w, slot, i)
        if at != NONE and not ticket.passed & (1 << i):
            take(w, at, slot)
            ticket.holds |= 1 << i


@kernel
def degrade(w: World, slot: int, i: int) -> None:
    """Sends the task past the i-th limit of its class, to where that limit sends what is above it."""
    ticket = tickets_of(w)[slot]
    limit = limits_of(w)[allowances_of(w)[ticket.blocked].limit]
    limit.degraded += 1
    ticket.passed |= 1 << i
    ticket.force = limit.degrade_to
    ticket.rule = NONE


@kernel
def holds_for(w: World, at: int, slot: int) -> bool:
    """Whether an allowance of a backend is for the call: room in a pool only for tasks of its route that may wait."""
    gate = limits_of(w)[allowances_of(w)[at].limit].gate
    if gate == NONE:
        return True
    rule = tickets_of(w)[slot].rule
    return bool(rule != NONE and rules_of(w)[rule].gate == gate and not urgent(w, slot))


@kernel
def find_key(w: World, slot: int, b: int, t: float, comes: bool) -> int:
    """The next of backend ``b``'s keys, in turn, whose limits have room for a call; NONE: none has."""
    ticket = tickets_of(w)[slot]
    be = backends_of(w)[b]
    least = math.inf
    blocked = NONE
    for step in range(be.keys):
        lane = (be.turn + step) % be.keys
        wait = 0.0
        for i in range(be.limits_n):
            at = key_place(w, b, i, lane)
            if not holds_for(w, at, slot):
                continue
            wait = room_in(w, at, slot, t)
            if wait > 0.0 or (comes and _has_line(w, at)):
                wait = max(wait, 1e-300)
                if blocked == NONE or wait < least:
                    blocked = at
                    least = wait
                break
        if wait == 0.0:
            be.turn = (lane + 1) % be.keys
            return int(lane)
    ticket.blocked = blocked
    ticket.wait_s = least
    return NONE


@kernel
def take_key(w: World, slot: int, b: int, lane: int) -> None:
    """Counts a call in the limits of one of backend ``b``'s keys."""
    tickets_of(w)[slot].lane = lane
    tickets_of(w)[slot].waits_for = b
    for i in range(backends_of(w)[b].limits_n):
        take(w, key_place(w, b, i, lane), slot)


@kernel
def spend(w: World, slot: int, b: int, usd: float) -> None:
    """Books money spent on the task at backend ``b`` on the budgets of both."""
    if gateway_of(w).budgeted == 0 or usd == 0.0:
        return
    t = state_of(w).now
    for i in range(policies_of(w)[slots_of(w)[slot].cls].limits_n):
        _spend(w, place(w, slot, i), t, usd)
    lane = max(tickets_of(w)[slot].lane, 0)
    for i in range(backends_of(w)[b].limits_n):
        _spend(w, key_place(w, b, i, lane), t, usd)


@kernel
def _spend(w: World, at: int, t: float, usd: float) -> None:
    if at != NONE and limits_of(w)[allowances_of(w)[at].limit].usd_per_day > 0.0:
        _turn_day(w, at, t)
        allowances_of(w)[at].usd += usd
