"""Step times from the times between tokens: what was in the batch is rebuilt from the requests of a benchmark.

Every decoding request gets one token in every step, so the tokens of a step reach the client in one burst, and the time
from one burst to the next is the step's, with what the server does between steps. Who is in a burst tells the batch: a
first token ends a prompt, any other is a decode at a context known exactly. The chunks of long prompts follow from
vLLM's scheduling: prompts in order of arrival fill the token budget of each step.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from simlab.calibrate.run import Floats, Ints, Requests, Steps

Bools = NDArray[np.bool_]

GAP = 0.3
"""Tokens further apart than this share of a short step are of different steps."""
SHORT = 0.05
"""Quantile of the times between tokens that stands for a short step."""
ARRIVAL_S = 0.005
"""A request sent less than this before a step began may have missed it: HTTP and tokeniser."""
AHEAD = 50
"""So many steps are looked through for the one that a log's line tells of."""


@dataclass(frozen=True)
class StepSamples:
    """Steps rebuilt from token times.

    Attributes:
        steps: those whose batch and duration are known.
        found: bursts of tokens in the run.
        idle: bursts left out because nothing ran before them: when their step began is not known.
        unclear: bursts left out because who was in them is not: a request missed a step (preempted, or two bursts ran
            together), a prompt may have been served from the prefix cache, or its chunks do not fit the budget.
    """

    steps: Steps
    found: int
    idle: int
    unclear: int


def step_samples(requests: Requests, *, token_budget: int | None = None, may_be_cached: bool = False) -> StepSamples:
    """Steps of a run from its requests' token times.

    Args:
        requests: with ``itl_s``.
        token_budget: the server's ``max_num_batched_tokens``; None: not known, then prompts are taken to be computed
            in the step of their first token.
        may_be_cached: prompts may be served from the prefix cache in part, so that steps with prompts are unclear.
    """
    if requests.itl_s is None or not len(requests.start_s):
        none = np.zeros(0)
        return StepSamples(Steps(none, none, none, none, none, none, none, np.zeros(0, dtype=bool)), 0, 0, 0)
    every, clear, busy = _rebuilt(requests, token_budget)
    if may_be_cached:
        clear &= every.prefill_tokens == 0
    kept = clear & busy & (every.seconds > 0)
    return StepSamples(_part(every, kept), len(kept), int((~busy).sum()), int((busy & ~kept).sum()))


def with_context(steps: Steps, requests: Requests, *, token_budget: int | None = None) -> Steps:
    """A step log that does not tell the context of decoding sequences, with the context that the run's requests tell.

    Steps are found again in their order by their prompt tokens and decoding sequences; NaN where one is not found.
    """
    if requests.itl_s is None or not len(requests.start_s):
        return steps
    every, clear, _ = _rebuilt(requests, token_budget)
    key = list(zip(every.prefill_tokens.tolist(), every.decode_requests.tolist(), strict=True))
    context, at = np.full(len(steps.seconds), np.nan), 0
    for i, batch in enumerate(zip(steps.prefill_tokens.tolist(), steps.decode_requests.tolist(), strict=True)):
        ahead = key[at : at + AHEAD]
        if batch in ahead:
            at += ahead.index(batch)
            context[i] = every.decode_context_tokens[at] if clear[at] else np.nan
            at += 1
    context[steps.decode_requests == 0] = 0.0
    return replace(steps, decode_context_tokens=context)


def _rebuilt(requests: Requests, token_budget: int | None) -> tuple[Steps, Bools, Bools]:
    """All steps of a run; whether what is said of each is clear; and whether something ran or waited before it."""
    assert requests.itl_s is not None
    counts = np.array([len(between) + 1 for between in requests.itl_s])
    events = _events(requests, counts)
    burst, end_s = _bursts(events, requests)
    many = len(end_s)
    in_order = np.argsort(events.request * (int(counts.max()) + 1) + events.index)
    by_request = np.split(burst[in_order], np.cumsum(counts)[:-1])
    first = np.array([steps[0] for steps in by_request])
    decodes, context, clear = np.zeros(many), np.zeros(many), np.ones(many, dtype=bool)
    for prompt, output, steps in zip(requests.prompt_tokens, requests.output_tokens, by_request, strict=True):
        begin, end = steps[0] + 1, steps[-1] + 1
        if end - begin == output - 1:
            steps = np.arange(begin, end)  # where a response holds two tokens, both bursts were steps of the request
        elif len(steps) == output:
            for i in np.flatnonzero(np.diff(steps) != 1):
                clear[steps[i] + 1 : steps[i + 1] + 1] = False
            steps = steps[1:]
        else:
            clear[begin:end] = False
            continue
        decodes[steps] += 1.0
        # The context of a further token: the prompt, and the tokens before it, whose last is what the step computes.
        context[steps] += prompt + np.arange(1, len(steps) + 1)
    prompts = _prompts(requests, first, decodes, end_s, token_budget)
    clear &= prompts.fit
    busy = (decodes > 0) | prompts.waiting
    busy[0] = False
    every = Steps(
        seconds=np.diff(end_s, prepend=end_s[0]),
        prefill_tokens=prompts.tokens,
        prefill_requests=prompts.requests,
        prefill_start_tokens=prompts.starts,
        decode_requests=decodes,
        decode_context_tokens=context,
        work=prompts.work,
        real=np.ones(many, dtype=bool),
    )
    return every, clear, busy


