"""A closed-loop benchmark of one vLLM server, simulated: concurrency in, time to first token and time per token out.

Token budget, chunked prefill first come first served behind the decoding sequences, no limit of KV blocks (rows that
would hit it are left out of the fit). Requests draw their lengths uniformly between ``low`` and 1 of the nominal ones,
as InferenceX does; all users start at once and each sends its next request when its last one ends.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from simlab.profiles import StepTime

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Latency:
    """What the benchmark measures, s: means over requests."""

    ttft_mean_s: float
    tpot_mean_s: float


def closed_loop(
    step_time: StepTime,
    prompt_tokens: int,
    output_tokens: int,
    concurrency: int,
    *,
    low: float = 0.8,
    rounds: int = 10,
    max_num_batched_tokens: int = 8192,
    seed: int = 0,
) -> Latency:
    """Simulates ``rounds × concurrency`` requests of nominal lengths at a fixed concurrency."""
    rng = np.random.default_rng(seed)
    n = rounds * concurrency
    prompts = rng.integers(max(1, int(low * prompt_tokens)), prompt_tokens + 1, n)
    outputs = rng.integers(max(2, int(low * output_tokens)), output_tokens + 1, n)
    table = np.array(step_time.linear or ((0.0, 0.0), (1.0, 0.0)))
    terms = np.array(
        [
            step_time.base_s,
            step_time.per_seq_s,
            step_time.per_kv_token_s,
            step_time.per_prefill_kv_token_s,
            step_time.attn_s,
            step_time.per_prefill_token_s,
            step_time.overhead_s,
        ]
    )
    ttft, tpot = _run(
        prompts, outputs, concurrency, max_num_batched_tokens, terms, table[:, 0].copy(), table[:, 1].copy()
    )
    return Latency(float(ttft.mean()), float(tpot.mean()))


@njit(cache=True)
def _linear(tokens: float, at: Floats, seconds: Floats) -> float:
    if tokens <= at[0]:
        return float(seconds[0])
    i = min(np.searchsorted(at, tokens), len(at) - 1)
    return float(seconds[i - 1] + (tokens - at[i - 1]) * (seconds[i] - seconds[i - 1]) / (at[i] - at[i - 1]))


@njit(cache=True)
def _run(
    prompts: Ints, outputs: Ints, users: int, budget: int, terms: Floats, at: Floats, seconds: Floats
) -> tuple[Floats, Floats]:
    base, per_seq, per_kv, per_prefill_kv, attn, per_prefill, overhead = terms
    n = len(prompts)
    ttft, tpot = np.zeros(n), np.zeros(n)
    sent, first = np.zeros(n), np.zeros(n)
    arrival = np.zeros(users)  # when the user's request reaches the scheduler
    request = np.full(users, -1)  # the user's request, -1 is none
    state = np.zeros(users, np.int64)  # 0 on its way, 1 waiting or prefilling, 2 decoding
    done = np.zeros(users, np.int64)  # prompt tokens computed
    last_step = np.zeros(users, np.int64)  # decode step in which the request ends
    queue = np.zeros(users, np.int64)  # users waiting or prefilling, in order of arrival
    queued = 0
    issued = min(users, n)
    for u in range(issued):
        request[u] = u
        arrival[u] = overhead
    active, now, step = issued, 0.0, 0
    decoding, context = 0, 0.0
    while active > 0:
        pending = np.inf
        for u in range(users):
            if request[u] >= 0 and state[u] == 0:
                if arrival[u] <= now:
                    place = queued
                    while place > 0 and arrival[queue[place - 1]] > arrival[u]:
                        queue[place] = queue[place - 1]
                        place -= 1
                    queue[place] = u
                    queued += 1
                    state[u] = 1
                    done[u] = 0
                else:
                    pending = min(pending, arrival[u])
        if decoding == 0 and queued == 0:
            now = pending
            continue
        steps = 1
        if queued == 0:
            # Nothing but decoding: jump to the next end, or to the step in which the next arrival falls.
            until = np.iinfo(np.int64).max
            for u in range(users):
                if state[u] == 2:
                    until = min(until, last_step[u] - step)
            one = base + per_seq * decoding + per_kv * context + _linear(decoding, at, seconds)
            growth = per_kv * decoding
            steps = until
            if pending < np.inf:
                gap = pending - now
                root = np.sqrt((one - 0.5 * growth) ** 2 + 2.0 * growth * gap)
                whole = gap / one if growth <= 0.0 else (root - one + 0.5 * growth) / growth
                steps = max(1, min(until, int(np.ceil(whole))))
            now += steps * one + growth * steps * (steps - 1) / 2.0
        else:
            left = budget - decoding
            used, work, reach, ended = 0.0, 0.0, 0.0, 0
            for place in range(queued):
                u = queue[place]
                chunk = min(left, prompts[request[u]] - done[u])
                if chunk <= 0:
                    break
                work += chunk * (done[u] + (chunk + 1) / 2.0)
                done[u] += chunk
                left -= chunk
                used += chunk
                reach += done[u]
                if done[u] == prompts[request[u]]:
                    ended += 1
            now += (
                base
                + per_seq * decoding
                + per_kv * context
                + per_prefill_kv * reach
                + attn * work
                + per_prefill * used
                + _linear(used + decoding, at, seconds)
            )
        step += steps
        context += steps * decoding
        for u in range(users):
            if state[u] == 2 and last_step[u] == step:
                r = request[u]
                tpot[r] = (now - first[r]) / (outputs[r] - 1)
                context -= prompts[r] + outputs[r]
                decoding -= 1
                request[u] = -1
                state[u] = 0
                active -= 1
                if issued < n:
                    request[u] = issued
                    sent[issued] = now
                    arrival[u] = now + overhead
                    issued += 1
                    active += 1
        if queued > 0 and steps == 1:
            kept = 0
            for place in range(queued):
                u = queue[place]
                r = request[u]
                if done[u] == prompts[r]:
                    first[r] = now
                    ttft[r] = now - sent[r]
                    state[u] = 2
                    last_step[u] = step + outputs[r] - 1
                    decoding += 1
                    context += prompts[r] + 1
                else:
                    queue[kept] = u
                    kept += 1
            queued = kept
    return ttft, tpot
