"""A replica's KV blocks as vLLM's block pool keeps them: free blocks, prefix cache, least-recently-used eviction.

vLLM's free queue is [blocks without content][cached blocks, least recently freed first]: freed blocks that hold no full
block of content are put in front, cached ones behind, deepest block first, and allocation takes from the front
(`BlockPool.free_blocks`, `get_new_blocks`). Three facts keep this cheap and still exact:

- blocks without content are alike: a counter (``plain``);
- blocks that nobody can hit again (content unique to a finished request) are alike too: neighbours in the queue are one
  *run* with a count; a preempted or retried request owns its run and may hit what is left of it;
- only blocks whose content others can ask for (shared segments, session history) are kept one by one, found by a hash
  of the chain of segment ids up to the block's end.

Block records ``[block_at, block_at + kv_blocks)`` belong to a replica; its runs follow from ``run_at``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from simlab.draws.counter import key as join_key
from simlab.draws.kernel import inlined, kernel
from simlab.engine.arrays import NONE
from simlab.engine.world import World, blocks_of, buckets_of, found_of, refs_of, reps_of, segs_of, slots_of, state_of


@inlined
def whole_blocks(tokens: int, block_size: int) -> int:
    """``tokens // block_size`` for tokens >= 0, exact below 2^50: a division of doubles is three times as fast."""
    return int(tokens / block_size)


@inlined
def blocks_for(tokens: int, block_size: int) -> int:
    """Blocks that hold so many tokens."""
    return int((tokens + block_size - 1) / block_size)


@kernel
def _lru_append(w: World, r: int, e: int) -> None:
    rep = reps_of(w)[r]
    entry = blocks_of(w)[e]
    entry.next = NONE
    entry.prev = rep.lru_tail
    if rep.lru_tail == NONE:
        rep.lru_head = e
    else:
        blocks_of(w)[rep.lru_tail].next = e
    rep.lru_tail = e


@kernel
def _lru_remove(w: World, r: int, e: int) -> None:
    rep = reps_of(w)[r]
    entry = blocks_of(w)[e]
    if entry.prev == NONE:
        rep.lru_head = entry.next
    else:
        blocks_of(w)[entry.prev].next = entry.next
    if entry.next == NONE:
        rep.lru_tail = entry.prev
    else:
        blocks_of(w)[entry.next].prev = entry.prev


@kernel
def _forget_run(w: World, r: int, e: int) -> None:
    """Ends a run: its owner, if any, can hit nothing of it any more."""
    entry = blocks_of(w)[e]
    if entry.owner != NONE:
        slots_of(w)[entry.owner].run = NONE
    _lru_remove(w, r, e)
    entry.next = reps_of(w)[r].free_run
    reps_of(w)[r].free_run = e


@kernel
def _unhash(w: World, r: int, b: int) -> None:
    """Takes block ``b`` out of the hash and gives its record back."""
    rep = reps_of(w)[r]
    bucket = rep.bucket_at + np.int64(blocks_of(w)[b].key & np.uint64(rep.buckets - 1))
    at = buckets_of(w)[bucket]
    if at == b:
        buckets_of(w)[bucket] = blocks_of(w)[b].chain
    else:
        while blocks_of(w)[at].chain != b:
            at = blocks_of(w)[at].chain
        blocks_of(w)[at].chain = blocks_of(w)[b].chain
    blocks_of(w)[b].next = rep.free_block
    rep.free_block = b


@inlined
def take(w: World, r: int, n: int) -> None:
    """Allocates ``n`` free blocks from the front of the queue, evicting cached content; there must be as many."""
    rep = reps_of(w)[r]
    rep.free -= n
    if n <= rep.plain:
        rep.plain -= n
        return
    n -= rep.plain
    rep.plain = 0
    while n > 0:
        e = rep.lru_head
        if e >= rep.run_at:
            run = blocks_of(w)[e]
            if run.count > n:
                run.count -= n
                return
            n -= run.count
            _forget_run(w, r, e)
        else:
            _lru_remove(w, r, e)
            _unhash(w, r, e)
            n -= 1


@inlined
def _append_run(w: World, r: int, n: int, owner: int) -> int:
    """Frees ``n`` full blocks of unique content; returns the run's record when it has an owner."""
    rep = reps_of(w)[r]
    rep.free += n
    tail = rep.lru_tail
    if owner == NONE and tail >= rep.run_at and blocks_of(w)[tail].owner == NONE:
        blocks_of(w)[tail].count += n
        return NONE
    e = rep.free_run
    if e != NONE:
        rep.free_run = blocks_of(w)[e].next
    else:
        e = rep.run_at + rep.n_runs
        rep.n_runs += 1
    blocks_of(w)[e].count = n
    blocks_of(w)[e].owner = owner
    _lru_append(w, r, e)
    return e if owner != NONE else NONE


@kernel
def disown_run(w: World, slot: int) -> None:
    """The slot will not come back for its freed blocks: they stay cached but nobody can hit them."""
    s = slots_of(w)[slot]
    if s.run != NONE:
        blocks_of(w)[s.run].owner = NONE
        s.run = NONE


@kernel
def _find(w: World, r: int, key: np.uint64) -> int:
    """The first cached block with this content, or NONE."""
    rep = reps_of(w)[r]
    b = buckets_of(w)[rep.bucket_at + np.int64(key & np.uint64(rep.buckets - 1))]
    while b != NONE and blocks_of(w)[b].key != key:
        b = blocks_of(w)[b].chain
    return b


