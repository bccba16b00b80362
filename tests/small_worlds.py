"""Small worlds that meet every rule, made from one source of randomness, and a runner that can stop anywhere.

`small_world(random)` takes a `random.Random`; hypothesis has one whose draws it can shrink (``st.randoms``), a seed has
another, so the same worlds serve tests and long hunts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simlab.draws import Distribution
from simlab.engine import (
    AnswerCacheSpec,
    ApiSpec,
    ClassSpec,
    Engine,
    GatewaySpec,
    LimitSpec,
    PolicySpec,
    PoolSpec,
    RuleSpec,
    StepCoefficients,
    WorldSpec,
)
from simlab.engine.arrays import log_dtype
from simlab.workload import Chunk

TICK_S = 2**-9
"""Times that are whole ticks are exact, so that events that should coincide do."""


@dataclass
class Feed:
    """Brings its chunks one after the other."""

    chunks: Sequence[Chunk]
    at: int = 0

    def next_chunk(self) -> Chunk | None:
        self.at += 1
        return self.chunks[self.at - 1] if self.at <= len(self.chunks) else None


def arrivals(times_s: Sequence[float], lengths: Sequence[tuple[int, int]] | None = None) -> tuple[Chunk, ...]:
    """One chunk of arrivals, with (prompt, output) tokens if given."""
    if lengths is None:
        return (Chunk(np.array(times_s, np.float64)),)
    pairs = np.array(lengths, np.int64).reshape(-1, 2)
    return (Chunk(np.array(times_s, np.float64), pairs[:, 0].copy(), pairs[:, 1].copy()),)


def traced(rows: Sequence[tuple[float, int, int, Sequence[tuple[int, int]]]]) -> Chunk:
    """A chunk of (arrival, prompt, output, [(segment id, tokens), …])."""
    pairs = [pair for row in rows for pair in row[3]]
    flat = np.array(pairs, np.int64).reshape(-1, 2)
    return Chunk(
        np.array([row[0] for row in rows], np.float64),
        np.array([row[1] for row in rows], np.int64),
        np.array([row[2] for row in rows], np.int64),
        np.cumsum([0] + [len(row[3]) for row in rows]).astype(np.int64),
        flat[:, 0].copy(),
        flat[:, 1].copy(),
    )


@dataclass(frozen=True)
class Order:
    """An order to the engine at a time: add, ready, drain, fail (the n-th lease of the pool), route."""

    at_s: float
    what: str
    pool: int = 0
    which: int = 0
    weights: tuple[float, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A world to be built afresh as often as wanted.

    ``chunks`` are the arrivals of each class; () of a closed loop: its users draw their requests.
    """

    classes: tuple[ClassSpec, ...]
    chunks: tuple[tuple[Chunk, ...], ...]
    backends: tuple[PoolSpec | ApiSpec, ...]
    gateway: GatewaySpec = field(default_factory=GatewaySpec)
    horizon_s: float = 60.0
    warmup_s: float = 0.0
    window_s: float = 7.0
    seed: int = 0
    orders: tuple[Order, ...] = ()
    policies: tuple[PolicySpec | None, ...] = ()
    rules: tuple[RuleSpec, ...] = ()
    caches: tuple[AnswerCacheSpec, ...] = ()
    limits: tuple[LimitSpec, ...] = ()

    @property
    def ends(self) -> bool:
        """Whether all work is done some day: no closed loop without a feed."""
        return all(cls.users == 0 or chunks for cls, chunks in zip(self.classes, self.chunks, strict=True))

    def spec(self, log: bool = True) -> WorldSpec:
        """A fresh specification; its feeds can be read once."""
        return WorldSpec(
            classes=[
                cls if cls.users and not chunks else replace(cls, feed=Feed(chunks))
                for cls, chunks in zip(self.classes, self.chunks, strict=True)
            ],
            backends=self.backends,
            horizon_s=self.horizon_s,
            warmup_s=self.warmup_s,
            window_s=self.window_s,
            gateway=self.gateway,
            seed=self.seed,
            log_rows=1 if log else 0,
            policies=self.policies,
            rules=self.rules,
            caches=self.caches,
            limits=self.limits,
        )


@dataclass
class Run:
    """A world that has been run, and its log of ended attempts."""

    plan: Plan
    engine: Engine
    log: NDArray[Any]

    @property
    def world(self) -> Any:
        return self.engine.world

    def of(self, **values: int) -> NDArray[Any]:
        """Rows of the log where the fields have these values, in the order they were written."""
        rows = self.log
        for name, value in values.items():
            rows = rows[rows[name] == value]
        return rows


