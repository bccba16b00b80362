"""Tasks: what a request is made of when it arrives, and what its user does when it is answered."""

from __future__ import annotations

import numpy as np

from simlab.draws.counter import key, uniform
from simlab.draws.distribution import draw
from simlab.draws.kernel import inlined, kernel
from simlab.engine.arrays import (
    FIRST,
    FOR_DOCUMENT,
    FOR_OUTPUT,
    FOR_PROMPT,
    FOR_TENANT,
    FOR_THINK,
    FOR_TURNS,
    FREE,
    NONE,
    T_NEXT,
    THINKING,
    TIME_EPS_S,
)
from simlab.engine.heaps import push_timer
from simlab.engine.kvcache import disown_run
from simlab.engine.world import (
    World,
    classes_of,
    dists_of,
    feed_len_of,
    feed_ptr_of,
    feed_seg_of,
    feed_t_of,
    gateway_of,
    joint_of,
    segs_of,
    slots_of,
    state_of,
    tables_of,
    tasks_of,
    tenants_of,
)

Key = int | np.uint64

_BREATH_S = 1e-3
"""Least time between a refusal and the next request of the same user, where no backoff is longer."""

_ANSWER = 1 << 62
"""Names the continuation of a prompt in block keys: no segment has this many tokens, so no segment has its key."""


@inlined
def draw_alias(w: World, at: int, n: int, u: float) -> int:
    """One of n items by an alias table (Walker 1977) of (threshold, alias) pairs at ``at``."""
    x = u * n
    i = min(int(x), n - 1)
    if x - i < tables_of(w)[at + 2 * i]:
        return i
    return int(tables_of(w)[at + 2 * i + 1])


@inlined
def new_slot(w: World, c: int) -> int:
    """Takes a slot for a task of class ``c``; the loop has made sure that there is one."""
    state = state_of(w)
    slot = state.free_slot
    if slot != NONE:
        state.free_slot = slots_of(w)[slot].next
    else:
        slot = state.n_slots
        state.n_slots += 1
    s = slots_of(w)[slot]
    s.cls = c
    s.segs = NONE
    s.seg_tokens = 0
    s.refs = NONE
    s.n_refs = 0
    s.run = NONE
    s.heap_pos = NONE
    s.link = 0
    s.session = NONE
    s.turn = 0
    s.turns = 1
    s.history = 0
    s.tail_shared = 0
    s.prio = classes_of(w)[c].prio
    return slot


@kernel
def drop_segments(w: World, slot: int) -> None:
    """Gives the prompt's segments back."""
    state = state_of(w)
    s = slots_of(w)[slot]
    while s.segs != NONE:
        after = segs_of(w)[s.segs].next
        segs_of(w)[s.segs].next = state.free_seg
        state.free_seg = s.segs
        state.spare_segs += 1
        s.segs = after
    s.seg_tokens = 0


@inlined
def new_segment(w: World) -> int:
    """Takes a segment record; the loop has made sure that there is one."""
    state = state_of(w)
    seg = state.free_seg
    if seg != NONE:
        state.free_seg = segs_of(w)[seg].next
        state.spare_segs -= 1
    else:
        seg = state.n_segs
        state.n_segs += 1
    return int(seg)


@kernel
def _add_segment(w: World, slot: int, last: int, chain: Key, ident: Key, tokens: int) -> tuple[int, Key]:
    """Appends a segment behind ``last``; returns (its record, the chain's key after it)."""
    s = slots_of(w)[slot]
    seg = new_segment(w)
    s.seg_tokens += tokens
    segs_of(w)[seg].key = key(chain, ident)
    segs_of(w)[seg].end = s.seg_tokens
    segs_of(w)[seg].next = NONE
    if last == NONE:
        s.segs = seg
    else:
        segs_of(w)[last].next = seg
    return seg, key(segs_of(w)[seg].key, tokens)


