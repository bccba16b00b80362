"""Caps on one request: how long it may be, how often it may be tried, what it and its conversation may cost."""

from __future__ import annotations

from simlab.draws.counter import key
from simlab.draws.kernel import kernel
from simlab.engine.arrays import NONE
from simlab.engine.world import World, counters_of, policies_of, segs_of, slots_of, state_of, tickets_of


@kernel
def drop_history(w: World, slot: int, tokens: int) -> None:
    """Takes ``tokens`` out of what was said before: no cache knows the rest of the prompt any more."""
    s = slots_of(w)[slot]
    s.history -= tokens
    s.prompt -= tokens
    s.tail = key(key(s.tail, s.turn), tokens)


@kernel
def cut_prompt(w: World, slot: int, tokens: int) -> None:
    """Cuts a prompt: the oldest history goes first, then the end; a shared beginning that is cut is not shared."""
    s = slots_of(w)[slot]
    if s.history > 0:
        drop_history(w, slot, min(s.history, s.prompt - tokens))
    if s.prompt <= tokens:
        return
    s.prompt = tokens
    last = NONE
    seg = s.segs
    s.seg_tokens = 0
    while seg != NONE and segs_of(w)[seg].end <= tokens:
        s.seg_tokens = segs_of(w)[seg].end
        last = seg
        seg = segs_of(w)[seg].next
    if last == NONE:
        s.segs = NONE
    else:
        segs_of(w)[last].next = NONE
    while seg != NONE:
        after = segs_of(w)[seg].next
        segs_of(w)[seg].next = state_of(w).free_seg
        state_of(w).free_seg = seg
        state_of(w).spare_segs += 1
        seg = after


@kernel
def fits(w: World, slot: int) -> bool:
    """Cuts what may be cut; whether the request is within its caps now."""
    s = slots_of(w)[slot]
    p = policies_of(w)[s.cls]
    counters = counters_of(w)[s.cls]
    if tickets_of(w)[slot].session_usd >= p.max_session_usd:
        counters.over_session_usd += 1
        return False
    if s.prompt > p.max_prompt:
        if p.cut_prompt == 0:
            counters.long_prompts += 1
            return False
        counters.cut_prompts += 1
        cut_prompt(w, slot, p.max_prompt)
    if s.output > p.max_output:
        counters.cut_answers += 1
        s.output = p.max_output
    return True


@kernel
def may_go_on(w: World, slot: int) -> bool:
    """Whether the task may make another attempt, by what it has tried and cost so far."""
    s = slots_of(w)[slot]
    p = policies_of(w)[s.cls]
    if p.capped == 0:
        return True
    ticket = tickets_of(w)[slot]
    if ticket.tries - ticket.step >= p.max_tries:  # the calls of a loop are no retries
        counters_of(w)[s.cls].stopped_tries += 1
        return False
    return affordable(w, slot)


@kernel
def affordable(w: World, slot: int) -> bool:
    """Whether the task, and its conversation, may cost anything more."""
    s = slots_of(w)[slot]
    p = policies_of(w)[s.cls]
    ticket = tickets_of(w)[slot]
    if ticket.usd >= p.max_usd or ticket.session_usd + ticket.usd >= p.max_session_usd:
        counters_of(w)[s.cls].stopped_usd += 1
        return False
    return True


@kernel
def note_cost(w: World, slot: int) -> None:
    """The task is over: what it cost counts for its conversation."""
    s = slots_of(w)[slot]
    ticket = tickets_of(w)[slot]
    if policies_of(w)[s.cls].capped == 1 and ticket.usd > policies_of(w)[s.cls].max_usd:
        counters_of(w)[s.cls].over_usd += 1
    ticket.session_usd += ticket.usd
