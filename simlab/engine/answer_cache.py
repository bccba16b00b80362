"""Caches of answers: the same question, asked again by whom its answer is meant for, gets the same answer.

The cache of results (of classes whose answers never change) and the exact cache are one law with two settings. What a
hit saves is what the request would have cost at the backend its route draws for it: the same draw that decides in a run
without the cache, so the two can be compared request by request.
"""

from __future__ import annotations

import numpy as np

from simlab.draws.counter import key, uniform
from simlab.draws.kernel import kernel
from simlab.engine.arrays import (
    API,
    EXACT,
    FOR_USER,
    LAYERS,
    NONE,
    RESULTS,
    SAME_CORPUS,
    SAME_MODEL,
    SAME_PROMPT,
    SAME_TENANT,
    SAME_USER,
    SEMANTIC,
)
from simlab.engine.meters import api_usd
from simlab.engine.prompt_cache import readable
from simlab.engine.routing import choose
from simlab.engine.stores import fresh, put
from simlab.engine.world import (
    World,
    backends_of,
    classes_of,
    entries_of,
    policies_of,
    savings_of,
    slots_of,
    state_of,
    stores_of,
    tables_of,
    tickets_of,
)


@kernel
def user_of(w: World, slot: int) -> int:
    """Which user of the task's tenant asks: the one of a closed loop, else one drawn, once for a conversation."""
    s = slots_of(w)[slot]
    cls = classes_of(w)[s.cls]
    if cls.users > 0:
        return int(s.session)
    owner = s.task
    if s.session != NONE:
        owner = key(key(state_of(w).seed, cls.stream), s.session)
    return int(uniform(key(owner, FOR_USER)) * policies_of(w)[s.cls].tenant_users)


@kernel
def answer_key(w: World, slot: int, layer: int) -> np.uint64:
    """What the answer to the task is kept under: its class, its question, and all that must be the same."""
    s = slots_of(w)[slot]
    cls = classes_of(w)[s.cls]
    scope = stores_of(w)[layer].scope
    k = key(key(layer, s.cls), tickets_of(w)[slot].query)
    if scope & (SAME_TENANT | SAME_USER):
        k = key(k, s.tenant)
    if scope & SAME_USER:
        k = key(k, user_of(w, slot))
    if scope & SAME_PROMPT:
        k = key(k, cls.prompt_version)
    if scope & SAME_MODEL:
        k = key(k, cls.model_version)
    if scope & SAME_CORPUS:
        k = key(k, cls.corpus_version)
    return k


@kernel
def kept_s(w: World, slot: int, layer: int) -> float:
    """How long an answer to a task of this class keeps in a layer, s."""
    return float(tables_of(w)[stores_of(w)[layer].ttl_at + slots_of(w)[slot].cls])


@kernel
def look_up(w: World, slot: int, layer: int, t: float) -> bool:
    """Whether the results' or the exact cache has the answer; if not, it will be kept there."""
    ticket = tickets_of(w)[slot]
    k = answer_key(w, slot, layer)
    count_lookup(w, slot, layer)
    e = fresh(w, layer, k, t, kept_s(w, slot, layer))
    if e != NONE:
        serve(w, slot, layer, entries_of(w)[e].wrong, entries_of(w)[e].tokens)
        return True
    ticket.delay_s += stores_of(w)[layer].miss_s
    if layer == RESULTS:
        ticket.results_key = k
    else:
        ticket.exact_key = k
    return False


@kernel
def count_lookup(w: World, slot: int, layer: int) -> None:
    """Books that a layer was asked."""
    s = slots_of(w)[slot]
    savings_of(w)[(classes_of(w)[s.cls].tenant_base + s.tenant) * LAYERS + layer].lookups += 1


@kernel
def serve(w: World, slot: int, layer: int, wrong: int, tokens: int) -> None:
    """The task's next attempt is the cache, with an answer of ``tokens``; books what that saves."""
    s = slots_of(w)[slot]
    ticket = tickets_of(w)[slot]
    saved = savings_of(w)[(classes_of(w)[s.cls].tenant_base + s.tenant) * LAYERS + layer]
    saved.hits += 1
    saved.wrong += wrong
    saved.prompt_tokens += s.prompt
    saved.output_tokens += s.output
    saved.usd += cost_without(w, slot)
    ticket.hit = layer + 1
    ticket.wrong = wrong
    ticket.force = stores_of(w)[layer].backend
    ticket.results_key = 0
    ticket.exact_key = 0
    ticket.semantic_key = 0
    s.output = tokens


@kernel
def cost_without(w: World, slot: int) -> float:
    """What the task's first attempt would cost at the backend its route draws, USD.

    At an API with what its prompt cache holds now; on a replica with prefix caching its shared beginning is taken as
    cached. Nothing is asked, booked or remembered.
    """
    s = slots_of(w)[slot]
    b = choose(w, slot)
    be = backends_of(w)[b]
    s.backend = b
    if be.kind == API:
        s.written = 0
        s.cached = int(be.cached_ratio * s.seg_tokens)
        if be.prompt_store != NONE:
            s.cached = readable(w, slot, b)
        return float(api_usd(w, slot, s.output))
    computed = s.prompt - (s.seg_tokens + s.history if be.caching == 1 else 0)
    context = s.output * (s.prompt + 0.5 * (s.output + 1))
    work_s = computed * be.work_prefill_s + s.output * be.work_decode_s + context * be.decode_context_s
    return float(work_s * be.usd_work_s)


@kernel
def keep_answer(w: World, slot: int, t: float) -> None:
    """Keeps the answer of a task where it was looked for in vain, right or wrong; but not what everybody is told."""
    ticket = tickets_of(w)[slot]
    if backends_of(w)[slots_of(w)[slot].backend].canned == 1:
        return
    for layer in range(LAYERS):
        k = ticket.results_key
        if layer == EXACT:
            k = ticket.exact_key
        elif layer == SEMANTIC:
            k = ticket.semantic_key
        if k != 0:
            e = put(w, layer, k, t)
            entries_of(w)[e].wrong = ticket.wrong
            entries_of(w)[e].tokens = slots_of(w)[slot].output
