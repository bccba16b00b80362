"""The event loop: the next of arrival, timer, step boundary and time-out, until a given time."""

from __future__ import annotations

import math

from simlab.draws.counter import key
from simlab.draws.kernel import inlined, kernel
from simlab.engine.arrays import (
    CHUNKS,
    DECODE,
    DONE,
    DRAINING,
    ERROR,
    GROW_ENTRIES,
    GROW_SEGMENTS,
    GROW_SLOTS,
    GROW_TIMERS,
    LOG_FULL,
    NEED_CHUNK,
    NEVER,
    NONE,
    PLAN,
    STARTING,
    STOPPED,
    T_API_DONE,
    T_ATTEMPTS,
    T_CALL,
    T_NEXT,
    T_RETRY,
    TIME_EPS_S,
    TIMED_OUT,
    UP,
    WAITING,
)
from simlab.engine.gateway import api_done, end_attempt, enter, replica_done, start_attempt, time_out
from simlab.engine.heaps import pop_timer, set_event
from simlab.engine.hook import TIMER, policy
from simlab.engine.kvcache import clear
from simlab.engine.meters import account, close_window
from simlab.engine.replica import advance, drop_running, pop_finished
from simlab.engine.schedule import plan
from simlab.engine.step_time import steps_by
from simlab.engine.tasks import arrive, new_slot, next_turn, take_turn, think
from simlab.engine.world import (
    World,
    backends_of,
    classes_of,
    entries_of,
    feed_ptr_of,
    feed_t_of,
    gateway_of,
    log_of,
    rep_heap_of,
    reps_of,
    segs_of,
    slots_of,
    state_of,
    timers_of,
)

_CLONES = 8
"""Slots kept for extra calls: more than one event can make."""

_BEFORE_ANY_TURN = 1 << 62
"""Names the draws of a user who has not asked anything yet."""


@inlined
def _segments_of_next(w: World, c: int) -> int:
    """Segments that the next task of ``c`` brings at most; a generated one has a system prompt's and a document's."""
    clones = _CLONES * state_of(w).longest_chain if gateway_of(w).clones == 1 else 0
    if c == NONE:
        return 2 + clones
    cls = classes_of(w)[c]
    if cls.explicit == 1 and cls.segmented == 1:
        return max(2, feed_ptr_of(w)[c, cls.feed_at + 1] - feed_ptr_of(w)[c, cls.feed_at]) + clones
    return 2 + clones


@inlined
def _next_arrival(w: World) -> None:
    """Finds the class whose feed is due first; a feed at its end asks for its next chunk."""
    state = state_of(w)
    state.arrival_t = math.inf
    state.arrival_cls = NONE
    state.need_cls = NONE
    segments = 0
    for c in range(len(classes_of(w))):
        cls = classes_of(w)[c]
        if cls.feed_at < cls.feed_n:
            t = feed_t_of(w)[c, cls.feed_at]
            if cls.users > 0:
                segments = max(segments, _segments_of_next(w, c))
            elif t < state.arrival_t:
                state.arrival_t = t
                state.arrival_cls = c
        elif cls.feed_done == 0:
            state.need_cls = c
    state.need_segs = max(segments, _segments_of_next(w, state.arrival_cls))


@inlined
def _boundary(w: World, r: int, t: float, quiet_until: float) -> None:
    """A replica's steps end, or it plans: finished requests leave, given-up ones are dropped, the next steps begin.

    Requests that come at this very instant can be in the next step, so planning waits for them.
    """
    rep = reps_of(w)[r]
    if rep.mode != PLAN:
        advance(w, r, t)
        slot = pop_finished(w, r)
        while slot != NONE:
            if slots_of(w)[slot].aborting > 0:
                rep.aborting -= 1
                end_attempt(w, slot, t, TIMED_OUT, slots_of(w)[slot].output, True)
            else:
                replica_done(w, slot, t)
            slot = pop_finished(w, r)
        if rep.aborting > 0:
            _drop_aborted(w, r, t)
        if rep.state == DRAINING and rep.n_running == 0 and rep.n_waiting == 0:
            stop(w, r, t)
            return
        if state_of(w).n_timers > 0 and timers_of(w)[0].t < quiet_until:
            quiet_until = timers_of(w)[0].t
        if quiet_until <= t + TIME_EPS_S:
            set_event(w, r, t)
            return
    plan(w, r, t)


