"""The chat mix of several benchmarks: skewed lengths, Poisson arrivals, and the step time they are served with."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PROMPT_MEAN, PROMPT_P95, PROMPT_MAX = 690, 2000, 8000
OUTPUT_MEAN, OUTPUT_P95, OUTPUT_MAX = 180, 500, 2000
"""Tokens of a request."""

BASE_S, PREFILL_TOKEN_S, DECODE_SEQ_S, CONTEXT_TOKEN_S = 6e-3, 3e-5, 2e-5, 4e-9
"""Seconds of a step: every step, and each of what is in it."""

MAX_NUM_SEQS, MAX_NUM_BATCHED_TOKENS, KV_BLOCKS, BLOCK_SIZE = 256, 2048, 25_000, 16
"""Limits of a replica; the cache is large enough for a full batch."""

_CHUNK = 65536
_Z95 = 1.6448536269514722


def lognormal(rng: np.random.Generator, mean: float, p95: float, most: int, n: int) -> NDArray[np.int64]:
    """``n`` lengths in tokens, from 1 to ``most``; sigma solves ``ln(p95 / mean) = z sigma - sigma² / 2``."""
    sigma = _Z95 - math.sqrt(_Z95 * _Z95 - 2 * math.log(p95 / mean))
    drawn = rng.lognormal(math.log(mean) - sigma * sigma / 2, sigma, n)
    return np.clip(np.rint(drawn), 1, most).astype(np.int64)


@dataclass(frozen=True)
class Chunk:
    """Arrivals with explicit lengths, as the engine reads them."""

    arrival_s: NDArray[np.float64]
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    segment_ptr: NDArray[np.int64] | None = None
    segment_id: NDArray[np.int64] | None = None
    segment_tokens: NDArray[np.int64] | None = None
    query: NDArray[np.int64] | None = None


class Feed:
    """``n`` requests of the chat mix at ``rate_rps`` (infinite: all at once), drawn as they are asked for.

    ``shared_tokens`` are put in front of every prompt, the same for all. `spent_s` is the time the drawing took, to be
    taken off.
    """

    def __init__(self, rate_rps: float, n: int, shared_tokens: int = 0, seed: int = 0) -> None:
        self.spent_s = 0.0
        self._rate_rps = rate_rps
        self._left = n
        self._shared = shared_tokens
        self._now_s = 0.0
        self._rng = np.random.default_rng(seed)

    def next_chunk(self) -> Chunk | None:
        """The next requests."""
        if not self._left:
            return None
        began = time.perf_counter()
        n = min(_CHUNK, self._left)
        self._left -= n
        arrival_s = self._now_s + np.cumsum(self._rng.exponential(1.0, n) / self._rate_rps)
        self._now_s = float(arrival_s[-1])
        prompt = lognormal(self._rng, PROMPT_MEAN, PROMPT_P95, PROMPT_MAX, n) + self._shared
        output = lognormal(self._rng, OUTPUT_MEAN, OUTPUT_P95, OUTPUT_MAX, n)
        if self._shared:
            same, tokens = np.ones(n, np.int64), np.full(n, self._shared)
            chunk = Chunk(arrival_s, prompt, output, np.arange(n + 1), same, tokens)
        else:
            chunk = Chunk(arrival_s, prompt, output)
        self.spent_s += time.perf_counter() - began
        return chunk
