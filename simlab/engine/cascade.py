"""Cascades: an answer that does not pass is asked for again one level up (Chen et al., "FrugalGPT", 2023)."""

from __future__ import annotations

from simlab.draws.counter import key, uniform
from simlab.draws.distribution import draw
from simlab.draws.kernel import kernel
from simlab.engine.arrays import (
    BACKOFF,
    BY_CASCADE,
    ESCALATION,
    FOR_CONFIDENCE,
    FOR_SAMPLE,
    NONE,
    OK,
    T_RETRY,
)
from simlab.engine.fallback import whole_again
from simlab.engine.heaps import push_timer
from simlab.engine.meters import meter_lost
from simlab.engine.service import ask, book_call
from simlab.engine.world import (
    World,
    backends_of,
    choices_of,
    dists_of,
    rules_of,
    slots_of,
    tables_of,
    tickets_of,
)


@kernel
def judged(w: World, slot: int) -> bool:
    """Whether the answer is looked at before the user sees it: the task is in a cascade, and not at its last level."""
    ticket = tickets_of(w)[slot]
    if ticket.rule == NONE or rules_of(w)[ticket.rule].mode != BY_CASCADE:
        return False
    return bool(ticket.level < rules_of(w)[ticket.rule].n - 1)


@kernel
def judge(w: World, slot: int, t: float) -> float:
    """Looks at the answer that came at ``t``: more samples, a verifier, a score. Returns how long that takes, s."""
    s = slots_of(w)[slot]
    ticket = tickets_of(w)[slot]
    choice = choices_of(w)[rules_of(w)[ticket.rule].first + ticket.level]
    be = backends_of(w)[choice.backend]
    delay = 0.0
    for i in range(1, choice.samples):
        u = key(key(s.task, FOR_SAMPLE + 64 * s.attempt), i)
        ttft = draw(dists_of(w), tables_of(w), be.ttft, uniform(key(u, 0))) + be.ttft_per_token_s * s.prompt
        took = ttft + (s.output - 1) * draw(dists_of(w), tables_of(w), be.itl, uniform(key(u, 1)))
        book_call(w, slot, choice.backend, s.started_s, took, s.prompt, s.cached, s.output, OK)
        delay = max(delay, s.started_s + took - t)
    if choice.verifier != NONE:
        delay += ask(w, slot, choice.verifier, t, s.prompt + s.output, 1)
    return delay


@kernel
def passes(w: World, slot: int) -> bool:
    """Whether the answer is taken, by the chance for right and for wrong ones."""
    s = slots_of(w)[slot]
    ticket = tickets_of(w)[slot]
    choice = choices_of(w)[rules_of(w)[ticket.rule].first + ticket.level]
    chance = choice.accept_right if ticket.wrong == 0 else choice.accept_wrong
    return bool(uniform(key(s.task, FOR_CONFIDENCE + 64 * s.attempt)) < chance)


@kernel
def escalate(w: World, slot: int, t: float) -> None:
    """Asks the next level at ``t``."""
    s = slots_of(w)[slot]
    ticket = tickets_of(w)[slot]
    meter_lost(w, slot, OK, s.output)
    whole_again(w, slot)
    ticket.force = NONE
    ticket.came = ESCALATION
    ticket.level += 1
    ticket.retries = 0
    ticket.tries += 1
    s.attempt = ticket.tries
    s.reason = ESCALATION
    s.state = BACKOFF
    push_timer(w, t, slot, T_RETRY)
