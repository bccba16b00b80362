"""Which replica of a pool gets a request: one small function a policy."""

from __future__ import annotations

from simlab.draws.counter import key, uniform
from simlab.draws.kernel import inlined, kernel
from simlab.engine.arrays import (
    FOR_DISPATCH,
    LEAST_KV,
    LEAST_OUTSTANDING,
    NONE,
    PREFIX_AFFINITY,
    ROUND_ROBIN,
    UP,
)
from simlab.engine.kvcache import lookup
from simlab.engine.world import World, backends_of, reps_of, slots_of


@kernel
def _count_up(w: World, b: int) -> int:
    n = 0
    r = backends_of(w)[b].rep_head
    while r != NONE:
        if reps_of(w)[r].state == UP:
            n += 1
        r = reps_of(w)[r].next_rep
    return n


@kernel
def _nth_up(w: World, b: int, n: int) -> int:
    r = backends_of(w)[b].rep_head
    while r != NONE:
        if reps_of(w)[r].state == UP:
            if n == 0:
                return r
            n -= 1
        r = reps_of(w)[r].next_rep
    return NONE


@inlined
def _least_outstanding(w: World, b: int) -> int:
    """Fewest requests waiting and running; the earliest replica among equals."""
    best = NONE
    least = 0
    r = backends_of(w)[b].rep_head
    while r != NONE:
        rep = reps_of(w)[r]
        if rep.state == UP:
            load = rep.n_waiting + rep.n_running
            if best == NONE or load < least:
                best = r
                least = load
        r = rep.next_rep
    return best


@kernel
def _least_kv(w: World, b: int) -> int:
    """Fewest KV blocks held or asked for by waiting prompts; the fewest requests among equals."""
    best = NONE
    least = 0
    r = backends_of(w)[b].rep_head
    while r != NONE:
        rep = reps_of(w)[r]
        if rep.state == UP:
            load = backends_of(w)[b].kv_blocks - 1 - rep.free
            slot = rep.wait_head
            while slot != NONE:
                load += slots_of(w)[slot].target // backends_of(w)[b].block_size + 1
                slot = slots_of(w)[slot].next
            load = load * 65536 + rep.n_waiting + rep.n_running
            if best == NONE or load < least:
                best = r
                least = load
        r = rep.next_rep
    return best


@kernel
def _prefix_affinity(w: World, b: int, slot: int) -> int:
    """The replica that has most of the prompt cached, unless it is far busier than the least busy one.

    Far busier is more than twice the least plus four outstanding requests; the fewest outstanding among equals.
    """
    quiet = _least_outstanding(w, b)
    if quiet == NONE:
        return NONE
    block_size = backends_of(w)[b].block_size
    ceiling = 2 * (reps_of(w)[quiet].n_waiting + reps_of(w)[quiet].n_running) + 4
    best = quiet
    most = lookup(w, quiet, slot, block_size)[0]
    least = reps_of(w)[quiet].n_waiting + reps_of(w)[quiet].n_running
    r = backends_of(w)[b].rep_head
    while r != NONE:
        rep = reps_of(w)[r]
        load = rep.n_waiting + rep.n_running
        if rep.state == UP and load <= ceiling and r != best:
            hits = lookup(w, r, slot, block_size)[0]
            if hits > most or (hits == most and load < least):
                best = r
                most = hits
                least = load
        r = rep.next_rep
    return best


@inlined
def choose_replica(w: World, b: int, slot: int) -> int:
    """The replica that pool ``b``'s policy gives the request, or NONE when none is up."""
    be = backends_of(w)[b]
    policy = be.dispatch
    if policy == LEAST_OUTSTANDING:
        return _least_outstanding(w, b)
    if policy == LEAST_KV:
        return _least_kv(w, b)
    if policy == PREFIX_AFFINITY and be.caching == 1:
        return _prefix_affinity(w, b, slot)
    if policy == PREFIX_AFFINITY:
        return _least_outstanding(w, b)
    n = _count_up(w, b)
    if n == 0:
        return NONE
    if policy == ROUND_ROBIN:
        be.rr += 1
        return _nth_up(w, b, (be.rr - 1) % n)
    s = slots_of(w)[slot]
    u = uniform(key(s.task, FOR_DISPATCH + 64 * s.attempt))
    return _nth_up(w, b, int(u * n))
