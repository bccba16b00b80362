"""One replica: vLLM V1's scheduler, with a closed-form jump over steps that are alike (docs/design.md, "The jump").

The rules are those of `vllm.v1.core.sched.scheduler.Scheduler.schedule` for one full-attention KV group without
speculative decoding: running requests first, in their order; then waiting ones, first come first served, while the
token budget, ``max_num_seqs`` and free blocks allow (the whole sequence must fit: ``scheduler_reserve_full_isl``);
nothing is admitted in a step that preempted.

Because ``max_num_batched_tokens >= max_num_seqs`` (vLLM demands it), every decoding sequence gets its token in every
step and at most one request, the last of the running list, is part way through its prompt. So decoding sequences move
in lockstep with a step counter ``g``: a sequence is described by where it joined, the next finish is a heap's head, the
blocks that k steps need follow from a histogram of positions modulo the block size (``phase`` is that of a sequence
whose next token opens a block), and k steps of one batch take
``k t + d k (k - 1) / 2`` seconds, where each step takes d longer than the one before.
"""

from __future__ import annotations

import math

from simlab.draws.kernel import inlined, kernel
from simlab.engine.arrays import (
    CHUNKS,
    DECODE,
    IDLE,
    MIXED,
    NONE,
    PLAN,
    RUNNING,
    TIME_EPS_S,
    WAITING,
)
from simlab.engine.heaps import push_finish, remove_finish, set_event
from simlab.engine.kvcache import blocks_for, cache_full, hit, lookup, release, take, whole_blocks
from simlab.engine.meters import ITL, account, add_steps, add_time
from simlab.engine.world import (
    World,
    backends_of,
    classes_of,
    decode_cls_of,
    finish_of,
    phases_of,
    reps_of,
    slots_of,
    state_of,
    tables_of,
)

NEVER = math.inf
_ORDER = 32
"""Bits of a finish key that hold the admission number, so that sequences finishing together keep their order."""


@inlined
def step_seconds(
    w: World, b: int, decodes: int, prefill: int, decode_context: int, prefill_context: int, work: float
) -> float:
    """Seconds of one step of backend ``b`` (docs/design.md, "Step time").

    Args:
        w: the world.
        b: backend index.
        decodes: sequences that get one token and have at least one already.
        prefill: all other tokens of the step.
        decode_context: sum over decoding sequences of tokens computed, this step's included.
        prefill_context: the same over the others.
        work: sum over prefill tokens of the context each attends to, itself included.
    """
    be = backends_of(w)[b]
    tokens = decodes + prefill
    t = (
        be.base_s
        + be.prefill_token_s * prefill
        + be.decode_seq_s * decodes
        + be.decode_context_s * decode_context
        + be.prefill_context_s * prefill_context
        + be.attention_s * work
    )
    n = be.knots_n
    if n > 0:
        at = be.knots_at
        i = 1
        while i < n - 1 and tables_of(w)[at + 2 * i] < tokens:
            i += 1
        x0 = tables_of(w)[at + 2 * i - 2]
        y0 = tables_of(w)[at + 2 * i - 1]
        t += y0 + (tokens - x0) * (tables_of(w)[at + 2 * i + 1] - y0) / (tables_of(w)[at + 2 * i] - x0)
    return t


@inlined
def _new_blocks(w: World, r: int, k: int, block_size: int) -> int:
    """Blocks that the decoding sequences need for their next ``k`` steps."""
    rep = reps_of(w)[r]
    whole = whole_blocks(k, block_size)
    n = whole * rep.n_decode
    phases = phases_of(w)[r]
    at = rep.phase  # each further step looks one phase down, round and round
    for _ in range(k - whole * block_size):
        n += phases[at]
        at = at - 1 if at > 0 else block_size - 1
    return n


@inlined
def _stretch_s(step_s: float, inc_s: float, k: int) -> float:
    return k * step_s + inc_s * (0.5 * k * (k - 1))


@inlined
def steps_by(step_s: float, inc_s: float, elapsed_s: float) -> int:
    """The least k >= 1 such that k steps end at or after ``elapsed_s`` from the start of the first."""
    half = 0.5 * inc_s
    linear = step_s - half
    if half > 0.0:
        k = int((math.sqrt(linear * linear + 4.0 * half * max(elapsed_s, 0.0)) - linear) / (2.0 * half))
    elif step_s > 0.0:
        k = int(elapsed_s / step_s)
    else:
        return 1
    k = max(k, 1)
    while k > 1 and _stretch_s(step_s, inc_s, k - 1) >= elapsed_s - TIME_EPS_S:
        k -= 1
    while _stretch_s(step_s, inc_s, k) < elapsed_s - TIME_EPS_S:
        k += 1
    return k


