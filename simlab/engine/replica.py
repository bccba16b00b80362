"""One replica as the rest of the world sees it: requests come, are given up, move on step by step, and finish."""

from __future__ import annotations

from simlab.draws.kernel import inlined, kernel
from simlab.engine.arrays import CHUNKS, DECODE, IDLE, MIXED, NONE, PLAN, WAITING
from simlab.engine.heaps import set_event
from simlab.engine.kvcache import blocks_for, cache_full, release, take, whole_blocks
from simlab.engine.lockstep import ORDER, free_blocks, join_decode, leave_decode, new_blocks
from simlab.engine.meters import ITL, account, add_steps, add_time, meter_beyond
from simlab.engine.queues import insert_waiting, queue_by_priority, remove_running, remove_waiting
from simlab.engine.schedule import rejoin_passed_over
from simlab.engine.step_time import steps_by, stretch_s
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
)


@inlined
def enqueue(w: World, r: int, slot: int, t: float) -> None:
    """A request reaches the replica at ``t`` and waits; a stretch ends at the next step if it could enter then."""
    account(w, r, t)
    rep = reps_of(w)[r]
    be = backends_of(w)[rep.backend]
    s = slots_of(w)[slot]
    s.replica = r
    s.place = state_of(w).events
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
        queue_by_priority(w, r, slot)
    else:
        insert_waiting(w, r, slot, rep.wait_tail)
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
            set_event(w, r, rep.t0 + stretch_s(rep.step_s, rep.step_inc_s, k))


@kernel
def abort(w: World, r: int, slot: int, t: float, keep: int) -> bool:
    """Takes a request off the replica; True if it is gone now, False if it goes at the end of the running step."""
    s = slots_of(w)[slot]
    rep = reps_of(w)[r]
    be = backends_of(w)[rep.backend]
    if s.state == WAITING:
        account(w, r, t)
        remove_waiting(w, r, slot)
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
        leave_decode(w, r, slot, be.block_size)
    remove_running(w, r, slot)
    free_blocks(w, r, slot, keep, s.computed)


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
    meter_beyond(w, r, t)
    if n > 0:
        need = new_blocks(w, r, k, bs)
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
        if rep.passed_over > 0:
            rejoin_passed_over(w, r)
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
        join_decode(w, r, slot, block_size)
        slot = after


@inlined
def pop_finished(w: World, r: int) -> int:
    """The next sequence that has all its tokens, off the replica and its blocks freed; NONE when there is none."""
    rep = reps_of(w)[r]
    if rep.heap_n == 0 or (finish_of(w)[r, 0].key >> ORDER) > rep.g:
        return NONE
    slot = finish_of(w)[r, 0].slot
    be = backends_of(w)[rep.backend]
    leave_decode(w, r, slot, be.block_size)
    remove_running(w, r, slot)
    free_blocks(w, r, slot, 0, slots_of(w)[slot].computed)
    return slot