@kernel
def _drop_aborted(w: World, r: int, t: float) -> None:
    rep = reps_of(w)[r]
    slot = rep.run_head
    while slot != NONE and rep.aborting > 0:
        s = slots_of(w)[slot]
        after = s.next
        if s.aborting > 0:
            rep.aborting -= 1
            drop_running(w, r, slot, s.aborting - 1)
            end_attempt(w, slot, t, TIMED_OUT, s.out_done, True)
        slot = after


@kernel
def _timer(w: World, t: float) -> None:
    timer = timers_of(w)[0]
    slot = timer.slot
    kind = timer.kind
    stale = timer.gen != (slots_of(w)[slot].gen if kind < T_ATTEMPTS else slots_of(w)[slot].life)
    pop_timer(w)
    if stale:
        return
    if kind == T_API_DONE:
        api_done(w, slot, t)
    elif kind in (T_RETRY, T_CALL):
        start_attempt(w, slot, t)
    elif kind != T_NEXT:
        if policy(w, TIMER, slot, t, kind, 0, 0) == 1:
            start_attempt(w, slot, t)
    elif classes_of(w)[slots_of(w)[slot].cls].users > 0 and classes_of(w)[slots_of(w)[slot].cls].explicit == 1:
        if take_turn(w, slot, t):
            _next_arrival(w)
            enter(w, slot, t)
    else:
        next_turn(w, slot, t)
        enter(w, slot, t)


@inlined
def _policies_need(w: World) -> int:
    """What has no room for all that one event can add where policies are used; DONE: everything has."""
    state = state_of(w)
    if state.n_timers + state.n_slots * gateway_of(w).timers_a_slot + 8 > len(timers_of(w)):
        return GROW_TIMERS
    if gateway_of(w).clones == 1 and state.n_slots + _CLONES > len(slots_of(w)):
        return GROW_SLOTS
    if state.n_entries - state.spare_entries + state.entry_room * state.longest_chain > len(entries_of(w)):
        return GROW_ENTRIES
    return DONE


@kernel
def run(w: World, until: float) -> int:
    """Runs all events up to and including time ``until``, or until the caller has to make room; says which.

    Returns:
        DONE, or one of NEED_CHUNK (class ``state.need_cls``), GROW_SLOTS, GROW_TIMERS, GROW_SEGMENTS,
        GROW_ENTRIES, LOG_FULL: do it and call again.
    """
    state = state_of(w)
    policed = gateway_of(w).policy != 0
    while True:
        if state.need_cls != NONE:
            return NEED_CHUNK
        if policed:
            need = _policies_need(w)
            if need != DONE:
                return need
        if state.n_timers + state.n_slots + 8 > len(timers_of(w)):
            return GROW_TIMERS
        if state.n_segs - state.spare_segs + state.need_segs > len(segs_of(w)):
            return GROW_SEGMENTS
        if len(log_of(w)) > 1 and state.log_n + state.log_room * (state.n_slots + 8) > len(log_of(w)):
            return LOG_FULL
        arrival_t = state.arrival_t
        timer_t = math.inf
        if state.n_timers > 0:
            timer_t = timers_of(w)[0].t
        boundary_t = math.inf
        r = NONE
        if state.n_reps > 0:
            r = rep_heap_of(w)[0]
            boundary_t = reps_of(w)[r].t_event
        timeout_t = math.inf
        if state.timeout_head != NONE:
            timeout_t = slots_of(w)[state.timeout_head].started_s + gateway_of(w).timeout_s
        t = min(min(arrival_t, timer_t), min(boundary_t, timeout_t))
        if t > until or t == math.inf:
            while until >= state.window_end and state.window_end < math.inf:
                close_window(w, state.window_end)
            if until > state.now:
                state.now = until
            return DONE
        while t >= state.window_end:
            close_window(w, state.window_end)
        state.events += 1
        if t > state.now:
            state.now = t
        if arrival_t <= t + TIME_EPS_S:
            if state.free_slot == NONE and state.n_slots == len(slots_of(w)):
                return GROW_SLOTS
            slot = arrive(w, state.arrival_cls, arrival_t)
            _next_arrival(w)
            enter(w, slot, arrival_t)
        elif timer_t <= t + TIME_EPS_S:
            _timer(w, timer_t)
        elif boundary_t <= t:
            _boundary(w, r, boundary_t, arrival_t)
        else:
            time_out(w, state.timeout_head, timeout_t)


