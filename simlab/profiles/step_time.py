"""Step time: how long one forward pass of the model takes for what is in its batch."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

TERMS = (
    "base_s",
    "per_seq_s",
    "per_kv_token_s",
    "per_prefill_kv_token_s",
    "attn_s",
    "per_prefill_token_s",
    "per_prefill_seq_s",
    "linear",
    "prefill_linear",
    "overhead_s",
)
TABLES = ("linear", "prefill_linear")


@dataclass(frozen=True)
class StepTime:
    """Coefficients of a step's duration (DESIGN 4.3); every term is 0 or above, so more work never takes less time.

    ``step = base_s + per_seq_s·B + per_kv_token_s·C + per_prefill_kv_token_s·P + attn_s·W + per_prefill_token_s·p
    + per_prefill_seq_s·N + linear(p + B) + [p > 0]·prefill_linear(p + B)`` with B decoding sequences of C tokens of
    context in all, p prefill tokens of N requests, P context of these at the end of their chunks, and W their attention
    work Σ chunk·(start + (chunk+1)/2).

    Attributes:
        base_s: every step, s.
        per_seq_s: each decoding sequence, s.
        per_kv_token_s: each token of context of a decoding sequence, s.
        per_prefill_kv_token_s: each token of context of a prefilling request at its chunk's end, s.
        attn_s: each (prefill token × context token) pair, s.
        per_prefill_token_s: each prefill token, s.
        per_prefill_seq_s: each prefilling request, s.
        linear: two or more points (tokens in the step, s) from at most 1 token, both rising; straight between points,
            going on at the last slope after the last; ``()`` is none. Knots one token apart make a staircase: steps
            of decodes alone are padded to the next captured CUDA graph.
        prefill_linear: the same for what only steps with prompt tokens take: they leave the full CUDA graph.
        overhead_s: once a request, outside the scheduler (HTTP, tokeniser), s.

    Raises:
        ValueError: a coefficient is negative or not finite, or a table does not rise; all faults in one message.
    """

    base_s: float = 0.0
    per_seq_s: float = 0.0
    per_kv_token_s: float = 0.0
    per_prefill_kv_token_s: float = 0.0
    attn_s: float = 0.0
    per_prefill_token_s: float = 0.0
    per_prefill_seq_s: float = 0.0
    linear: tuple[tuple[float, float], ...] = ()
    prefill_linear: tuple[tuple[float, float], ...] = ()
    overhead_s: float = 0.0

    def __post_init__(self) -> None:
        faults = [
            f"{term} is {value!r}: must be a finite number of seconds, 0 or more"
            for term in TERMS
            if term not in TABLES and not (math.isfinite(value := getattr(self, term)) and value >= 0)
        ]
        for name in TABLES:
            points = getattr(self, name)
            if not all(math.isfinite(number) and number >= 0 for point in points for number in point):
                faults.append(f"{name} has a negative or non-finite number: tokens and seconds must be 0 or more")
            if points and (len(points) < 2 or points[0][0] > 1):
                faults.append(f"{name} needs two or more points, the first at 1 token or fewer")
            if not all(t0 < t1 and s0 <= s1 for (t0, s0), (t1, s1) in pairwise(points)):
                faults.append(f"{name} must have rising tokens and seconds that never fall")
        if faults:
            raise ValueError("; ".join(faults))

    def linear_s(self, tokens: float) -> float:
        """The piecewise-linear part for a number of tokens in the step, s.

        >>> law = StepTime(linear=((0, 1.0), (8, 1.0), (16, 2.0)))
        >>> law.linear_s(4), law.linear_s(12), law.linear_s(32)
        (1.0, 1.5, 4.0)
        """
        return _table_s(self.linear, tokens)

    def prefill_linear_s(self, tokens: float) -> float:
        """The same of what steps with prompt tokens take on top, s."""
        return _table_s(self.prefill_linear, tokens)

    def step_s(
        self,
        prefill_tokens: float,
        decode_seqs: float,
        decode_context: float,
        prefill_context: float = 0.0,
        prefill_work: float = 0.0,
        prefill_requests: float = 1.0,
    ) -> float:
        """Duration of one step, s.

        Args:
            prefill_tokens: prompt tokens computed in the step.
            decode_seqs: sequences that emit one token from one token.
            decode_context: Σ context of those, tokens.
            prefill_context: Σ context of the prefilling requests at the end of their chunks, tokens.
            prefill_work: Σ chunk·(start + (chunk+1)/2) over them, token pairs.
            prefill_requests: how many they are; counts only where there are prefill tokens.

        >>> StepTime(base_s=0.01, per_seq_s=0.001, per_kv_token_s=1e-6).step_s(0, 10, 1000)
        0.021
        """
        return (
            self.base_s
            + self.per_seq_s * decode_seqs
            + self.per_kv_token_s * decode_context
            + self.per_prefill_kv_token_s * prefill_context
            + self.attn_s * prefill_work
            + self.per_prefill_token_s * prefill_tokens
            + self.linear_s(prefill_tokens + decode_seqs)
            + (self._prefill_s(prefill_tokens + decode_seqs, prefill_requests) if prefill_tokens > 0 else 0.0)
        )

    def _prefill_s(self, tokens: float, requests: float) -> float:
        """What a step takes more for having prompt tokens in it at all, s."""
        return self.per_prefill_seq_s * requests + self.prefill_linear_s(tokens)

    def scaled(self, factors: Mapping[str, float]) -> StepTime:
        """The same with terms multiplied by factors; a table's scales the seconds of every point.

        >>> StepTime(base_s=0.01, linear=((0, 0), (1, 0.5))).scaled({"base_s": 2, "linear": 2})  # doctest: +ELLIPSIS
        StepTime(base_s=0.02, ... linear=((0, 0), (1, 1.0)), prefill_linear=(), overhead_s=0.0)
        """
        changes: dict[str, object] = {}
        for term, factor in factors.items():
            value = getattr(self, term)
            points = term in TABLES
            changes[term] = tuple((tokens, s * factor) for tokens, s in value) if points else value * factor
        return replace(self, **changes)  # type: ignore[arg-type]


def _table_s(points: tuple[tuple[float, float], ...], tokens: float) -> float:
    """Straight between the points, and on at the last slope after the last; 0 without points."""
    if not points:
        return 0.0
    left = min(bisect_right(points, (tokens, math.inf)), len(points) - 1)
    left = max(left - 1, 0)
    (t0, s0), (t1, s1) = points[left], points[left + 1]
    return s0 + (tokens - t0) * (s1 - s0) / (t1 - t0)
