"""Lines at the gateway: who is above a limit waits for it, in order of arrival, of priority, or fairly to tenants.

Who waits for room in a pool goes in order of deadlines.

Fair is start-time fair queueing (Goyal, Vin and Cheng, 1996) with tokens as work: a tenant's next request starts, in
the line's own time, where its one before ended or now, and lower starts go first. Where a line is full, who comes last
in its order is turned away, which need not be who came last. Nobody waits while the limit has room for the first in
line: a line is looked at when somebody leaves the limit, and when its bucket will have filled enough. A small request
does not go before a large one that waits for more tokens.
"""

from __future__ import annotations

import math

from simlab.draws.kernel import kernel
from simlab.engine.arrays import (
    BACKOFF,
    BY_DEADLINE,
    BY_PRIORITY,
    DEGRADE,
    NONE,
    QUEUE,
    RATE_LIMITED,
    T_ADMIT,
    T_DROP,
    T_RETRY,
    T_ROOM,
    TIME_EPS_S,
)
from simlab.engine.heaps import push_timer
from simlab.engine.limits import degrade, find_key, first_over, key_place, place, take_all, take_key
from simlab.engine.meters import bucket_of
from simlab.engine.trough import urgent
from simlab.engine.world import (
    World,
    allowances_of,
    backends_of,
    choices_of,
    counters_of,
    flows_of,
    limits_of,
    lines_of,
    policies_of,
    rules_of,
    slots_of,
    tickets_of,
    wait_hist_of,
)


@kernel
def _start(w: World, line: int, slot: int) -> float:
    """When, in the line's own time, the tenant's next request starts; the one after it starts when it has ended."""
    at = lines_of(w)[line].flow_at + slots_of(w)[slot].tenant
    start = max(lines_of(w)[line].virtual, flows_of(w)[at])
    flows_of(w)[at] = start + slots_of(w)[slot].prompt + slots_of(w)[slot].output
    return float(start)


@kernel
def _serve_now(w: World, line: int, tag: float) -> None:
    """The line's own time is the start of what is served."""
    lines_of(w)[line].virtual = max(lines_of(w)[line].virtual, tag)


@kernel
def pass_by(w: World, at: int, slot: int) -> None:
    """A request that need not wait is served at once, and counts for its tenant."""
    line = allowances_of(w)[at].line
    if lines_of(w)[line].flows > 0:
        _serve_now(w, line, _start(w, line, slot))


@kernel
def pass_all(w: World, slot: int, line: int) -> None:
    """The task counts for its tenant wherever it is let past without waiting: not in ``line``, where it did."""
    for i in range(policies_of(w)[slots_of(w)[slot].cls].limits_n):
        if tickets_of(w)[slot].holds & (1 << i):
            at = place(w, slot, i)
            if allowances_of(w)[at].line != line:
                pass_by(w, at, slot)


@kernel
def _goes_before(w: World, line: int, slot: int, other: int) -> bool:
    if lines_of(w)[line].order == BY_PRIORITY and slots_of(w)[slot].prio != slots_of(w)[other].prio:
        return bool(slots_of(w)[slot].prio < slots_of(w)[other].prio)
    return bool(tickets_of(w)[slot].tag < tickets_of(w)[other].tag)


@kernel
def _enter(w: World, slot: int, at: int, t: float) -> None:
    """Puts the request into the line of an allowance; one too many is turned away at once."""
    ticket = tickets_of(w)[slot]
    line = allowances_of(w)[at].line
    queue = lines_of(w)[line]
    ticket.line = line
    s = slots_of(w)[slot]
    s.state = BACKOFF
    ticket.tag = _start(w, line, slot) if queue.flows > 0 else ticket.joined_s
    by_deadline = queue.order == BY_DEADLINE
    if by_deadline:
        ticket.tag = s.arrival_s + policies_of(w)[s.cls].deadline_s
    after = queue.tail
    if by_deadline and after != NONE and 2.0 * ticket.tag < tickets_of(w)[queue.head].tag + tickets_of(w)[after].tag:
        # Nearer to the head: a short deadline need not pass by all the long ones.
        after = NONE
        behind = queue.head
        while not _goes_before(w, line, slot, behind):
            after = behind
            behind = slots_of(w)[behind].next
    else:
        while after != NONE and _goes_before(w, line, slot, after):
            after = slots_of(w)[after].prev
    s.prev = after
    if after == NONE:
        s.next = queue.head
        queue.head = slot
    else:
        s.next = slots_of(w)[after].next
        slots_of(w)[after].next = slot
    if s.next == NONE:
        queue.tail = slot
    else:
        slots_of(w)[s.next].prev = slot
    queue.waiting += 1
    if queue.waiting > queue.length:
        last = queue.tail
        if last != slot or ticket.joined_s < t:
            _note_wait(w, last, t)
        _give_up(w, last)
        counters_of(w)[slots_of(w)[last].cls].full += 1
        turn_away(w, last, RATE_LIMITED, t)


