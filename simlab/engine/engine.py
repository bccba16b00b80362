"""The handle on one running world: build it, advance it, give it orders, read its signals and meters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simlab.draws import Distribution
from simlab.draws.distribution import pack
from simlab.engine import arrays as a
from simlab.engine import loop
from simlab.engine.meters import COARSE, HIST_BUCKETS, book_replicas
from simlab.engine.spec import ApiSpec, Chunk, ClassSpec, PoolSpec, WorldSpec
from simlab.engine.world import World, handle, pointers

_FIRST_SLOTS = 1024
_FIRST_SEGMENTS = 4096
_SYSTEM_ID = 1 << 40


@dataclass(frozen=True)
class PoolSignals:
    """What an operator sees of a pool.

    Args:
        up: replicas serving.
        starting: replicas ordered but not ready.
        draining: replicas finishing what they have.
        waiting: requests waiting for a batch.
        running: requests in a batch.
        kv_used: share of the KV blocks of serving replicas that are held by requests.
    """

    up: int
    starting: int
    draining: int
    waiting: int
    running: int
    kv_used: float


def alias_table(weights: Sequence[float]) -> list[float]:
    """(threshold, alias) pairs of Vose's alias method (1991) for drawing index i with probability ~ weights[i]."""
    n = len(weights)
    total = math.fsum(weights)
    scaled = [w * n / total for w in weights]
    pairs = [(1.0, float(i)) for i in range(n)]
    small = [i for i in range(n) if scaled[i] < 1.0]
    large = [i for i in range(n) if scaled[i] >= 1.0]
    while small and large:
        low, high = small.pop(), large[-1]
        pairs[low] = (scaled[low], float(high))
        scaled[high] -= 1.0 - scaled[low]
        if scaled[high] < 1.0:
            small.append(large.pop())
    return [number for pair in pairs for number in pair]


class _Packer:
    """Collects distributions and tables and remembers where each landed."""

    def __init__(self) -> None:
        self.distributions: list[Distribution] = []
        self.extra: list[float] = []

    def distribution(self, d: Distribution | None) -> int:
        if d is None:
            return a.NONE
        self.distributions.append(d)
        return len(self.distributions) - 1

    def table(self, numbers: Sequence[float]) -> int:
        at = len(self.extra)
        self.extra.extend(numbers)
        return at


