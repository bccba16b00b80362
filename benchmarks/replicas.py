"""Bare replicas: the engine on requests of known lengths, without gateway, API or drawing."""

from __future__ import annotations

import math
import time

from benchmarks.case import Report
from benchmarks.chat import (
    BASE_S,
    BLOCK_SIZE,
    CONTEXT_TOKEN_S,
    DECODE_SEQ_S,
    KV_BLOCKS,
    MAX_NUM_BATCHED_TOKENS,
    MAX_NUM_SEQS,
    PREFILL_TOKEN_S,
    Feed,
)
from simlab.engine import ClassSpec, Engine, PoolSpec, StepCoefficients, WorldSpec

REPLICAS = 4
LOAD = 0.7
"""Share of the capacity that is offered."""

_SYSTEM_TOKENS = 400
_FLOOD = 40_000
_EVER_S = 1e9


def _shared_tokens(case: str) -> int:
    return _SYSTEM_TOKENS if "system prompt" in case else 0


def _engine(feed: Feed, case: str) -> Engine:
    pool = PoolSpec(
        step=StepCoefficients(
            base_s=BASE_S,
            prefill_token_s=PREFILL_TOKEN_S,
            decode_seq_s=DECODE_SEQ_S,
            decode_context_s=CONTEXT_TOKEN_S,
            prefill_context_s=CONTEXT_TOKEN_S,
        ),
        replicas=REPLICAS,
        max_replicas=REPLICAS,
        max_num_seqs=MAX_NUM_SEQS,
        max_num_batched_tokens=MAX_NUM_BATCHED_TOKENS,
        kv_blocks=KV_BLOCKS,
        block_size=BLOCK_SIZE,
        prefix_caching=not case.startswith("no prefix caching"),
    )
    cls = ClassSpec(feed=feed, segmented=bool(_shared_tokens(case)))
    return Engine(WorldSpec(classes=[cls], backends=[pool], horizon_s=_EVER_S, window_s=_EVER_S))


def _succeeded(engine: Engine) -> int:
    return int(engine.world.tasks[1, 0]["succeeded"])


def capacity_rps(case: str, n: int = _FLOOD) -> float:
    """Requests per second finished when all ``n`` come at once, between a quarter and three quarters of them."""
    engine = _engine(Feed(math.inf, n, _shared_tokens(case)), case)
    passed: list[tuple[float, int]] = []
    until_s = 0.0
    for share in (0.25, 0.75):
        while _succeeded(engine) < share * n:
            until_s += 1.0
            engine.advance(until_s)
        passed.append((until_s, _succeeded(engine)))
    (early_s, early), (late_s, late) = passed
    return (late - early) / (late_s - early_s)


def run(case: str, size: int) -> Report:
    """Times ``size`` requests at 70% of what the replicas can do."""
    rate_rps = LOAD * capacity_rps(case, min(_FLOOD, max(size, 2000)))
    feed = Feed(rate_rps, size, _shared_tokens(case), seed=1)
    engine = _engine(feed, case)
    drawn_s = feed.spent_s
    began = time.perf_counter()
    engine.advance(math.inf)
    seconds = time.perf_counter() - began - (feed.spent_s - drawn_s)
    assert _succeeded(engine) == size
    steps = engine.world.reps["steps"].sum() / size
    note = f"{rate_rps / REPLICAS:.1f} requests/s a replica, {steps:.1f} steps a request"
    return Report(requests=size, seconds=seconds, note=note, facts={"rate_rps": float(rate_rps)})