# --- the lists -------------------------------------------------------------------------------------------------------


@inlined
def _append_running(w: World, r: int, slot: int) -> None:
    rep = reps_of(w)[r]
    s = slots_of(w)[slot]
    s.state = RUNNING
    s.prev = rep.run_tail
    s.next = NONE
    if rep.run_tail == NONE:
        rep.run_head = slot
    else:
        slots_of(w)[rep.run_tail].next = slot
    rep.run_tail = slot
    rep.n_running += 1
    s.admit = rep.admits
    rep.admits += 1


@inlined
def _remove_running(w: World, r: int, slot: int) -> None:
    rep = reps_of(w)[r]
    s = slots_of(w)[slot]
    if rep.pf_head == slot:
        rep.pf_head = s.next
    if s.prev == NONE:
        rep.run_head = s.next
    else:
        slots_of(w)[s.prev].next = s.next
    if s.next == NONE:
        rep.run_tail = s.prev
    else:
        slots_of(w)[s.next].prev = s.prev
    rep.n_running -= 1


@inlined
def _insert_waiting(w: World, r: int, slot: int, after: int) -> None:
    """Links a slot into the waiting list behind ``after`` (NONE: at the front)."""
    rep = reps_of(w)[r]
    s = slots_of(w)[slot]
    s.state = WAITING
    s.prev = after
    if after == NONE:
        s.next = rep.wait_head
        rep.wait_head = slot
    else:
        s.next = slots_of(w)[after].next
        slots_of(w)[after].next = slot
    if s.next == NONE:
        rep.wait_tail = slot
    else:
        slots_of(w)[s.next].prev = slot
    rep.n_waiting += 1


@inlined
def _remove_waiting(w: World, r: int, slot: int) -> None:
    rep = reps_of(w)[r]
    s = slots_of(w)[slot]
    if s.prev == NONE:
        rep.wait_head = s.next
    else:
        slots_of(w)[s.prev].next = s.next
    if s.next == NONE:
        rep.wait_tail = s.prev
    else:
        slots_of(w)[s.next].prev = s.prev
    rep.n_waiting -= 1


@kernel
def _queue_by_priority(w: World, r: int, slot: int) -> None:
    """Waiting order of vLLM's priority policy: lower ``prio`` first, then earlier arrival at the replica."""
    s = slots_of(w)[slot]
    at = reps_of(w)[r].wait_tail
    while at != NONE and (
        slots_of(w)[at].prio > s.prio or (slots_of(w)[at].prio == s.prio and slots_of(w)[at].started_s > s.started_s)
    ):
        at = slots_of(w)[at].prev
    _insert_waiting(w, r, slot, at)


# --- decoding sequences ----------------------------------------------------------------------------------------------


@inlined
def _join_decode(w: World, r: int, slot: int, block_size: int) -> None:
    """The slot's prompt is computed and its token of this step exists: from the next step on it decodes."""
    rep = reps_of(w)[r]
    s = slots_of(w)[slot]
    s.out_join = s.out_done
    s.g_join = rep.g
    s.phase = s.computed - block_size * whole_blocks(s.computed, block_size) + rep.phase
    if s.phase >= block_size:
        s.phase -= block_size
    phases_of(w)[r, s.phase] += 1
    decode_cls_of(w)[r, s.cls] += 1
    rep.n_decode += 1
    rep.ctx += s.computed
    push_finish(w, r, slot, ((rep.g + s.output - s.out_done) << _ORDER) | s.admit)


@inlined
def _leave_decode(w: World, r: int, slot: int, block_size: int) -> None:
    """Takes a sequence out of the lockstep and brings its own counters up to date."""
    rep = reps_of(w)[r]
    s = slots_of(w)[slot]
    n = rep.g - s.g_join
    s.out_done = s.out_join + n
    s.ctx_work += n * s.computed + 0.5 * n * (n + 1)
    s.computed += n
    s.blocks = max(s.blocks, blocks_for(s.computed, block_size))
    phases_of(w)[r, s.phase] -= 1
    decode_cls_of(w)[r, s.cls] -= 1
    rep.n_decode -= 1
    rep.ctx -= s.computed
    remove_finish(w, r, slot)


