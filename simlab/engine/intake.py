"""What happens to a task between its arrival at the gateway and its first attempt.

In this order, each a policy of its own module, each only where the class has it: what passes before the gateway sees
the request (network, app, retrieval) · context budget · caps, quotas and limits, perhaps a queue · a running twin to
join · caches of answers · the router. Decisions are taken when the request reaches the gateway; the time they take
(an embedding, a classifier) delays the first attempt and is summed in the ticket's ``delay_s``.
"""

from __future__ import annotations

from simlab.draws.counter import key, uniform
from simlab.draws.distribution import draw
from simlab.draws.kernel import kernel
from simlab.engine.admission import lets_in
from simlab.engine.agent import ask_for_tools, plan_loop
from simlab.engine.arrays import (
    APP,
    BACKOFF,
    FIRST,
    FOR_DIFFICULTY,
    FOR_QUERY,
    FOR_TIER,
    GATEWAY,
    NETWORK,
    NONE,
    RERANK,
    RETRIEVAL,
    T_CALL,
    T_GATE,
)
from simlab.engine.heaps import push_timer
from simlab.engine.parts import part_s
from simlab.engine.retry import allow_first
from simlab.engine.routing import consult, direct
from simlab.engine.semantic import cached
from simlab.engine.tasks import draw_alias
from simlab.engine.timers import arm_task
from simlab.engine.world import (
    World,
    classes_of,
    dists_of,
    feed_query_of,
    gateway_of,
    policies_of,
    slots_of,
    tables_of,
    tickets_of,
)


@kernel
def receive(w: World, slot: int, t: float) -> bool:
    """Takes the task in; True if its first attempt begins now, False if it waits, is answered already, or refused."""
    _open_ticket(w, slot)
    allow_first(w)
    arm_task(w, slot, t)
    if policies_of(w)[slots_of(w)[slot].cls].latency_at != NONE:
        before = part_s(w, slot, NETWORK, 0) + part_s(w, slot, APP, 0)
        before += part_s(w, slot, RETRIEVAL, 0) + part_s(w, slot, RERANK, 0)
        if before > 0.0:
            slots_of(w)[slot].state = BACKOFF
            push_timer(w, t + before, slot, T_GATE)
            return False
    return bool(admit(w, slot, t))


@kernel
def _open_ticket(w: World, slot: int) -> None:
    """Writes down what the gateway knows of a new task, and draws what its policies ask for."""
    s = slots_of(w)[slot]
    p = policies_of(w)[s.cls]
    ticket = tickets_of(w)[slot]
    ticket.parent = NONE
    ticket.came = FIRST
    ticket.kid = NONE
    ticket.tries = 0
    ticket.retries = 0
    ticket.resends = 0
    ticket.hedges = 0
    ticket.refused = 0
    ticket.over = 0
    ticket.resumed = 0
    ticket.force = NONE
    ticket.wrong = 0
    ticket.verdict = NONE
    ticket.usd = 0.0
    ticket.delay_s = 0.0
    ticket.query = s.task
    ticket.hit = 0
    ticket.results_key = 0
    ticket.exact_key = 0
    ticket.semantic_key = 0
    ticket.holds = 0
    ticket.passed = 0
    ticket.lane = NONE
    ticket.line = NONE
    ticket.cleared = NONE
    ticket.turned = 0
    ticket.dropped = 0
    ticket.waits_for = NONE
    ticket.queued_s = 0.0
    ticket.probe = 0
    ticket.judging = 0
    ticket.helped_s = 0.0
    ticket.tools_s = 0.0
    ticket.queue_s = 0.0
    ticket.model_s = 0.0
    ticket.output_s = 0.0
    ticket.step = 0
    ticket.steps = 1
    s.backend = gateway_of(w).refused_at  # where it ends if nobody waits until its first attempt
    if s.turn == 0 or classes_of(w)[s.cls].users > 0:
        ticket.session_usd = 0.0
    if classes_of(w)[s.cls].asked == 1:
        ticket.query = feed_query_of(w)[s.cls, classes_of(w)[s.cls].feed_at - 1]
    elif p.queries > 0:
        ticket.query = draw_alias(w, p.query_alias_at, p.queries, uniform(key(s.task, FOR_QUERY)))
    ticket.tier = 0
    if p.tiers > 1:
        ticket.tier = draw_alias(w, p.tier_alias_at, p.tiers, uniform(key(s.task, FOR_TIER)))
    cls = classes_of(w)[s.cls]
    ticket.group = ticket.tier * cls.versions + min(cls.prompt_version, cls.versions - 1)
    ticket.difficulty = 0.0
    if p.difficulty != NONE:
        u = uniform(key(s.task, FOR_DIFFICULTY))
        ticket.difficulty = min(max(draw(dists_of(w), tables_of(w), p.difficulty, u), 0.0), 1.0)
    ticket.gateway_s = part_s(w, slot, GATEWAY, 0)
    if p.looped == 1:
        plan_loop(w, slot)


@kernel
def admit(w: World, slot: int, t: float) -> bool:
    """The request is at the gateway: may it pass, and where does it go? True if its first attempt begins now."""
    direct(w, slot)
    if policies_of(w)[slots_of(w)[slot].cls].guarded == 1 and not lets_in(w, slot, t):
        return False
    return bool(go_on(w, slot, t))


@kernel
def go_on(w: World, slot: int, t: float) -> bool:
    """The request may pass: is it answered already, and if not, who is asked where to send it?"""
    if policies_of(w)[slots_of(w)[slot].cls].caches == 0 or not cached(w, slot, t):
        consult(w, slot, t)
    return bool(set_out(w, slot, t))


@kernel
def set_out(w: World, slot: int, t: float) -> bool:
    """The first attempt begins: now (True), or when what had to be asked before has answered."""
    ticket = tickets_of(w)[slot]
    ticket.helped_s += ticket.delay_s
    delay = ticket.delay_s + ticket.gateway_s
    if ticket.steps > 1:
        ask_for_tools(w, slot)
    if delay <= 0.0:
        return True
    slots_of(w)[slot].state = BACKOFF
    push_timer(w, t + delay, slot, T_CALL)
    return False