@kernel
def wait_in_line(w: World, slot: int, b: int, t: float) -> None:
    """The request waits for the allowance that blocks it: to be let in, or (``b``) to call a backend."""
    ticket = tickets_of(w)[slot]
    ticket.waits_for = b
    if b != NONE:
        slots_of(w)[slot].backend = b  # where it has failed if it never gets there
    ticket.joined_s = t
    limits_of(w)[allowances_of(w)[ticket.blocked].limit].queued += 1
    line = allowances_of(w)[ticket.blocked].line
    _enter(w, slot, ticket.blocked, t)
    if lines_of(w)[line].head == slot:
        _arm(w, line, t + ticket.wait_s)
    if ticket.dropped == 0 and lines_of(w)[line].deadline_s < math.inf:
        push_timer(w, t + lines_of(w)[line].deadline_s, slot, T_DROP)


@kernel
def _unlink(w: World, slot: int) -> None:
    ticket = tickets_of(w)[slot]
    queue = lines_of(w)[ticket.line]
    s = slots_of(w)[slot]
    if s.prev == NONE:
        queue.head = s.next
    else:
        slots_of(w)[s.prev].next = s.next
    if s.next == NONE:
        queue.tail = s.prev
    else:
        slots_of(w)[s.next].prev = s.prev
    queue.waiting -= 1
    ticket.line = NONE
    if queue.armed_slot == slot:
        queue.armed_slot = NONE  # another task in this slot has timers of its own


@kernel
def _note_wait(w: World, slot: int, t: float) -> None:
    ticket = tickets_of(w)[slot]
    waited_s = t - ticket.joined_s
    ticket.queued_s += waited_s
    counters_of(w)[slots_of(w)[slot].cls].queued += 1
    counters_of(w)[slots_of(w)[slot].cls].waited_s += waited_s
    wait_hist_of(w)[slots_of(w)[slot].cls, bucket_of(waited_s)] += 1


@kernel
def leave_line(w: World, slot: int, t: float) -> None:
    """The request waits no longer, if it did, and was not served; the next may be smaller."""
    if tickets_of(w)[slot].line != NONE:
        line = tickets_of(w)[slot].line
        first = lines_of(w)[line].head == slot
        _note_wait(w, slot, t)
        _give_up(w, slot)
        if first:
            _arm(w, line, t)


@kernel
def _give_up(w: World, slot: int) -> None:
    """Takes the request out of its line; its tenant has not been served."""
    line = tickets_of(w)[slot].line
    _unlink(w, slot)
    if lines_of(w)[line].flows > 0:
        at = lines_of(w)[line].flow_at + slots_of(w)[slot].tenant
        flows_of(w)[at] -= slots_of(w)[slot].prompt + slots_of(w)[slot].output


@kernel
def turn_away(w: World, slot: int, outcome: int, t: float) -> None:
    """The request is refused as soon as what happens now is over."""
    slots_of(w)[slot].state = BACKOFF
    tickets_of(w)[slot].dropped = 1 + outcome
    push_timer(w, t, slot, T_DROP)


