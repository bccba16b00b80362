"""All policies, as the bare engine asks for them: one function, so that they are compiled once and only if used."""

from __future__ import annotations

from simlab.draws.kernel import kernel
from simlab.engine.admission import aim, dropped
from simlab.engine.arrays import (
    OK,
    RATE_LIMITED,
    REJECTED,
    T_ADMIT,
    T_BATCH,
    T_DEADLINE,
    T_DROP,
    T_GATE,
    T_HEDGE,
    T_JUDGED,
    T_PATIENCE,
    T_ROOM,
    T_TTFT,
)
from simlab.engine.batch import fill_queue, hand_in, join
from simlab.engine.breaker import lets_through
from simlab.engine.calls import hedge
from simlab.engine.fair_queue import look_again
from simlab.engine.hook import AIM, ARM, HAND_IN, LET_GO, PASSES, PROMPT, RECEIVE, ROOM, SETTLE
from simlab.engine.intake import admit, go_on, receive
from simlab.engine.outcome import let_go, pronounce, settle
from simlab.engine.patience import late_first_token, out_of_patience, past_deadline
from simlab.engine.prompt_cache import use
from simlab.engine.timers import arm_attempt
from simlab.engine.world import World, tickets_of


def decide(w: World, what: int, slot: int, t: float, x: int, y: int, z: int) -> int:
    """What the policies say of the task in a slot.

    ``RECEIVE``: it has arrived; 1 if its first attempt begins now. ``AIM``: the backend of its next attempt, NONE if
    there will be none now. ``PASSES``: how an attempt on backend ``x`` ends before it begins, OK if it may begin.
    ``ARM``: its attempt has begun. ``SETTLE``: its attempt ended with outcome ``x`` after ``y`` tokens, to be billed if
    ``z``. ``LET_GO``: its attempt timed out, and the server is not told. ``PROMPT``: backend ``x`` takes its prompt.
    ``TIMER``: a timer of kind ``x`` went off; 1 if an attempt begins now. ``HAND_IN``: it waits in the queue of batch
    endpoint ``x``. ``ROOM``: it, with ``y`` prompt tokens handed in, has left that endpoint.
    """
    if what == RECEIVE:
        return 1 if receive(w, slot, t) else 0
    if what == AIM:
        return aim(w, slot, t)
    if what == PASSES:
        return _passes(w, slot, x, t)
    if what == ARM:
        arm_attempt(w, slot, t)
    elif what == SETTLE:
        settle(w, slot, t, x, y, z == 1)
    elif what == LET_GO:
        let_go(w, slot, t)
        return 1
    elif what == PROMPT:
        use(w, slot, x, t)
    elif what == HAND_IN:
        join(w, slot, x, t)
    elif what == ROOM:
        fill_queue(w, x, y, t)
    else:
        return 1 if _timer(w, slot, t, x) else 0
    return 0


@kernel
def _passes(w: World, slot: int, b: int, t: float) -> int:
    ticket = tickets_of(w)[slot]
    if ticket.turned == 1:
        ticket.turned = 0
        ticket.refused = 1
        return RATE_LIMITED
    if not lets_through(w, slot, b, t):
        ticket.refused = 1
        return REJECTED
    return OK


@kernel
def _timer(w: World, slot: int, t: float, kind: int) -> bool:
    if kind == T_TTFT:
        late_first_token(w, slot, t)
    elif kind == T_HEDGE:
        hedge(w, slot, t)
    elif kind == T_JUDGED:
        pronounce(w, slot, t)
    elif kind == T_DEADLINE:
        past_deadline(w, slot, t)
    elif kind == T_PATIENCE:
        out_of_patience(w, slot, t)
    elif kind == T_ROOM:
        look_again(w, slot, t)
    elif kind == T_GATE:
        return bool(admit(w, slot, t))
    elif kind == T_ADMIT:
        return bool(go_on(w, slot, t))
    elif kind == T_BATCH:
        hand_in(w, slot, t)
    elif kind == T_DROP:
        return bool(dropped(w, slot, t))
    return False