@kernel
def start_users(w: World, c: int) -> None:
    """Seats the users of a closed-loop class; each thinks once before the first request."""
    state = state_of(w)
    for user in range(classes_of(w)[c].users):
        slot = new_slot(w, c)
        s = slots_of(w)[slot]
        s.session = user
        s.task = key(key(key(state.seed, classes_of(w)[c].stream), user), _BEFORE_ANY_TURN)
        think(w, slot, state.now, 0.0)


@kernel
def refresh_arrivals(w: World) -> None:
    """Looks at the feeds again after the caller has filled one."""
    _next_arrival(w)


# --- orders from the slow world --------------------------------------------------------------------------------------


@kernel
def link_replica(w: World, r: int, t: float) -> None:
    """Enters an unleased replica into its pool; it is leased from ``t`` on and starting."""
    state = state_of(w)
    rep = reps_of(w)[r]
    be = backends_of(w)[rep.backend]
    rep.state = STARTING
    rep.start_s = t
    rep.ready_s = math.inf
    rep.stop_s = math.inf
    rep.t_event = NEVER
    rep.t_acc = t
    rep.wait_head = rep.wait_tail = rep.run_head = rep.run_tail = rep.pf_head = NONE
    rep.lru_head = rep.lru_tail = rep.free_block = rep.free_run = NONE
    rep.free = be.kv_blocks - 1
    rep.plain = be.kv_blocks - 1
    rep.next_rep = NONE
    if be.rep_head == NONE:
        be.rep_head = r
    else:
        at = be.rep_head
        while reps_of(w)[at].next_rep != NONE:
            at = reps_of(w)[at].next_rep
        reps_of(w)[at].next_rep = r
    rep.hpos = state.n_reps
    rep_heap_of(w)[state.n_reps] = r
    state.n_reps += 1


@kernel
def ready(w: World, r: int, t: float) -> None:
    """A starting replica serves from now on."""
    rep = reps_of(w)[r]
    if rep.state == STARTING:
        rep.state = UP
        rep.ready_s = t
        rep.t_acc = t


@kernel
def stop(w: World, r: int, t: float) -> None:
    """Gives an empty replica's lease back."""
    account(w, r, t)
    rep = reps_of(w)[r]
    rep.state = STOPPED
    rep.stop_s = t
    rep.mode = 0
    set_event(w, r, NEVER)
    clear(w, r)


@kernel
def drain(w: World, r: int, t: float) -> None:
    """Sends a replica nothing new; it stops when it has finished what it has."""
    rep = reps_of(w)[r]
    if rep.state == STARTING or (rep.state == UP and rep.n_running == 0 and rep.n_waiting == 0):
        stop(w, r, t)
    elif rep.state == UP:
        rep.state = DRAINING


@kernel
def fail(w: World, r: int, t: float) -> None:
    """A replica dies: what it was doing ends in an error, its cache is lost, its lease ends."""
    rep = reps_of(w)[r]
    if rep.state == STOPPED:
        return
    if rep.mode == DECODE or rep.mode == CHUNKS:
        whole = steps_by(rep.step_s, rep.step_inc_s, t - rep.t0) - 1
        if whole > 0:
            rep.k = whole
            advance(w, r, t)
    account(w, r, t)
    rep.state = STOPPED
    while rep.wait_head != NONE or rep.run_head != NONE:
        slot = rep.wait_head if rep.wait_head != NONE else rep.run_head
        s = slots_of(w)[slot]
        if s.state == WAITING:
            rep.wait_head = s.next
            if s.next != NONE:
                slots_of(w)[s.next].prev = NONE
            rep.n_waiting -= 1
            s.blocks = 0
        else:
            drop_running(w, r, slot, 0)
        outcome = TIMED_OUT if s.aborting > 0 else ERROR
        end_attempt(w, slot, t, outcome, s.out_done, True)
    rep.wait_tail = NONE
    rep.aborting = 0
    rep.free = backends_of(w)[rep.backend].kv_blocks - 1
    stop(w, r, t)
