"""Retries: which outcomes are tried again, after how long, and how many there may be."""

from __future__ import annotations

from simlab.draws.counter import key, uniform
from simlab.draws.kernel import kernel
from simlab.engine.arrays import (
    BACKOFF,
    CANCELLED,
    ERROR,
    FALLBACK,
    FOR_JITTER,
    NONE,
    RATE_LIMITED,
    RETRY,
    T_RETRY,
    TIMED_OUT,
)
from simlab.engine.caps import may_go_on
from simlab.engine.heaps import push_timer
from simlab.engine.world import World, backends_of, gateway_of, slots_of, tickets_of


@kernel
def retryable(w: World, outcome: int) -> bool:
    """Whether the retry policy tries again after this outcome at all."""
    g = gateway_of(w)
    if outcome == CANCELLED:
        return False
    if outcome == RATE_LIMITED:
        return bool(g.retry_rate_limited == 1)
    if outcome == ERROR:
        return bool(g.retry_error == 1)
    if outcome == TIMED_OUT:
        return bool(g.retry_timed_out == 1)
    return bool(g.retry_rejected == 1)


@kernel
def retries(w: World, slot: int, outcome: int) -> bool:
    """Whether an attempt of a class without policies is followed by another."""
    return bool(slots_of(w)[slot].attempt + 1 < gateway_of(w).max_attempts and retryable(w, outcome))


@kernel
def back_off(w: World, slot: int, t: float) -> None:
    """Waits before the next attempt: exponentially longer each time, less a share drawn evenly."""
    s = slots_of(w)[slot]
    _wait(w, slot, t, s.attempt, s.attempt + 1, 0.0)


@kernel
def _wait(w: World, slot: int, t: float, retries_before: int, attempt: int, least_s: float) -> None:
    g = gateway_of(w)
    s = slots_of(w)[slot]
    wait = min(g.max_backoff_s, g.backoff_s * g.backoff_factor**retries_before)
    wait *= 1.0 - g.jitter * uniform(key(s.task, FOR_JITTER + 64 * s.attempt))
    s.attempt = attempt
    s.reason = RETRY
    s.state = BACKOFF
    push_timer(w, t + max(wait, least_s), slot, T_RETRY)


@kernel
def allow_first(w: World) -> None:
    """A task's first attempt earns its share of a retry."""
    g = gateway_of(w)
    g.retry_credit = min(g.retry_burst, g.retry_credit + g.retry_budget)


@kernel
def what_next(w: World, slot: int, outcome: int) -> int:
    """What follows a failed attempt of a class with policies: RETRY, which the budget pays for, FALLBACK, or NONE."""
    g = gateway_of(w)
    ticket = tickets_of(w)[slot]
    if ticket.over == 1:
        return NONE
    again = ticket.retries + 1 < g.max_attempts and retryable(w, outcome)
    elsewhere = backends_of(w)[slots_of(w)[slot].backend].fallback != NONE
    if not (again or elsewhere) or not may_go_on(w, slot):
        return NONE
    if again and g.retry_budget > 0.0:
        if g.retry_credit < 1.0:
            g.retries_refused += 1
            again = False
        else:
            g.retry_credit -= 1.0
    if again:
        return RETRY
    return FALLBACK if elsewhere else NONE


@kernel
def wait_to_retry(w: World, slot: int, t: float, outcome: int) -> None:
    """Backs off; after a 429 no less than the provider asked for, where that is honoured."""
    ticket = tickets_of(w)[slot]
    g = gateway_of(w)
    least = 0.0
    if outcome == RATE_LIMITED and g.retry_after == 1:
        least = backends_of(w)[slots_of(w)[slot].backend].retry_after_s
    ticket.tries += 1
    ticket.retries += 1
    _wait(w, slot, t, ticket.retries - 1, ticket.tries, least)
