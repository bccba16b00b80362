"""A plain replica of vLLM's V1 scheduler: one step at a time, real blocks, dicts and lists, and no cleverness.

It is the slow twin of `simlab.engine`'s replica (DESIGN.md I10): nothing is jumped over, nothing is counted that could
be held. The order of every list is vLLM's order, because the order decides which block is evicted and who waits.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from simlab.profiles import StepTime

RequestRow = Mapping[str, Any]
Content = tuple[tuple[Any, int, int], ...]


class Outcome(NamedTuple):
    """What became of one request."""

    first_token_s: float
    finish_s: float
    preemptions: int
    cached_tokens: int


class Step(NamedTuple):
    """One model forward: when it began, how long it took, and the tokens of each row in it, in batch order."""

    start_s: float
    duration_s: float
    tokens: dict[int, int]


class TwinRun(NamedTuple):
    """The answer of the twin: outcomes in the order of the rows given, and every step."""

    outcomes: list[Outcome]
    steps: list[Step]


@dataclass(eq=False)
class Block:
    """A KV block: how many requests hold it, and the prefix it stands for once it is full."""

    users: int = 0
    key: int | None = None


@dataclass(eq=False)
class Request:
    """A request inside the replica."""

    row: int
    arrival_s: float
    prompt: int
    output: int
    priority: int
    segments: list[tuple[int, int]]
    generated: int = 0
    computed: int = 0
    blocks: list[Block] = field(default_factory=list)
    keyed: int = 0
    first_token_s: float = -1.0
    finish_s: float = -1.0
    preemptions: int = 0
    cached_tokens: int = 0
    keys: list[int] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """Prompt and output tokens so far."""
        return self.prompt + self.generated

    @property
    def rank(self) -> tuple[int, float, int]:
        """The order under priority scheduling: lower is served first."""
        return self.priority, self.arrival_s, self.row

    def content(self, start: int, end: int) -> Content:
        """Which text stands at the positions [start, end): runs of (source, first offset, length).

        A segment is the same text wherever it stands. What follows the segments is the request's own; but when they
        are the whole prompt, the answer is the one any request with that prompt gets.
        """
        runs: list[tuple[Any, int, int]] = []
        at = 0
        for name, length in self.segments:
            low, high = max(start, at), min(end, at + length)
            if low < high:
                runs.append((name, low - at, high - low))
            at += length
        if max(start, at) < end:
            source = "answer" if at == self.prompt else ("row", self.row)
            runs.append((source, max(start, at) - at, end - max(start, at)))
        return tuple(runs)


class KVCache:
    """The block pool: a free list in eviction order, and for each prefix the blocks that hold it, oldest first."""

    def __init__(self, kv_blocks: int, block_size: int, prefix_caching: bool) -> None:
        self.block_size = block_size
        self.prefix_caching = prefix_caching
        self.blocks = [Block() for _ in range(kv_blocks - 1)]  # vLLM keeps one as its null block
        self.free = list(self.blocks)
        self.holders: dict[int, list[Block]] = {}
        self.names: dict[tuple[int, Content], int] = {}

    def key(self, request: Request, index: int) -> int:
        """The name of the prefix that ends with block `index` of a request."""
        while len(request.keys) <= index:
            i = len(request.keys)
            parent = request.keys[-1] if i else -1
            text = request.content(i * self.block_size, (i + 1) * self.block_size)
            request.keys.append(self.names.setdefault((parent, text), len(self.names)))
        return request.keys[index]

    def lookup(self, request: Request) -> list[Block]:
        """The longest run of cached blocks that begins the request; its last token must still be computed."""
        hits: list[Block] = []
        if not self.prefix_caching:
            return hits
        for index in range((request.tokens - 1) // self.block_size):
            holders = self.holders.get(self.key(request, index))
            if not holders:
                break
            hits.append(holders[0])
        return hits

    def missing(self, request: Request, tokens: int, hits: Sequence[Block] = ()) -> int:
        """Free blocks that a request needs to reach `tokens` tokens: new ones, and hits that lie in the free list."""
        new = -(-tokens // self.block_size) - len(request.blocks) - len(hits)
        return max(new, 0) + sum(block.users == 0 for block in hits)

    def take(self, request: Request, tokens: int, hits: Sequence[Block] = ()) -> None:
        """Gives a request its hits and the new blocks for `tokens` tokens, and names those that will be full."""
        for block in hits:
            if block.users == 0:
                self.free.remove(block)
            block.users += 1
        request.blocks += hits
        request.keyed += len(hits)
        for _ in range(-(-tokens // self.block_size) - len(request.blocks)):
            block = self.free.pop(0)
            self.forget(block)
            block.users = 1
            request.blocks.append(block)
        if self.prefix_caching:
            for index in range(request.keyed, tokens // self.block_size):
                key = self.key(request, index)
                request.blocks[index].key = key
                self.holders.setdefault(key, []).append(request.blocks[index])
            request.keyed = max(request.keyed, tokens // self.block_size)

    def forget(self, block: Block) -> None:
        """Evicts what a block holds."""
        if block.key is not None:
            self.holders[block.key].remove(block)
            block.key = None

    def release(self, request: Request) -> None:
        """Takes the blocks back, last first: nameless ones are used next, named ones wait behind all others."""
        first: list[Block] = []
        last: list[Block] = []
        for block in reversed(request.blocks):
            block.users -= 1
            if block.users == 0:
                (first if block.key is None else last).append(block)
        self.free = first + self.free + last
        request.blocks = []
        request.keyed = 0


class Replica:
    """The scheduler: who runs, who waits, and who is in the next step."""

    def __init__(self, cache: KVCache, max_num_seqs: int, max_num_batched_tokens: int, scheduling: str) -> None:
        self.cache = cache
        self.max_num_seqs = max_num_seqs
        self.max_num_batched_tokens = max_num_batched_tokens
        self.by_priority = scheduling == "priority"
        self.waiting: list[Request] = []
        self.running: list[Request] = []

    def arrive(self, request: Request) -> None:
        """Puts a new request into the queue."""
        if self.by_priority:
            insort(self.waiting, request, key=lambda r: r.rank)
        else:
            self.waiting.append(request)

    def preempt(self) -> Request:
        """Drops one running request back into the queue: its blocks go, its tokens stay."""
        victim = max(self.running, key=lambda r: (r.priority, r.arrival_s)) if self.by_priority else self.running[-1]
        self.running.remove(victim)
        self.cache.release(victim)
        victim.computed = 0
        victim.preemptions += 1
        if self.by_priority:
            insort(self.waiting, victim, key=lambda r: r.rank)
        else:
            self.waiting.insert(0, victim)
        return victim

    def schedule(self) -> dict[Request, int]:
        """The tokens of each request in the next step, in batch order."""
        batch: dict[Request, int] = {}
        budget = self.max_num_batched_tokens
        preempted = False
        queue = list(self.running)
        for request in queue:
            if budget == 0:
                break
            if request not in self.running:
                continue
            tokens = min(request.tokens - request.computed, budget)
            while self.cache.missing(request, request.computed + tokens) > len(self.cache.free):
                victim = self.preempt()
                preempted = True
                budget += batch.pop(victim, 0)
                if victim is request:
                    break
            if request not in self.running:
                break
            self.cache.take(request, request.computed + tokens)
            batch[request] = tokens
            budget -= tokens
        while not preempted and budget > 0 and self.waiting and len(self.running) < self.max_num_seqs:
            request = self.waiting[0]
            hits = self.cache.lookup(request)
            # All that is known of the request must fit, though only the first chunk is taken.
            if self.cache.missing(request, request.tokens, hits) > len(self.cache.free):
                break
            cached = len(hits) * self.cache.block_size
            tokens = min(request.tokens - cached, budget)
            self.cache.take(request, cached + tokens, hits)
            if request.preemptions == 0:
                request.cached_tokens = cached
            request.computed = cached
            self.running.append(self.waiting.pop(0))
            batch[request] = tokens
            budget -= tokens
        return batch

    def finish_step(self, batch: Mapping[Request, int], now_s: float) -> None:
        """Books the computed tokens; who has caught up gets one more token, who has all of them leaves."""
        for request, tokens in batch.items():
            request.computed += tokens
            if request.computed < request.tokens:
                continue
            request.generated += 1
            if request.generated == 1:
                request.first_token_s = now_s
            if request.generated == request.output:
                request.finish_s = now_s
                self.running.remove(request)
                self.cache.release(request)


def duration_s(batch: Mapping[Request, int], step_time: Mapping[str, float] | StepTime) -> float:
    """The time of a step: base + a·prefill tokens + b·decoding sequences + c·context, or as a profile says."""
    decoding = [r for r, tokens in batch.items() if r.generated > 0 and tokens == 1]
    prefill = sum(tokens for r, tokens in batch.items() if r not in decoding)
    if isinstance(step_time, StepTime):
        chunks = [(r.computed, tokens) for r, tokens in batch.items() if r not in decoding]
        return step_time.step_s(
            prefill,
            len(decoding),
            sum(r.computed + 1 for r in decoding),
            prefill_context=sum(start + tokens for start, tokens in chunks),
            prefill_work=sum(sum(range(start + 1, start + tokens + 1)) for start, tokens in chunks),
            prefill_requests=len(chunks),
        )
    context = sum(r.computed + tokens for r, tokens in batch.items())
    return (
        step_time["base_s"]
        + step_time["per_prefill_token_s"] * prefill
        + step_time["per_decode_seq_s"] * len(decoding)
        + step_time["per_context_token_s"] * context
    )


def twin_replay(
    requests: Sequence[RequestRow],
    step_time: Mapping[str, float] | StepTime,
    max_num_seqs: int,
    max_num_batched_tokens: int,
    kv_blocks: int,
    block_size: int,
    prefix_caching: bool,
    scheduling: str = "fcfs",
    users: int | None = None,
) -> TwinRun:
    """Serves rows of `arrival_s, prompt_tokens, output_tokens[, segments][, priority]` as `simlab.replay` does.

    With ``users``, each of so many users sends the next row when it is due and the user's last one is answered.
    """
    everyone = [
        Request(
            row=row,
            arrival_s=r["arrival_s"],
            prompt=r["prompt_tokens"],
            output=r["output_tokens"],
            priority=r.get("priority", 0),
            segments=[(name, length) for name, length in r.get("segments", ())],
        )
        for row, r in enumerate(requests)
    ]
    replica = Replica(KVCache(kv_blocks, block_size, prefix_caching), max_num_seqs, max_num_batched_tokens, scheduling)
    to_come = sorted(everyone, key=lambda r: r.arrival_s)
    steps: list[Step] = []
    now = 0.0
    while to_come or replica.waiting or replica.running:
        if not replica.waiting and not replica.running:
            now = max(now, to_come[0].arrival_s)
        while to_come and to_come[0].arrival_s <= now:
            if users is not None and len(replica.waiting) + len(replica.running) >= users:
                break
            replica.arrive(to_come.pop(0))
        running = len(replica.running)
        batch = replica.schedule()
        if not batch:
            # Under priority scheduling the first to run can be the one to go: an empty step, which takes no time.
            if len(replica.running) == running:
                raise RuntimeError(f"a request can never fit into {kv_blocks} blocks")
            continue
        took = duration_s(batch, step_time)
        steps.append(Step(now, took, {r.row: tokens for r, tokens in batch.items()}))
        now += took
        replica.finish_step(batch, now)
    outcomes = [Outcome(r.first_token_s, r.finish_s, r.preemptions, r.cached_tokens) for r in everyone]
    return TwinRun(outcomes, steps)
