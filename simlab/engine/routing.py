"""Rules: which backend an attempt goes to, where that is more than a draw by the class's weights."""

from __future__ import annotations

from simlab.draws.counter import key, uniform
from simlab.draws.kernel import kernel
from simlab.engine.arrays import (
    API,
    BY_CLASSIFIER,
    BY_LATENCY,
    BY_LEARNED,
    BY_OVERFLOW,
    BY_PRICE,
    BY_TROUGH,
    BY_WEIGHTS,
    FOR_GUESS,
    FOR_ROUTE,
    NONE,
    UP,
)
from simlab.engine.route import drawn_backend
from simlab.engine.service import ask
from simlab.engine.trough import urgent
from simlab.engine.world import (
    World,
    backends_of,
    choices_of,
    policies_of,
    reps_of,
    rule_numbers_of,
    rules_of,
    slots_of,
    state_of,
    tables_of,
    tickets_of,
)

_MEMORY = 0.1
"""Weight of the newest observation in the moving mean of a backend's time to first token."""


@kernel
def direct(w: World, slot: int) -> None:
    """Finds the task's rule, and what a classifier or a learned router says, which holds for all its attempts."""
    s = slots_of(w)[slot]
    ticket = tickets_of(w)[slot]
    p = policies_of(w)[s.cls]
    ticket.level = 0
    ticket.rule = NONE
    if p.rule_at != NONE:
        ticket.rule = rule_numbers_of(w)[p.rule_at + s.tenant * p.tiers + ticket.tier]
    if ticket.rule == NONE:
        return
    rule = rules_of(w)[ticket.rule]
    if rule.mode == BY_CLASSIFIER:
        at = rule.guess_at + ticket.tier * rule.n
        u = uniform(key(s.task, FOR_GUESS))
        while ticket.level < rule.n - 1 and u >= tables_of(w)[at + ticket.level]:
            ticket.level += 1
    elif rule.mode == BY_LEARNED:
        ticket.rank = uniform(key(s.task, FOR_GUESS))
        ticket.level = 1 if ticket.rank < rule.strong_share else 0


@kernel
def consult(w: World, slot: int, t: float) -> None:
    """Books the classifier or learned router that was asked, if any, and waits for it."""
    ticket = tickets_of(w)[slot]
    if ticket.rule != NONE and rules_of(w)[ticket.rule].helper != NONE:
        ticket.delay_s += ask(w, slot, rules_of(w)[ticket.rule].helper, t, slots_of(w)[slot].prompt, 1)


@kernel
def choose(w: World, slot: int) -> int:
    """The backend of the task's next attempt."""
    s = slots_of(w)[slot]
    ticket = tickets_of(w)[slot]
    if ticket.force != NONE:
        return int(ticket.force)
    if ticket.rule == NONE:
        return drawn_backend(w, slot)
    rule = rules_of(w)[ticket.rule]
    if rule.mode == BY_WEIGHTS:
        return _by_weight(w, ticket.rule, uniform(key(s.task, FOR_ROUTE + 64 * s.attempt)))
    if rule.mode == BY_PRICE:
        return _cheapest(w, slot, ticket.rule)
    if rule.mode == BY_LATENCY:
        return _quickest(w, slot, ticket.rule)
    if rule.mode == BY_OVERFLOW:
        return _first_with_room(w, ticket.rule)
    if rule.mode == BY_TROUGH:
        return int(choices_of(w)[rule.first + (rule.n - 1 if urgent(w, slot) else 0)].backend)
    return int(choices_of(w)[rule.first + ticket.level].backend)


@kernel
def _by_weight(w: World, r: int, u: float) -> int:
    rule = rules_of(w)[r]
    i = rule.first
    while i < rule.first + rule.n - 1 and u >= choices_of(w)[i].cumulative:
        i += 1
    return int(choices_of(w)[i].backend)


@kernel
def expected_usd(w: World, b: int, prompt: int, output: float) -> float:
    """What a request is expected to cost at backend ``b``; on a replica the price of the work it makes."""
    be = backends_of(w)[b]
    if be.kind != API:
        return float((prompt * be.work_prefill_s + output * be.work_decode_s) * be.usd_work_s)
    if be.long_tokens > 0 and prompt > be.long_tokens:
        return float(be.usd_call + prompt * be.usd_long_prompt + output * be.usd_long_output)
    return float(be.usd_call + prompt * be.usd_prompt + output * be.usd_output)


@kernel
def _cheapest(w: World, slot: int, r: int) -> int:
    """The choice that is expected to cost least among those whose context holds the request; the last if none does."""
    s = slots_of(w)[slot]
    rule = rules_of(w)[r]
    best = NONE
    least = 0.0
    for i in range(rule.first, rule.first + rule.n):
        choice = choices_of(w)[i]
        if choice.context > 0 and s.prompt + s.output > choice.context:
            continue
        usd = expected_usd(w, choice.backend, s.prompt, policies_of(w)[s.cls].mean_output)
        if best == NONE or usd < least:
            best = choice.backend
            least = usd
    return int(best if best != NONE else choices_of(w)[rule.first + rule.n - 1].backend)


@kernel
def _quickest(w: World, slot: int, r: int) -> int:
    """The choice with the least recent time to first token; one nobody has heard of comes first, some are spread."""
    s = slots_of(w)[slot]
    rule = rules_of(w)[r]
    u = uniform(key(s.task, FOR_ROUTE + 64 * s.attempt))
    if u < rule.explore:
        return _by_weight(w, r, u / rule.explore)
    best = NONE
    least = 0.0
    for i in range(rule.first, rule.first + rule.n):
        choice = choices_of(w)[i]
        if choice.context > 0 and s.prompt + s.output > choice.context:
            continue
        recent = backends_of(w)[choice.backend].recent_ttft_s
        if best == NONE or recent < least:
            best = choice.backend
            least = recent
    return int(best if best != NONE else choices_of(w)[rule.first + rule.n - 1].backend)


@kernel
def _first_with_room(w: World, r: int) -> int:
    """The first choice that is not over its threshold, or back below the share of it at which it is taken again."""
    rule = rules_of(w)[r]
    for i in range(rule.first, rule.first + rule.n - 1):
        choice = choices_of(w)[i]
        scale = rule.resume if choice.spilling == 1 else 1.0
        full = _waiting_per_replica(w, choice.backend) >= rule.queue_per_replica * scale
        slow = backends_of(w)[choice.backend].recent_ttft_s > rule.ttft_s * scale
        choice.spilling = 1 if full or slow else 0
        if choice.spilling == 0:
            return int(choice.backend)
    return int(choices_of(w)[rule.first + rule.n - 1].backend)


@kernel
def _waiting_per_replica(w: World, b: int) -> float:
    """Requests that wait in a pool for each of its serving replicas; more than any threshold when there is none."""
    waiting = 0
    serving = 0
    r = backends_of(w)[b].rep_head
    while r != NONE:
        rep = reps_of(w)[r]
        if rep.state == UP:
            waiting += rep.n_waiting
            serving += 1
        r = rep.next_rep
    return waiting / serving if serving > 0 else 1e300


@kernel
def note_latency(w: World, b: int, ttft_s: float) -> None:
    """Keeps what a backend's first token took in mind."""
    be = backends_of(w)[b]
    be.heard_s = state_of(w).now
    if be.recent_ttft_s == 0.0:
        be.recent_ttft_s = ttft_s
    else:
        be.recent_ttft_s += _MEMORY * (ttft_s - be.recent_ttft_s)
