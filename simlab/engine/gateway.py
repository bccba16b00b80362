"""The gateway: route an attempt, time it out, retry it, end the task.

This is the whole gateway for now: weighted routes by class, one time-out, one retry policy. Policies to come (caches,
cascades, quotas, fallback chains) belong here, each a module of its own that `start_attempt` and `end_attempt` consult.
"""

from __future__ import annotations

import math

from simlab.draws.counter import key, uniform
from simlab.draws.kernel import inlined, kernel
from simlab.engine.arrays import (
    BACKOFF,
    ERROR,
    FOR_JITTER,
    FOR_ROUTE,
    NONE,
    OK,
    ON_API,
    POOL,
    QUEUED_API,
    RATE_LIMITED,
    REJECTED,
    T_RETRY,
    TIMED_OUT,
)
from simlab.engine.dispatch import choose_replica
from simlab.engine.endpoint import call, hang_up
from simlab.engine.heaps import push_timer
from simlab.engine.kvcache import blocks_for
from simlab.engine.lockstep import output_tokens
from simlab.engine.meters import ITL, add_time, meter_attempt, meter_task
from simlab.engine.replica import abort, enqueue
from simlab.engine.tasks import leave
from simlab.engine.world import World, backends_of, gateway_of, routes_of, slots_of, state_of, windows_of


@kernel
def _watch(w: World, slot: int) -> None:
    """Puts the attempt at the end of the list of those that can time out (all have the same time-out)."""
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
    """Takes the attempt off the time-out list, if it is on it."""
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


@inlined
def _route(w: World, slot: int) -> int:
    """Draws a backend by the weights of the class's route; a retry draws again."""
    s = slots_of(w)[slot]
    last = len(backends_of(w)) - 1
    if routes_of(w)[s.cls, 0] >= 1.0 or last == 0:
        return 0
    u = uniform(key(s.task, FOR_ROUTE + 64 * s.attempt))
    b = 0
    while b < last and u >= routes_of(w)[s.cls, b]:
        b += 1
    return b


@kernel
def start_attempt(w: World, slot: int, t: float) -> None:
    """Makes one call to a backend for the task."""
    s = slots_of(w)[slot]
    b = _route(w, slot)
    be = backends_of(w)[b]
    s.backend = b
    s.started_s = t
    s.first_s = math.inf
    s.cached = 0
    s.preempts = 0
    s.prefilled = 0
    s.ctx_work = 0.0
    s.out_done = 0
    s.heap_pos = NONE
    if s.attempt == 0:
        windows_of(w)[state_of(w).window, b].arrived += 1
    if be.kind == POOL:
        tokens = s.prompt + s.output
        if tokens > be.max_model_len or blocks_for(tokens - 1, be.block_size) > be.kv_blocks - 1:
            end_attempt(w, slot, t, REJECTED, 0, False)
            return
        s.target = s.prompt
        r = choose_replica(w, b, slot)
        if r == NONE:
            end_attempt(w, slot, t, ERROR, 0, False)
            return
        enqueue(w, r, slot, t)
    elif call(w, b, slot, t) != OK:
        end_attempt(w, slot, t, RATE_LIMITED, 0, False)
        return
    if gateway_of(w).timeout_s < math.inf:
        _watch(w, slot)


@kernel
def _retries(w: World, slot: int, outcome: int) -> bool:
    """Whether the retry policy tries again after this outcome."""
    g = gateway_of(w)
    if slots_of(w)[slot].attempt + 1 >= g.max_attempts:
        return False
    if outcome == RATE_LIMITED:
        return g.retry_rate_limited == 1
    if outcome == ERROR:
        return g.retry_error == 1
    if outcome == TIMED_OUT:
        return g.retry_timed_out == 1
    return g.retry_rejected == 1


@kernel
def end_attempt(w: World, slot: int, t: float, outcome: int, generated: int, billed: bool) -> None:
    """Books an attempt that is over, then retries after a backoff or ends the task."""
    unwatch(w, slot)
    meter_attempt(w, slot, t, outcome, generated, billed)
    s = slots_of(w)[slot]
    s.gen += 1
    if outcome != OK and _retries(w, slot, outcome):
        g = gateway_of(w)
        wait = min(g.max_backoff_s, g.backoff_s * g.backoff_factor**s.attempt)
        wait *= 1.0 - g.jitter * uniform(key(s.task, FOR_JITTER + 64 * s.attempt))
        s.attempt += 1
        s.state = BACKOFF
        push_timer(w, t + wait, slot, T_RETRY)
        return
    meter_task(w, slot, t, outcome == OK)
    leave(w, slot, t, outcome == OK)


@kernel
def api_done(w: World, slot: int, t: float) -> None:
    """A provider's answer is complete, or it failed."""
    s = slots_of(w)[slot]
    outcome = s.sched
    if outcome == OK and s.output > 1 and t >= state_of(w).warmup_s:
        add_time(w, ITL, s.cls, s.backend, s.last_s, s.output - 1)
    generated = hang_up(w, slot, t)
    if outcome == OK:
        generated = s.output
    end_attempt(w, slot, t, outcome, generated, outcome == OK)


@inlined
def replica_done(w: World, slot: int, t: float) -> None:
    """A replica has made all tokens of the request."""
    s = slots_of(w)[slot]
    end_attempt(w, slot, t + backends_of(w)[s.backend].overhead_s, OK, s.output, True)


@kernel
def time_out(w: World, slot: int, t: float) -> None:
    """The gateway gives an attempt up. A replica drops it at the end of its running step; what was made is paid for."""
    s = slots_of(w)[slot]
    unwatch(w, slot)
    if s.state == ON_API or s.state == QUEUED_API:
        called = s.state == ON_API
        generated = hang_up(w, slot, t)
        end_attempt(w, slot, t, TIMED_OUT, generated, called)
        return
    keep = 1 if _retries(w, slot, TIMED_OUT) else 0
    if abort(w, s.replica, slot, t, keep):
        end_attempt(w, slot, t, TIMED_OUT, output_tokens(w, slot), True)
