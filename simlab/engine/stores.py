"""Stores: what was answered or read before, found by a hash and kept in order of use, the oldest forgotten first.

All stores share one array of entries and one table of hash heads; a key names its store, too. Both grow together: with
as many heads as entries a lookup reads two of them on average.
"""

from __future__ import annotations

import numpy as np

from simlab.draws.kernel import inlined, kernel
from simlab.engine.arrays import NONE
from simlab.engine.world import World, entries_of, entry_heads_of, state_of, stores_of

Key = int | np.uint64


@inlined
def _head(w: World, k: Key) -> int:
    """Where the chain of a key begins."""
    return int(np.uint64(k) & np.uint64(len(entry_heads_of(w)) - 1))


@kernel
def find(w: World, k: Key) -> int:
    """The entry under a key, however old; NONE if there is none."""
    e = entry_heads_of(w)[_head(w, k)]
    while e != NONE and entries_of(w)[e].key != np.uint64(k):
        e = entries_of(w)[e].chain
    return int(e)


@kernel
def fresh(w: World, store: int, k: Key, t: float, ttl_s: float) -> int:
    """The entry under a key if it is younger than ``ttl_s``; one that is not is forgotten. NONE if there is none.

    One that is found is the newest in use.
    """
    e = find(w, k)
    if e == NONE:
        return NONE
    if t - entries_of(w)[e].stored_s >= ttl_s:
        _forget(w, store, e)
        return NONE
    if stores_of(w)[store].refresh == 1:
        entries_of(w)[e].stored_s = t
    if stores_of(w)[store].newest != e:
        _unlink(w, store, e)
        _link(w, store, e)
    return e


@kernel
def put(w: World, store: int, k: Key, t: float) -> int:
    """The entry under a key, as new at ``t`` and the newest in use; made if there is none, in place of the oldest."""
    st = stores_of(w)[store]
    e = find(w, k)
    if e != NONE:
        _unlink(w, store, e)
    else:
        while st.oldest != NONE and t - entries_of(w)[st.oldest].stored_s >= st.ttl_s:
            _forget(w, store, st.oldest)
        if st.capacity > 0 and st.size >= st.capacity:
            _forget(w, store, st.oldest)
        e = _take(w)
        entry = entries_of(w)[e]
        entry.key = k
        entry.store = store
        head = _head(w, k)
        entry.chain = entry_heads_of(w)[head]
        entry_heads_of(w)[head] = e
        st.size += 1
    entries_of(w)[e].stored_s = t
    _link(w, store, e)
    return e


@inlined
def _take(w: World) -> int:
    """A record for an entry; the loop has made sure that there is one."""
    state = state_of(w)
    e = state.free_entry
    if e != NONE:
        state.free_entry = entries_of(w)[e].chain
        state.spare_entries -= 1
    else:
        e = state.n_entries
        state.n_entries += 1
    return int(e)


@kernel
def _forget(w: World, store: int, e: int) -> None:
    """Removes an entry."""
    state = state_of(w)
    entry = entries_of(w)[e]
    head = _head(w, entry.key)
    before = entry_heads_of(w)[head]
    if before == e:
        entry_heads_of(w)[head] = entry.chain
    else:
        while entries_of(w)[before].chain != e:
            before = entries_of(w)[before].chain
        entries_of(w)[before].chain = entry.chain
    _unlink(w, store, e)
    stores_of(w)[store].size -= 1
    entry.store = NONE
    entry.chain = state.free_entry
    state.free_entry = e
    state.spare_entries += 1


@inlined
def _link(w: World, store: int, e: int) -> None:
    """Puts an entry at the newest end of its store."""
    st = stores_of(w)[store]
    entry = entries_of(w)[e]
    entry.newer = NONE
    entry.older = st.newest
    if st.newest == NONE:
        st.oldest = e
    else:
        entries_of(w)[st.newest].newer = e
    st.newest = e


@inlined
def _unlink(w: World, store: int, e: int) -> None:
    """Takes an entry out of its store's order of use."""
    st = stores_of(w)[store]
    entry = entries_of(w)[e]
    if entry.newer == NONE:
        st.newest = entry.older
    else:
        entries_of(w)[entry.newer].older = entry.older
    if entry.older == NONE:
        st.oldest = entry.newer
    else:
        entries_of(w)[entry.older].newer = entry.newer


@kernel
def rehash(w: World) -> None:
    """Enters all entries in a table of hash heads that is empty."""
    for e in range(state_of(w).n_entries):
        entry = entries_of(w)[e]
        if entry.store != NONE:
            head = _head(w, entry.key)
            entry.chain = entry_heads_of(w)[head]
            entry_heads_of(w)[head] = e