@kernel
def _name_twins(w: World, r: int, slot: int, beyond: int, scheduled: int) -> None:
    """Makes findable what running requests of the very same prompt have generated, as far as it came before.

    What a sequence generates gets its names in the hash when it leaves, which nobody can tell from vLLM's naming it
    step by step, except a request with the same prompt: copies of a content answer in the order they were named. So,
    before ``slot`` names or looks for such content, its twins further on than ``beyond`` tokens do (or as far and ahead
    in the batch), the furthest first; ``scheduled`` counts the token that each gets in the step being planned.
    """
    s = slots_of(w)[slot]
    bs = backends_of(w)[reps_of(w)[r].backend].block_size
    while True:
        best = NONE
        most = beyond
        at = reps_of(w)[r].run_head
        while at != NONE:
            twin = slots_of(w)[at]
            if at != slot and twin.heap_pos != NONE and twin.tail == s.tail and twin.tail_shared == 1:
                tokens = twin.computed + reps_of(w)[r].g - twin.g_join + scheduled
                ahead = tokens > most or (tokens == most and best == NONE and twin.admit < s.admit)
                if ahead and whole_blocks(tokens, bs) > twin.n_refs:
                    best = at
                    most = tokens
            at = twin.next
        if best == NONE:
            return
        twin = slots_of(w)[best]
        twin.blocks = max(twin.blocks, blocks_for(most, bs))
        cache_full(w, r, best, most, bs)


@inlined
def _free_blocks(w: World, r: int, slot: int, keep: int) -> None:
    """Gives the blocks of a request that left the batch back; ``keep``: it may come back for what stays cached."""
    s = slots_of(w)[slot]
    be = backends_of(w)[reps_of(w)[r].backend]
    if be.caching == 1 and s.tail_shared == 1 and s.session == NONE and s.computed > s.prompt:
        _name_twins(w, r, slot, s.computed, 0)
    release(w, r, slot, s.computed, be.block_size, be.caching, keep)


@kernel
def output_tokens(w: World, slot: int) -> int:
    """Tokens the attempt has generated by the end of its replica's last finished step."""
    s = slots_of(w)[slot]
    if s.heap_pos == NONE:
        return s.out_done
    return s.out_join + reps_of(w)[s.replica].g - s.g_join


# --- coming and going ------------------------------------------------------------------------------------------------


@inlined
def enqueue(w: World, r: int, slot: int, t: float) -> None:
    """A request reaches the replica at ``t`` and waits; a stretch ends at the next step if it could enter then."""
    account(w, r, t)
    rep = reps_of(w)[r]
    be = backends_of(w)[rep.backend]
    s = slots_of(w)[slot]
    s.replica = r
    s.computed = 0
    s.target = s.prompt
    s.out_done = 0
    s.blocks = 0
    s.heap_pos = NONE
    s.aborting = 0
    s.sched = 0
    rep.prompt_tokens += s.prompt
    head = rep.wait_head
    if be.priority == 1:
        _queue_by_priority(w, r, slot)
    else:
        _insert_waiting(w, r, slot, rep.wait_tail)
    if rep.mode == IDLE:
        rep.mode = PLAN
        rep.t0 = t
        set_event(w, r, t)
    elif rep.mode == DECODE and rep.wait_head != head and rep.n_running < be.max_num_seqs and rep.n_decode < be.budget:
        cut(w, r, t)


@inlined
def cut(w: World, r: int, t: float) -> None:
    """Ends the stretch at its first step boundary at or after ``t``."""
    rep = reps_of(w)[r]
    if rep.k > 1:
        k = steps_by(rep.step_s, rep.step_inc_s, t - rep.t0)
        if k < rep.k:
            rep.k = k
            set_event(w, r, rep.t0 + _stretch_s(rep.step_s, rep.step_inc_s, k))


@kernel
def abort(w: World, r: int, slot: int, t: float, keep: int) -> bool:
    """Takes a request off the replica; True if it is gone now, False if it goes at the end of the running step."""
    s = slots_of(w)[slot]
    rep = reps_of(w)[r]
    be = backends_of(w)[rep.backend]
    if s.state == WAITING:
        account(w, r, t)
        _remove_waiting(w, r, slot)
        release(w, r, slot, 0, be.block_size, be.caching, keep)
        return True
    if rep.mode == PLAN:
        drop_running(w, r, slot, keep)
        return True
    s.aborting = 1 + keep
    rep.aborting += 1
    cut(w, r, t)
    return False


