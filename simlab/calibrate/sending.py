"""What a benchmark sends to one scheduler: lengths, times, shared beginnings; as stated, or drawn as clients do."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simlab.calibrate.run import Floats, Ints, Load, Run

ROUNDS = 10
"""Requests a user sends where a source does not say how many were sent, as InferenceX does (num_prompts = 10·c)."""
STAGGER_S = 0.2e-3
"""Between requests that a client sends at once: what it takes to write one and the server to read it."""
# What a random number is for.
_PROMPT, _OUTPUT, _GAP, _KIND = range(4)


@dataclass(frozen=True)
class Sending:
    """Requests of one scheduler in the order in which they are sent.

    Attributes:
        due_s: not sent before, s from the first one, [n].
        prompt_tokens, output_tokens: lengths, [n].
        kind: which of the shared beginnings a prompt has, [n]; None: prompts share nothing.
        shared_tokens: length of a beginning.
        users: most requests in flight; 0: no limit.
        share: share of the whole deployment's tokens that goes through this scheduler.
    """

    due_s: Floats
    prompt_tokens: Ints
    output_tokens: Ints
    kind: Ints | None
    shared_tokens: int
    users: int
    share: float


def sending(run: Run, *, seed: int = 0) -> Sending:
    """What a run sends to one of its schedulers.

    Where requests are known one by one, their lengths are taken, and the times of those whose sending did not wait for
    an answer. Otherwise lengths are uniform in [low, high] of the nominal ones, times between requests gamma with the
    stated burstiness, and all of them together as long as they should be, as ``vllm bench serve`` makes them; each
    number is one of the seed and the request. Several schedulers (data-parallel ranks, replicas) get one request after
    the other in turn, of which this is the first one's.

    Raises:
        ValueError: the run says nothing of its load.
    """
    load = run.load
    if load is None:
        raise ValueError(f"run {run.name} is a log of steps: it does not say what was sent")
    ranks = run.server.dp * run.server.replicas
    if run.requests is not None:
        prompts, outputs = run.requests.prompt_tokens, run.requests.output_tokens
    else:
        prompts, outputs = _lengths(load, seed)
    n = len(prompts)
    due = _due(run, n, seed)
    kinds = _kinds(load, n, seed) if load.shared_tokens > 0 else None
    users = 0
    if load.concurrency is not None:
        # With fewer users than schedulers some have none; the one looked at has one.
        users = max(1, round(load.concurrency / ranks))
        ranks = max(1, min(ranks, round(load.concurrency / users)))
    mine = slice(0, None, ranks)
    share = float(outputs[mine].sum() / outputs.sum())
    return Sending(
        due_s=due[mine] - due[0],
        prompt_tokens=prompts[mine],
        output_tokens=outputs[mine],
        kind=None if kinds is None else kinds[mine],
        shared_tokens=load.shared_tokens,
        users=users,
        share=share,
    )


def count(load: Load) -> int:
    """Requests of a benchmark, as stated or as its users send."""
    if load.requests is not None:
        return max(1, load.requests)
    return ROUNDS * (load.concurrency or 1)


def _numbers(seed: int, purpose: int, n: int) -> Floats:
    """Uniform numbers in (0, 1), each of the seed, the purpose and its index alone (Philox; Salmon et al., SC 2011)."""
    generator = np.random.Generator(np.random.Philox(key=[seed, purpose]))
    return np.asarray(generator.random(n), np.float64)


def _even(seed: int, purpose: int, n: int) -> Floats:
    """The same, one in each n-th of (0, 1): a sample whose mean is that of the law, as runs of any size have it."""
    order = np.argsort(_numbers(seed, purpose, n), kind="stable")
    numbers = np.empty(n)
    numbers[order] = (np.arange(n) + 0.5) / n
    return numbers


def _lengths(load: Load, seed: int) -> tuple[Ints, Ints]:
    """Prompt and output tokens of each request, [n] each."""
    n = count(load)
    made = []
    for purpose, nominal in ((_PROMPT, load.prompt_tokens), (_OUTPUT, load.output_tokens)):
        shares = load.low + (load.high - load.low) * _even(seed, purpose, n)
        made.append(np.maximum(1, np.rint(shares * nominal)).astype(np.int64))
    return made[0], made[1]


def _due(run: Run, n: int, seed: int) -> Floats:
    """When each request is sent at the earliest, s."""
    load = run.load
    assert load is not None
    known = run.requests is not None and not np.isnan(run.requests.start_s).any()
    if math.isfinite(load.rate_rps):
        if known:
            assert run.requests is not None
            return np.asarray(run.requests.start_s, np.float64)
        return _arrivals(load, n, seed)
    due = np.arange(n) * STAGGER_S
    if load.concurrency is not None:
        # A user's further requests wait for answers and for nothing else.
        due[load.concurrency :] = 0.0
    if known:
        assert run.requests is not None
        first = slice(0, load.concurrency)
        due[first] = np.maximum.accumulate(run.requests.start_s[first])
    return np.maximum.accumulate(due)


def _arrivals(load: Load, n: int, seed: int) -> Floats:
    """Times with gamma-distributed gaps that take as long together as the rate says."""
    from scipy.special import gammaincinv

    even = math.isinf(load.burstiness)
    gaps = np.ones(n) if even else gammaincinv(load.burstiness, _numbers(seed, _GAP, n))
    times = np.concatenate([[0.0], np.cumsum(gaps[:-1])])
    return np.asarray(times * (n / load.rate_rps) / gaps.sum(), np.float64)


def _kinds(load: Load, n: int, seed: int) -> NDArray[np.int64]:
    """Which beginning each prompt has: all equally often, in random order."""
    order = np.argsort(_numbers(seed, _KIND, n), kind="stable")
    kinds = np.empty(n, np.int64)
    kinds[order] = np.arange(n) % max(1, load.shared_kinds)
    return kinds
