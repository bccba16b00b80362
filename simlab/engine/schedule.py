"""What runs next: vLLM V1's scheduler, planned in stretches of like steps (docs/design.md, "The jump").

The rules are those of `vllm.v1.core.sched.scheduler.Scheduler.schedule` for one full-attention KV group without
speculative decoding: running requests first, in their order; then waiting ones, first come first served, while the
token budget, ``max_num_seqs`` and free blocks allow (the whole sequence must fit: ``scheduler_reserve_full_isl``);
nothing is admitted in a step that preempted. Steps with prompts in them are planned one by one; decodes alone, or
decodes beside full chunks of one long prompt, are planned k at a time: until a sequence finishes, blocks run out or
somebody arrives who could enter, they differ by a constant, so they take ``k t + d k (k - 1) / 2`` seconds.
"""

from __future__ import annotations

from simlab.draws.kernel import inlined, kernel
from simlab.engine.arrays import CHUNKS, DECODE, IDLE, MIXED, NEVER, NONE, PASSED_OVER, PLAN
from simlab.engine.heaps import set_event
from simlab.engine.kvcache import blocks_for, cache_full, hit, lookup, take
from simlab.engine.lockstep import ORDER, free_blocks, join_decode, leave_decode, name_twins, new_blocks
from simlab.engine.meters import account, meter_step
from simlab.engine.queues import append_running, insert_waiting, queue_by_priority, remove_running, remove_waiting
from simlab.engine.step_time import step_seconds, stretch_s
from simlab.engine.world import World, backends_of, finish_of, phases_of, reps_of, slots_of


@kernel
def _preempt(w: World, r: int, slot: int, served: int) -> None:
    """Sends a running request back to wait; what it has made stays, what was computed must be again.

    ``served``: it had been given its token in the step being planned.
    """
    rep = reps_of(w)[r]
    be = backends_of(w)[rep.backend]
    s = slots_of(w)[slot]
    tokens = s.computed
    if s.heap_pos != NONE:
        leave_decode(w, r, slot, be.block_size)
        s.last_s = rep.t0
        tokens = s.computed + served
    remove_running(w, r, slot)
    free_blocks(w, r, slot, 1, tokens)
    s.computed = 0
    s.target = s.prompt + s.out_done
    s.preempts += 1
    rep.preemptions += 1
    if be.priority == 1:
        queue_by_priority(w, r, slot)
    else:
        insert_waiting(w, r, slot, NONE)


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
def _pass_over(w: World, r: int, admit: int) -> None:
    """Leaves running requests admitted after number ``admit`` out of this step: they decode on with the next one.

    vLLM stops handing out tokens when the request it is serving is itself the one to preempt. First come first served,
    that is the last one; by priority it need not be.
    """
    rep = reps_of(w)[r]
    bs = backends_of(w)[rep.backend].block_size
    slot = rep.run_head
    while slot != NONE:
        s = slots_of(w)[slot]
        if s.admit > admit and s.heap_pos != NONE:
            leave_decode(w, r, slot, bs)
            s.sched = PASSED_OVER
            rep.passed_over += 1
        slot = s.next


@kernel
def rejoin_passed_over(w: World, r: int) -> None:
    """Takes the requests that a step left out back among the decoding ones."""
    rep = reps_of(w)[r]
    bs = backends_of(w)[rep.backend].block_size
    slot = rep.run_head
    while rep.passed_over > 0:
        s = slots_of(w)[slot]
        if s.sched == PASSED_OVER:
            s.sched = 0
            rep.passed_over -= 1
            join_decode(w, r, slot, bs)
        slot = s.next


