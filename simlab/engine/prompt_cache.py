"""A provider's prompt cache: what a prompt begins with is read at a discount if it was sent a short while ago.

Kept are the shared segments that begin prompts and, in conversations, everything said so far. Tokens count in whole
blocks, and not at all below a minimum. A use makes a beginning new again; the first one writes it. A beginning can be
read from the moment its request is sent on, and reading it takes no time to the first token.
"""

from __future__ import annotations

import numpy as np

from simlab.draws.counter import key
from simlab.draws.kernel import kernel
from simlab.engine.arrays import NONE
from simlab.engine.stores import find, fresh, put
from simlab.engine.world import (
    World,
    backends_of,
    classes_of,
    entries_of,
    segs_of,
    slots_of,
    state_of,
    stores_of,
)

_CONVERSATION = 1 << 61
"""Names what a conversation has said so far; no segment has this number."""


@kernel
def _kept_under(w: World, store: int, slot: int, k: int | np.uint64) -> np.uint64:
    """The key of a beginning in a store; tenants with accounts of their own do not share."""
    k = key(key(store, k), 0)
    if stores_of(w)[store].by_tenant == 1:
        s = slots_of(w)[slot]
        k = key(key(k, s.cls), s.tenant)
    return k


@kernel
def _whole(w: World, store: int, tokens: int) -> int:
    """So many of the tokens that begin a prompt are cached: whole blocks, none below the minimum."""
    st = stores_of(w)[store]
    tokens -= tokens % st.block
    return int(tokens) if tokens >= st.min_tokens else 0


@kernel
def readable(w: World, slot: int, b: int) -> int:
    """Tokens of the prompt that backend ``b``'s cache holds now; nothing is touched."""
    store = backends_of(w)[b].prompt_store
    s = slots_of(w)[slot]
    st = stores_of(w)[store]
    best = 0
    seg = s.segs
    while seg != NONE:
        e = find(w, _kept_under(w, store, slot, segs_of(w)[seg].key))
        if e != NONE and state_of(w).now - entries_of(w)[e].stored_s < st.ttl_s:
            best = _whole(w, store, segs_of(w)[seg].end)
        seg = segs_of(w)[seg].next
    if st.history == 1 and classes_of(w)[s.cls].grows == 1:
        e = find(w, _kept_under(w, store, slot, key(s.tail, _CONVERSATION)))
        if e != NONE and state_of(w).now - entries_of(w)[e].stored_s < st.ttl_s:
            best = max(best, _whole(w, store, min(entries_of(w)[e].tokens, s.prompt)))
    return best


@kernel
def use(w: World, slot: int, b: int, t: float) -> None:
    """Sets what the attempt reads from and writes to backend ``b``'s prompt cache, and keeps its beginnings."""
    store = backends_of(w)[b].prompt_store
    s = slots_of(w)[slot]
    st = stores_of(w)[store]
    read = 0
    end = 0
    seg = s.segs
    while seg != NONE:
        tokens = _whole(w, store, segs_of(w)[seg].end)
        if tokens > 0:
            k = _kept_under(w, store, slot, segs_of(w)[seg].key)
            if fresh(w, store, k, t, st.ttl_s) != NONE:
                read = tokens
            else:
                put(w, store, k, t)
            end = tokens
        seg = segs_of(w)[seg].next
    if st.history == 1 and classes_of(w)[s.cls].grows == 1:
        tokens = _whole(w, store, s.prompt)
        if tokens > 0:
            k = _kept_under(w, store, slot, key(s.tail, _CONVERSATION))
            e = fresh(w, store, k, t, st.ttl_s)
            if e != NONE:
                read = max(read, _whole(w, store, min(entries_of(w)[e].tokens, s.prompt)))
            else:
                e = put(w, store, k, t)
            entries_of(w)[e].tokens = s.prompt
            end = tokens
    s.cached = read
    s.written = max(0, end - read)
