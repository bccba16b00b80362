"""The timers of a task with policies: of its attempts (first token, hedge) and of itself (deadline, patience)."""

from __future__ import annotations

import math

from simlab.draws.kernel import kernel
from simlab.engine.arrays import NONE, T_DEADLINE, T_HEDGE, T_PATIENCE, T_TTFT
from simlab.engine.heaps import push_timer
from simlab.engine.world import World, backends_of, gateway_of, policies_of, slots_of, tickets_of


@kernel
def arm_attempt(w: World, slot: int, t: float) -> None:
    """An attempt has begun: when is its first token late, and when is another backend asked as well?

    Nobody waits for a batch endpoint: it says by itself when a request has expired.
    """
    g = gateway_of(w)
    ticket = tickets_of(w)[slot]
    if backends_of(w)[slots_of(w)[slot].backend].batch == 1:
        return
    if g.ttft_timeout_s < math.inf:
        push_timer(w, t + g.ttft_timeout_s, slot, T_TTFT)
    if g.hedge_s < math.inf and ticket.parent == NONE and ticket.kid == NONE and ticket.hedges < g.hedge_max:
        push_timer(w, t + g.hedge_s, slot, T_HEDGE)


@kernel
def arm_task(w: World, slot: int, t: float) -> None:
    """The task has come to this slot: until when does anybody wait for it?"""
    s = slots_of(w)[slot]
    p = policies_of(w)[s.cls]
    end = s.arrival_s + gateway_of(w).deadline_s
    if end < math.inf and p.deadline_s == math.inf:
        push_timer(w, max(end, t), slot, T_DEADLINE)
    if p.patience_s < math.inf:
        again = s.arrival_s + p.patience_s * (tickets_of(w)[slot].resends + 1)
        push_timer(w, max(again, t), slot, T_PATIENCE)