@kernel
def _allocate_or_preempt(w: World, r: int) -> bool:
    """A step for which blocks run short: one request after the other gets its blocks or preempts for them.

    Returns:
        Whether anything is in the step at all.
    """
    rep = reps_of(w)[r]
    be = backends_of(w)[rep.backend]
    bs = be.block_size
    if rep.pf_head != NONE:
        slots_of(w)[rep.pf_head].sched = 0
    scheduled = 0
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
        victim = NONE
        while need > rep.free and victim != slot:
            victim = _victim(w, r, be.priority)
            # A victim already served in this step has had the token's block named, though it is not computed.
            served = 1 if slots_of(w)[victim].admit < s.admit else 0
            scheduled -= served
            _preempt(w, r, victim, served)
        if victim == slot:
            _pass_over(w, r, s.admit)
            break
        if need > 0:
            take(w, r, need)
            s.blocks = held + need
        if s.heap_pos == NONE:
            s.sched = chunk
            if be.caching == 1:
                cache_full(w, r, slot, s.computed + chunk, bs)
        scheduled += 1
        slot = s.next
    return scheduled > 0


@inlined
def _plan_step_time(w: World, r: int, t: float) -> None:
    """Times one step with all requests' tokens as they stand and makes it the stretch."""
    rep = reps_of(w)[r]
    decodes = rep.n_decode
    decode_context = rep.ctx + rep.n_decode
    prefill = 0
    requests = 0
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
            requests += 1
            prefill_context += s.computed + chunk
            work += chunk * (s.computed + 0.5 * (chunk + 1))
        slot = s.next
    rep.step_s = step_seconds(w, rep.backend, decodes, prefill, requests, decode_context, prefill_context, work)
    rep.step_inc_s = 0.0
    meter_step(w, r, decodes, decodes + prefill)
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
        # Most requests share nothing: they need not ask the cache.
        shares = be.caching == 1 and (s.seg_tokens > 0 or s.tail_shared == 1 or s.run != NONE)
        if shares:
            if s.tail_shared == 1 and s.preempts > 0 and s.session == NONE:
                name_twins(w, r, slot, -1, 1)
            hits, free_hits, own = lookup(w, r, slot, bs)
        if blocks_for(s.target, bs) - hits + free_hits > rep.free:
            break
        remove_waiting(w, r, slot)
        if shares:
            hit(w, r, slot, hits, own)
        s.computed = hits * bs
        if s.preempts == 0:
            s.served_s = rep.t0
            s.cached = s.computed
            rep.cached_tokens += s.computed
        chunk = min(s.target - s.computed, budget)
        need = blocks_for(s.computed + chunk, bs) - hits
        take(w, r, need)
        s.blocks = hits + need
        s.sched = chunk
        if shares:
            cache_full(w, r, slot, s.computed + chunk, bs)
        budget -= chunk
        append_running(w, r, slot)
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
        if not _allocate_or_preempt(w, r):
            # An empty step takes no time: vLLM schedules again at once, and then admits who waits.
            rejoin_passed_over(w, r)
            rep.mode = PLAN
            set_event(w, r, t)
            return
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
        k = (finish_of(w)[r, 0].key >> ORDER) - rep.g
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
            need = new_blocks(w, r, middle, bs)
            if chunk > 0:
                need += blocks_for(computed + middle * chunk, bs) - held
            if need <= free:
                low = middle
            else:
                high = middle - 1
        k = low
    decodes = rep.n_decode
    decode_context = rep.ctx + rep.n_decode
    prefill = chunk
    context = 0
    if chunk == 1 and slots_of(w)[rep.pf_head].out_done > 0:
        # Recomputed one token a step: for the model that is decoding.
        decodes += 1
        decode_context += computed + 1
        prefill = 0
    elif chunk > 0:
        context = computed + chunk
    work = prefill * (computed + 0.5 * (prefill + 1))
    rep.step_s = step_seconds(w, rep.backend, decodes, prefill, min(prefill, 1), decode_context, context, work)
    rep.step_inc_s = (
        be.decode_context_s * decodes + be.prefill_context_s * prefill + be.attention_s * prefill * prefill
    )
    meter_step(w, r, decodes, decodes + prefill)
    rep.k = k
    rep.chunk = chunk
    rep.mode = DECODE if chunk == 0 else CHUNKS
    set_event(w, r, t + stretch_s(rep.step_s, rep.step_inc_s, k))
