"""The slow twin of the gateway: a SimPy process for each task and each call, in plain Python.

It is written from the manual and says the same things in another way: a task is one long function from arrival to
end; a call is a process that can be interrupted; who waits, waits. It knows API backends only, and one class.
"""

from __future__ import annotations

import math
from typing import Any

import simpy
from small_worlds import Plan
from twin_desk import Desk, End, Row, TwinRun
from twin_parts import Allowance, Call, Steps, Task

from simlab.engine import arrays as a

RESENT = -1
"""In place of an outcome: the client has hung up and asked again."""


def twin(plan: Plan, shared_luck: bool = True) -> TwinRun:
    """Serves all arrivals of the plan's one class to the end."""
    gateway = _Gateway(plan, shared_luck)
    gateway.env.process(gateway.arrivals())
    gateway.env.run()
    gateway.seen.openings = [breaker.opened for breaker in gateway.breakers]
    return gateway.seen


class _Gateway(Desk):
    """Tasks and calls; what they are held to, and where they go, is the desk's."""

    # --- tasks ---

    def arrivals(self) -> Steps:
        number = 0
        cls = self.plan.classes[0]
        for chunk in self.plan.chunks[0]:
            for i, at_s in enumerate(chunk.arrival_s):
                yield self.env.timeout(max(0.0, float(at_s) - self.env.now))
                key = self.luck.task_key(0, number)
                tenant = self.luck.pick(tuple(cls.tenant_weights), key, a.FOR_TENANT)
                assert chunk.prompt_tokens is not None
                assert chunk.output_tokens is not None
                query: Any = ("own", number)
                if chunk.query is not None:
                    query = int(chunk.query[i])
                elif len(self.policy.query_weights):
                    query = self.luck.pick(tuple(self.policy.query_weights), key, a.FOR_QUERY)
                prompt, output = int(chunk.prompt_tokens[i]), int(chunk.output_tokens[i])
                task = Task(number, key, float(at_s), tenant, prompt, output, query, prio=cls.priority)
                number += 1
                self.env.process(self.live(task))

    def live(self, task: Task) -> Steps:
        """A task from its arrival to its end, which its deadline may bring."""
        self.credit = min(self.g.retry_burst, self.credit + self.g.retry_budget)
        work = self.env.process(self.work(task))
        if self.policy.patience_s < math.inf:
            self.env.process(self.client(task))
        if self.g.deadline_s < math.inf:
            yield work | self.env.timeout(self.g.deadline_s)
            if work.is_alive:
                work.interrupt()
        yield work

    def client(self, task: Task) -> Steps:
        """Sends the request again whenever patience runs out."""
        for k in range(1, self.policy.resends + 1):
            yield self.env.timeout(task.arrival_s + k * self.policy.patience_s - self.env.now)
            if task.over:
                return
            if self.g.dedupe or task.main is None or not task.main.under_way:
                self.seen.joined += 1
            else:
                assert task.resend is not None
                task.resend.succeed()

    def work(self, task: Task) -> Steps:
        held: list[Allowance] = []
        answered = False
        try:
            answered = yield from self.handle(task, held)
        except simpy.Interrupt:
            for call, verdict in ((task.kid, a.CANCELLED), (task.main, a.TIMED_OUT)):
                if call is not None:
                    self.hang_up(call, verdict)
        task.over = True
        now = self.env.now
        for allowance in held:
            allowance.leave()
        caps = self.policy.caps
        if caps is not None and task.usd > caps.usd:
            self.seen.count("over_usd")
        if answered:
            assert task.main is not None
            if not self.backends[task.main.backend].canned:
                for layer, name in task.keep.items():
                    self.stores[layer].put(name, now, task.wrong, task.output + task.streamed)
            first_s = task.streamed_first_s if task.streamed else task.main.first_s
            ttft_s = first_s - task.arrival_s
            self.seen.ends.append(End(task.number, True, not task.wrong, ttft_s, now - task.arrival_s))
        else:
            self.seen.ends.append(End(task.number, False, False, math.nan, now - task.arrival_s))

    def handle(self, task: Task, held: list[Allowance]) -> Steps:
        """Everything that is done for a task; returns whether it has an answer."""
        self.find_route(task)
        refusal = self.beyond_caps(task)
        if refusal is None:
            refusal = yield from self.pass_limits(task, held)
        if refusal is not None:
            self.refuse(task, refusal)
            return False
        delay = self.ask_caches(task)
        if task.hit is None and task.rule is not None and task.rule.helper >= 0:
            delay += self.ask(task, task.rule.helper, task.prompt, 1, 0)
        if delay > 0:
            yield self.env.timeout(delay)
        return (yield from self.attempts(task))

    def attempts(self, task: Task) -> Steps:
        reason = a.FIRST
        while True:
            backend = self.choose(task)
            if reason == a.FIRST and task.hit is None and self.sheds(task, backend):
                self.seen.count("shed")
                self.refuse(task, a.REJECTED)
                return False
            outcome, call = yield from self.attempt(task, backend, reason)
            if outcome == RESENT:
                self.whole_again(task)
                task.tries += 1
                reason = a.DUPLICATE
                continue
            if outcome == a.OK:
                if (yield from self.accepted(task, call)):
                    return True
                self.whole_again(task)
                task.level, task.retries, task.force = task.level + 1, 0, None
                task.came = reason = a.ESCALATION
                task.tries += 1
                continue
            if task.hit is not None:
                task.hit = task.force = None
            again = task.retries + 1 < self.g.max_attempts and self.retryable(outcome)
            stand_in = self.backends[call.backend].fallback
            if not (again or stand_in >= 0) or not self.may_go_on(task):
                return False
            if again and not self.budget_allows():
                again = False
            if not again and stand_in < 0:
                return False
            if outcome == a.ERROR and self.g.resume and call.most > 0:
                if task.streamed == 0:
                    task.streamed_first_s = call.first_s
                task.streamed += call.most
                task.prompt += call.most
                task.output -= call.most
            task.tries += 1
            if not again:
                task.force, task.retries = stand_in, 0
                task.came = reason = a.FALLBACK
                continue
            yield self.env.timeout(self.backoff_s(task, call, outcome))
            task.retries += 1
            reason = a.RETRY

    def attempt(self, task: Task, backend: int, reason: int) -> Steps:
        """One attempt, with the hedges beside it; returns how it ended, and the call that says so."""
        main = self.call(task, backend, reason, task.tries)
        task.main, task.kid, task.resend = main, None, self.env.event()
        hedge_at: simpy.Event | None = None
        may_hedge = task.hit is None and self.g.hedge_s < math.inf
        hedged = False
        while True:
            events = [main.answer, task.resend]
            if may_hedge and not hedged and hedge_at is None:
                hedge_at = self.env.process(self.hedge_time(main))
            if hedge_at is not None and not hedged:
                events.append(hedge_at)
            if task.kid is not None:
                events.append(task.kid.answer)
            yield self.env.any_of(events)
            kid = task.kid
            if kid is not None and kid.answer.triggered and main.answer.triggered:
                self.seen.tied_s = min(self.seen.tied_s, self.env.now)
            if kid is not None and kid.answer.triggered and kid.answer.value == a.OK:
                self.hang_up(main, a.CANCELLED)
                task.main, task.kid = kid, None
                return a.OK, kid
            if kid is not None and kid.answer.triggered:
                task.kid = kid = None
            if main.answer.triggered:
                if main.answer.value == a.OK or kid is None:
                    if kid is not None:
                        self.hang_up(kid, a.CANCELLED)
                    task.kid = None
                    return main.answer.value, main
                task.main = main = kid
                task.kid = None
                hedged, hedge_at = False, None
                continue
            if task.resend.triggered:
                for call in (kid, main):
                    if call is not None:
                        self.hang_up(call, a.CANCELLED)
                task.kid = None
                return RESENT, main
            if hedge_at is not None and not hedged and hedge_at.triggered:
                hedged = True
                slow = main.under_way and self.env.now < main.first_s
                if slow and kid is None and task.hedges < self.g.hedge_max and self.may_go_on(task):
                    task.hedges += 1
                    task.tries += 1
                    to = self.g.hedge_to if self.g.hedge_to >= 0 else self.choose(task)
                    task.kid = self.call(task, to, a.HEDGE, task.tries)

    def hedge_time(self, main: Call) -> Steps:
        """Goes off when the call has been under way for as long as a hedge waits."""
        assert main.begun is not None
        yield main.begun
        yield self.env.timeout(max(0.0, main.started_s + self.g.hedge_s - self.env.now))

    # --- calls ---

    def call(self, task: Task, backend: int, reason: int, attempt: int) -> Call:
        """Sends a call on its way."""
        call = Call(task, backend, attempt, reason, self.env.event(), task.prompt, task.output)
        call.begun = self.env.event()
        call.hit = task.hit is not None
        call.server = self.env.process(self.make(call))
        return call

    def make(self, call: Call) -> Steps:
        """A call from its door to its end."""
        outcome = a.CANCELLED
        try:
            refused = yield from self.get_key(call)
            call.started_s = self.env.now
            self.note_tie(call.task)
            breaker = self.breakers[call.backend]
            if refused:
                call.refused = True
                outcome = a.RATE_LIMITED
            elif not breaker.lets_through(call):
                call.refused = True
                outcome = a.REJECTED
            elif self.providers[call.backend].refuses(call):
                outcome = a.RATE_LIMITED
            else:
                call.state = "begins"
                for limit_s, first_only in ((self.g.timeout_s, False), (self.g.ttft_timeout_s, True)):
                    if limit_s < math.inf:
                        self.env.process(self.watch(call, limit_s, first_only))
                call.begun.succeed()
                outcome = yield from self.providers[call.backend].serve(call)
            self.finish_call(call, outcome)
        except simpy.Interrupt:
            return  # who hung up has booked it

    def note_tie(self, task: Task) -> None:
        now = self.env.now
        if now - self.last_call[0] < a.TIME_EPS_S and self.last_call[1] != task.number:
            self.seen.tied_s = min(self.seen.tied_s, now)
        self.last_call = (now, task.number)

    def watch(self, call: Call, limit_s: float, first_only: bool) -> Steps:
        yield self.env.timeout(limit_s)
        if call.answer.triggered or (first_only and call.first_s <= self.env.now):
            return
        self.hang_up(call, a.TIMED_OUT)

    def hang_up(self, call: Call, verdict: int) -> None:
        """Nobody waits for the call any more. Its server is told, or goes on."""
        if call.answer.triggered:
            return
        call.verdict = verdict
        if abs(call.end_s - self.env.now) < a.TIME_EPS_S:
            self.seen.tied_s = min(self.seen.tied_s, self.env.now)
        if not call.refused and not math.isnan(call.started_s) and not call.hit:
            self.breakers[call.backend].note(call, verdict)
        call.answer.succeed(verdict)
        if call.state == "waits at the gateway":
            call.state = "over"
        elif self.g.abort:
            self.book(call, verdict, call.made(self.env.now), call.state == "served")
            self.give_key_back(call)
        else:
            return
        if call.server is not None and call.server.is_alive:
            call.server.interrupt()

    def finish_call(self, call: Call, outcome: int) -> None:
        """The server is done with a call."""
        tokens = call.output if outcome == a.OK else call.most if outcome == a.ERROR else 0
        told = outcome if call.verdict is None else call.verdict
        self.book(call, told, tokens, tokens > 0)
        if call.verdict is None:
            if not call.refused and not call.hit:
                self.breakers[call.backend].note(call, outcome)
            call.answer.succeed(outcome)
        self.give_key_back(call)

    def give_key_back(self, call: Call) -> None:
        """Whoever waits for the key may come, after the gateway has made up its mind about what it has just heard."""
        if call.give_back is not None:
            call.give_back()

    def book(self, call: Call, outcome: int, tokens: int, billed: bool) -> None:
        """The call is over: what it made is paid."""
        task, spec = call.task, self.backends[call.backend]
        usd = 0.0
        if billed and not call.hit:
            usd = spec.usd_call + call.prompt * spec.price.prompt + tokens * spec.price.output
        self.seen.rows.append(
            Row(task.number, call.backend, call.attempt, call.reason, outcome, call.prompt, tokens, call.started_s,
                self.env.now, usd)
        )  # fmt: skip
        if call.verdict is None or self.g.abort:
            task.usd += usd  # what a server does that was not told, the gateway never hears of
        self.spend(call, usd)
        call.state = "over"
