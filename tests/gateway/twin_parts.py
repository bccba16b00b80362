"""Parts of the gateway's slow twin: its luck, a provider, a breaker, limits with lines, and stores of answers.

Written from the manual (docs/gateway.md, docs/scenario.md), not from the engine. Settings come as the engine's plain
specifications, so that one `small_worlds.Plan` describes both.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import OrderedDict
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from random import Random
from statistics import NormalDist
from typing import Any

import numpy as np
import simpy

from simlab.draws import EXPONENTIAL, FIXED, LOGNORMAL, Distribution
from simlab.draws.counter import key, uniform
from simlab.engine import AnswerCacheSpec, ApiSpec, GatewaySpec, LimitSpec
from simlab.engine import arrays as a
from simlab.engine.build import alias_table

Steps = Generator[simpy.Event, Any, Any]

DAY_S = 86400.0
SLACK_S = 1e-9
"""Who waits until a bucket is full must find it so, whatever the last digit says."""


class Luck:
    """Random numbers: the engine's own, which name what they are for, or of another source.

    With the engine's, twin and engine must agree request by request; with others in distribution.
    """

    def __init__(self, seed: int, shared: bool) -> None:
        self.seed = seed
        self.other = None if shared else Random(seed)
        self.tables: dict[tuple[float, ...], list[float]] = {}

    def task_key(self, cls: int, number: int) -> Any:
        """What names all draws of a task."""
        return np.uint64(key(np.uint64(key(self.seed, cls + 1)), number))

    def uniform(self, task: Any, purpose: int, attempt: int = 0, *more: int) -> float:
        """A number between 0 and 1 for a purpose of a task's attempt."""
        if self.other is not None:
            return self.other.random()
        k = np.uint64(key(task, purpose + 64 * attempt))
        for word in more:
            k = np.uint64(key(k, word))
        return float(uniform(k))

    def draw(self, law: Distribution, task: Any, purpose: int, attempt: int = 0, *more: int) -> float:
        """A draw from a law."""
        if law.kind == FIXED:
            return law.a
        u = self.uniform(task, purpose, attempt, *more)
        if law.kind == EXPONENTIAL:
            return -law.a * math.log(1.0 - u)
        assert law.kind == LOGNORMAL
        return math.exp(law.a + law.b * NormalDist().inv_cdf(u))

    def pick(self, weights: Sequence[float], task: Any, purpose: int) -> int:
        """One of several by weight."""
        if self.other is not None:
            return self.other.choices(range(len(weights)), weights)[0]
        table = self.tables.setdefault(tuple(weights), alias_table(weights))
        x = self.uniform(task, purpose) * len(weights)
        i = min(int(x), len(weights) - 1)
        return i if x - i < table[2 * i] else int(table[2 * i + 1])

    def share(self, weights: Sequence[float], task: Any, purpose: int, attempt: int = 0) -> int:
        """One of several by where a number falls among the shares summed up."""
        u = self.uniform(task, purpose, attempt) * math.fsum(weights)
        for i, weight in enumerate(weights):
            u -= weight
            if u < 0:
                return i
        return max(i for i, weight in enumerate(weights) if weight > 0)


@dataclass(eq=False)
class Task:
    """What a user wants, and what has been done for it so far."""

    number: int
    key: Any
    arrival_s: float
    tenant: int
    prompt: int
    output: int
    query: Any
    prio: int = 0
    tier: int = 0
    difficulty: float = 0.0
    rule: Any = None
    level: int = 0
    force: int | None = None
    tries: int = 0
    retries: int = 0
    hedges: int = 0
    usd: float = 0.0
    came: int = a.FIRST
    hit: int | None = None
    wrong: bool = False
    streamed: int = 0
    streamed_first_s: float = math.inf
    keep: dict[int, Any] = field(default_factory=dict)
    answers: dict[int, float] = field(default_factory=dict)
    main: Call | None = None
    kid: Call | None = None
    resend: simpy.Event | None = None
    over: bool = False

    @property
    def tokens(self) -> int:
        """What it takes from a bucket of tokens."""
        return self.prompt + self.output


