"""Whether an answer is right: by the model's chance at the task's difficulty, drawn once for each task and model."""

from __future__ import annotations

from simlab.draws.counter import key, uniform
from simlab.draws.kernel import inlined, kernel
from simlab.engine.arrays import BY_LEARNED, FOR_QUALITY, NONE
from simlab.engine.spec import QUALITY_POINTS
from simlab.engine.world import (
    World,
    backends_of,
    choices_of,
    policies_of,
    rules_of,
    slots_of,
    tables_of,
    tickets_of,
)


@kernel
def chance_of(w: World, slot: int, b: int) -> float:
    """The chance that backend ``b`` answers the task rightly; a learned router's curve says it, where there is one."""
    ticket = tickets_of(w)[slot]
    if ticket.rule != NONE:
        rule = rules_of(w)[ticket.rule]
        if rule.mode == BY_LEARNED:
            if b == choices_of(w)[rule.first + 1].backend:
                return float(rule.top)
            if b == choices_of(w)[rule.first].backend:
                return _between(w, rule.curve_at, ticket.rank)
    p = policies_of(w)[slots_of(w)[slot].cls]
    if p.quality_at == NONE:
        return 1.0
    at = p.quality_at + (ticket.tier * len(backends_of(w)) + b) * QUALITY_POINTS
    return _between(w, at, ticket.difficulty)


@inlined
def _between(w: World, at: int, x: float) -> float:
    """The table of `QUALITY_POINTS` values at ``at``, over 0 to 1, at ``x``; straight between its points."""
    place = x * (QUALITY_POINTS - 1)
    i = min(int(place), QUALITY_POINTS - 2)
    low = tables_of(w)[at + i]
    return float(low + (place - i) * (tables_of(w)[at + i + 1] - low))


@kernel
def right_answer(w: World, slot: int) -> bool:
    """Whether the current attempt's answer is right; asking the same model again does not change it."""
    s = slots_of(w)[slot]
    chance = chance_of(w, slot, s.backend)
    if chance >= 1.0:
        return True
    return bool(uniform(key(key(s.task, FOR_QUALITY), backends_of(w)[s.backend].model)) < chance)