@kernel
def _goes_on(w: World, slot: int, t: float) -> bool:
    """Takes the first in a line from all its limits, if they have room."""
    ticket = tickets_of(w)[slot]
    if ticket.waits_for == NONE:
        i = first_over(w, slot, t, False)
        while i != NONE and limits_of(w)[allowances_of(w)[ticket.blocked].limit].over == DEGRADE:
            degrade(w, slot, i)
            i = first_over(w, slot, t, False)
        if i != NONE:
            return False
        take_all(w, slot)
        return True
    limit = limits_of(w)[allowances_of(w)[ticket.blocked].limit]
    if limit.gate != NONE and urgent(w, slot):
        rule = rules_of(w)[ticket.rule]
        ticket.waits_for = choices_of(w)[rule.first + rule.n - 1].backend
    lane = find_key(w, slot, ticket.waits_for, t, False)
    if lane == NONE:
        return False
    take_key(w, slot, ticket.waits_for, lane)
    if limit.gate != NONE:
        allowances_of(w)[ticket.blocked].coming += 1
        allowances_of(w)[ticket.blocked].coming_s = t
    return True


@kernel
def _serve(w: World, line: int, t: float) -> None:
    """Sends on from a line whoever the limits have room for, in order; arms it for when there will be room again."""
    queue = lines_of(w)[line]
    while queue.head != NONE:
        slot = queue.head
        ticket = tickets_of(w)[slot]
        if _goes_on(w, slot, t):
            _unlink(w, slot)
            _note_wait(w, slot, t)
            if queue.flows > 0:
                _serve_now(w, line, ticket.tag)
            if ticket.waits_for == NONE:
                pass_all(w, slot, line)
                push_timer(w, t, slot, T_ADMIT)
            else:
                ticket.cleared = ticket.waits_for
                push_timer(w, t, slot, T_RETRY)
            continue
        blocked = allowances_of(w)[ticket.blocked]
        if blocked.line == line:
            _arm(w, line, t + ticket.wait_s)
            return
        if limits_of(w)[blocked.limit].over != QUEUE:
            limits_of(w)[blocked.limit].refused += 1
            counters_of(w)[slots_of(w)[slot].cls].refused += 1
            leave_line(w, slot, t)
            turn_away(w, slot, RATE_LIMITED, t)
            continue
        _give_up(w, slot)
        _enter(w, slot, ticket.blocked, t)
        if lines_of(w)[blocked.line].head == slot:
            _arm(w, blocked.line, t + ticket.wait_s)


@kernel
def _arm(w: World, line: int, when: float) -> None:
    """Looks at the line again when its head will have room."""
    queue = lines_of(w)[line]
    if queue.head == NONE or when == math.inf:
        return
    if queue.armed_slot == queue.head and queue.armed_s <= when + TIME_EPS_S:
        return
    queue.armed_slot = queue.head
    queue.armed_s = when
    push_timer(w, when, queue.head, T_ROOM)


@kernel
def look_again(w: World, slot: int, t: float) -> None:
    """The first in a line may have room now."""
    line = tickets_of(w)[slot].line
    if line == NONE:
        return
    queue = lines_of(w)[line]
    if queue.armed_slot != NONE and t + TIME_EPS_S < queue.armed_s:
        return  # it has been looked at since this was planned, and will be again: one plan at a time
    queue.armed_slot = NONE
    _serve(w, line, t)


@kernel
def _give_back(w: World, at: int, t: float) -> None:
    """Somebody has left a limit: whoever waits for it may come."""
    allowances_of(w)[at].in_flight -= 1
    limit = limits_of(w)[allowances_of(w)[at].limit]
    if limit.concurrency > 0 or limit.gate != NONE:
        _arm(w, allowances_of(w)[at].line, t)


@kernel
def release_key(w: World, slot: int, t: float) -> None:
    """A call is over: the limits of its key have room for another."""
    ticket = tickets_of(w)[slot]
    lane = ticket.lane
    if lane == NONE:
        return
    ticket.lane = NONE
    for i in range(backends_of(w)[ticket.waits_for].limits_n):
        _give_back(w, key_place(w, ticket.waits_for, i, lane), t)


@kernel
def withdraw(w: World, slot: int, t: float) -> None:
    """Nothing waits or calls in this slot any more: it leaves its line, or its key."""
    leave_line(w, slot, t)
    release_key(w, slot, t)


@kernel
def release(w: World, slot: int, t: float) -> None:
    """The task is over, in whatever way: all limits that it counted in have room for another."""
    ticket = tickets_of(w)[slot]
    withdraw(w, slot, t)
    holds = ticket.holds
    ticket.holds = 0
    if holds == 0:
        return
    for i in range(policies_of(w)[slots_of(w)[slot].cls].limits_n):
        if holds & (1 << i):
            _give_back(w, place(w, slot, i), t)