@dataclass(eq=False)
class Call:
    """One call to a backend. The gateway waits for ``answer``; the server may go on longer than that."""

    task: Task
    backend: int
    attempt: int
    reason: int
    answer: simpy.Event
    prompt: int
    output: int
    started_s: float = math.nan
    first_s: float = math.inf
    itl_s: float = 0.0
    end_s: float = math.inf
    most: int = 0
    state: str = "waits at the gateway"
    verdict: int | None = None
    retry_after_s: float = 0.0
    refused: bool = False
    hit: bool = False
    lane: int = 0
    begun: simpy.Event | None = None
    server: simpy.Process | None = None
    give_back: Callable[[], None] | None = None

    @property
    def under_way(self) -> bool:
        """Whether the backend has it, and somebody waits for it."""
        return self.state in ("queued", "served") and not self.answer.triggered

    def made(self, now: float) -> int:
        """Tokens streamed by ``now``."""
        if self.state != "served" or now < self.first_s or self.most == 0:
            return 0
        if self.itl_s == 0.0:
            return self.most
        return min(self.most, int((now - self.first_s) / self.itl_s * (1 + 1e-12)) + 1)


class Provider:
    """An API: laws of latency, places with a queue, buckets of a minute's requests and tokens, errors."""

    def __init__(self, env: simpy.Environment, spec: ApiSpec, luck: Luck) -> None:
        self.env, self.spec, self.luck = env, spec, luck
        self.busy = 0
        self.queue: list[tuple[Call, simpy.Event]] = []
        self.requests = Bucket(spec.rpm, max(spec.rpm, 1.0))
        self.tokens = Bucket(spec.tpm, spec.tpm)

    @property
    def full(self) -> bool:
        """No place is free."""
        return 0 < self.spec.concurrency <= self.busy

    def refuses(self, call: Call) -> bool:
        """Whether it answers 429."""
        if self.full and self.spec.reject_full:
            return True
        tokens, now = call.prompt + call.output, self.env.now
        for bucket, need in ((self.requests, 1.0), (self.tokens, float(tokens))):
            if bucket.missing(need, now) > 0:
                call.retry_after_s = bucket.until(min(need, bucket.size), now)
                return True
        self.requests.take(1.0, now)
        self.tokens.take(tokens, now)
        return False

    def serve(self, call: Call) -> Steps:
        """Serves a call to its end; returns how it ended. Interrupt it to hang up."""
        task, spec, luck = call.task, self.spec, self.luck
        if self.full:
            place = self.env.event()
            entry = (call, place)
            self.queue.append(entry)
            call.state = "queued"
            try:
                yield place
            except simpy.Interrupt:
                if place.triggered:
                    self._leave()
                else:
                    self.queue.remove(entry)
                raise
        else:
            self.busy += 1
        try:
            call.state = "served"
            n = call.attempt
            ttft = luck.draw(spec.ttft, task.key, a.FOR_TTFT, n) + spec.ttft_per_token_s * call.prompt
            call.first_s = self.env.now + ttft
            call.itl_s = luck.draw(spec.itl, task.key, a.FOR_ITL, n)
            if spec.error_probability and luck.uniform(task.key, a.FOR_ERROR, n) < spec.error_probability:
                yield self.env.timeout(ttft)
                return a.ERROR
            call.most, outcome = call.output, a.OK
            if spec.break_probability and call.output > 1:
                u = luck.uniform(task.key, a.FOR_BREAK, n)
                if u < spec.break_probability:
                    call.most = 1 + int(u / spec.break_probability * (call.output - 1))
                    outcome = a.ERROR
            took_s = ttft + call.itl_s * (call.most - 1)
            call.end_s = self.env.now + took_s
            yield self.env.timeout(took_s)
            return outcome
        finally:
            self._leave()

    def _leave(self) -> None:
        self.busy -= 1
        if self.queue:
            _, place = self.queue.pop(0)
            self.busy += 1
            place.succeed()