class Engine:
    """One world in motion. Times are in seconds since the start of the run.

    Args:
        spec: what to build.
        on_log: called with a batch of `log_dtype` records (a copy) whenever the log is full, and by `flush_log`.
    """

    def __init__(self, spec: WorldSpec, on_log: Callable[[NDArray[Any]], None] | None = None) -> None:
        self._spec = spec
        self._on_log = on_log
        self._own(_build(spec))
        for c, cls in enumerate(spec.classes):
            if cls.feed is None:
                self._w.classes[c]["feed_done"] = 1
            else:
                self._w.classes[c]["explicit"] = cls.users > 0
                self._refill(c)
            if cls.users:
                self._reserve_slots(cls.users)
                loop.start_users(self._p, c)
        loop.refresh_arrivals(self._p)
        for b, backend in enumerate(spec.backends):
            if isinstance(backend, PoolSpec):
                for _ in range(backend.replicas):
                    self.replica_ready(self.order_replica(b))

    @property
    def now(self) -> float:
        """Time the run has reached, s."""
        return float(self._w.state[0]["now"])

    @property
    def world(self) -> World:
        """The arrays themselves, to read."""
        return self._w

    def advance(self, until: float) -> None:
        """Runs all events up to and including time ``until`` (s)."""
        while True:
            why = loop.run(self._p, until)
            if why == a.DONE:
                return
            if why == a.NEED_CHUNK:
                self._refill(int(self._w.state[0]["need_cls"]))
                loop.refresh_arrivals(self._p)
            elif why == a.GROW_SLOTS:
                self._reserve_slots(len(self._w.slots))
            elif why == a.GROW_TIMERS:
                self._own(self._w._replace(timers=a.grown(self._w.timers, 2 * len(self._w.timers))))
            elif why == a.GROW_SEGMENTS:
                self._own(self._w._replace(segs=a.grown(self._w.segs, 2 * len(self._w.segs))))
            else:
                self.flush_log()

    def settle(self) -> None:
        """Books the time of all replicas up to now, before the meters are read."""
        book_replicas(self._p, self.now)

    def flush_log(self) -> None:
        """Hands the ended attempts logged so far to ``on_log``."""
        state = self._w.state[0]
        if self._on_log is not None and state["log_n"]:
            self._on_log(np.array(self._w.log[: state["log_n"]]))
        state["log_n"] = 0

    # Orders.

    def order_replica(self, pool: int) -> int:
        """Leases a replica for pool ``pool`` from now on; it serves after `replica_ready`. Returns its number.

        Raises:
            ValueError: the pool's ``max_replicas`` are leased already.
        """
        reps = self._w.reps
        free = np.flatnonzero((reps["backend"] == pool) & (reps["state"] == a.UNLEASED))
        if not len(free):
            raise ValueError(f"backend {pool} cannot lease another replica: all its max_replicas were leased")
        loop.link_replica(self._p, int(free[0]), self.now)
        return int(free[0])

    def replica_ready(self, replica: int) -> None:
        """A leased replica starts to serve."""
        loop.ready(self._p, replica, self.now)

    def drain_replica(self, replica: int) -> None:
        """Sends a replica nothing new; its lease ends when it has finished what it has."""
        loop.drain(self._p, replica, self.now)

    def fail_replica(self, replica: int) -> None:
        """Kills a replica: its requests fail (and may be retried), its cache is lost, its lease ends."""
        loop.fail(self._p, replica, self.now)

    def set_route(self, cls: int, weights: Sequence[float]) -> None:
        """Sends class ``cls`` to the backends by these weights from now on."""
        self._w.routes[cls] = _cumulative(weights)

    # Signals.

    def replicas(self, pool: int) -> list[int]:
        """Numbers of the pool's serving replicas."""
        reps = self._w.reps
        return [int(r) for r in np.flatnonzero((reps["backend"] == pool) & (reps["state"] == a.UP))]

    def signals(self, pool: int) -> PoolSignals:
        """What an operator sees of pool ``pool`` now."""
        reps = self._w.reps[self._w.reps["backend"] == pool]
        up = reps[reps["state"] == a.UP]
        total = len(up) * (int(self._w.backends[pool]["kv_blocks"]) - 1)
        return PoolSignals(
            up=len(up),
            starting=int((reps["state"] == a.STARTING).sum()),
            draining=int((reps["state"] == a.DRAINING).sum()),
            waiting=int(reps["n_waiting"].sum()),
            running=int(reps["n_running"].sum()),
            kv_used=1.0 - float(up["free"].sum()) / total if total else 0.0,
        )

    # Room.

    def _own(self, world: World) -> None:
        """Keeps the arrays, and what the kernels find them by."""
        self._w = world
        self._pointers = pointers(world)
        self._p = handle(world, self._pointers)

    def _reserve_slots(self, n: int) -> None:
        """Makes room for ``n`` more slots than there are now."""
        w = self._w
        size = len(w.slots) + n
        w = w._replace(slots=a.grown(w.slots, size))
        if len(w.timers) < 2 * size:
            w = w._replace(timers=a.grown(w.timers, 2 * size))
        if len(w.log) > 1 and len(w.log) < 2 * size + 16:
            w = w._replace(log=a.grown(w.log, 2 * size + 16))
        self._own(w)

    def _refill(self, c: int) -> None:
        cls = self._spec.classes[c]
        record = self._w.classes[c]
        chunk = cls.feed.next_chunk() if cls.feed is not None else None
        record["feed_at"] = 0
        record["feed_n"] = 0
        if chunk is None:
            record["feed_done"] = 1
            return
        self._put_chunk(c, cls, chunk)

    def _put_chunk(self, c: int, cls: ClassSpec, chunk: Chunk) -> None:
        w = self._w
        n = len(chunk.arrival_s)
        record = w.classes[c]
        record["feed_n"] = n
        if w.feed_t.shape[1] < n:
            w = w._replace(feed_t=_wider(w.feed_t, n))
        w.feed_t[c, :n] = chunk.arrival_s
        if chunk.prompt_tokens is not None and chunk.output_tokens is not None:
            if cls.system_tokens or len(cls.document_weights) or cls.turns is not None:
                raise ValueError("a feed that brings lengths brings its segments too: leave prefix and turns out")
            record["explicit"] = 1
            if w.feed_len.shape[1] < n:
                w = w._replace(feed_len=_wider(w.feed_len, n))
            w.feed_len[c, :n, 0] = chunk.prompt_tokens
            w.feed_len[c, :n, 1] = chunk.output_tokens
        elif cls.users:
            raise ValueError("the feed of a closed loop brings lengths")
        if cls.segmented:
            record["segmented"] = chunk.segment_ptr is not None
        if cls.segmented and chunk.segment_ptr is not None:
            assert chunk.segment_id is not None
            assert chunk.segment_tokens is not None
            m = len(chunk.segment_id)
            if w.feed_ptr.shape[1] < n + 1:
                w = w._replace(feed_ptr=_wider(w.feed_ptr, n + 1))
            if w.feed_seg.shape[1] < m:
                w = w._replace(feed_seg=_wider(w.feed_seg, m))
            w.feed_ptr[c, : n + 1] = chunk.segment_ptr
            w.feed_seg[c, :m, 0] = chunk.segment_id
            w.feed_seg[c, :m, 1] = chunk.segment_tokens
            per_request = int(np.diff(chunk.segment_ptr).max(initial=0))
            room = _FIRST_SEGMENTS + 2 * per_request
            if len(w.segs) < room:
                w = w._replace(segs=a.grown(w.segs, room))
        self._own(w)


