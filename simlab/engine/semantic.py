"""The semantic cache: a question that is like one asked before gets its answer, which may be the answer to another.

Questions of one meaning are one question here (`ticket.query`); how they are worded decides whether they are
recognised. Where an answer to the question is kept and fresh, it is found with the chance ``hit``; where it is not
found, the answer to some other question lies above the similarity threshold with the chance ``false_hit``, as long as
anything is kept at all. Stated shares (``stated``) say instead how many of all lookups hit, whatever was asked before.
"""

from __future__ import annotations

from simlab.draws.counter import key, uniform
from simlab.draws.kernel import kernel
from simlab.engine.answer_cache import answer_key, count_lookup, kept_s, look_up, serve
from simlab.engine.arrays import EXACT, FOR_FALSE_HIT, FOR_QUALITY, FOR_SEMANTIC, NONE, RESULTS, SEMANTIC
from simlab.engine.quality import chance_of
from simlab.engine.routing import choose
from simlab.engine.service import ask
from simlab.engine.stores import find, fresh
from simlab.engine.world import World, backends_of, entries_of, policies_of, slots_of, stores_of, tickets_of


@kernel
def cached(w: World, slot: int, t: float) -> bool:
    """Asks the layers of caches that the class has, in order; True if one has an answer."""
    layers = policies_of(w)[slots_of(w)[slot].cls].caches
    if layers & (1 << RESULTS) and look_up(w, slot, RESULTS, t):
        return True
    if layers & (1 << EXACT) and look_up(w, slot, EXACT, t):
        return True
    return bool(layers & (1 << SEMANTIC) and _look_alike(w, slot, t))


@kernel
def _look_alike(w: World, slot: int, t: float) -> bool:
    """Whether the semantic cache has an answer, be it a wrong one; if not, the task's own will be kept there."""
    s = slots_of(w)[slot]
    ticket = tickets_of(w)[slot]
    st = stores_of(w)[SEMANTIC]
    count_lookup(w, slot, SEMANTIC)
    if st.helper != NONE:
        ticket.delay_s += ask(w, slot, st.helper, t, max(1, s.prompt - s.seg_tokens - s.history), 0)
    u = uniform(key(s.task, FOR_SEMANTIC))
    if st.stated == 1:
        if u >= st.hit:
            ticket.delay_s += st.miss_s
            return False
        serve(w, slot, SEMANTIC, 1 if u < st.false_hit or not _would_be_right(w, slot) else 0, s.output)
        return True
    k = answer_key(w, slot, SEMANTIC)
    if u < st.hit:
        e = fresh(w, SEMANTIC, k, t, kept_s(w, slot, SEMANTIC))
        if e != NONE:
            serve(w, slot, SEMANTIC, entries_of(w)[e].wrong, entries_of(w)[e].tokens)
            return True
    others = st.size - (1 if find(w, k) != NONE else 0)
    if others > 0 and uniform(key(s.task, FOR_FALSE_HIT)) < st.false_hit:
        serve(w, slot, SEMANTIC, 1, s.output)
        return True
    ticket.delay_s += st.miss_s
    ticket.semantic_key = k
    return False


@kernel
def _would_be_right(w: World, slot: int) -> bool:
    """Whether the backend that the route draws would answer rightly: so did it when the answer was kept."""
    b = choose(w, slot)
    k = key(key(slots_of(w)[slot].task, FOR_QUALITY), backends_of(w)[b].model)
    return bool(uniform(k) < chance_of(w, slot, b))
