"""Circuit breakers: a failing backend is left alone for a while, then probed (Nygard, "Release It!", 2007)."""

from __future__ import annotations

from simlab.draws.kernel import kernel
from simlab.engine.arrays import ERROR, OK, TIMED_OUT
from simlab.engine.world import World, backends_of, gateway_of, slots_of, tickets_of

CLOSED, OPEN, HALF_OPEN = 0, 1, 2


@kernel
def lets_through(w: World, slot: int, b: int, t: float) -> bool:
    """Whether backend ``b`` may be asked at ``t``; a call that passes a half-open breaker is a probe."""
    be = backends_of(w)[b]
    tickets_of(w)[slot].probe = 0
    if be.breaker == CLOSED:
        return True
    if be.breaker == OPEN:
        if t < be.open_until_s:
            return False
        be.breaker = HALF_OPEN
        be.probes = 0
        be.passed = 0
    if be.probes >= gateway_of(w).breaker_probes:
        return False
    be.probes += 1
    tickets_of(w)[slot].probe = be.openings
    return True


@kernel
def note_outcome(w: World, slot: int, outcome: int, t: float) -> None:
    """Tells the breaker how a slot's call ended, or why nobody waits for it any more.

    Errors and time-outs count against the backend, refusals do not. A half-open breaker goes by its probes alone: a
    call that began before it opened says nothing of now.
    """
    g = gateway_of(w)
    ticket = tickets_of(w)[slot]
    if g.breaker_on == 0 or ticket.refused == 1 or ticket.hit > 0:
        return
    b = slots_of(w)[slot].backend
    be = backends_of(w)[b]
    bad = outcome in (ERROR, TIMED_OUT)
    if be.breaker == HALF_OPEN:
        if ticket.probe != be.openings:
            return
        if bad:
            _open(w, b, t)
        elif outcome == OK:
            be.passed += 1
            if be.passed >= g.breaker_probes:
                be.breaker = CLOSED
                be.failures = 0
                be.calls = 0
                be.bad_calls = 0
        else:
            be.probes -= 1
        return
    if be.breaker == OPEN or (not bad and outcome != OK):
        return
    be.failures = be.failures + 1 if bad else 0
    if g.breaker_consecutive > 0 and be.failures >= g.breaker_consecutive:
        _open(w, b, t)
        return
    if g.breaker_ratio <= 0.0:
        return
    if t >= be.counted_until_s:
        be.counted_until_s = t + g.breaker_window_s
        be.calls = 0
        be.bad_calls = 0
    be.calls += 1
    be.bad_calls += 1 if bad else 0
    if be.calls >= g.breaker_minimum and be.bad_calls >= g.breaker_ratio * be.calls:
        _open(w, b, t)


@kernel
def _open(w: World, b: int, t: float) -> None:
    be = backends_of(w)[b]
    be.breaker = OPEN
    be.open_until_s = t + gateway_of(w).breaker_cool_down_s
    be.openings += 1
    be.failures = 0
    be.calls = 0
    be.bad_calls = 0