def run(
    plan: Plan, stops: Sequence[float] = (), look: Callable[[Engine], None] | None = None, until: float | None = None
) -> Run:
    """Runs the plan to ``until`` (default: its horizon), stopping on the way at ``stops`` to let ``look`` look."""
    rows: list[NDArray[Any]] = []
    engine = Engine(plan.spec(), rows.append)
    end = plan.horizon_s if until is None else until
    todo = [(order.at_s, 0, i) for i, order in enumerate(plan.orders) if order.at_s <= end]
    todo += [(stop, 1, 0) for stop in stops if stop <= end]
    leases: dict[int, list[int]] = {}
    for at_s, kind, i in sorted(todo):
        engine.advance(at_s)
        if kind == 0:
            obey(engine, plan.orders[i], leases)
            engine.advance(at_s)
        if look is not None:
            look(engine)
    engine.advance(end)
    if look is not None:
        look(engine)
    engine.settle()
    engine.flush_log()
    return Run(plan, engine, np.concatenate(rows) if rows else np.zeros(0, log_dtype))


def obey(engine: Engine, order: Order, leases: dict[int, list[int]]) -> None:
    """Carries an order out; one that makes no sense now is passed over."""
    w = engine.world
    if order.what == "route":
        engine.set_route(order.which, order.weights)
        return
    mine = leases.setdefault(order.pool, [])
    if not mine:
        mine.extend(engine.replicas(order.pool))
    if order.what == "add":
        if ((w.reps["backend"] == order.pool) & (w.reps["state"] == 0)).any():
            mine.append(engine.order_replica(order.pool))
        return
    if order.which < len(mine):
        act = {"ready": engine.replica_ready, "drain": engine.drain_replica, "fail": engine.fail_replica}
        act[order.what](mine[order.which])


def _time(random: Random, most_s: float) -> float:
    if random.random() < 0.7:
        return random.randint(0, int(most_s / TICK_S)) * TICK_S
    # Not closer to each other than the engine tells instants apart, and never on a tick.
    return (random.randint(0, int(most_s * 1e6)) + 0.3) * 1e-6


def _tokens(random: Random, most: int) -> Distribution:
    kind = random.randint(0, 3)
    mean = random.randint(1, max(1, most))
    if kind == 0:
        return Distribution.fixed(float(mean))
    if kind == 1:
        return Distribution.geometric(float(mean))
    if kind == 2:
        return replace(Distribution.lognormal(float(mean), 2.0 * mean), high=float(most))
    return Distribution.empirical({0.0: 1.0, 0.7: float(mean), 1.0: float(most)})


def _seconds(random: Random, most_s: float) -> Distribution:
    if random.random() < 0.5:
        return Distribution.fixed(random.randint(1, max(1, int(most_s / TICK_S))) * TICK_S)
    return Distribution.exponential(random.uniform(TICK_S, most_s))


def _step(random: Random) -> StepCoefficients:
    tick = TICK_S / random.choice([1, 4, 64])
    knots = ()
    if random.random() < 0.3:
        knots = ((0.0, 0.0), (4.0, tick), (16.0, 3 * tick))
    return StepCoefficients(
        base_s=random.choice([1, 2, 5]) * tick,
        prefill_token_s=random.choice([0.0, tick / 8]),
        decode_seq_s=random.choice([0.0, tick / 4]),
        decode_context_s=random.choice([0.0, tick / 256]),
        prefill_context_s=random.choice([0.0, tick / 256]),
        attention_s=random.choice([0.0, tick / 1024]),
        knots=knots,
    )


def _pool(random: Random) -> PoolSpec:
    block_size = random.choice([1, 2, 4, 16])
    seqs = random.choice([1, 2, 3, 8, 40])
    replicas = random.choice([0, 1, 1, 2, 3])
    return PoolSpec(
        step=_step(random),
        replicas=replicas,
        max_replicas=replicas + random.randint(0, 3) or 1,
        dispatch=random.randint(0, 4),
        priority=random.random() < 0.3,
        max_num_seqs=seqs,
        max_num_batched_tokens=seqs + random.choice([0, 1, 7, 64, 2000]),
        block_size=block_size,
        kv_blocks=random.choice([4, 9, 20, 60, 400]) + 96 // block_size * random.randint(0, 2),
        prefix_caching=random.random() < 0.7,
        max_model_len=random.choice([1 << 40, 1 << 40, 60, 200]),
        overhead_s=random.choice([0.0, 0.0, TICK_S * 3]),
    )


def _api(random: Random) -> ApiSpec:
    return ApiSpec(
        ttft=_seconds(random, 0.5),
        itl=random.choice([Distribution.fixed(0.0), Distribution.fixed(TICK_S), Distribution.exponential(0.01)]),
        ttft_per_token_s=random.choice([0.0, TICK_S / 32]),
        concurrency=random.choice([0, 1, 3]),
        reject_full=random.random() < 0.4,
        rpm=random.choice([0.0, 0.0, 90.0, 600.0]),
        tpm=random.choice([0.0, 0.0, 3000.0]),
        error_probability=random.choice([0.0, 0.2, 1.0]),
        cached_ratio=random.choice([0.0, 0.8]),
        long_tokens=random.choice([0, 20]),
    )


def _rows(random: Random, times: Sequence[float], longest: int) -> Chunk:
    sizes = [random.randint(1, 20) for _ in range(4)]
    rows = []
    for t in times:
        chain = [(i, sizes[i]) for i in (random.randint(0, 3) for _ in range(random.randint(0, 3)))]
        shared = sum(n for _, n in chain)
        prompt = max(1, shared + random.choice([0, 0, 1, random.randint(0, longest)]))
        rows.append((t, prompt, random.randint(1, longest), chain))
    return traced(rows)


