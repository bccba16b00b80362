"""What a gateway does when answers are late or do not come: retries, hedges, breakers, fallbacks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from simlab.scenario.base import Fault, Model
from simlab.scenario.dist import SecondsDist
from simlab.scenario.units import Count, Factor, Number, Ratio, Seconds

_JITTER = {"none": 0.0, "equal": 0.5, "full": 1.0}


def _jitter(raw: Any) -> Any:
    return _JITTER.get(raw, raw) if isinstance(raw, str) else raw


Jitter = Annotated[Ratio, BeforeValidator(_jitter, json_schema_input_type=Ratio | Literal["none", "equal", "full"])]
"""Share of a wait that is taken off at random, also by its usual names (Brooker, "Exponential backoff and jitter")."""


class RetryBudget(Model):
    """How many retries there may be in all, so that they cannot pile up on a provider that is down."""

    ratio: Annotated[Ratio, Field(gt=0)] = Field(description="retries that each task earns; 0.1: a tenth of traffic")
    burst: Annotated[Number, Field(ge=1)] = Field(10.0, description="retries that can be saved up")


class Retry(Model):
    """When an attempt fails: how often, and how long to wait before the next one."""

    max_attempts: Count = Field(1, ge=1, le=100, description="attempts on one backend in all; 1: never retry")
    backoff: Seconds = Field(0.5, ge=0, description="wait before the second attempt, s")
    multiplier: Factor = Field(2.0, ge=1, description="each further wait is this many times longer")
    max_backoff: Seconds = Field(8.0, ge=0, description="longest wait, s")
    jitter: Jitter = Field(
        0.25, description="up to this share of the wait, drawn evenly, is taken off; none (0), equal (0.5) or full (1)"
    )
    on: list[Literal["rate_limit", "error", "timeout", "reject"]] = Field(
        ["rate_limit", "error", "timeout"], description="outcomes that are tried again"
    )
    honour_retry_after: bool = Field(False, description="wait at least as long as a provider's 429 asks for")
    budget: RetryBudget | None = Field(None, description="retries of all tasks together; none: no limit")

    def checks(self) -> Iterator[Fault]:
        """The first wait is not above the longest."""
        if self.max_backoff < self.backoff:
            yield Fault(("max_backoff",), f"read {self.max_backoff:g} s, below backoff ({self.backoff:g} s); raise it")


class Hedge(Model):
    """Ask once more, beside an attempt that is slow; the first answer wins and the other is stopped."""

    after: Annotated[Seconds, Field(gt=0)] = Field(description="when no token has come s after an attempt began")
    max_per_task: Count = Field(1, ge=1, le=10, description="extra calls for one task, one at a time")
    to: str | None = Field(None, description="backend that is asked; none: the route draws again")


class Breaker(Model):
    """A backend that keeps failing is left alone for a while, and then probed."""

    consecutive: Annotated[Count, Field(ge=1)] | None = Field(None, description="opens after so many failures in a row")
    ratio: Annotated[Ratio, Field(gt=0)] | None = Field(None, description="opens at this share of failures in a window")
    window: Annotated[Seconds, Field(gt=0)] = Field(10.0, description="of the ratio, s")
    minimum_calls: Count = Field(20, ge=1, description="calls in the window before the ratio counts")
    cool_down: Annotated[Seconds, Field(gt=0)] = Field(30.0, description="how long it stays open, s")
    probes: Count = Field(1, ge=1, description="calls that are let through then, and must all go well to close it")

    def checks(self) -> Iterator[Fault]:
        """Something that opens it."""
        if self.consecutive is None and self.ratio is None:
            yield Fault((), "nothing opens it; give consecutive or ratio")


class CannedAnswer(Model):
    """An answer that the gateway gives by itself when nothing else can: an apology, a heuristic, a cached page."""

    latency: SecondsDist = Field(description="how long it takes, s")
    quality: Ratio = Field(0.0, description="chance that it is what the user wanted")


class Client(Model):
    """What the programs in front of the gateway do when they wait."""

    patience: Annotated[Seconds, Field(gt=0)] = Field(description="they send the request again after this long, s")
    resends: Count = Field(1, ge=1, le=100, description="so many times at most")


def fallback_faults(fallback: dict[str, str], backends: list[str], answers: list[str]) -> Iterator[Fault]:
    """Yields what is wrong with who stands in for whom.

    Args:
        fallback: backend that stands in, by the one that failed.
        backends: pools and APIs.
        answers: names of canned answers, which can only stand in.
    """
    from simlab.scenario.outline import suggest

    for failed, stands_in in fallback.items():
        if failed not in backends:
            message = f"read {failed!r}, which is no backend; {suggest(failed, backends)}"
            yield Fault(("gateway", "fallback", failed), message)
        if stands_in not in backends and stands_in not in answers:
            known = [*backends, *answers]
            message = f"read {stands_in!r}, which is no backend and no canned answer; {suggest(stands_in, known)}"
            yield Fault(("gateway", "fallback", failed), message)
    reported: set[str] = set()
    for start in fallback:
        chain = [start]
        while chain[-1] in fallback and fallback[chain[-1]] not in chain:
            chain.append(fallback[chain[-1]])
        end = fallback.get(chain[-1])
        if end is not None and start == end and not reported & set(chain):
            reported |= set(chain)
            shown = " → ".join([*chain, end])
            yield Fault(("gateway", "fallback", chain[-1]), f"{shown} is a circle; a chain must end: take one link out")