@inlined
def _compose(w: World, slot: int) -> None:
    """Draws the content of a generated request: tenant, lengths, shared segments."""
    s = slots_of(w)[slot]
    cls = classes_of(w)[s.cls]
    if cls.joint_n > 0:
        i = cls.joint_at + min(int(uniform(key(s.task, FOR_PROMPT)) * cls.joint_n), cls.joint_n - 1)
        s.prompt = joint_of(w)[i, 0]
        s.output = joint_of(w)[i, 1]
    else:
        s.prompt = max(1, int(draw(dists_of(w), tables_of(w), cls.prompt, uniform(key(s.task, FOR_PROMPT))) + 0.5))
        s.output = max(1, int(draw(dists_of(w), tables_of(w), cls.output, uniform(key(s.task, FOR_OUTPUT))) + 0.5))
    if cls.segmented == 1 and (s.turn == 0 or cls.users > 0):
        drop_segments(w, slot)
        last = NONE
        chain: Key = key(cls.content, 0)
        if cls.system_tokens > 0:
            last, chain = _add_segment(w, slot, last, chain, cls.system_id, cls.system_tokens)
        if cls.documents > 0:
            document = draw_alias(w, cls.document_alias_at, cls.documents, uniform(key(s.task, FOR_DOCUMENT)))
            ident = key(cls.system_id, document + 1)
            last, chain = _add_segment(w, slot, last, chain, ident, cls.document_tokens)
        if cls.grows == 1:
            s.tail = key(chain, s.task)
            s.tail_shared = 1
    s.prompt += s.seg_tokens + s.history


@kernel
def _copy_segments(w: World, slot: int, c: int, i: int) -> None:
    """Takes over the segments of a trace's request; a prompt that is all segments has a shared continuation."""
    s = slots_of(w)[slot]
    last = NONE
    chain: Key = key(classes_of(w)[c].content, 0)
    for j in range(feed_ptr_of(w)[c, i], feed_ptr_of(w)[c, i + 1]):
        tokens = feed_seg_of(w)[c, j, 1]
        if tokens > 0:
            last, chain = _add_segment(w, slot, last, chain, feed_seg_of(w)[c, j, 0], tokens)
    if s.seg_tokens > 0 and s.seg_tokens >= s.prompt:
        s.tail = key(key(chain, 0), _ANSWER)
        s.tail_shared = 1


@inlined
def arrive(w: World, c: int, t: float) -> int:
    """Makes the next task of class ``c``'s feed; returns its slot."""
    slot = new_slot(w, c)
    _take_next(w, slot, c, t)
    return slot


@inlined
def _take_next(w: World, slot: int, c: int, t: float) -> None:
    """Fills the slot with the next task of class ``c``'s feed, which reaches the gateway."""
    state = state_of(w)
    cls = classes_of(w)[c]
    s = slots_of(w)[slot]
    s.seq = cls.seq
    s.task = key(key(state.seed, cls.stream), cls.arrivals)
    if cls.explicit == 1:
        s.prompt = max(1, feed_len_of(w)[c, cls.feed_at, 0])
        s.output = max(1, feed_len_of(w)[c, cls.feed_at, 1])
        if cls.segmented == 1:
            _copy_segments(w, slot, c, cls.feed_at)
    else:
        if cls.turns != NONE:
            s.session = cls.arrivals
            s.turns = max(1, int(draw(dists_of(w), tables_of(w), cls.turns, uniform(key(s.task, FOR_TURNS))) + 0.5))
        _compose(w, slot)
    s.tenant = draw_alias(w, cls.tenant_alias_at, cls.tenants, uniform(key(s.task, FOR_TENANT)))
    cls.seq += 1
    cls.arrivals += 1
    cls.feed_at += 1
    begin(w, slot, t)


