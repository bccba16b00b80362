"""What an engine is built from: plain numbers, no scenario, no files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from simlab.draws import Distribution
from simlab.engine.agent_spec import AgentSpec
from simlab.engine.limit_spec import CapSpec, ContextSpec, LimitSpec
from simlab.engine.offline_spec import BatchSpec

QUALITY_POINTS = 33
"""Difficulties at which a chance of a right answer is tabulated, evenly from 0 to 1."""


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

    @property
    def query(self) -> NDArray[np.int64] | None:
        """Ids of the questions that are asked, or None."""


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
        versions: numbers of the versions of prompt, model and corpus at the start.
        patient: nobody waits for its answers, so they are left out of the latencies over time.
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
    versions: tuple[int, int, int] = (0, 0, 0)
    patient: bool = False


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
        usd_work_s: USD for a second of a replica's work, for policies that look at money.
        fallback: backend that stands in when this one has failed (-1: none).
        model: number of what gives the answers, the same in every backend that serves it (-1: a number of its own).
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
    usd_work_s: float = 0.0
    fallback: int = -1
    model: int = -1
    known_seqs: int = 1 << 40
    known_tokens: int = 1 << 40
    known_context: int = 1 << 40


@dataclass(frozen=True)
class TokenPrice:
    """USD for one token: of the prompt, read from a cache, written to a cache, and of the answer."""

    prompt: float = 0.0
    cached: float = 0.0
    written: float = 0.0
    output: float = 0.0

    def scaled(self, factor: float) -> TokenPrice:
        """All of them times a factor."""
        return TokenPrice(self.prompt * factor, self.cached * factor, self.written * factor, self.output * factor)


@dataclass(frozen=True)
class PromptCacheSpec:
    """A provider's cache of the beginnings of prompts; its TTL counts from the last use.

    Args:
        number: endpoints with the same number share the cache.
        min_tokens: shorter beginnings are not kept.
        block: tokens are cached in whole multiples of this.
        ttl_s: time a beginning keeps after its last use, s.
        by_tenant: each tenant has an account of its own there.
        history: what a conversation has said so far is kept too, not only what begins many prompts.
    """

    number: int = 0
    min_tokens: int = 1024
    block: int = 128
    ttl_s: float = 300.0
    by_tenant: bool = False
    history: bool = True


@dataclass(frozen=True)
class AnswerCacheSpec:
    """A layer of the gateway's caches of answers.

    Args:
        layer: RESULTS, EXACT or SEMANTIC.
        backend: index of the backend that answers a hit.
        scope: bits ``SAME_…`` of what must be the same.
        capacity: most answers kept, the least recently used go first (0: no limit).
        ttl_s: for each class how long an answer keeps, s; empty: for ever.
        refresh: a hit makes an answer new again.
        miss_s: what a lookup in vain takes, s.
        helper: backend index of the service asked at each lookup, which takes its own time (-1: none).
        hit: chance that a lookup finds an answer to its question that is there; if `stated`, that it finds one at all.
        false_hit: chance that a lookup that finds none gets the answer to another question; if `stated`, that a lookup
            ends so (a part of `hit`).
        stated: a lookup hits by chance and not because its question was asked before.
    """

    layer: int
    backend: int
    scope: int = 0
    capacity: int = 0
    ttl_s: Sequence[float] = ()
    refresh: bool = False
    miss_s: float = 0.0
    helper: int = -1
    hit: float = 1.0
    false_hit: float = 0.0
    stated: bool = False


@dataclass(frozen=True)
class ApiSpec:
    """An API endpoint: latency laws (s), limits (0 = none), and the share of shared-prefix tokens billed as cached.

    Also whatever answers like one: the gateway's caches, and helpers such as an embedding service. Prompts longer than
    ``long_tokens`` are billed at ``long_price``; each call costs ``usd_call`` besides. ``break_probability`` is the
    share of streams that break off, at any token alike. ``fallback`` is the backend that stands in when this one has
    failed (-1: none). ``model`` numbers what gives the answers (-1: a number of its own).
    What is ``canned`` says the same to everybody; no cache keeps it. ``batch`` makes it a batch endpoint.
    """

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
    price: TokenPrice = field(default_factory=TokenPrice)
    long_price: TokenPrice = field(default_factory=TokenPrice)
    usd_call: float = 0.0
    break_probability: float = 0.0
    fallback: int = -1
    model: int = -1
    prompt_cache: PromptCacheSpec | None = None
    canned: bool = False
    batch: BatchSpec | None = None


@dataclass(frozen=True)
class GatewaySpec:
    """Time-outs, retries, hedges and breakers; times in s. All but the first line of fields need classes with policies.

    Args:
        timeout_s: of an attempt; ``max_attempts`` … ``retry_rejected``: the retry policy of one backend.
        ttft_timeout_s: of an attempt's first token.
        deadline_s: of a task, all attempts together; not of a class that has a deadline of its own.
        abort: the server is told when nobody waits any more; else it goes on, and is paid.
        retry_after: waits as long as a provider's 429 asks for.
        retry_budget: retries that each task earns (0: no budget); at most ``retry_burst`` are saved up.
        hedge_s: asks once more when the first token has not come by then; at most ``hedge_max`` times a task, at
            backend ``hedge_to`` (-1: by the route).
        breaker_consecutive, breaker_ratio: failures in a row, or share of failures in a window of ``breaker_window_s``
            with at least ``breaker_minimum`` calls, that open a backend's breaker (0: not by this); it lets
            ``breaker_probes`` calls through after ``breaker_cool_down_s``.
        dedupe: a client's repeated request joins the one that runs.
        resume: a broken stream is continued, not begun again.
        refused_at: backend on which the gateway books what it refuses itself.
        order, length, queue_deadline_s: of the lines at limits: FIFO, FAIR (to tenants, by tokens) or BY_PRIORITY (of
            the class); how many may wait in one, and for how long.
        shed_queue, shed_ttft_s: tasks of a priority above ``shed_keep`` are refused while so many wait at their
            backend, or its recent time to first token is above this.
        clock_s: time of day at the start, for limits by the day.
    """

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
    ttft_timeout_s: float = math.inf
    deadline_s: float = math.inf
    abort: bool = True
    retry_after: bool = False
    retry_budget: float = 0.0
    retry_burst: float = 10.0
    hedge_s: float = math.inf
    hedge_max: int = 1
    hedge_to: int = -1
    breaker_consecutive: int = 0
    breaker_ratio: float = 0.0
    breaker_window_s: float = 10.0
    breaker_minimum: int = 20
    breaker_cool_down_s: float = 30.0
    breaker_probes: int = 1
    dedupe: bool = False
    resume: bool = False
    refused_at: int = 0
    order: int = 0
    length: int = 1 << 40
    queue_deadline_s: float = math.inf
    shed_queue: float = math.inf
    shed_ttft_s: float = math.inf
    shed_keep: int = 0
    clock_s: float = 0.0


@dataclass(frozen=True)
class ChoiceSpec:
    """One backend that a rule can choose.

    Args:
        backend: index.
        weight: relative share.
        context: longest prompt and output together that it takes, tokens (0: any length).
        accept_right, accept_wrong: chance that a right and that a wrong answer passes, in a cascade.
        samples: answers that are asked for and paid, in a cascade that compares them.
        verifier: backend index of the service that judges an answer (-1: none).
    """

    backend: int
    weight: float = 1.0
    context: int = 0
    accept_right: float = 1.0
    accept_wrong: float = 1.0
    samples: int = 1
    verifier: int = -1


@dataclass(frozen=True)
class RuleSpec:
    """A route: how one of its choices is made.

    Args:
        mode: one of ``BY_…`` in `simlab.engine.arrays`.
        choices: the backends, in order.
        helper: backend index of the service asked before (-1: none).
        guesses: for each tier of the class the weights with which a classifier sends it to each choice.
        weak_chance: learned router: chance that the weak model is right at `QUALITY_POINTS` ranks from most to gain (0)
            to least (1).
        top: learned router: chance that the strong model is right.
        strong_share: learned router: share of tasks sent to the second choice, those of the lowest ranks.
        queue_per_replica, ttft_s: overflow: thresholds (inf: none).
        resume: overflow: share of the threshold at which the first choice is taken again.
        explore: least latency: share of requests spread by weight.
        gate, lead_s: trough: as `TroughSpec` has them; the last choice gets what must not wait any longer.
    """

    mode: int
    choices: Sequence[ChoiceSpec]
    helper: int = -1
    guesses: Sequence[Sequence[float]] = ()
    weak_chance: Sequence[float] = ()
    top: float = 1.0
    strong_share: float = 0.0
    queue_per_replica: float = math.inf
    ttft_s: float = math.inf
    resume: float = 0.5
    explore: float = 0.0
    gate: int = -1
    lead_s: float = -math.inf


@dataclass(frozen=True)
class PolicySpec:
    """What the gateway does for a class beyond routing by weights and one retry policy.

    Args:
        query_weights: relative popularity of the different questions of the class; empty: no two requests are alike.
        difficulty: of a task, 0 to 1; None: all 0.
        tier_weights: relative frequency of each tier of its tasks.
        quality: for each tier, for each backend, the chance of a right answer at `QUALITY_POINTS` difficulties evenly
            from 0 to 1, straight between them; empty: every answer is right.
        rules: for each tenant, for each tier, an index into the world's rules (-1: by the class's route); empty: all
            -1.
        mean_output: mean output tokens, for what a request is expected to cost.
        caches: layers of answer caches that are asked.
        tenant_users: users of each tenant.
        caps: on one request; None: none.
        context: budget of its prompts; None: none.
        deadline_s: until when after its arrival a task should be done; it is counted, and goes on after it.
        latency: what users wait for beside the model, s: NETWORK (one way), APP, RETRIEVAL, RERANK, GATEWAY (before
            each model call) and SMOOTHING, in this order; empty: nothing.
        timed: it is metered where the time of its tasks goes.
        agent: its tasks are loops; None: single calls.
        prompt_versions: versions of the prompt that the ledger keeps apart, numbered from 0; higher ones as the last.
    """

    query_weights: Sequence[float] | NDArray[np.float64] = ()
    difficulty: Distribution | None = None
    tier_weights: Sequence[float] = (1.0,)
    quality: Sequence[Sequence[Sequence[float]]] = ()
    rules: Sequence[Sequence[int]] = ()
    mean_output: float = 1.0
    patience_s: float = math.inf
    resends: int = 0
    caches: Sequence[int] = ()
    tenant_users: int = 1
    prompt_versions: int = 1
    caps: CapSpec | None = None
    context: ContextSpec | None = None
    deadline_s: float = math.inf
    latency: Sequence[Distribution] = ()
    timed: bool = False
    agent: AgentSpec | None = None


@dataclass(frozen=True)
class WorldSpec:
    """Everything an engine needs. Pools come before APIs in `backends`; `policies` is empty or one for each class."""

    classes: Sequence[ClassSpec]
    backends: Sequence[PoolSpec | ApiSpec]
    horizon_s: float
    warmup_s: float = 0.0
    window_s: float = 60.0
    gateway: GatewaySpec = field(default_factory=GatewaySpec)
    seed: int = 0
    log_rows: int = 0
    policies: Sequence[PolicySpec | None] = ()
    rules: Sequence[RuleSpec] = ()
    caches: Sequence[AnswerCacheSpec] = ()
    limits: Sequence[LimitSpec] = ()
