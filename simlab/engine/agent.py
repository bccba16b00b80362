"""Agents: a task is a loop of model calls and tool calls with a growing context, until the model has its answer.

Each model call is an attempt sequence of its own: it can fail, be tried again, hedged, escalated and fall back. All but
the last ask for tools, which run at once; the step waits for the slowest. What the model wrote and what the tools said
is part of every later prompt, so later prompts begin with the earlier ones, as the turns of a conversation do. Caps on
tool steps, cost and prompt stop a task; a runaway has nothing else that stops it.
"""

from __future__ import annotations

import numpy as np

from simlab.draws.counter import key, uniform
from simlab.draws.distribution import draw
from simlab.draws.kernel import kernel
from simlab.engine.arrays import (
    BACKOFF,
    BY_CASCADE,
    ENDLESS,
    ERROR,
    FIRST,
    FOR_LOOP,
    FOR_RUNAWAY,
    FOR_STEPS,
    GATEWAY,
    MOST_PARALLEL,
    NEVER,
    NONE,
    OK,
    T_CALL,
)
from simlab.engine.caps import affordable, fits
from simlab.engine.context import keep_history
from simlab.engine.fallback import whole_again
from simlab.engine.heaps import push_timer
from simlab.engine.parts import part_s
from simlab.engine.service import book_call
from simlab.engine.world import (
    World,
    agents_of,
    counters_of,
    dists_of,
    policies_of,
    rules_of,
    slots_of,
    tables_of,
    tickets_of,
)

_RESULT = 1 << 20
"""Names the draw of a result's tokens: no tool is tried so often."""


@kernel
def plan_loop(w: World, slot: int) -> None:
    """How many model calls the new task takes; a runaway never ends by itself."""
    s = slots_of(w)[slot]
    ticket = tickets_of(w)[slot]
    agent = agents_of(w)[s.cls]
    ticket.steps = max(1, int(draw(dists_of(w), tables_of(w), agent.steps, uniform(key(s.task, FOR_STEPS))) + 0.5))
    if agent.from_s <= s.arrival_s < agent.until_s and uniform(key(s.task, FOR_RUNAWAY)) < agent.share:
        ticket.steps = ENDLESS
        counters_of(w)[s.cls].runaways += 1


@kernel
def ask_for_tools(w: World, slot: int) -> None:
    """The first model call asks for tools, and the answer's tokens come with the last; unless a cache has it."""
    s = slots_of(w)[slot]
    tickets_of(w)[slot].answer = s.output
    if tickets_of(w)[slot].hit > 0:
        return
    s.output = _tokens(w, agents_of(w)[s.cls].calls, key(key(s.task, FOR_LOOP), 0), 1)


@kernel
def _tokens(w: World, distribution: int, k: np.uint64, least: int) -> int:
    if distribution == NONE:
        return least
    return max(least, int(draw(dists_of(w), tables_of(w), distribution, uniform(k)) + 0.5))


@kernel
def _use_tools(w: World, slot: int, t: float) -> float:
    """Calls the tools, whose results are added to the prompt; returns how long the slowest takes, s.

    One that fails is tried again at once; if that does not help, the model reads its error.
    """
    s = slots_of(w)[slot]
    agent = agents_of(w)[s.cls]
    counters = counters_of(w)[s.cls]
    step = key(key(s.task, FOR_LOOP), tickets_of(w)[slot].step)
    slowest = 0.0
    for i in range(min(_tokens(w, agent.parallel, key(step, 1), 1), MOST_PARALLEL)):
        tool = key(step, 2 + i)
        took = 0.0
        failed = True
        tries = 0
        while failed and tries <= agent.retries:
            one = draw(dists_of(w), tables_of(w), agent.tool_s, uniform(key(tool, 2 * tries)))
            failed = bool(uniform(key(tool, 2 * tries + 1)) < agent.failure)
            book_call(w, slot, agent.helper, t + took, one, 0, 0, 0, ERROR if failed else OK)
            counters.tool_calls += 1
            counters.tool_failures += 1 if failed else 0
            took += one
            tries += 1
        s.prompt += _tokens(w, agent.errors if failed else agent.results, key(tool, _RESULT), 0)
        slowest = max(slowest, took)
    return slowest


@kernel
def next_step(w: World, slot: int, t: float) -> float:
    """A model call asked for tools: they run, and the model is asked again with what they said.

    Returns:
        NEVER, or when the task was stopped by a cap, a time-out or a deadline before that, s.
    """
    whole_again(w, slot)
    s = slots_of(w)[slot]
    ticket = tickets_of(w)[slot]
    agent = agents_of(w)[s.cls]
    p = policies_of(w)[s.cls]
    if ticket.over == 1:
        return t
    if ticket.step >= agent.max_steps:
        counters_of(w)[s.cls].stopped_steps += 1
        return t
    if p.capped == 1 and not affordable(w, slot):
        return t
    ticket.step += 1
    ticket.tries += 1
    s.prompt += s.output
    s.history = s.prompt - s.seg_tokens
    took = _use_tools(w, slot, t)
    ticket.tools_s += took
    t += took
    ticket.delay_s = 0.0
    keep_history(w, slot, t)
    if ticket.step + 1 < ticket.steps:
        s.output = _tokens(w, agent.calls, key(key(s.task, FOR_LOOP), ticket.step), 1)
    else:
        s.output = ticket.answer
    s.attempt = ticket.tries
    s.reason = FIRST
    if p.capped == 1 and not fits(w, slot):
        return t
    ticket.came = FIRST
    ticket.retries = 0
    ticket.force = NONE
    if ticket.rule != NONE and rules_of(w)[ticket.rule].mode == BY_CASCADE:
        ticket.level = 0
    own = part_s(w, slot, GATEWAY, ticket.step)
    ticket.gateway_s += own
    ticket.helped_s += ticket.delay_s
    s.state = BACKOFF
    push_timer(w, t + ticket.delay_s + own, slot, T_CALL)
    return NEVER