def _part(steps: Steps, rows: Bools) -> Steps:
    return Steps(*(getattr(steps, entry.name)[rows] for entry in fields(Steps)))


@dataclass(frozen=True)
class _Events:
    """Tokens in the order in which they reached the client: when, of which request, which of its tokens."""

    time_s: Floats
    request: Ints
    index: Ints


def _events(requests: Requests, counts: Ints) -> _Events:
    assert requests.itl_s is not None
    first = requests.start_s + requests.ttft_s
    answers = zip(first, requests.itl_s, strict=True)
    times = np.concatenate([np.concatenate([[at], at + np.cumsum(between)]) for at, between in answers])
    request = np.repeat(np.arange(len(counts)), counts)
    index = np.concatenate([np.arange(count) for count in counts])
    order = np.argsort(times, kind="stable")
    return _Events(times[order], request[order], index[order])


def _bursts(events: _Events, requests: Requests) -> tuple[Ints, Floats]:
    """The burst of each token, and when each burst began: the first token of a burst waited least for the others."""
    assert requests.itl_s is not None
    between = np.concatenate([np.zeros(0), *requests.itl_s])
    apart = GAP * float(np.quantile(between, SHORT)) if len(between) else 0.0
    begins = np.diff(events.time_s, prepend=-np.inf) > apart
    # A request has one token in a step: at its second a new one has begun, however close.
    seen = np.full(int(events.request.max()) + 1, -1)
    burst = np.empty(len(begins), dtype=np.int64)
    current = -1
    for i, (fresh, request) in enumerate(zip(begins.tolist(), events.request.tolist(), strict=True)):
        if fresh or seen[request] == current:
            current += 1
            begins[i] = True
        burst[i] = seen[request] = current
    return burst, events.time_s[begins]


@dataclass(frozen=True)
class _Prompts:
    """What was computed of prompts in each step, [n]: tokens, requests, their starts, work; and who was there before.

    ``waiting``: a prompt was under way, or had arrived, when the step began. ``fit``: the prompts that ended in the
    step fit its budget.
    """

    tokens: Floats
    requests: Floats
    starts: Floats
    work: Floats
    waiting: Bools
    fit: Bools


def _prompts(requests: Requests, first: Ints, decodes: Floats, end_s: Floats, token_budget: int | None) -> _Prompts:
    """Prompts in the order of their first tokens, then of arrival, each as early as vLLM could have computed it.

    A prompt ends in the step of its first token. It has begun before where it had arrived and the steps' budgets were
    too small to have ended it sooner.
    """
    many = len(end_s)
    tokens, count, starts, work = np.zeros((4, many))
    waiting, fit = np.zeros(many, dtype=bool), np.ones(many, dtype=bool)
    room = np.full(many, np.inf) if token_budget is None else np.maximum(token_budget - decodes, 0.0)
    room_before = np.concatenate([[0.0], np.cumsum(np.minimum(room, 1e12))])
    line = np.lexsort((requests.start_s, first))
    ready_s = requests.start_s + ARRIVAL_S
    head, done = 0, 0.0
    for step in range(many):
        left = room[step]
        begun_s = end_s[step - 1] if step else -np.inf
        while head < len(line):
            request, ends = line[head], first[line[head]]
            lacking = requests.prompt_tokens[request] - done
            arrived = done > 0 or ready_s[request] <= begun_s
            waiting[step] |= arrived
            # What it could have had before its last step must not have been enough.
            sooner = left + room_before[ends] - room_before[step + 1]
            if ends > step and (not arrived or left <= 0 or sooner >= lacking):
                break
            chunk = lacking if ends == step else left
            fit[step] &= chunk <= left
            tokens[step] += chunk
            count[step] += 1
            starts[step] += done
            work[step] += chunk * (done + (chunk + 1.0) / 2.0)
            left = max(left - chunk, 0.0)
            if ends > step:
                done += chunk
                break
            head, done = head + 1, 0.0
    return _Prompts(tokens, count, starts, work, waiting, fit)
