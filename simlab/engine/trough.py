"""Filling troughs: work that may wait is sent to a pool only while that has room, or when its deadline is near.

A gateway does not see inside a pool but by its metrics, which it reads every so often while tasks wait, and when one of
the calls that it counts there ends. What the replicas hold in KV blocks is as of their last event.
"""

from __future__ import annotations

from simlab.draws.kernel import kernel
from simlab.engine.arrays import NONE, TIME_EPS_S, UP
from simlab.engine.world import (
    World,
    allowances_of,
    backends_of,
    limits_of,
    policies_of,
    reps_of,
    rules_of,
    slots_of,
    state_of,
    tickets_of,
)


@kernel
def urgent(w: World, slot: int) -> bool:
    """Whether a task whose rule is a trough's must not wait any longer."""
    s = slots_of(w)[slot]
    due_s = s.arrival_s + policies_of(w)[s.cls].deadline_s - rules_of(w)[tickets_of(w)[slot].rule].lead_s
    return bool(state_of(w).now + TIME_EPS_S >= due_s)


@kernel
def room_in_pool(w: World, at: int, slot: int, t: float) -> float:
    """0 where a pool has room for a task that may wait, else when to look again, in s; at last when it is urgent."""
    allowance = allowances_of(w)[at]
    limit = limits_of(w)[allowance.limit]
    be = backends_of(w)[limit.pool]
    if t > allowance.coming_s + TIME_EPS_S:
        allowance.coming = 0
    waiting = allowance.coming
    running = 0
    used = 0
    serving = 0
    r = be.rep_head
    while r != NONE:
        rep = reps_of(w)[r]
        if rep.state == UP:
            serving += 1
            waiting += rep.n_waiting
            running += rep.n_running
            used += be.kv_blocks - 1 - rep.free
        r = rep.next_rep
    most = limit.fill_to * be.max_num_seqs * serving
    if (
        waiting < limit.waiting * serving
        and waiting + running + 1 <= most * (1.0 + 1e-9)
        and used < limit.kv * (be.kv_blocks - 1) * serving
    ):
        return 0.0
    s = slots_of(w)[slot]
    due_s = s.arrival_s + policies_of(w)[s.cls].deadline_s - rules_of(w)[tickets_of(w)[slot].rule].lead_s
    return float(max(min(limit.every_s, due_s - t), TIME_EPS_S))
