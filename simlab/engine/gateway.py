"""The gateway: route an attempt, time it out, retry it, end the task.

A class without policies has weighted routes, one time-out and one retry policy, all of it here. Whatever else a gateway
can do is asked of `simlab.engine.policy`: in `simlab.engine.intake` before the first attempt and in
`simlab.engine.outcome` after each.
"""

from __future__ import annotations

import math

from simlab.draws.kernel import inlined, kernel
from simlab.engine.arrays import (
    ERROR,
    FIRST,
    NONE,
    OK,
    ON_API,
    POOL,
    QUEUED_API,
    RATE_LIMITED,
    REJECTED,
    TIMED_OUT,
)
from simlab.engine.dispatch import choose_replica
from simlab.engine.endpoint import call, hang_up
from simlab.engine.hook import AIM, ARM, LET_GO, PASSES, RECEIVE, SETTLE, policy
from simlab.engine.kvcache import blocks_for
from simlab.engine.lockstep import output_tokens
from simlab.engine.meters import ITL, add_time, meter_attempt, meter_task
from simlab.engine.replica import abort, enqueue
from simlab.engine.retry import back_off, retries
from simlab.engine.route import drawn_backend
from simlab.engine.tasks import leave
from simlab.engine.watch import unwatch, watch
from simlab.engine.world import (
    World,
    backends_of,
    classes_of,
    gateway_of,
    slots_of,
    state_of,
    windows_of,
)


@inlined
def enter(w: World, slot: int, t: float) -> None:
    """A task reaches the gateway."""
    if classes_of(w)[slots_of(w)[slot].cls].policed == 1 and policy(w, RECEIVE, slot, t, 0, 0, 0) == 0:
        return
    start_attempt(w, slot, t)


@kernel
def start_attempt(w: World, slot: int, t: float) -> None:
    """Makes one call to a backend for the task."""
    s = slots_of(w)[slot]
    used = classes_of(w)[s.cls].policed == 1
    if used:
        b = policy(w, AIM, slot, t, 0, 0, 0)
        if b == NONE:
            return
    else:
        b = drawn_backend(w, slot)
    be = backends_of(w)[b]
    s.backend = b
    s.started_s = t
    s.first_s = math.inf
    s.cached = 0
    s.written = 0
    s.preempts = 0
    s.prefilled = 0
    s.ctx_work = 0.0
    s.out_done = 0
    s.heap_pos = NONE
    if s.attempt == 0:
        windows_of(w)[state_of(w).window, b].arrived += 1
    if used:
        refusal = policy(w, PASSES, slot, t, b, 0, 0)
        if refusal != OK:
            end_attempt(w, slot, t, refusal, 0, False)
            return
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
    if gateway_of(w).timeout_s < math.inf and be.batch == 0:
        watch(w, slot)
    if used:
        policy(w, ARM, slot, t, 0, 0, 0)


@kernel
def end_attempt(w: World, slot: int, t: float, outcome: int, generated: int, billed: bool) -> None:
    """Books an attempt that is over, then retries after a backoff or ends the task."""
    unwatch(w, slot)
    s = slots_of(w)[slot]
    if classes_of(w)[s.cls].policed == 1:
        policy(w, SETTLE, slot, t, outcome, generated, 1 if billed else 0)
        return
    meter_attempt(w, slot, t, outcome, generated, billed)
    s.gen += 1
    if outcome != OK and retries(w, slot, outcome):
        back_off(w, slot, t)
        return
    s.reason = FIRST  # of the retries the ledger knows; the task ends where its first attempt led it
    meter_task(w, slot, t, outcome == OK, True)
    leave(w, slot, t, outcome == OK)


@kernel
def api_done(w: World, slot: int, t: float) -> None:
    """A provider's answer is complete, or it failed."""
    s = slots_of(w)[slot]
    outcome = s.sched
    if outcome == OK and s.output > 1 and t >= state_of(w).warmup_s and backends_of(w)[s.backend].batch == 0:
        add_time(w, ITL, s.cls, s.backend, s.last_s, s.output - 1)
    generated = hang_up(w, slot, t)
    if outcome == OK:
        generated = s.output
    elif s.out_done > 0:
        generated = s.out_done  # the stream broke off
    end_attempt(w, slot, t, outcome, generated, generated > 0)


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
    used = classes_of(w)[s.cls].policed == 1
    if used and gateway_of(w).abort == 0 and policy(w, LET_GO, slot, t, 0, 0, 0) == 1:
        return
    if s.state == ON_API or s.state == QUEUED_API:
        called = s.state == ON_API
        generated = hang_up(w, slot, t)
        end_attempt(w, slot, t, TIMED_OUT, generated, called)
        return
    keep = 1 if not used and retries(w, slot, TIMED_OUT) else 0
    if abort(w, s.replica, slot, t, keep):
        end_attempt(w, slot, t, TIMED_OUT, output_tokens(w, slot), True)