@kernel
def _cache_block(w: World, r: int, slot: int, key: np.uint64) -> None:
    """Gives one of the slot's blocks its content and the slot's hold on it; a second copy of a content is kept too."""
    rep = reps_of(w)[r]
    state = state_of(w)
    b = rep.free_block
    if b != NONE:
        rep.free_block = blocks_of(w)[b].next
    else:
        b = rep.block_at + rep.n_blocks
        rep.n_blocks += 1
    blocks_of(w)[b].key = key
    blocks_of(w)[b].refs = 1
    blocks_of(w)[b].chain = NONE
    bucket = rep.bucket_at + np.int64(key & np.uint64(rep.buckets - 1))
    at = buckets_of(w)[bucket]
    if at == NONE:
        buckets_of(w)[bucket] = b
    else:
        while blocks_of(w)[at].chain != NONE:
            at = blocks_of(w)[at].chain
        blocks_of(w)[at].chain = b
    _hold(w, slot, b, state)


@kernel
def _hold(w: World, slot: int, b: int, state: Any) -> None:
    ref = state.free_ref
    if ref != NONE:
        state.free_ref = refs_of(w)[ref].next
    else:
        ref = state.n_refs
        state.n_refs += 1
    s = slots_of(w)[slot]
    refs_of(w)[ref].block = b
    refs_of(w)[ref].next = s.refs
    s.refs = ref
    s.n_refs += 1


@inlined
def lookup(w: World, r: int, slot: int, block_size: int) -> tuple[int, int, int]:
    """What the prefix cache holds of a waiting request: (cached blocks, those that are free now, of its own run).

    At least one token is always computed, so at most ``(tokens - 1) // block_size`` blocks count.
    """
    s = slots_of(w)[slot]
    limit = whole_blocks(s.target - 1, block_size)
    hits = 0
    free_hits = 0
    seg = s.segs
    end = block_size
    while hits < limit:
        if end <= s.seg_tokens:
            while segs_of(w)[seg].end < end:
                seg = segs_of(w)[seg].next
            key = join_key(segs_of(w)[seg].key, end)
        elif s.tail_shared == 1:
            key = join_key(s.tail, end)
        else:
            break
        b = _find(w, r, key)
        if b == NONE:
            return hits, free_hits, 0
        if blocks_of(w)[b].refs == 0:
            free_hits += 1
        found_of(w)[hits] = b
        hits += 1
        end += block_size
    own = 0
    if s.run != NONE and s.run_rep == r and s.tail_shared == 0:
        own = min(limit - hits, blocks_of(w)[s.run].count)
    return hits + own, free_hits + own, own


@inlined
def hit(w: World, r: int, slot: int, hits: int, own: int) -> None:
    """Takes hold of the cached blocks that the last `lookup`, of this very slot, found."""
    rep = reps_of(w)[r]
    s = slots_of(w)[slot]
    state = state_of(w)
    for i in range(hits - own):
        b = found_of(w)[i]
        if blocks_of(w)[b].refs == 0:
            _lru_remove(w, r, b)
            rep.free -= 1
        blocks_of(w)[b].refs += 1
        _hold(w, slot, b, state)
    if own > 0:
        rep.free -= own
        run = s.run
        blocks_of(w)[run].count -= own
        if blocks_of(w)[run].count == 0:
            _forget_run(w, r, run)
    disown_run(w, slot)
    s.blocks = hits


@inlined
def cache_full(w: World, r: int, slot: int, tokens: int, block_size: int) -> None:
    """Makes the slot's full blocks among its first ``tokens`` tokens findable, as far as others can ask for them."""
    s = slots_of(w)[slot]
    full = whole_blocks(tokens, block_size)
    end = (s.n_refs + 1) * block_size
    seg = s.segs
    while s.n_refs < full:
        if end <= s.seg_tokens:
            while segs_of(w)[seg].end < end:
                seg = segs_of(w)[seg].next
            key = join_key(segs_of(w)[seg].key, end)
        elif s.tail_shared == 1:
            key = join_key(s.tail, end)
        else:
            break
        _cache_block(w, r, slot, key)
        end += block_size


@inlined
def release(w: World, r: int, slot: int, tokens: int, block_size: int, caching: int, keep: int) -> None:
    """Frees all of the slot's blocks, deepest first; ``tokens`` of them are computed.

    With ``keep`` the slot may come back (preemption, retry) and owns what its unique blocks leave in the cache.
    """
    rep = reps_of(w)[r]
    s = slots_of(w)[slot]
    held = s.blocks
    s.blocks = 0
    if caching == 0:
        rep.free += held
        rep.plain += held
        return
    if s.tail_shared == 1:
        cache_full(w, r, slot, tokens, block_size)
    full = whole_blocks(tokens, block_size)
    partial = held - max(full, s.n_refs)
    rep.free += partial
    rep.plain += partial
    unique = full - s.n_refs
    if unique > 0:
        if keep == 1:
            disown_run(w, slot)
            s.run = _append_run(w, r, unique, slot)
            s.run_rep = r
        else:
            _append_run(w, r, unique, NONE)
    state = state_of(w)
    ref = s.refs
    while ref != NONE:
        b = refs_of(w)[ref].block
        blocks_of(w)[b].refs -= 1
        if blocks_of(w)[b].refs == 0:
            rep.free += 1
            _lru_append(w, r, b)
        after = refs_of(w)[ref].next
        refs_of(w)[ref].next = state.free_ref
        state.free_ref = ref
        ref = after
    s.refs = NONE
    s.n_refs = 0


@kernel
def clear(w: World, r: int) -> None:
    """Forgets all cached content of a replica whose slots hold nothing any more (it failed or stopped)."""
    rep = reps_of(w)[r]
    e = rep.lru_head
    while e != NONE:
        after = blocks_of(w)[e].next
        if e >= rep.run_at:
            _forget_run(w, r, e)
        else:
            _lru_remove(w, r, e)
            _unhash(w, r, e)
        e = after
    rep.plain = rep.free
