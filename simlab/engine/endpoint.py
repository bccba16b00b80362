"""An API endpoint: latency laws, a concurrency limit, and buckets of requests and tokens a minute that answer 429."""

from __future__ import annotations

from simlab.draws.counter import key, uniform
from simlab.draws.distribution import draw
from simlab.draws.kernel import kernel
from simlab.engine.arrays import (
    ENOUGH,
    ERROR,
    FOR_BREAK,
    FOR_ERROR,
    FOR_ITL,
    FOR_TTFT,
    FORMING,
    NONE,
    OK,
    ON_API,
    QUEUED_API,
    RATE_LIMITED,
    T_API_DONE,
    TIMED_OUT,
)
from simlab.engine.heaps import push_timer
from simlab.engine.hook import HAND_IN, PROMPT, ROOM, policy
from simlab.engine.world import World, backends_of, dists_of, slots_of, tables_of


@kernel
def _limited(w: World, b: int, slot: int, t: float) -> bool:
    """Takes the request from the endpoint's token buckets; True if a limit answers 429, and after how long to retry.

    Each bucket holds one minute's worth (one request at least) and refills evenly. Tokens are the prompt's and the
    answer's.
    """
    be = backends_of(w)[b]
    s = slots_of(w)[slot]
    dt = t - be.level_t
    be.level_t = t
    tokens = s.prompt + s.output
    be.rpm_level = min(max(be.rpm, 1.0), be.rpm_level + dt * be.rpm / 60.0)
    be.tpm_level = min(be.tpm, be.tpm_level + dt * be.tpm / 60.0)
    if be.rpm > 0.0 and be.rpm_level < ENOUGH:
        be.retry_after_s = (1.0 - be.rpm_level) * 60.0 / be.rpm
        return True
    if be.tpm > 0.0:
        if be.tpm_level < tokens * ENOUGH:
            be.retry_after_s = (min(tokens, be.tpm) - be.tpm_level) * 60.0 / be.tpm
            return True
        be.tpm_level = max(be.tpm_level - tokens, 0.0)
    if be.rpm > 0.0:
        be.rpm_level = max(be.rpm_level - 1.0, 0.0)
    return False


@kernel
def take_up(w: World, b: int, slot: int, t: float) -> None:
    """The provider takes the request up: its first token, its pace, and whether it fails are drawn."""
    be = backends_of(w)[b]
    s = slots_of(w)[slot]
    be.in_flight += 1
    s.state = ON_API
    s.served_s = t
    attempt = 64 * s.attempt
    ttft = draw(dists_of(w), tables_of(w), be.ttft, uniform(key(s.task, FOR_TTFT + attempt)))
    read = s.cached if be.prompt_store != NONE else 0
    s.first_s = t + (ttft + be.ttft_per_token_s * (s.prompt - read)) * be.slowdown
    itl = be.slowdown * draw(dists_of(w), tables_of(w), be.itl, uniform(key(s.task, FOR_ITL + attempt)))
    s.last_s = itl
    end = s.first_s + itl * (s.output - 1)
    s.sched = OK
    if be.error_probability > 0.0 and uniform(key(s.task, FOR_ERROR + attempt)) < be.error_probability:
        s.sched = ERROR
        end = s.first_s
    elif be.break_probability > 0.0 and s.output > 1:
        u = uniform(key(s.task, FOR_BREAK + attempt))
        if u < be.break_probability:
            # What is left of the draw says after which token the stream breaks off.
            s.sched = ERROR
            s.out_done = 1 + int(u / be.break_probability * (s.output - 1))
            end = s.first_s + itl * (s.out_done - 1)
    if be.batch == 1 and end > t + be.batch_window_s:
        s.sched = TIMED_OUT
        s.out_done = 0
        end = t + be.batch_window_s
    push_timer(w, end, slot, T_API_DONE)


@kernel
def call(w: World, b: int, slot: int, t: float) -> int:
    """Sends a request to the endpoint; returns OK (taken up or queued) or RATE_LIMITED."""
    be = backends_of(w)[b]
    s = slots_of(w)[slot]
    full = be.concurrency > 0 and be.in_flight >= be.concurrency
    if full and be.reject_full == 1:
        be.retry_after_s = 0.0
        return RATE_LIMITED
    if (be.rpm > 0.0 or be.tpm > 0.0) and _limited(w, b, slot, t):
        return RATE_LIMITED
    s.cached = int(be.cached_ratio * s.seg_tokens)
    if be.prompt_store != NONE:
        policy(w, PROMPT, slot, t, b, 0, 0)
    if not full and be.batch == 0:
        take_up(w, b, slot, t)
        return OK
    s.state = QUEUED_API
    be.queued += 1
    s.prev = be.queue_tail
    s.next = NONE
    if be.queue_tail == NONE:
        be.queue_head = slot
    else:
        slots_of(w)[be.queue_tail].next = slot
    be.queue_tail = slot
    if be.batch == 1:
        policy(w, HAND_IN, slot, t, b, 0, 0)
    return OK


@kernel
def hang_up(w: World, slot: int, t: float) -> int:
    """Ends a call (done, failed or given up by the client) and takes up the next one; returns tokens generated."""
    s = slots_of(w)[slot]
    b = s.backend
    be = backends_of(w)[b]
    if s.state == QUEUED_API:
        be.queued -= 1
        if s.prev == NONE:
            be.queue_head = s.next
        else:
            slots_of(w)[s.prev].next = s.next
        if s.next == NONE:
            be.queue_tail = s.prev
        else:
            slots_of(w)[s.next].prev = s.prev
        if be.batch == 1:
            if s.sched == FORMING:
                be.forming -= 1
            policy(w, ROOM, slot, t, b, 0, 0)
        return 0
    be.in_flight -= 1
    generated = 0
    if t >= s.first_s and (s.sched == OK or s.out_done > 0):
        generated = s.output if s.sched == OK else s.out_done  # a stream that will break off has come so far
        if s.last_s > 0.0:
            generated = min(generated, int((t - s.first_s) / s.last_s * (1.0 + 1e-12)) + 1)
    if be.batch == 1:
        policy(w, ROOM, slot, t, b, s.prompt, 0)
    elif be.queue_head != NONE:
        first = be.queue_head
        be.queued -= 1
        be.queue_head = slots_of(w)[first].next
        if be.queue_head == NONE:
            be.queue_tail = NONE
        else:
            slots_of(w)[be.queue_head].prev = NONE
        take_up(w, b, first, t)
    return generated
