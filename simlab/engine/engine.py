"""The handle on one running world: build it, advance it, give it orders, read its signals and meters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simlab.draws.counter import key
from simlab.engine import arrays as a
from simlab.engine import hook, loop
from simlab.engine.build import FIRST_SEGMENTS, build, cumulative, log_rows
from simlab.engine.meters import book_replicas
from simlab.engine.spec import Chunk, ClassSpec, PoolSpec, WorldSpec
from simlab.engine.stores import rehash
from simlab.engine.world import World, handle, pointers


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


class Engine:
    """One world in motion. Times are in seconds since the start of the run.

    Args:
        spec: what to build.
        on_log: called with a batch of `log_dtype` records (a copy) whenever the log is full, and by `flush_log`.
    """

    def __init__(self, spec: WorldSpec, on_log: Callable[[NDArray[Any]], None] | None = None) -> None:
        self._spec = spec
        self._on_log = on_log
        self._own(build(spec))
        special = (self._w.backends["prompt_store"] != a.NONE) | (self._w.backends["batch"] == 1)
        if self._w.classes["policed"].any() or special.any():
            self._w.gateway["policy"] = hook.address()
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
            elif why == a.GROW_ENTRIES:
                self._grow_entries()
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
        self._w.routes[cls] = cumulative(weights)

    def set_versions(self, cls: int, prompt: int, model: int, corpus: int) -> None:
        """From now on requests of class ``cls`` run under these versions of its prompt, its model and its corpus.

        A prompt of another version shares no beginning with those before it.
        """
        record = self._w.classes[cls]
        first = self._spec.classes[cls]
        content = cls if first.content is None else first.content
        same = prompt == first.versions[0]
        record["content"] = content if same else int(key(content, prompt + 1) >> np.uint64(2))
        record["prompt_version"], record["model_version"], record["corpus_version"] = prompt, model, corpus

    def set_endpoint(self, backend: int, slowdown: float, error_probability: float) -> None:
        """From now on calls that an API endpoint takes up last ``slowdown`` times as long, and fail with this chance.

        Calls that it has taken up already end as they would have.

        Raises:
            ValueError: the backend is no API endpoint, or a number is out of its range.
        """
        if self._w.backends[backend]["kind"] != a.API:
            raise ValueError(f"backend {backend} is a pool: its speed follows from its profile")
        if not 0.0 < slowdown < math.inf or not 0.0 <= error_probability <= 1.0:
            raise ValueError(f"slowdown {slowdown} must be above 0, error_probability {error_probability} in 0 to 1")
        record = self._w.backends[backend]
        record["slowdown"], record["error_probability"] = slowdown, error_probability

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

    def overdue(self) -> NDArray[np.int64]:
        """Tasks of each class that are under way and past their deadline, int64 [classes]."""
        w = self._w
        n = int(w.state[0]["n_slots"])
        slots = w.slots[:n]
        late = slots["arrival_s"] + w.policies["deadline_s"][slots["cls"]] < self.now
        late &= ~np.isin(slots["state"], (a.FREE, a.THINKING))
        if len(w.tickets) > 1:
            late &= w.tickets["parent"][:n] == a.NONE
        return np.bincount(slots["cls"][late], minlength=len(w.classes))

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
        if len(w.tickets) > 1:
            w = w._replace(tickets=a.grown(w.tickets, size))
        if len(w.timers) < 2 * size:
            w = w._replace(timers=a.grown(w.timers, 2 * size))
        if len(w.log) > 1 and len(w.log) < log_rows(self._spec, size):
            w = w._replace(log=a.grown(w.log, log_rows(self._spec, size)))
        self._own(w)

    def _grow_entries(self) -> None:
        """Makes room for twice as many entries of stores, and for what one event can add."""
        w = self._w
        need = int(w.state[0]["n_entries"] + w.state[0]["entry_room"] * w.state[0]["longest_chain"])
        size = 2 * max(len(w.entries), 1 << need.bit_length() - 1)
        self._own(w._replace(entries=a.grown(w.entries, size), entry_heads=np.full(size, a.NONE, np.int64)))
        rehash(self._p)

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
            if cls.system_tokens or len(cls.document_weights) or record["grows"]:
                raise ValueError("a feed that brings lengths brings its segments too: no prefix, turns or agent")
            record["explicit"] = 1
            if w.feed_len.shape[1] < n:
                w = w._replace(feed_len=_wider(w.feed_len, n))
            w.feed_len[c, :n, 0] = chunk.prompt_tokens
            w.feed_len[c, :n, 1] = chunk.output_tokens
        elif cls.users:
            raise ValueError("the feed of a closed loop brings lengths")
        record["asked"] = chunk.query is not None
        if chunk.query is not None:
            if w.feed_query.shape[1] < n:
                w = w._replace(feed_query=_wider(w.feed_query, n))
            w.feed_query[c, :n] = chunk.query
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
            w.state["longest_chain"] = max(per_request, int(w.state[0]["longest_chain"]))
            room = FIRST_SEGMENTS + 2 * per_request
            if len(w.segs) < room:
                w = w._replace(segs=a.grown(w.segs, room))
        self._own(w)


def _wider(array: NDArray[Any], n: int) -> NDArray[Any]:
    shape = (array.shape[0], n, *array.shape[2:])
    wide = np.zeros(shape, array.dtype)
    wide[:, : array.shape[1]] = array
    return wide
