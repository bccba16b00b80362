"""The same replica as an ordinary SimPy program: a process for each request, one that steps the batch.

Written as one would without thinking of speed: first come first served, continuous batching with chunked prefill under
a token budget, as vLLM does it; no KV blocks, because here they never run out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import simpy

from benchmarks import chat


class Times(NamedTuple):
    """When a request came, had its first token, and had its last, s."""

    arrival_s: float
    first_token_s: float
    finish_s: float


@dataclass(eq=False)
class Request:
    """A request in the replica and the two things its process waits for."""

    prompt_tokens: int
    output_tokens: int
    first_token: simpy.Event
    finished: simpy.Event
    computed: int = 0
    generated: int = 0


class Replica:
    """Serves requests step by step; `submit` wakes it."""

    def __init__(self, env: simpy.Environment) -> None:
        self._env = env
        self._waiting: deque[Request] = deque()
        self._running: list[Request] = []
        self._work = env.event()
        env.process(self._serve())

    def submit(self, request: Request) -> None:
        """Puts a request at the end of the queue."""
        self._waiting.append(request)
        if not self._work.triggered:
            self._work.succeed()

    def _serve(self) -> Generator[simpy.Event, None, None]:
        while True:
            if not self._waiting and not self._running:
                self._work = self._env.event()
                yield self._work
            scheduled = self._schedule()
            yield self._env.timeout(self._step_s(scheduled))
            for request, tokens in scheduled:
                request.computed += tokens
                if request.computed >= request.prompt_tokens:
                    self._token(request)

    def _schedule(self) -> list[tuple[Request, int]]:
        """Who gets how many tokens in the next step: running requests first, then waiting ones."""
        budget = chat.MAX_NUM_BATCHED_TOKENS
        scheduled = []
        for request in self._running:
            tokens = min(request.prompt_tokens + request.generated - request.computed, budget)
            if tokens:
                scheduled.append((request, tokens))
                budget -= tokens
        while self._waiting and budget and len(self._running) < chat.MAX_NUM_SEQS:
            request = self._waiting.popleft()
            self._running.append(request)
            tokens = min(request.prompt_tokens, budget)
            scheduled.append((request, tokens))
            budget -= tokens
        return scheduled

    def _step_s(self, scheduled: list[tuple[Request, int]]) -> float:
        decoding = sum(1 for request, tokens in scheduled if request.generated and tokens == 1)
        tokens_in_step = sum(tokens for _, tokens in scheduled)
        context = sum(request.computed + tokens for request, tokens in scheduled)
        prefill = tokens_in_step - decoding
        return (
            chat.BASE_S + chat.PREFILL_TOKEN_S * prefill + chat.DECODE_SEQ_S * decoding + chat.CONTEXT_TOKEN_S * context
        )

    def _token(self, request: Request) -> None:
        request.generated += 1
        if request.generated == 1:
            request.first_token.succeed()
        if request.generated == request.output_tokens:
            request.finished.succeed()
            self._running.remove(request)


def _request(
    env: simpy.Environment, replica: Replica, arrival_s: float, prompt: int, output: int, done: list[Times]
) -> Generator[simpy.Event, None, None]:
    """The life of one request."""
    yield env.timeout(arrival_s)
    request = Request(prompt, output, env.event(), env.event())
    replica.submit(request)
    yield request.first_token
    first_token_s = env.now
    yield request.finished
    done.append(Times(arrival_s, first_token_s, env.now))


def simulate(requests: Iterable[tuple[float, int, int]]) -> list[Times]:
    """Serves (arrival in s, prompt tokens, output tokens); answers in the order in which they finish."""
    env = simpy.Environment()
    replica = Replica(env)
    done: list[Times] = []
    for arrival_s, prompt, output in requests:
        env.process(_request(env, replica, arrival_s, prompt, output, done))
    env.run()
    return done