@dataclass
class Bucket:
    """So many a minute, evenly, and at most ``size`` saved up; 0 a minute: no limit."""

    per_minute: float
    size: float
    level: float = -1.0
    at_s: float = 0.0

    def __post_init__(self) -> None:
        self.level = self.size

    def refill(self, now: float) -> None:
        self.level = min(self.size, self.level + (now - self.at_s) * self.per_minute / 60.0)
        self.at_s = now

    def missing(self, need: float, now: float) -> float:
        """How many of ``need`` are not there; what is less than a billionth is rounding."""
        if self.per_minute == 0:
            return 0.0
        self.refill(now)
        return 0.0 if self.level >= need * (1.0 - 1e-9) else need - self.level

    def until(self, need: float, now: float) -> float:
        """How long until they are, s."""
        return self.missing(need, now) * 60.0 / self.per_minute if self.per_minute else 0.0

    def take(self, n: float, now: float) -> None:
        if self.per_minute:
            self.refill(now)
            self.level -= n


class Breaker:
    """Leaves a failing backend alone for a while, and then probes it."""

    def __init__(self, env: simpy.Environment, spec: GatewaySpec) -> None:
        self.env, self.spec = env, spec
        self.on = spec.breaker_consecutive > 0 or spec.breaker_ratio > 0
        self.state = "closed"
        self.opened = 0
        self.until_s = 0.0
        self.probes: set[Call] = set()
        self.good = 0
        self.row = 0
        self.window_end_s = 0.0
        self.calls = self.bad = 0

    def lets_through(self, call: Call) -> bool:
        if not self.on or self.state == "closed":
            return True
        if self.state == "open" and self.env.now >= self.until_s:
            self.state, self.good = "half open", 0
            self.probes.clear()
        if self.state == "half open" and len(self.probes) < self.spec.breaker_probes:
            self.probes.add(call)
            return True
        return False

    def note(self, call: Call, outcome: int) -> None:
        """The gateway has learned how a call ended."""
        bad = outcome in (a.ERROR, a.TIMED_OUT)
        if not self.on:
            return
        if self.state == "half open":
            if call not in self.probes:
                return  # it began before the breaker opened, and says nothing of now
            if bad:
                self._open()
            elif outcome == a.OK:
                self.good += 1
                if self.good == self.spec.breaker_probes:
                    self.state = "closed"
                    self.row = self.calls = self.bad = 0
            else:
                self.probes.remove(call)
            return
        if self.state == "open" or not (bad or outcome == a.OK):
            return
        self.row = self.row + 1 if bad else 0
        if self.spec.breaker_consecutive and self.row >= self.spec.breaker_consecutive:
            self._open()
            return
        if self.spec.breaker_ratio:
            if self.env.now >= self.window_end_s:
                self.window_end_s = self.env.now + self.spec.breaker_window_s
                self.calls = self.bad = 0
            self.calls += 1
            self.bad += bad
            if self.calls >= self.spec.breaker_minimum and self.bad >= self.spec.breaker_ratio * self.calls:
                self._open()

    def _open(self) -> None:
        self.state = "open"
        self.opened += 1
        self.until_s = self.env.now + self.spec.breaker_cool_down_s
        self.row = self.calls = self.bad = 0


