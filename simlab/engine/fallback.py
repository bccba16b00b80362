"""Fallbacks: another backend when one has failed for good; and streams that go on where they broke off."""

from __future__ import annotations

from simlab.draws.kernel import kernel
from simlab.engine.arrays import BACKOFF, FALLBACK, T_RETRY
from simlab.engine.heaps import push_timer
from simlab.engine.world import World, backends_of, slots_of, tickets_of


@kernel
def fall_back(w: World, slot: int, t: float) -> None:
    """Asks the backend that stands in for the one that failed; it has all its retries again."""
    s = slots_of(w)[slot]
    ticket = tickets_of(w)[slot]
    ticket.force = backends_of(w)[s.backend].fallback
    ticket.came = FALLBACK
    ticket.retries = 0
    ticket.tries += 1
    s.attempt = ticket.tries
    s.reason = FALLBACK
    s.state = BACKOFF
    push_timer(w, t, slot, T_RETRY)


@kernel
def resume(w: World, slot: int, streamed: int) -> None:
    """The next attempt continues the answer: what was streamed is part of its prompt."""
    s = slots_of(w)[slot]
    ticket = tickets_of(w)[slot]
    if ticket.resumed == 0:
        ticket.first_s = s.first_s
        ticket.queue_s += s.served_s - s.started_s
        ticket.model_s += s.first_s - s.served_s
        ticket.streamed_queued_s = ticket.queued_s
    ticket.resumed += streamed
    s.prompt += streamed
    s.output -= streamed


@kernel
def whole_again(w: World, slot: int) -> None:
    """The request as the user sees it: one prompt, one answer, whose first token came when it came."""
    s = slots_of(w)[slot]
    ticket = tickets_of(w)[slot]
    if ticket.resumed > 0:
        s.prompt -= ticket.resumed
        s.output += ticket.resumed
        s.first_s = ticket.first_s
        ticket.resumed = 0
