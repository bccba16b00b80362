"""Context budgets: what a prompt consists of besides its own text, and how much of each part is put into it.

Retrieved chunks and tool results are drawn for each request and, once in a conversation, stay in its history. History
above its cap loses its oldest tokens, or is replaced by a summary that a helper is asked for. Either way the prompt
goes on otherwise than any before it, so no prefix cache and no provider's prompt cache finds more of it than the
beginning that all share; a conversation held at its cap pays for its whole history at every turn.
"""

from __future__ import annotations

from simlab.draws.counter import key, uniform
from simlab.draws.distribution import draw
from simlab.draws.kernel import kernel
from simlab.engine.arrays import FOR_CHUNKS, FOR_TOOLS, NONE
from simlab.engine.caps import drop_history
from simlab.engine.service import ask
from simlab.engine.world import (
    World,
    contexts_of,
    counters_of,
    dists_of,
    slots_of,
    tables_of,
    tickets_of,
)


@kernel
def fill(w: World, slot: int, t: float) -> None:
    """Puts the parts of the prompt together, each within its cap."""
    if len(contexts_of(w)) <= slots_of(w)[slot].cls or contexts_of(w)[slots_of(w)[slot].cls].used == 0:
        return
    s = slots_of(w)[slot]
    budget = contexts_of(w)[s.cls]
    counters = counters_of(w)[s.cls]
    keep_history(w, slot, t)
    if budget.chunks != NONE:
        chunks = int(draw(dists_of(w), tables_of(w), budget.chunks, uniform(key(s.task, FOR_CHUNKS))) + 0.5)
        if chunks > budget.max_chunks:
            counters.cut_chunks += 1
            chunks = budget.max_chunks
        s.prompt += max(chunks, 0) * budget.chunk_tokens
    if budget.tools != NONE:
        tokens = int(draw(dists_of(w), tables_of(w), budget.tools, uniform(key(s.task, FOR_TOOLS))) + 0.5)
        if tokens > budget.max_tools:
            counters.cut_tools += 1
            tokens = budget.max_tools
        s.prompt += max(tokens, 0)


@kernel
def keep_history(w: World, slot: int, t: float) -> None:
    """History that is too long is summarised, or loses its oldest tokens."""
    s = slots_of(w)[slot]
    if len(contexts_of(w)) <= s.cls or s.history <= contexts_of(w)[s.cls].max_history:
        return
    budget = contexts_of(w)[s.cls]
    if budget.used == 0:
        return
    if budget.helper == NONE:
        counters_of(w)[s.cls].cut_history += 1
        drop_history(w, slot, s.history - budget.max_history)
        return
    counters_of(w)[s.cls].summaries += 1
    tickets_of(w)[slot].delay_s += ask(w, slot, budget.helper, t, s.history, budget.summary_tokens)
    drop_history(w, slot, s.history - min(budget.summary_tokens, s.history))