@kernel
def drop_running(w: World, r: int, slot: int, keep: int) -> None:
    """Takes a running request out between steps and frees its blocks."""
    rep = reps_of(w)[r]
    be = backends_of(w)[rep.backend]
    s = slots_of(w)[slot]
    if s.heap_pos != NONE:
        _leave_decode(w, r, slot, be.block_size)
    _remove_running(w, r, slot)
    _free_blocks(w, r, slot, keep)


# --- planning --------------------------------------------------------------------------------------------------------


@kernel
def _preempt(w: World, r: int, slot: int, block_size: int, priority: int) -> None:
    rep = reps_of(w)[r]
    s = slots_of(w)[slot]
    if s.heap_pos != NONE:
        _leave_decode(w, r, slot, block_size)
        s.last_s = rep.t0
    _remove_running(w, r, slot)
    _free_blocks(w, r, slot, 1)
    s.computed = 0
    s.target = s.prompt + s.out_done
    s.preempts += 1
    rep.preemptions += 1
    if priority == 1:
        _queue_by_priority(w, r, slot)
    else:
        _insert_waiting(w, r, slot, NONE)


@kernel
def _victim(w: World, r: int, priority: int) -> int:
    """Whom a shortage of blocks preempts: the last running request, or the lowest priority's latest."""
    at = reps_of(w)[r].run_tail
    if priority == 0:
        return at
    worst = reps_of(w)[r].run_head
    at = worst
    while at != NONE:
        a = slots_of(w)[at]
        b = slots_of(w)[worst]
        if a.prio > b.prio or (a.prio == b.prio and a.started_s > b.started_s):
            worst = at
        at = a.next
    return worst


@kernel
def _allocate_or_preempt(w: World, r: int) -> None:
    """A step for which blocks run short: one request after the other gets its blocks or preempts for them."""
    rep = reps_of(w)[r]
    be = backends_of(w)[rep.backend]
    bs = be.block_size
    slot = rep.run_head
    while slot != NONE:
        s = slots_of(w)[slot]
        if s.heap_pos != NONE:
            computed = s.computed + rep.g - s.g_join
            chunk = 1
        else:
            computed = s.computed
            chunk = min(s.target - s.computed, be.budget - rep.n_decode)
            if chunk <= 0:
                break
        held = max(s.blocks, blocks_for(computed, bs))
        need = blocks_for(computed + chunk, bs) - held
        gone = False
        while need > rep.free:
            victim = _victim(w, r, be.priority)
            _preempt(w, r, victim, bs, be.priority)
            if victim == slot:
                gone = True
                break
        if gone:
            break
        if need > 0:
            take(w, r, need)
            s.blocks = held + need
        if s.heap_pos == NONE:
            s.sched = chunk
            if be.caching == 1:
                cache_full(w, r, slot, s.computed + chunk, bs)
        slot = s.next


@inlined
def _plan_step_time(w: World, r: int, t: float) -> None:
    """Times one step with all requests' tokens as they stand and makes it the stretch."""
    rep = reps_of(w)[r]
    decodes = rep.n_decode
    decode_context = rep.ctx + rep.n_decode
    prefill = 0
    prefill_context = 0
    work = 0.0
    slot = rep.pf_head
    while slot != NONE:
        s = slots_of(w)[slot]
        chunk = s.sched
        if chunk == 1 and s.out_done > 0:
            decodes += 1
            decode_context += s.computed + 1
        elif chunk > 0:
            prefill += chunk
            prefill_context += s.computed + chunk
            work += chunk * (s.computed + 0.5 * (chunk + 1))
        slot = s.next
    rep.step_s = step_seconds(w, rep.backend, decodes, prefill, decode_context, prefill_context, work)
    rep.step_inc_s = 0.0
    rep.k = 1
    rep.mode = MIXED
    rep.t0 = t
    set_event(w, r, t + rep.step_s)