def _wider(array: NDArray[Any], n: int) -> NDArray[Any]:
    shape = (array.shape[0], n, *array.shape[2:])
    wide = np.zeros(shape, array.dtype)
    wide[:, : array.shape[1]] = array
    return wide


def _cumulative(weights: Sequence[float]) -> NDArray[np.float64]:
    shares = np.cumsum(np.asarray(weights, np.float64))
    return np.asarray(shares / shares[-1], np.float64)


def _build(spec: WorldSpec) -> World:
    packer = _Packer()
    classes, tenants = _classes(spec, packer)
    backends, reps = _backends(spec, packer)
    packed, tables = pack(packer.distributions)
    # The packer's own tables go in front, so the distributions' move up.
    packed["offset"] += len(packer.extra)
    dists = a.records(len(packed), packed.dtype)
    dists[:] = packed
    pools = [p for p in spec.backends if isinstance(p, PoolSpec)]
    joint = [cls.joint for cls in spec.classes if cls.joint is not None]
    n_classes, n_backends = len(spec.classes), len(spec.backends)
    n_windows = max(1, math.ceil(spec.horizon_s / spec.window_s - 1e-9))
    state = a.records(1, a.state_dtype)
    for name in ("free_slot", "timeout_head", "timeout_tail", "free_seg", "free_ref", "arrival_cls", "need_cls"):
        state[name] = a.NONE
    state["seed"] = spec.seed
    state["warmup_s"], state["window_s"] = spec.warmup_s, spec.window_s
    state["arrival_t"] = math.inf
    state["window_end"] = spec.window_s if n_windows > 1 else math.inf
    gateway = a.records(1, a.gateway_dtype)
    for name in a.gateway_dtype.names or ():
        gateway[name] = getattr(spec.gateway, name)
    cells = a.records(len(tenants) * n_backends, a.cell_dtype)
    for name in ("cls", "tenant"):
        cells[name] = np.repeat(tenants[name], n_backends)
    cells["backend"] = np.tile(np.arange(n_backends), len(tenants))
    blocks, buckets, refs = _kv_arrays(spec, reps)
    return World(
        state=state,
        gateway=gateway,
        classes=classes,
        backends=backends,
        routes=np.array([_cumulative(cls.route) for cls in spec.classes]),
        dists=dists,
        tables=np.concatenate([np.array(packer.extra, np.float64), tables]),
        joint=np.concatenate(joint).astype(np.int64) if joint else np.zeros((1, 2), np.int64),
        reps=reps,
        rep_heap=np.zeros(len(reps), np.int64),
        finish=a.records((len(reps), max((p.max_num_seqs for p in pools), default=1)), a.finish_dtype),
        phases=np.zeros((len(reps), max((p.block_size for p in pools), default=1)), np.int64),
        decode_cls=np.zeros((len(reps), n_classes), np.int64),
        slots=a.records(_FIRST_SLOTS, a.slot_dtype),
        timers=a.records(2 * _FIRST_SLOTS + 16, a.timer_dtype),
        segs=a.records(_FIRST_SEGMENTS, a.segment_dtype),
        refs=refs,
        blocks=blocks,
        buckets=buckets,
        found=np.zeros(max((p.kv_blocks for p in pools), default=1), np.int64),
        feed_t=np.zeros((n_classes, 1)),
        feed_len=np.zeros((n_classes, 1, 2), np.int64),
        feed_ptr=np.zeros((n_classes, 1), np.int64),
        feed_seg=np.zeros((n_classes, 1, 2), np.int64),
        cells=cells,
        tasks=a.records((2, n_classes), a.task_dtype),
        tenants=tenants,
        hist=np.zeros((4, n_classes, n_backends, HIST_BUCKETS), np.int64),
        hist_sum=np.zeros((4, n_classes, n_backends)),
        hist_count=np.zeros((4, n_classes, n_backends), np.int64),
        windows=a.records((n_windows, n_backends), a.window_dtype),
        window_hist=np.zeros((n_windows, 2, HIST_BUCKETS // COARSE), np.int64),
        log=a.records(max(1, spec.log_rows, 2 * _FIRST_SLOTS + 16 if spec.log_rows else 1), a.log_dtype),
    )


def _classes(spec: WorldSpec, packer: _Packer) -> tuple[NDArray[Any], NDArray[Any]]:
    records = a.records(len(spec.classes), a.class_dtype)
    tenants = a.records(sum(len(cls.tenant_weights) for cls in spec.classes), a.tenant_dtype)
    tenant_base = joint_at = 0
    for c, cls in enumerate(spec.classes):
        record = records[c]
        for name in ("users", "max_context", "system_tokens", "document_tokens"):
            record[name] = getattr(cls, name)
        for name in ("think", "prompt", "output", "turns"):
            record[name] = packer.distribution(getattr(cls, name))
        for name in ("slo_ttft_s", "slo_itl_s", "slo_e2e_s"):
            record[name] = getattr(cls, name)
        record["prio"] = cls.priority
        record["stream"] = c + 1
        record["content"] = c if cls.content is None else cls.content
        record["system_id"] = _SYSTEM_ID + c
        record["segmented"] = cls.segmented or bool(
            cls.system_tokens or len(cls.document_weights) or cls.turns is not None
        )
        if cls.joint is not None:
            record["joint_at"], record["joint_n"] = joint_at, len(cls.joint)
            joint_at += len(cls.joint)
        n = len(cls.tenant_weights)
        record["tenants"] = n
        record["tenant_alias_at"] = packer.table(alias_table(cls.tenant_weights))
        record["documents"] = len(cls.document_weights)
        if len(cls.document_weights):
            record["document_alias_at"] = packer.table(alias_table(cls.document_weights))
        record["tenant_base"] = tenant_base
        record["cell_base"] = tenant_base * len(spec.backends)
        tenants["cls"][tenant_base : tenant_base + n] = c
        tenants["tenant"][tenant_base : tenant_base + n] = np.arange(n)
        tenant_base += n
    return records, tenants


def _backends(spec: WorldSpec, packer: _Packer) -> tuple[NDArray[Any], NDArray[Any]]:
    records = a.records(len(spec.backends), a.backend_dtype)
    n_reps = 0
    for b, backend in enumerate(spec.backends):
        record = records[b]
        for name in ("rep_head", "queue_head", "queue_tail", "ttft", "itl"):
            record[name] = a.NONE
        if isinstance(backend, ApiSpec):
            record["kind"] = a.API
            record["ttft"] = packer.distribution(backend.ttft)
            record["itl"] = packer.distribution(backend.itl)
            record["ttft_per_token_s"] = backend.ttft_per_token_s
            record["concurrency"], record["reject_full"] = backend.concurrency, backend.reject_full
            record["rpm"], record["rpm_level"] = backend.rpm, max(backend.rpm, 1.0)
            record["tpm"] = record["tpm_level"] = backend.tpm
            for name in ("error_probability", "cached_ratio", "long_tokens"):
                record[name] = getattr(backend, name)
            continue
        n_reps += max(backend.max_replicas, backend.replicas)
        step = backend.step
        record["kind"] = a.POOL
        for name in ("dispatch", "priority", "max_num_seqs", "block_size", "kv_blocks", "max_model_len", "overhead_s",
                     "work_prefill_s", "work_decode_s", "known_seqs", "known_tokens", "known_context"):
            record[name] = getattr(backend, name)
        for name in ("base_s", "prefill_token_s", "decode_seq_s", "decode_context_s", "prefill_context_s",
                     "attention_s", "prefill_seq_s"):
            record[name] = getattr(step, name)
        record["budget"] = backend.max_num_batched_tokens
        record["caching"] = backend.prefix_caching
        record["knots_n"] = len(step.knots)
        record["knots_at"] = packer.table([number for knot in step.knots for number in knot])
        record["prefill_knots_n"] = len(step.prefill_knots)
        record["prefill_knots_at"] = packer.table([number for knot in step.prefill_knots for number in knot])
    return records, a.records(max(1, n_reps), a.replica_dtype)


def _kv_arrays(
    spec: WorldSpec, reps: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[Any]]:
    """Block records, hash heads and holds, sized for the most there can be; untouched memory is never committed."""
    shared = any(cls.segmented or cls.system_tokens or len(cls.document_weights) or cls.turns for cls in spec.classes)
    reps["backend"] = a.NONE
    r = n_blocks = n_buckets = n_refs = 0
    for b, pool in enumerate(spec.backends):
        if not isinstance(pool, PoolSpec):
            continue
        buckets = 1 << (2 * pool.kv_blocks - 1).bit_length() if shared and pool.prefix_caching else 1
        for _ in range(max(pool.max_replicas, pool.replicas)):
            rep = reps[r]
            rep["backend"] = b
            r += 1
            rep["block_at"] = n_blocks
            rep["run_at"] = n_blocks + pool.kv_blocks
            rep["bucket_at"], rep["buckets"] = n_buckets, buckets
            n_blocks += 2 * pool.kv_blocks if pool.prefix_caching else 1
            n_buckets += buckets
            if shared and pool.prefix_caching:
                longest = min(pool.max_model_len // pool.block_size + 1, pool.kv_blocks)
                n_refs += longest * pool.max_num_seqs
    return (
        a.records(max(1, n_blocks), a.block_dtype),
        np.full(max(1, n_buckets), a.NONE, np.int64),
        a.records(max(1, n_refs), a.ref_dtype),
    )

