"""What an engine is built from: plain numbers, no scenario, no files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from simlab.draws import Distribution


class Chunk(Protocol):
    """A run of arrivals of one class, in order of time; see `simlab.workload` for what makes them."""

    @property
    def arrival_s(self) -> NDArray[np.float64]:
        """Arrival times, s, ascending."""

    @property
    def prompt_tokens(self) -> NDArray[np.int64] | None:
        """Prompt lengths, or None: drawn by the engine."""

    @property
    def output_tokens(self) -> NDArray[np.int64] | None:
        """Answer lengths, or None."""

    @property
    def segment_ptr(self) -> NDArray[np.int64] | None:
        """[n + 1] where each prompt's segments begin in the next two."""

    @property
    def segment_id(self) -> NDArray[np.int64] | None:
        """Ids of the segments that begin the prompts."""

    @property
    def segment_tokens(self) -> NDArray[np.int64] | None:
        """Their tokens."""


class Feed(Protocol):
    """Arrivals of one class."""

    def next_chunk(self) -> Chunk | None:
        """The next arrivals, or None when there are no more."""


@dataclass(frozen=True)
class ClassSpec:
    """A workload class.

    Args:
        feed: open arrivals. Of a closed loop: the requests that its users send, with their lengths; each user who is
            free takes the next one and sends it, not before its arrival time, and leaves when there is none. None: a
            closed loop draws its requests, without end.
        users: users of a closed loop (0 = open).
        think: think time of a closed loop's or a session's user, s.
        prompt, output: token distributions; not needed where the feed brings lengths or `joint` is given.
        joint: [k, 2] equally likely (prompt, output) pairs.
        tenant_weights: relative traffic of each tenant.
        priority: lower is served first where a pool schedules by priority.
        system_tokens: tokens that begin every prompt of the class.
        document_tokens: tokens of the document that follows.
        document_weights: relative popularity of the documents; empty = none.
        turns: requests of a session; None = single requests.
        max_context: a session ends when its history reaches this many tokens (0 = never).
        route: weight of each backend.
        slo_ttft_s, slo_itl_s, slo_e2e_s: limits a good task meets.
        segmented: the feed brings segments.
        content: classes with the same number share what their segment ids stand for; None: nobody else's.
    """

    feed: Feed | None = None
    users: int = 0
    think: Distribution | None = None
    prompt: Distribution | None = None
    output: Distribution | None = None
    joint: NDArray[np.int64] | None = None
    tenant_weights: Sequence[float] = (1.0,)
    priority: int = 0
    system_tokens: int = 0
    document_tokens: int = 0
    document_weights: Sequence[float] = ()
    turns: Distribution | None = None
    max_context: int = 0
    route: Sequence[float] = (1.0,)
    slo_ttft_s: float = math.inf
    slo_itl_s: float = math.inf
    slo_e2e_s: float = math.inf
    segmented: bool = False
    content: int | None = None


@dataclass(frozen=True)
class StepCoefficients:
    """Seconds of a scheduler step; see `simlab.engine.step_time.step_seconds`.

    ``knots`` are (tokens, seconds) of a piecewise-linear term in all tokens of the step; ``prefill_knots`` are of one
    that only steps with prompt tokens pay.
    """

    base_s: float
    prefill_token_s: float = 0.0
    decode_seq_s: float = 0.0
    decode_context_s: float = 0.0
    prefill_context_s: float = 0.0
    attention_s: float = 0.0
    prefill_seq_s: float = 0.0
    knots: Sequence[tuple[float, float]] = ()
    prefill_knots: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class PoolSpec:
    """A pool of equal replicas.

    Args:
        step: step time.
        replicas: replicas up at time 0.
        max_replicas: most replicas that may ever be leased, those at the start included.
        dispatch: a dispatch policy of `simlab.engine.arrays`.
        priority: schedule waiting requests by priority instead of first come first served.
        max_num_seqs, max_num_batched_tokens, block_size, kv_blocks, prefix_caching: as vLLM's; one of ``kv_blocks`` is
            the null block.
        max_model_len: longer requests are rejected.
        overhead_s: time a request spends outside the scheduler, added to its first token and its end.
        work_prefill_s, work_decode_s: weights of a computed prompt token and a generated token in sharing out cost.
        known_seqs, known_tokens, known_context: decoding sequences and tokens in a step, and tokens of a request, up to
            which ``step`` is known to be good; it is metered how long the pool is beyond.
    """

    step: StepCoefficients
    replicas: int = 1
    max_replicas: int = 1
    dispatch: int = 1
    priority: bool = False
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    block_size: int = 16
    kv_blocks: int = 10_000
    prefix_caching: bool = True
    max_model_len: int = 1 << 40
    overhead_s: float = 0.0
    work_prefill_s: float = 1.0
    work_decode_s: float = 1.0
    known_seqs: int = 1 << 40
    known_tokens: int = 1 << 40
    known_context: int = 1 << 40


@dataclass(frozen=True)
class ApiSpec:
    """An API endpoint: latency laws (s), limits (0 = none), and the share of shared-prefix tokens billed as cached."""

    ttft: Distribution
    itl: Distribution
    ttft_per_token_s: float = 0.0
    concurrency: int = 0
    reject_full: bool = False
    rpm: float = 0.0
    tpm: float = 0.0
    error_probability: float = 0.0
    cached_ratio: float = 0.0
    long_tokens: int = 0


@dataclass(frozen=True)
class GatewaySpec:
    """Time-out of an attempt and the retry policy; times in s."""

    timeout_s: float = math.inf
    max_attempts: int = 1
    backoff_s: float = 0.5
    backoff_factor: float = 2.0
    max_backoff_s: float = 8.0
    jitter: float = 0.25
    retry_rate_limited: bool = True
    retry_error: bool = True
    retry_timed_out: bool = True
    retry_rejected: bool = False


@dataclass(frozen=True)
class WorldSpec:
    """Everything an engine needs. Pools come before APIs in `backends`."""

    classes: Sequence[ClassSpec]
    backends: Sequence[PoolSpec | ApiSpec]
    horizon_s: float
    warmup_s: float = 0.0
    window_s: float = 60.0
    gateway: GatewaySpec = field(default_factory=GatewaySpec)
    seed: int = 0
    log_rows: int = 0