@inlined
def _admit(w: World, r: int, budget: int) -> int:
    """Admits waiting requests, each with its chunk, while they fit; returns how many."""
    rep = reps_of(w)[r]
    be = backends_of(w)[rep.backend]
    bs = be.block_size
    admitted = 0
    while budget > 0 and rep.wait_head != NONE and rep.n_running < be.max_num_seqs:
        slot = rep.wait_head
        s = slots_of(w)[slot]
        hits = 0
        free_hits = 0
        own = 0
        if be.caching == 1:
            if s.tail_shared == 1 and s.preempts > 0 and s.session == NONE:
                _name_twins(w, r, slot, -1, 1)
            hits, free_hits, own = lookup(w, r, slot, bs)
        if blocks_for(s.target, bs) - hits + free_hits > rep.free:
            break
        _remove_waiting(w, r, slot)
        if be.caching == 1:
            hit(w, r, slot, hits, own, bs)
        s.computed = hits * bs
        if s.preempts == 0:
            s.cached = s.computed
            rep.cached_tokens += s.computed
        chunk = min(s.target - s.computed, budget)
        need = blocks_for(s.computed + chunk, bs) - hits
        take(w, r, need)
        s.blocks = hits + need
        s.sched = chunk
        if be.caching == 1:
            cache_full(w, r, slot, s.computed + chunk, bs)
        budget -= chunk
        _append_running(w, r, slot)
        if rep.pf_head == NONE:
            rep.pf_head = slot
        admitted += 1
    return admitted


@inlined
def plan(w: World, r: int, t: float) -> None:
    """Schedules from time ``t`` on: one mixed step, or a stretch of like steps until something can change."""
    account(w, r, t)
    rep = reps_of(w)[r]
    be = backends_of(w)[rep.backend]
    bs = be.block_size
    rep.t0 = t
    rep.prepaid = 0
    if rep.n_running == 0 and rep.n_waiting == 0:
        rep.mode = IDLE
        rep.k = 0
        set_event(w, r, NEVER)
        return
    partial = rep.pf_head
    chunk = 0
    chunk_blocks = 0
    left = 0
    if partial != NONE:
        s = slots_of(w)[partial]
        left = s.target - s.computed
        chunk = min(left, be.budget - rep.n_decode)
        s.sched = chunk
        chunk_blocks = blocks_for(s.computed + chunk, bs) - s.blocks
    step_blocks = phases_of(w)[r, rep.phase]
    if step_blocks + chunk_blocks > rep.free:
        _allocate_or_preempt(w, r)
        rep.prepaid = 1
        _plan_step_time(w, r, t)
        return
    spare = be.budget - rep.n_decode - chunk
    if rep.wait_head != NONE and spare > 0 and rep.n_running < be.max_num_seqs:
        take(w, r, step_blocks + chunk_blocks)
        rep.prepaid = 1
        if chunk > 0:
            s = slots_of(w)[partial]
            s.blocks += chunk_blocks
            if be.caching == 1:
                cache_full(w, r, partial, s.computed + chunk, bs)
        if _admit(w, r, spare) > 0 or chunk > 0:
            _plan_step_time(w, r, t)
            return
    if rep.n_decode == 0 and chunk == 0:
        # Waiting requests do not fit although nothing runs: only possible when one exceeds the whole cache.
        rep.mode = IDLE
        rep.k = 0
        set_event(w, r, NEVER)
        return
    _plan_stretch(w, r, t, left, chunk)