@kernel
def take_turn(w: World, slot: int, t: float) -> bool:
    """A free user of a closed loop with a feed takes its next request, waits until that is due, or leaves for good.

    Returns:
        Whether a request reaches the gateway.
    """
    c = slots_of(w)[slot].cls
    cls = classes_of(w)[c]
    if cls.feed_at >= cls.feed_n:
        free_slot(w, slot)
        return False
    due = feed_t_of(w)[c, cls.feed_at]
    if due > t + TIME_EPS_S:
        push_timer(w, due, slot, T_NEXT)
        return False
    drop_segments(w, slot)
    slots_of(w)[slot].tail_shared = 0
    slots_of(w)[slot].session = NONE
    _take_next(w, slot, c, t)
    return True


@inlined
def begin(w: World, slot: int, t: float) -> None:
    """The composed task reaches the gateway."""
    state = state_of(w)
    s = slots_of(w)[slot]
    s.arrival_s = t
    s.attempt = 0
    s.reason = FIRST
    state.in_flight += 1
    if state.in_flight > state.peak_in_flight:
        state.peak_in_flight = state.in_flight
    tasks_of(w)[1, s.cls].arrived += 1
    if t >= state.warmup_s:
        tasks_of(w)[0, s.cls].arrived += 1
        tenants_of(w)[classes_of(w)[s.cls].tenant_base + s.tenant].arrived += 1


@kernel
def next_turn(w: World, slot: int, t: float) -> None:
    """A user who was thinking sends the next request of the session or of the closed loop."""
    state = state_of(w)
    s = slots_of(w)[slot]
    cls = classes_of(w)[s.cls]
    owner = key(key(state.seed, cls.stream), s.session)
    if cls.users > 0:
        s.turn += 1
        s.tenant = draw_alias(w, cls.tenant_alias_at, cls.tenants, uniform(key(owner, FOR_TENANT)))
    s.task = key(owner, s.turn)
    s.seq = cls.seq
    cls.seq += 1
    _compose(w, slot)
    begin(w, slot, t)


@kernel
def think(w: World, slot: int, t: float, least_s: float) -> None:
    """The user reads and thinks, ``least_s`` if that takes no time; the next request comes when the timer goes off."""
    s = slots_of(w)[slot]
    cls = classes_of(w)[s.cls]
    wait = 0.0
    if cls.think != NONE:
        wait = draw(dists_of(w), tables_of(w), cls.think, uniform(key(s.task, FOR_THINK)))
    if wait <= 0.0:
        wait = least_s
    s.state = THINKING
    s.gen += 1
    push_timer(w, t + wait, slot, T_NEXT)


@kernel
def free_slot(w: World, slot: int) -> None:
    """Nobody needs the slot any more."""
    state = state_of(w)
    s = slots_of(w)[slot]
    disown_run(w, slot)
    drop_segments(w, slot)
    s.state = FREE
    s.gen += 1
    s.life += 1
    s.next = state.free_slot
    state.free_slot = slot


@inlined
def leave(w: World, slot: int, t: float, success: bool) -> None:
    """The task is over: its user thinks on, or its slot is free again."""
    state = state_of(w)
    s = slots_of(w)[slot]
    cls = classes_of(w)[s.cls]
    state.in_flight -= 1
    disown_run(w, slot)
    s.life += 1
    if cls.users > 0:
        # Who is refused at once and asks again at once would stop the clock.
        refused = not success and t <= s.arrival_s + TIME_EPS_S
        think(w, slot, t, max(gateway_of(w).backoff_s, _BREATH_S) if refused else 0.0)
        return
    if success and s.turn + 1 < s.turns:
        history = s.prompt + s.output - s.seg_tokens
        if cls.max_context == 0 or history + s.seg_tokens < cls.max_context:
            s.turn += 1
            s.history = history
            think(w, slot, t, 0.0)
            return
    drop_segments(w, slot)
    s.state = FREE
    s.gen += 1
    s.next = state.free_slot
    state.free_slot = slot
