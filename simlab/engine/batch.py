"""Batch endpoints: requests are handed in together and wait for room in the provider's queue.

A batch begins with the first request that comes and is handed in when it has collected long enough, or is full. Each of
its requests is done by itself, after a time of its own, or expires at the end of the window that begins when it is
handed in (`simlab.engine.endpoint.take_up`). What is above the provider's limits on what it holds waits at the gateway,
first come first served.
"""

from __future__ import annotations

from simlab.draws.kernel import kernel
from simlab.engine.arrays import FORMING, NONE, OK, QUEUED_API, T_BATCH
from simlab.engine.endpoint import take_up
from simlab.engine.heaps import push_timer
from simlab.engine.world import World, backends_of, slots_of


@kernel
def join(w: World, slot: int, b: int, t: float) -> None:
    """The request, last in the endpoint's queue, joins the batch that is forming."""
    be = backends_of(w)[b]
    slots_of(w)[slot].sched = FORMING
    be.forming += 1
    if be.collect_s <= 0.0 or be.forming >= be.batch_requests:
        hand_in(w, slot, t)
        return
    if be.forming == 1:
        be.leaves_s = t + be.collect_s
    push_timer(w, be.leaves_s, slot, T_BATCH)


@kernel
def hand_in(w: World, slot: int, t: float) -> None:
    """The batch that the request is in has collected long enough, unless it was handed in before."""
    s = slots_of(w)[slot]
    if s.state != QUEUED_API or s.sched != FORMING:
        return
    be = backends_of(w)[s.backend]
    be.forming = 0
    last = be.queue_tail
    while last != NONE and slots_of(w)[last].sched == FORMING:
        slots_of(w)[last].sched = OK
        last = slots_of(w)[last].prev
    fill_queue(w, s.backend, 0, t)


@kernel
def fill_queue(w: World, b: int, left: int, t: float) -> None:
    """A request with ``left`` prompt tokens has left the provider's queue: it takes what has room there now."""
    be = backends_of(w)[b]
    be.queued_tokens -= left
    while be.queue_head != NONE:
        slot = be.queue_head
        s = slots_of(w)[slot]
        if s.sched == FORMING or (be.concurrency > 0 and be.in_flight >= be.concurrency):
            return
        if be.max_queued_tokens > 0 and be.in_flight > 0 and be.queued_tokens + s.prompt > be.max_queued_tokens:
            return
        be.queued -= 1
        be.queue_head = s.next
        if be.queue_head == NONE:
            be.queue_tail = NONE
        else:
            slots_of(w)[be.queue_head].prev = NONE
        be.queued_tokens += s.prompt
        take_up(w, b, slot, t)
