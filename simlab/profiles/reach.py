"""How far a plan goes beyond what its profile was measured on, and how much less is known of the step time there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from simlab.profiles.record import Profile, Uncertainty, Validity

SD_PER_LOG = 0.30
"""Standard deviation of a log factor on the terms concerned, for each factor e beyond what was measured.

Of 158 straight lines through the time per token over concurrency of `vllm bench serve` runs (InferenceX, all set-ups of
four or more concurrencies), extrapolated to the concurrencies left out: 2, 4, 8 and 16 times beyond, the root mean
square of the log errors was 0.21, 0.37, 0.63 and 0.89, which is 0.30, 0.26, 0.30 and 0.32 for each factor e.
"""

NOTICED = 1e-3
"""Share of the work below which having been beyond is not worth a word."""


@dataclass(frozen=True)
class _Limit:
    """One limit of a `Validity`: how it is called, and the terms that grow with what it limits."""

    name: str
    words: str
    share_of: str
    terms: tuple[str, ...]


_LIMITS = (
    _Limit("max_decode_seqs", "sequences decoding at once", "busy time", ("per_seq_s", "linear")),
    _Limit(
        "max_step_tokens", "tokens in a step", "busy time", ("per_prefill_token_s", "linear", "prefill_linear")
    ),
    _Limit(
        "max_context_tokens",
        "tokens of context",
        "computed tokens",
        ("per_kv_token_s", "per_prefill_kv_token_s", "attn_s"),
    ),
)


@dataclass(frozen=True)
class Reach:
    """What the replicas of a pool did, in the terms of a profile's validity.

    Attributes:
        seqs, tokens, context: most sequences decoding in a step, most tokens in one, longest request.
        busy_s: time with a step running, s.
        beyond_seqs_s, beyond_tokens_s: of it, in steps beyond the profile's limits, s.
        computed_tokens: prompt tokens computed and tokens made.
        beyond_context_tokens: of them, for requests longer than the profile's limit.
    """

    seqs: int = 0
    tokens: int = 0
    context: int = 0
    busy_s: float = 0.0
    beyond_seqs_s: float = 0.0
    beyond_tokens_s: float = 0.0
    computed_tokens: int = 0
    beyond_context_tokens: int = 0

    @classmethod
    def of(cls, replicas: Any) -> Reach:
        """The reach of some replicas.

        Args:
            replicas: records with the fields of `simlab.results.REPLICA_DTYPE`, of one pool.
        """
        if not len(replicas):
            return cls()
        return cls(
            seqs=int(replicas["peak_seqs"].max()),
            tokens=int(replicas["peak_tokens"].max()),
            context=int(replicas["peak_context"].max()),
            busy_s=float(replicas["busy_s"].sum()),
            beyond_seqs_s=float(replicas["beyond_seqs_s"].sum()),
            beyond_tokens_s=float(replicas["beyond_tokens_s"].sum()),
            computed_tokens=int(replicas["prefill_tokens"].sum() + replicas["decode_tokens"].sum()),
            beyond_context_tokens=int(replicas["beyond_context_tokens"].sum()),
        )

    def __add__(self, other: Reach) -> Reach:
        """Both together: the larger of the peaks, the sums of the rest."""
        return Reach(
            max(self.seqs, other.seqs),
            max(self.tokens, other.tokens),
            max(self.context, other.context),
            self.busy_s + other.busy_s,
            self.beyond_seqs_s + other.beyond_seqs_s,
            self.beyond_tokens_s + other.beyond_tokens_s,
            self.computed_tokens + other.computed_tokens,
            self.beyond_context_tokens + other.beyond_context_tokens,
        )


@dataclass(frozen=True)
class Beyond:
    """One limit of a profile's validity that a run went beyond.

    Attributes:
        limit: its name, a field of `Validity`.
        measured: up to where the profile was measured.
        reached: how far the run went.
        share: of the busy time (of the computed tokens, for the context) that lay beyond, 0..1.
    """

    limit: str
    measured: int
    reached: int
    share: float

    @property
    def terms(self) -> tuple[str, ...]:
        """The terms of the step time that are less sure for it."""
        return _limit(self.limit).terms

    @property
    def log_sd(self) -> float:
        """Standard deviation of the log factor that comes on top: √share · `SD_PER_LOG` · ln(reached / measured)."""
        return math.sqrt(self.share) * SD_PER_LOG * math.log(self.reached / self.measured)

    @property
    def sentence(self) -> str:
        """How far, how long, and what that does to the profile."""
        kind = _limit(self.limit)
        share = f"{self.share:.0%}" if 0.005 <= self.share < 0.995 else "all" if self.share > 0.5 else "under 1%"
        return (
            f"up to {self.reached:,} {kind.words}, measured up to {self.measured:,} (beyond for {share} of the "
            f"{kind.share_of}): {math.expm1(self.log_sd):.0%} more uncertainty (one standard deviation) on "
            f"{', '.join(self.terms)}"
        )


def _limit(name: str) -> _Limit:
    return next(limit for limit in _LIMITS if limit.name == name)


def beyond(validity: Validity, reach: Reach) -> tuple[Beyond, ...]:
    """Where a run went beyond what a profile was measured on, by more than `NOTICED` of its work."""
    ran = {
        "max_decode_seqs": (reach.seqs, reach.beyond_seqs_s, reach.busy_s),
        "max_step_tokens": (reach.tokens, reach.beyond_tokens_s, reach.busy_s),
        "max_context_tokens": (reach.context, reach.beyond_context_tokens, reach.computed_tokens),
    }
    found = []
    for name, (reached, part, whole) in ran.items():
        measured = getattr(validity, name)
        share = min(1.0, part / whole) if whole > 0 else 0.0
        if measured and reached > measured and share >= NOTICED:
            found.append(Beyond(name, measured, reached, share))
    return tuple(found)


def may_go_beyond(validity: Validity, most: Mapping[str, float]) -> list[str]:
    """In words, which limits of a validity a plan may exceed.

    Args:
        validity: what was measured.
        most: how far the plan may go, by field of `Validity`.
    """
    return [
        f"up to {most[limit.name]:,.0f} {limit.words} (measured up to {measured:,})"
        for limit in _LIMITS
        if (measured := getattr(validity, limit.name)) and most.get(limit.name, 0) > measured
    ]


def widened(profile: Profile, found: Sequence[Beyond]) -> Profile:
    """The profile with the uncertainty of the terms concerned widened, each by its `Beyond.log_sd`.

    The terms of one limit are off together (their extra errors are one and the same): beyond what was measured it is
    the whole trend that may be wrong. Where the profile has none of these terms, the error is put on ``base_s``.
    """
    if not found:
        return profile
    step, known = profile.step_time, profile.uncertainty
    extra: list[tuple[tuple[str, ...], float]] = []
    for one in found:
        used = tuple(term for term in one.terms if getattr(step, term))
        extra.append((used or ("base_s",), one.log_sd**2))
    terms = list(dict.fromkeys([*known.terms, *(term for group, _ in extra for term in group)]))
    n = len(known.terms)
    covariance = [
        [known.log_covariance[i][j] if i < n and j < n else 0.0 for j in range(len(terms))] for i in range(len(terms))
    ]
    for group, variance in extra:
        places = [terms.index(term) for term in group]
        for i in places:
            for j in places:
                covariance[i][j] += variance
    return replace(profile, uncertainty=Uncertainty(tuple(terms), tuple(tuple(row) for row in covariance)))
