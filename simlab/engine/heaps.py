"""Three binary heaps: timers, the next finish of each replica, and the next event of all replicas."""

from __future__ import annotations

from simlab.draws.kernel import inlined
from simlab.engine.arrays import NONE, T_ATTEMPTS
from simlab.engine.world import World, finish_of, rep_heap_of, reps_of, slots_of, state_of, timers_of


@inlined
def push_timer(w: World, t: float, slot: int, kind: int) -> None:
    """Sets a timer for a slot; it is stale once the attempt (or, by its kind, the task) is over."""
    state = state_of(w)
    timers = timers_of(w)
    i = state.n_timers
    state.n_timers += 1
    while i > 0:
        parent = (i - 1) >> 1
        if timers[parent].t <= t:
            break
        timers[i] = timers[parent]
        i = parent
    timer = timers[i]
    timer.t = t
    timer.slot = slot
    timer.gen = slots_of(w)[slot].gen if kind < T_ATTEMPTS else slots_of(w)[slot].life
    timer.kind = kind


@inlined
def pop_timer(w: World) -> None:
    """Removes the earliest timer."""
    state = state_of(w)
    timers = timers_of(w)
    state.n_timers -= 1
    n = state.n_timers
    if n == 0:
        return
    t = timers[n].t
    i = 0
    while True:
        child = 2 * i + 1
        if child >= n:
            break
        if child + 1 < n and timers[child + 1].t < timers[child].t:
            child += 1
        if timers[child].t >= t:
            break
        timers[i] = timers[child]
        i = child
    timers[i] = timers[n]


@inlined
def _sift_finish(w: World, r: int, i: int, n: int) -> None:
    """Puts the entry at ``i`` of replica ``r``'s finish heap where it belongs, up or down."""
    heap = finish_of(w)[r]
    key = heap[i].key
    slot = heap[i].slot
    while i > 0:
        parent = (i - 1) >> 1
        if heap[parent].key <= key:
            break
        heap[i] = heap[parent]
        slots_of(w)[heap[i].slot].heap_pos = i
        i = parent
    while True:
        child = 2 * i + 1
        if child >= n:
            break
        if child + 1 < n and heap[child + 1].key < heap[child].key:
            child += 1
        if heap[child].key >= key:
            break
        heap[i] = heap[child]
        slots_of(w)[heap[i].slot].heap_pos = i
        i = child
    heap[i].key = key
    heap[i].slot = slot
    slots_of(w)[slot].heap_pos = i


@inlined
def push_finish(w: World, r: int, slot: int, key: int) -> None:
    """Enters a decoding sequence with the decode step it finishes at (and its admission number, for order) as key."""
    rep = reps_of(w)[r]
    n = rep.heap_n
    rep.heap_n = n + 1
    finish_of(w)[r, n].key = key
    finish_of(w)[r, n].slot = slot
    _sift_finish(w, r, n, n + 1)


@inlined
def remove_finish(w: World, r: int, slot: int) -> None:
    """Takes a decoding sequence out of its replica's finish heap."""
    rep = reps_of(w)[r]
    i = slots_of(w)[slot].heap_pos
    n = rep.heap_n - 1
    rep.heap_n = n
    slots_of(w)[slot].heap_pos = NONE
    if i < n:
        finish_of(w)[r, i] = finish_of(w)[r, n]
        _sift_finish(w, r, i, n)


@inlined
def set_event(w: World, r: int, t: float) -> None:
    """Moves the next event of replica ``r`` to time ``t``."""
    reps = reps_of(w)
    heap = rep_heap_of(w)
    reps[r].t_event = t
    n = state_of(w).n_reps
    i = reps[r].hpos
    while i > 0:
        parent = (i - 1) >> 1
        if reps[heap[parent]].t_event <= t:
            break
        heap[i] = heap[parent]
        reps[heap[i]].hpos = i
        i = parent
    while True:
        child = 2 * i + 1
        if child >= n:
            break
        if child + 1 < n and reps[heap[child + 1]].t_event < reps[heap[child]].t_event:
            child += 1
        if reps[heap[child]].t_event >= t:
            break
        heap[i] = heap[child]
        reps[heap[i]].hpos = i
        i = child
    heap[i] = r
    reps[r].hpos = i
