"""What happens when somebody has waited long enough: for a first token, for an answer, or for both."""

from __future__ import annotations

from simlab.draws.kernel import kernel
from simlab.engine.arrays import (
    BACKOFF,
    CANCELLED,
    DUPLICATE,
    NONE,
    OK,
    ON_API,
    ORPHAN,
    QUEUED_API,
    RUNNING,
    T_PATIENCE,
    T_RETRY,
    WAITING,
)
from simlab.engine.calls import cancel, detach
from simlab.engine.fallback import whole_again
from simlab.engine.gateway import time_out
from simlab.engine.heaps import push_timer
from simlab.engine.meters import meter_lost
from simlab.engine.outcome import finish
from simlab.engine.world import World, gateway_of, policies_of, slots_of, tickets_of


@kernel
def late_first_token(w: World, slot: int, t: float) -> None:
    """The time-out of the first token: it acts only if that has not come, and somebody waits for it."""
    if slots_of(w)[slot].first_s > t and tickets_of(w)[slot].parent != ORPHAN:
        time_out(w, slot, t)


@kernel
def _calls(w: World, slot: int) -> bool:
    """Whether an attempt is under way."""
    state = slots_of(w)[slot].state
    return bool(state in (ON_API, QUEUED_API, WAITING, RUNNING))


@kernel
def past_deadline(w: World, slot: int, t: float) -> None:
    """Nobody waits for the task any more: its calls are given up, and nothing is tried again."""
    ticket = tickets_of(w)[slot]
    ticket.over = 1
    if ticket.kid != NONE:
        kid = ticket.kid
        ticket.kid = NONE
        cancel(w, kid, slot, t)
    if _calls(w, slot):
        if slots_of(w)[slot].aborting == 0:
            time_out(w, slot, t)
    else:
        if ticket.judging == 1:
            meter_lost(w, slot, OK, slots_of(w)[slot].output)
        finish(w, slot, t, False)


@kernel
def out_of_patience(w: World, slot: int, t: float) -> None:
    """The client sends its request again.

    With an idempotency key the gateway joins it to what is running already. Without, the client hangs up and a
    duplicate begins: the old attempt is stopped or, where hanging up does not reach the server, goes on and is paid.
    """
    s = slots_of(w)[slot]
    ticket = tickets_of(w)[slot]
    p = policies_of(w)[s.cls]
    if ticket.resends >= p.resends:
        return
    ticket.resends += 1
    if gateway_of(w).dedupe == 1 or not _calls(w, slot) or s.aborting != 0:
        p.joined += 1
        push_timer(w, s.arrival_s + p.patience_s * (ticket.resends + 1), slot, T_PATIENCE)
        return
    if ticket.kid != NONE:
        cancel(w, ticket.kid, slot, t)
    new = detach(w, slot, CANCELLED, t)
    cancel(w, slot, new, t)
    whole_again(w, new)  # what the client has seen of the answer is lost with the connection
    twin = tickets_of(w)[new]
    twin.tries += 1
    again = slots_of(w)[new]
    again.attempt = twin.tries
    again.reason = DUPLICATE
    again.state = BACKOFF
    push_timer(w, t, new, T_RETRY)