class Allowance:
    """What one tenant, feature or key has of a limit."""

    def __init__(self, limit: LimitSpec, line: Line, clock_s: float) -> None:
        self.limit, self.line, self.clock_s = limit, line, clock_s
        self.inside = 0
        self.requests = Bucket(limit.rpm, limit.burst or max(limit.rpm, 1.0))
        self.tokens = Bucket(limit.tpm, limit.burst_tokens or limit.tpm)
        self.day = 0
        self.used = 0
        self.usd = 0.0

    def _today(self, now: float) -> None:
        day = int((now + self.clock_s) // DAY_S)
        if day != self.day:
            self.day, self.used, self.usd = day, 0, 0.0

    def wait_s(self, tokens: int, now: float) -> float:
        """How long until it has room: 0 if it has, infinite if that depends on others."""
        limit = self.limit
        if limit.concurrency and self.inside >= limit.concurrency:
            return math.inf
        self._today(now)
        wait = self.requests.until(1.0, now)
        wait = max(wait, self.tokens.until(min(float(tokens), self.tokens.size), now))
        spent = limit.usd_per_day and self.usd >= limit.usd_per_day
        if spent or (limit.requests_per_day and self.used >= limit.requests_per_day):
            wait = max(wait, (self.day + 1) * DAY_S - self.clock_s - now)
        return wait

    def take(self, tokens: int, now: float) -> None:
        self._today(now)
        self.inside += 1
        self.used += 1
        self.requests.take(1.0, now)
        self.tokens.take(tokens, now)

    def leave(self) -> None:
        self.inside -= 1
        if self.limit.concurrency:
            self.line.look()

    def spend(self, usd: float, now: float) -> None:
        self._today(now)
        self.usd += usd


@dataclass(eq=False)
class Waiter:
    """Somebody in a line."""

    task: Task
    tag: tuple[float, ...]
    called: simpy.Event
    full: bool = False

    def __lt__(self, other: Waiter) -> bool:
        return self.tag < other.tag


class Line:
    """Those who wait for an allowance, in order: of arrival, of priority, or fairly to tenants by tokens."""

    def __init__(self, env: simpy.Environment, order: int, length: int) -> None:
        self.env, self.order, self.length = env, order, length
        self.waiters: list[Waiter] = []
        self.now_of_line = 0.0
        self.ends: dict[int, float] = {}
        self.count = 0

    def _start(self, task: Task) -> float:
        start = max(self.now_of_line, self.ends.get(task.tenant, 0.0))
        self.ends[task.tenant] = start + task.tokens
        return start

    def passed(self, task: Task) -> None:
        """Somebody went by without waiting."""
        if self.order == a.FAIR:
            self.now_of_line = max(self.now_of_line, self._start(task))

    def join(self, task: Task, since_s: float) -> Waiter:
        """Somebody joins, who has waited since ``since_s``; where the line is too long, its last is told."""
        self.count += 1
        tag: tuple[float, ...] = (since_s, self.count)
        if self.order == a.FAIR:
            tag = (self._start(task), self.count)
        elif self.order == a.BY_PRIORITY:
            tag = (task.prio, since_s, self.count)
        waiter = Waiter(task, tag, self.env.event())
        insort(self.waiters, waiter)
        if len(self.waiters) > self.length:
            last = self.waiters[-1]
            last.full = True
            self.give_up(last)
            if not last.called.triggered:
                last.called.succeed()
        return waiter

    def give_up(self, waiter: Waiter) -> None:
        """Leaves unserved."""
        if waiter in self.waiters:
            self.waiters.remove(waiter)
            if self.order == a.FAIR:
                self.ends[waiter.task.tenant] -= waiter.task.tokens
            self.look()

    def served(self, waiter: Waiter) -> None:
        """Leaves because its turn has come."""
        self.waiters.remove(waiter)
        if self.order == a.FAIR:
            self.now_of_line = max(self.now_of_line, waiter.tag[0])
        self.look()

    def look(self) -> None:
        """Tells the first that it may look again."""
        if self.waiters and not self.waiters[0].called.triggered:
            self.waiters[0].called.succeed()


class Store:
    """A cache of answers: kept so long, so many, the least recently used forgotten first."""

    def __init__(self, spec: AnswerCacheSpec) -> None:
        self.spec = spec
        self.ttl_s = spec.ttl_s[0] if spec.ttl_s else math.inf
        self.kept: OrderedDict[Any, tuple[float, bool, int]] = OrderedDict()

    def get(self, name: Any, now: float) -> tuple[bool, int] | None:
        """Whether the answer is wrong and its length, if it is kept and still good."""
        if name not in self.kept:
            return None
        stored_s, wrong, tokens = self.kept[name]
        if now - stored_s >= self.ttl_s:
            del self.kept[name]
            return None
        if self.spec.refresh:
            self.kept[name] = (now, wrong, tokens)
        self.kept.move_to_end(name)
        return wrong, tokens

    def put(self, name: Any, now: float, wrong: bool, tokens: int) -> None:
        """Keeps an answer; those that are too old and least recently used make room."""
        while name not in self.kept and self.kept and now - next(iter(self.kept.values()))[0] >= self.ttl_s:
            self.kept.popitem(last=False)
        if name not in self.kept and self.spec.capacity and len(self.kept) >= self.spec.capacity:
            self.kept.popitem(last=False)
        self.kept[name] = (now, wrong, tokens)
        self.kept.move_to_end(name)
