"""The twin's desk: what the gateway knows and is held to, without the tasks themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import simpy
from small_worlds import Plan
from twin_parts import Allowance, Breaker, Call, Line, Luck, Provider, Steps, Store, Task

from simlab.engine import ApiSpec, GatewaySpec, LimitSpec, PolicySpec
from simlab.engine import arrays as a


class Row(NamedTuple):
    """A call that ended."""

    task: int
    backend: int
    attempt: int
    reason: int
    outcome: int
    prompt_tokens: int
    output_tokens: int
    started_s: float
    finish_s: float
    usd: float


class End(NamedTuple):
    """How a task ended."""

    task: int
    answered: bool
    right: bool
    ttft_s: float
    e2e_s: float


@dataclass
class TwinRun:
    """What the twin has seen.

    ``tied_s`` is the first time at which two tasks called a backend in the same instant, or a call was given up in the
    instant of its end. What is first then is nobody's promise, and what comes after may depend on it.
    """

    tied_s: float = math.inf
    rows: list[Row] = field(default_factory=list)
    ends: list[End] = field(default_factory=list)
    joined: int = 0
    retries_refused: int = 0
    counters: dict[str, float] = field(default_factory=dict)
    limits: list[dict[str, int]] = field(default_factory=list)
    saved: dict[int, dict[str, float]] = field(default_factory=dict)
    openings: list[int] = field(default_factory=list)

    def count(self, name: str, by: float = 1) -> None:
        """Counts something."""
        self.counters[name] = self.counters.get(name, 0) + by


class Desk:
    """The gateway's settings, limits, routes, caches and books."""

    def __init__(self, plan: Plan, shared_luck: bool) -> None:
        self.env = simpy.Environment()
        self.plan = plan
        self.g: GatewaySpec = plan.gateway
        policy = plan.policies[0]
        assert policy is not None
        self.policy: PolicySpec = policy
        self.luck = Luck(plan.seed, shared_luck)
        self.backends: list[ApiSpec] = [b for b in plan.backends if isinstance(b, ApiSpec)]
        self.providers = [Provider(self.env, spec, self.luck) for spec in self.backends]
        self.breakers = [Breaker(self.env, self.g) for _ in self.backends]
        self.stores = {spec.layer: Store(spec) for spec in plan.caches}
        self.credit = self.g.retry_burst
        self.turn = [0] * len(self.backends)
        self.seen = TwinRun(limits=[{"refused": 0, "queued": 0, "degraded": 0} for _ in plan.limits])
        self.seen.saved = {spec.layer: dict.fromkeys(("lookups", "hits", "wrong", "usd"), 0.0) for spec in plan.caches}
        self.allowances: dict[tuple[int, int, int], Allowance] = {}
        self.last_call = (-1.0, -1)

    # --- what there is ---

    def allowance(self, i: int, member: int, lane: int = 0) -> Allowance:
        """What a member has of the i-th limit; keys of a provider wait in one line."""
        if (i, member, lane) not in self.allowances:
            limit = self.plan.limits[i]
            line = self.allowance(i, member).line if lane else Line(self.env, self.g.order, self.g.length)
            self.allowances[i, member, lane] = Allowance(limit, line, self.g.clock_s)
        return self.allowances[i, member, lane]

    def limits_of_task(self, task: Task) -> list[tuple[int, Allowance]]:
        of = [(i, limit.of_tenants[0][task.tenant]) for i, limit in enumerate(self.plan.limits) if limit.of_tenants]
        return [(i, self.allowance(i, member)) for i, member in of if member >= 0]

    def limits_of_call(self, b: int, lane: int) -> list[tuple[int, Allowance]]:
        found = []
        for i, limit in enumerate(self.plan.limits):
            if limit.of_backends and limit.of_backends[b] >= 0:
                found.append((i, self.allowance(i, limit.of_backends[b], lane % limit.keys)))
        return found

    def keys_of(self, b: int) -> int:
        """How many keys calls to a backend take in turn."""
        bound = [limit for limit in self.plan.limits if limit.of_backends and limit.of_backends[b] >= 0]
        return max((limit.keys for limit in bound), default=0)

    # --- money ---

    def spend(self, call: Call, usd: float) -> None:
        if usd:
            mine = self.limits_of_task(call.task) + self.limits_of_call(call.backend, call.lane)
            for _, allowance in mine:
                if allowance.limit.usd_per_day:
                    allowance.spend(usd, self.env.now)

    def ask(self, task: Task, b: int, prompt: int, output: int, attempt: int) -> float:
        """Asks a helper, which is paid at once; returns how long it takes."""
        spec = self.backends[b]
        usd = spec.usd_call + prompt * spec.price.prompt + output * spec.price.output
        took_s = self.luck.draw(spec.ttft, task.key, a.FOR_HELPER, attempt, b)
        self.helper_row(task, b, prompt, output, attempt, self.env.now, took_s, usd)
        return took_s

    def helper_row(
        self, task: Task, b: int, prompt: int, output: int, attempt: int, at_s: float, took_s: float, usd: float
    ) -> None:
        row = Row(task.number, b, attempt, a.HELPER, a.OK, prompt, output, at_s, at_s + took_s, usd)
        self.seen.rows.append(row)
        task.usd += usd
        for _, allowance in self.limits_of_task(task) + self.limits_of_call(b, 0):
            if allowance.limit.usd_per_day:
                allowance.spend(usd, self.env.now)

    # --- the door ---

    def beyond_caps(self, task: Task) -> int | None:
        caps = self.policy.caps
        if caps is None:
            return None
        if task.prompt > caps.prompt:
            if not caps.cut:
                self.seen.count("long_prompts")
                return a.REJECTED
            self.seen.count("cut_prompts")
            task.prompt = caps.prompt
        if task.output > caps.output:
            self.seen.count("cut_answers")
            task.output = caps.output
        return None

    def refuse(self, task: Task, outcome: int) -> None:
        """The gateway turns a task away by itself."""
        now, desk = self.env.now, self.g.refused_at
        self.seen.rows.append(Row(task.number, desk, 0, a.FIRST, outcome, task.prompt, 0, now, now, 0.0))

    def pass_limits(self, task: Task, held: list[Allowance]) -> Steps:
        """Waits until all limits have room and takes from all; returns the outcome if it is refused."""
        past: set[int] = set()

        def mine() -> list[tuple[int, Allowance]]:
            return [(i, allowance) for i, allowance in self.limits_of_task(task) if i not in past]

        def sent_on(i: int) -> None:
            past.add(i)
            task.force, task.rule = self.plan.limits[i].degrade_to, None

        refusal = yield from self.wait_for([mine], task, sent_on)
        if refusal is not None:
            if refusal[0] == a.RATE_LIMITED and not refusal[2]:
                self.seen.count("refused")
            return refusal[0]
        held += [allowance for _, allowance in mine()]
        return None

    def get_key(self, call: Call) -> Steps:
        """Waits for a key of the backend's provider with room; returns whether it was refused."""
        moved = False
        while self.keys_of(call.backend):
            b, n = call.backend, self.keys_of(call.backend)
            lanes = [(self.turn[b] + step) % n for step in range(n)]
            sent: list[int] = []
            choices = [partial(self.limits_of_call, b, lane) for lane in lanes]
            refusal = yield from self.wait_for(choices, call.task, None if moved else sent.append, call)
            if sent:
                moved = True
                call.backend = self.plan.limits[sent[0]].degrade_to
                continue
            if refusal is not None:
                call.retry_after_s = refusal[1] if refusal[1] < math.inf else 0.0
                return True
            return False
        return False

    def wait_for(self, choices: Sequence[Any], task: Task, degrade: Any, call: Call | None = None) -> Steps:
        """Waits for one of several sets of allowances to have room, and takes from it.

        Returns None, or (outcome, how long it would have had to wait, whether a line was too long for it).
        """
        line: Line | None = None
        waiter = None
        since_s = self.env.now
        expires: simpy.Event | None = None
        try:
            while True:
                blocked: tuple[float, int, Allowance] | None = None
                for number, choice in enumerate(choices):
                    over = self.first_over(choice(), task, line)
                    if over is None:
                        allowances = [allowance for _, allowance in choice()]
                        for allowance in allowances:
                            allowance.take(task.tokens, self.env.now)
                        if line is not None:
                            line.served(waiter)
                            self.note_wait(since_s)
                        for allowance in allowances:
                            if allowance.line is not line:
                                allowance.line.passed(task)
                        if call is not None:
                            n = len(choices)
                            call.lane = (self.turn[call.backend] + number) % n
                            self.turn[call.backend] = (call.lane + 1) % n
                            call.give_back = lambda mine=allowances: [allowance.leave() for allowance in mine]
                        waiter = None
                        return None
                    if blocked is None or over[0] < blocked[0]:
                        blocked = over
                assert blocked is not None
                wait_s, i, allowance = blocked
                limit: LimitSpec = allowance.limit
                if limit.over == a.DEGRADE and degrade is not None:
                    self.seen.limits[i]["degraded"] += 1
                    degrade(i)
                    if call is not None:
                        return None
                    continue
                if limit.over != a.QUEUE:
                    self.seen.limits[i]["refused"] += 1
                    return a.RATE_LIMITED, wait_s, False
                if allowance.line is not line:
                    if line is None:
                        self.seen.limits[i]["queued"] += 1
                        if self.g.queue_deadline_s < math.inf:
                            expires = self.env.timeout(self.g.queue_deadline_s)
                    else:
                        line.give_up(waiter)
                    fresh = line is None
                    line = allowance.line
                    waiter = line.join(task, since_s)
                    if waiter.full:
                        self.seen.count("full")
                        waiter = None
                        if not fresh:
                            self.note_wait(since_s)
                        return a.RATE_LIMITED, 0.0, True
                events = [waiter.called] + ([expires] if expires is not None else [])
                if line.waiters[0] is waiter and wait_s < math.inf:
                    events.append(self.env.timeout(max(wait_s, 1e-9)))
                yield self.env.any_of(events)
                if waiter.full:
                    self.seen.count("full")
                    self.note_wait(since_s)
                    waiter = None
                    return a.RATE_LIMITED, 0.0, True
                if waiter.called.triggered:
                    waiter.called = self.env.event()
                if expires is not None and expires.processed:
                    self.seen.count("expired")
                    return (a.TIMED_OUT if call is None else a.RATE_LIMITED), 0.0, True
        finally:
            if waiter is not None:
                line.give_up(waiter)
                self.note_wait(since_s)

    def first_over(
        self, allowances: list[tuple[int, Allowance]], task: Task, line: Line | None
    ) -> tuple[float, int, Allowance] | None:
        """The first without room, or with others who wait for it; how long it will be."""
        for i, allowance in allowances:
            wait_s = allowance.wait_s(task.tokens, self.env.now)
            others = line is None and allowance.limit.over == a.QUEUE and allowance.line.waiters
            behind = allowance.line is line and line is not None and line.waiters[0].task is not task
            if wait_s > 0 or others or behind:
                return wait_s, i, allowance
        return None

    def note_wait(self, since_s: float) -> None:
        self.seen.count("queued")
        self.seen.count("waited_s", self.env.now - since_s)

    def sheds(self, task: Task, backend: int) -> bool:
        return task.prio > self.g.shed_keep and len(self.providers[backend].queue) >= self.g.shed_queue

    # --- where to, and what it is worth ---

    def find_route(self, task: Task) -> None:
        task.tier = 0
        if len(self.policy.tier_weights) > 1:
            task.tier = self.luck.pick(tuple(self.policy.tier_weights), task.key, a.FOR_TIER)
        if self.policy.difficulty is not None:
            drawn = self.luck.draw(self.policy.difficulty, task.key, a.FOR_DIFFICULTY)
            task.difficulty = min(max(drawn, 0.0), 1.0)
        number = self.policy.rules[task.tenant][task.tier] if len(self.policy.rules) else -1
        task.rule = self.plan.rules[number] if number >= 0 else None
        if task.rule is not None and task.rule.mode == a.BY_CLASSIFIER:
            task.level = self.luck.share(task.rule.guesses[task.tier], task.key, a.FOR_GUESS)

    def choose(self, task: Task) -> int:
        if task.force is not None:
            return task.force
        if task.rule is None:
            weights = self.plan.classes[0].route
            return self.luck.share(weights, task.key, a.FOR_ROUTE, task.tries)
        if task.rule.mode == a.BY_WEIGHTS:
            weights = [choice.weight for choice in task.rule.choices]
            chosen = self.luck.share(weights, task.key, a.FOR_ROUTE, task.tries)
            return int(task.rule.choices[chosen].backend)
        return int(task.rule.choices[task.level].backend)

    def right(self, task: Task, b: int) -> bool:
        if not len(self.policy.quality):
            return True
        table = self.policy.quality[task.tier][b]
        place = task.difficulty * (len(table) - 1)
        i = min(int(place), len(table) - 2)
        chance = table[i] + (place - i) * (table[i + 1] - table[i])
        model = self.backends[b].model if self.backends[b].model >= 0 else len(self.backends) + b
        known = task.answers.setdefault(model, self.luck.uniform(task.key, a.FOR_QUALITY, 0, model))
        return bool(known < chance)

    def accepted(self, task: Task, call: Call) -> Steps:
        """Whether the answer is taken: a kept one as it is, one in a cascade if it passes."""
        if task.hit is not None:
            return True
        task.wrong = not self.right(task, call.backend)
        rule = task.rule
        if rule is None or rule.mode != a.BY_CASCADE or task.level == len(rule.choices) - 1:
            return True
        choice = rule.choices[task.level]
        spec = self.backends[choice.backend]
        now, n = self.env.now, call.attempt
        delay = 0.0
        for i in range(1, choice.samples):
            ttft = self.luck.draw(spec.ttft, task.key, a.FOR_SAMPLE, n, i, 0) + spec.ttft_per_token_s * task.prompt
            itl = self.luck.draw(spec.itl, task.key, a.FOR_SAMPLE, n, i, 1)
            took_s = ttft + (task.output - 1) * itl
            usd = spec.usd_call + task.prompt * spec.price.prompt + task.output * spec.price.output
            self.helper_row(task, choice.backend, task.prompt, task.output, n, call.started_s, took_s, usd)
            delay = max(delay, call.started_s + took_s - now)
        if choice.verifier >= 0:
            delay += self.ask(task, choice.verifier, task.prompt + task.output, 1, n)
        if delay > 0:
            yield self.env.timeout(delay)
        chance = choice.accept_wrong if task.wrong else choice.accept_right
        passes = self.luck.uniform(task.key, a.FOR_CONFIDENCE, n) < chance
        if not passes and self.may_go_on(task):
            return False
        call.first_s = task.streamed_first_s = self.env.now
        return True

    def whole_again(self, task: Task) -> None:
        """What was streamed of an answer that is begun again is forgotten."""
        task.prompt -= task.streamed
        task.output += task.streamed
        task.streamed = 0

    # --- once more ---

    def retryable(self, outcome: int) -> bool:
        g = self.g
        return {
            a.RATE_LIMITED: g.retry_rate_limited, a.ERROR: g.retry_error, a.TIMED_OUT: g.retry_timed_out,
            a.REJECTED: g.retry_rejected,
        }[outcome]  # fmt: skip

    def budget_allows(self) -> bool:
        if self.g.retry_budget == 0:
            return True
        if self.credit < 1:
            self.seen.retries_refused += 1
            return False
        self.credit -= 1
        return True

    def may_go_on(self, task: Task) -> bool:
        caps = self.policy.caps
        if caps is None:
            return True
        if task.tries >= caps.tries:
            self.seen.count("stopped_tries")
            return False
        if task.usd >= caps.usd:
            self.seen.count("stopped_usd")
            return False
        return True

    def backoff_s(self, task: Task, call: Call, outcome: int) -> float:
        g = self.g
        wait = min(g.max_backoff_s, g.backoff_s * g.backoff_factor**task.retries)
        wait *= 1.0 - g.jitter * self.luck.uniform(task.key, a.FOR_JITTER, call.attempt)
        if outcome == a.RATE_LIMITED and g.retry_after:
            wait = max(wait, call.retry_after_s)
        return wait

    # --- caches ---

    def ask_caches(self, task: Task) -> float:
        """Asks each layer in order; returns how long that takes."""
        delay = 0.0
        for layer in (a.RESULTS, a.EXACT, a.SEMANTIC):
            if layer not in self.policy.caches:
                continue
            spec, store, saved = self.stores[layer].spec, self.stores[layer], self.seen.saved[layer]
            saved["lookups"] += 1
            if spec.helper >= 0:
                delay += self.ask(task, spec.helper, task.prompt, 0, 0)
            name = (task.query, task.tenant if spec.scope & a.SAME_TENANT else None)
            found: tuple[bool, int] | None = None
            u = self.luck.uniform(task.key, a.FOR_SEMANTIC) if layer == a.SEMANTIC else 0.0
            if spec.stated:
                if u < spec.hit:
                    found = (u < spec.false_hit or not self.right(task, self.choose(task)), task.output)
            else:
                if u < spec.hit:
                    found = store.get(name, self.env.now)
                others = len(store.kept) - (name in store.kept)
                lured = others > 0 and self.luck.uniform(task.key, a.FOR_FALSE_HIT) < spec.false_hit
                if found is None and layer == a.SEMANTIC and lured:
                    found = (True, task.output)
                if found is None:
                    task.keep[layer] = name
            if found is not None:
                saved["hits"] += 1
                saved["wrong"] += found[0]
                price = self.backends[self.choose(task)]
                saved["usd"] += price.usd_call + task.prompt * price.price.prompt + task.output * price.price.output
                task.wrong, task.output = found
                task.hit, task.force = layer, spec.backend
                task.keep.clear()
                return delay
            delay += spec.miss_s
        return delay