def _class(random: Random, n_backends: int, longest: int, span_s: float) -> tuple[ClassSpec, tuple[Chunk, ...]]:
    weights = [random.choice([0.0, 1.0, 3.0]) for _ in range(n_backends)]
    if not sum(weights):
        weights[random.randrange(n_backends)] = 1.0
    common = ClassSpec(
        prompt=_tokens(random, longest),
        output=_tokens(random, longest),
        tenant_weights=[random.choice([0.5, 1.0, 4.0]) for _ in range(random.randint(1, 3))],
        priority=random.randint(0, 2),
        route=weights,
        slo_ttft_s=random.choice([math.inf, 0.2]),
        slo_e2e_s=random.choice([math.inf, 1.0]),
        slo_itl_s=random.choice([math.inf, 0.01]),
    )
    if random.random() < 0.4:
        common = replace(common, system_tokens=random.choice([1, 16, 33]))
    if random.random() < 0.3:
        common = replace(common, document_weights=[1.0, 0.5, 0.25], document_tokens=random.choice([5, 16, 30]))
    kind = random.randint(0, 3)
    if kind == 0:
        return replace(common, users=random.randint(1, 6), think=_seconds(random, 2.0)), ()
    n = random.choice([0, 1, 5, 12, 40])
    times = sorted(_time(random, span_s) for _ in range(n))
    if random.random() < 0.2:
        times = [times[0]] * len(times) if times else times
    if kind == 1:
        plain = replace(common, system_tokens=0, document_weights=(), segmented=random.random() < 0.8)
        cut = random.randint(0, n)
        chunks = [_rows(random, part, longest) for part in (times[:cut], times[cut:])]
        if random.random() < 0.3:
            plain = replace(plain, users=random.randint(1, 6), think=_seconds(random, 0.5))
        return plain, tuple(chunks)
    if kind == 2:
        common = replace(
            common,
            turns=Distribution.geometric(random.choice([1.0, 2.0, 4.0])),
            think=_seconds(random, 2.0),
            max_context=random.choice([0, 0, 3 * longest]),
        )
    elif random.random() < 0.3:
        common = replace(common, joint=np.array([[random.randint(1, longest), random.randint(1, longest)]] * 3))
    return common, (Chunk(np.array(times)),)


def _orders(random: Random, backends: Sequence[PoolSpec | ApiSpec], n_classes: int, span_s: float) -> list[Order]:
    pools = [b for b, backend in enumerate(backends) if isinstance(backend, PoolSpec)]
    orders = []
    for _ in range(random.choice([0, 0, 2, 6, 12])):
        what = random.choice(["add", "ready", "ready", "drain", "fail", "route"])
        if what == "route":
            weights = tuple(random.choice([0.0, 1.0]) for _ in backends)
            if sum(weights):
                orders.append(
                    Order(_time(random, span_s), what, which=random.randrange(n_classes), weights=weights)
                )
        elif pools:
            orders.append(Order(_time(random, span_s), what, random.choice(pools), random.randint(0, 3)))
    return sorted(orders, key=lambda order: order.at_s)


def small_world(random: Random) -> Plan:
    """A world of a few classes, pools and APIs, with everything that can be said of them."""
    backends: list[PoolSpec | ApiSpec] = [_pool(random) for _ in range(random.choice([0, 1, 1, 1, 2]))]
    backends += [_api(random) for _ in range(random.randint(0 if backends else 1, 2))]
    longest = random.choice([4, 20, 60])
    span_s = random.choice([0.1, 1.0, 8.0])
    pairs = [_class(random, len(backends), longest, span_s) for _ in range(random.randint(1, 3))]
    gateway = GatewaySpec(
        timeout_s=random.choice([math.inf, math.inf, 8 * TICK_S, 0.25, 1.0]),
        max_attempts=random.randint(1, 4),
        backoff_s=random.choice([0.0, TICK_S, 0.1]),
        backoff_factor=random.choice([1.0, 2.0]),
        max_backoff_s=random.choice([0.1, 1.0]),
        jitter=random.choice([0.0, 0.25, 1.0]),
        retry_rate_limited=random.random() < 0.7,
        retry_error=random.random() < 0.7,
        retry_timed_out=random.random() < 0.7,
        retry_rejected=random.random() < 0.3,
    )
    return Plan(
        classes=tuple(cls for cls, _ in pairs),
        chunks=tuple(chunks for _, chunks in pairs),
        backends=tuple(backends),
        gateway=gateway,
        horizon_s=span_s * random.choice([0.5, 1.5]) + 4.0 * random.randint(0, 1),
        warmup_s=random.choice([0.0, span_s / 4]),
        window_s=random.choice([0.3, 1.0, 100.0]),
        seed=random.randint(0, 1 << 40),
        orders=tuple(_orders(random, backends, len(pairs), span_s)),
    )
