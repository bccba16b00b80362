"""Where a task's time goes, as its user sees it: what is stated to pass beside the model, and what the run made of it.

The network is crossed twice, each way drawn by itself. What the application does (retrieval, reranking) comes before
the gateway sees the request; the gateway's own time before each model call. Smoothing holds an answer back, its first
token and its last alike. All of a task's time is in one part: what no other part accounts for went into attempts that
failed or did not pass, and into waiting between them.
"""

from __future__ import annotations

from simlab.draws.counter import key, uniform
from simlab.draws.distribution import draw
from simlab.draws.kernel import kernel
from simlab.engine.arrays import (
    APP,
    FOR_PART,
    NETWORK,
    NONE,
    RERANK,
    RETRIEVAL,
    SMOOTHING,
    SPAN_APP,
    SPAN_GATEWAY,
    SPAN_HELPERS,
    SPAN_LIMITS,
    SPAN_MODEL,
    SPAN_NETWORK,
    SPAN_OUTPUT,
    SPAN_QUEUE,
    SPAN_RERANK,
    SPAN_RETRIES,
    SPAN_RETRIEVAL,
    SPAN_SMOOTHING,
    SPAN_TASKS,
    SPAN_TOOLS,
)
from simlab.engine.meters import COARSE, bucket_of
from simlab.engine.world import World, dists_of, policies_of, slots_of, spans_of, state_of, tables_of, tickets_of


@kernel
def part_s(w: World, slot: int, part: int, i: int) -> float:
    """What the ``i``-th passing of a stated part takes, s; the same whenever it is asked for."""
    s = slots_of(w)[slot]
    p = policies_of(w)[s.cls]
    if p.latency_at == NONE:
        return 0.0
    u = uniform(key(key(s.task, FOR_PART), part + 8 * i))
    return float(draw(dists_of(w), tables_of(w), p.latency_at + part, u))


@kernel
def note_call(w: World, slot: int, t: float) -> None:
    """An attempt's answer was complete at ``t`` and is taken: where its time went."""
    s = slots_of(w)[slot]
    ticket = tickets_of(w)[slot]
    if ticket.resumed > 0:
        # The user has been reading since the first part of the stream: all that came after is the answer's time.
        ticket.queued_s = ticket.streamed_queued_s
        ticket.output_s += t - ticket.first_s
        return
    ticket.queue_s += s.served_s - s.started_s
    ticket.model_s += s.first_s - s.served_s
    ticket.output_s += t - s.first_s


@kernel
def meter_parts(w: World, slot: int, t: float, answered: bool) -> float:
    """The task is over at the gateway; returns when its user has the answer, and books where the time until then went.

    Until the first token that is all but the rest of the answer behind it.
    """
    s = slots_of(w)[slot]
    ticket = tickets_of(w)[slot]
    smoothing = part_s(w, slot, SMOOTHING, 0)
    back = part_s(w, slot, NETWORK, 1)
    t += back + smoothing
    s.first_s += back + smoothing
    if not answered or s.arrival_s < state_of(w).warmup_s:
        return t
    for metric in range(2):
        whole = (t if metric == 1 else s.first_s) - s.arrival_s
        rest = t - s.first_s if metric == 0 else 0.0
        row = spans_of(w)[metric, s.cls, bucket_of(whole) // COARSE]
        network = part_s(w, slot, NETWORK, 0) + back
        app = part_s(w, slot, APP, 0)
        retrieval = part_s(w, slot, RETRIEVAL, 0)
        rerank = part_s(w, slot, RERANK, 0)
        gone = network + app + retrieval + rerank + ticket.gateway_s + ticket.helped_s + ticket.queued_s
        gone += ticket.tools_s + ticket.queue_s + ticket.model_s + (ticket.output_s - rest) + smoothing
        row[SPAN_TASKS] += 1.0
        row[SPAN_NETWORK] += network
        row[SPAN_APP] += app
        row[SPAN_RETRIEVAL] += retrieval
        row[SPAN_RERANK] += rerank
        row[SPAN_GATEWAY] += ticket.gateway_s
        row[SPAN_HELPERS] += ticket.helped_s
        row[SPAN_LIMITS] += ticket.queued_s
        row[SPAN_RETRIES] += whole - gone
        row[SPAN_TOOLS] += ticket.tools_s
        row[SPAN_QUEUE] += ticket.queue_s
        row[SPAN_MODEL] += ticket.model_s
        row[SPAN_OUTPUT] += ticket.output_s - rest
        row[SPAN_SMOOTHING] += smoothing
    return t