@inlined
def _plan_stretch(w: World, r: int, t: float, left: int, chunk: int) -> None:
    """Plans like steps: decodes alone, or decodes beside full chunks of one long prompt."""
    rep = reps_of(w)[r]
    be = backends_of(w)[rep.backend]
    bs = be.block_size
    k = 1 << 40
    if rep.n_decode > 0:
        k = (finish_of(w)[r, 0].key >> _ORDER) - rep.g
    computed = 0
    held = 0
    if chunk > 0:
        s = slots_of(w)[rep.pf_head]
        computed = s.computed
        held = s.blocks
        k = min(k, (left - 1) // chunk)
        if k < 2 or rep.prepaid == 1:
            if rep.prepaid == 0:
                need = phases_of(w)[r, rep.phase] + blocks_for(computed + chunk, bs) - held
                take(w, r, need)
                s.blocks = blocks_for(computed + chunk, bs)
                rep.prepaid = 1
                if be.caching == 1:
                    cache_full(w, r, rep.pf_head, computed + chunk, bs)
            _plan_step_time(w, r, t)
            return
    waits_for_twin = rep.wait_head != NONE and slots_of(w)[rep.wait_head].tail_shared == 1
    if be.caching == 1 and waits_for_twin and slots_of(w)[rep.wait_head].preempts > 0:
        k = 1
    # Blocks: at most one more per sequence and block of steps; look closer only when that bound does not fit.
    free = rep.free
    prepaid_blocks = 0
    if rep.prepaid == 1:
        prepaid_blocks = phases_of(w)[r, rep.phase]
        free += prepaid_blocks
    bound = rep.n_decode * blocks_for(k, bs)
    if chunk > 0:
        bound += blocks_for(k * chunk, bs) + 1
    if bound > free:
        low = 1
        high = k
        while low < high:
            middle = (low + high + 1) >> 1
            need = _new_blocks(w, r, middle, bs)
            if chunk > 0:
                need += blocks_for(computed + middle * chunk, bs) - held
            if need <= free:
                low = middle
            else:
                high = middle - 1
        k = low
    work = chunk * (computed + 0.5 * (chunk + 1))
    decode_context = rep.ctx + rep.n_decode
    context = 0
    if chunk > 0:
        context = computed + chunk
    rep.step_s = step_seconds(w, rep.backend, rep.n_decode, chunk, decode_context, context, work)
    rep.step_inc_s = be.decode_context_s * rep.n_decode + be.prefill_context_s * chunk + be.attention_s * chunk * chunk
    rep.k = k
    rep.chunk = chunk
    rep.mode = DECODE if chunk == 0 else CHUNKS
    set_event(w, r, t + _stretch_s(rep.step_s, rep.step_inc_s, k))


# --- the end of a stretch --------------------------------------------------------------------------------------------


@inlined
def advance(w: World, r: int, t: float) -> None:
    """Applies the stretch that ends at ``t``: tokens, blocks, inter-token times. Finishes are the loop's to collect."""
    account(w, r, t)
    rep = reps_of(w)[r]
    be = backends_of(w)[rep.backend]
    bs = be.block_size
    k = rep.k
    n = rep.n_decode
    rep.steps += k
    if n > 0:
        need = _new_blocks(w, r, k, bs)
        if rep.mode == MIXED:
            need = 0  # paid for when it was planned
        elif rep.prepaid == 1:
            need -= phases_of(w)[r, rep.phase]
        if need > 0:
            take(w, r, need)
        rep.ctx += k * n
        rep.decode_tokens += k * n
        if t >= state_of(w).warmup_s:
            for c in range(len(classes_of(w))):
                if decode_cls_of(w)[r, c] > 0:
                    add_steps(w, c, rep.backend, rep.step_s, rep.step_inc_s, k, decode_cls_of(w)[r, c])
    rep.g += k
    rep.phase -= k - bs * whole_blocks(k, bs)
    if rep.phase < 0:
        rep.phase += bs
    if rep.mode == CHUNKS:
        slot = rep.pf_head
        s = slots_of(w)[slot]
        s.computed += k * rep.chunk
        s.prefilled += k * rep.chunk
        rep.prefill_tokens += k * rep.chunk
        held = blocks_for(s.computed, bs)
        take(w, r, held - s.blocks)
        s.blocks = held
        if be.caching == 1:
            cache_full(w, r, slot, s.computed, bs)
    elif rep.mode == MIXED:
        _advance_prefills(w, r, t, bs)
    rep.mode = PLAN
    rep.k = 0
    rep.prepaid = 0
    rep.t0 = t


@inlined
def _advance_prefills(w: World, r: int, t: float, block_size: int) -> None:
    """Moves the prompts of a mixed step on; those computed to their end have made a token and decode from now on."""
    rep = reps_of(w)[r]
    slot = rep.pf_head
    while slot != NONE:
        s = slots_of(w)[slot]
        after = s.next
        s.computed += s.sched
        s.prefilled += s.sched
        rep.prefill_tokens += s.sched
        s.sched = 0
        if s.computed < s.target:
            break
        rep.pf_head = after
        s.out_done += 1
        if s.out_done == 1:
            s.first_s = t + backends_of(w)[rep.backend].overhead_s
        else:
            rep.decode_tokens += 1
            if t >= state_of(w).warmup_s:
                add_time(w, ITL, s.cls, rep.backend, t - s.last_s, 1)
        _join_decode(w, r, slot, block_size)
        slot = after


@inlined
def pop_finished(w: World, r: int) -> int:
    """The next sequence that has all its tokens, off the replica and its blocks freed; NONE when there is none."""
    rep = reps_of(w)[r]
    if rep.heap_n == 0 or (finish_of(w)[r, 0].key >> _ORDER) > rep.g:
        return NONE
    slot = finish_of(w)[r, 0].slot
    be = backends_of(w)[rep.backend]
    _leave_decode(w, r, slot, be.block_size)
    _remove_running(w, r, slot)
    _free_blocks(w, r, slot, 0)
    return slot
