"""How long steps take: one step, k like steps in closed form, and how many of them end by a given time."""

from __future__ import annotations

import math

from simlab.draws.kernel import inlined
from simlab.engine.arrays import TIME_EPS_S
from simlab.engine.world import World, backends_of, tables_of


@inlined
def _table_s(w: World, at: int, n: int, tokens: int) -> float:
    """Straight between the ``n`` knots that begin at ``at``, and on at the last slope; the first knot is no higher."""
    low = 1
    high = n - 1
    while low < high:
        middle = (low + high) >> 1
        if tables_of(w)[at + 2 * middle] < tokens:
            low = middle + 1
        else:
            high = middle
    x0 = tables_of(w)[at + 2 * low - 2]
    y0 = tables_of(w)[at + 2 * low - 1]
    return y0 + (tokens - x0) * (tables_of(w)[at + 2 * low + 1] - y0) / (tables_of(w)[at + 2 * low] - x0)


@inlined
def step_seconds(
    w: World,
    b: int,
    decodes: int,
    prefill: int,
    requests: int,
    decode_context: int,
    prefill_context: int,
    work: float,
) -> float:
    """Seconds of one step of backend ``b`` (docs/design.md, "Step time").

    Args:
        w: the world.
        b: backend index.
        decodes: sequences that get one token and have at least one already.
        prefill: all other tokens of the step.
        requests: whose those are.
        decode_context: sum over decoding sequences of tokens computed, this step's included.
        prefill_context: the same over the others.
        work: sum over prefill tokens of the context each attends to, itself included.
    """
    be = backends_of(w)[b]
    tokens = decodes + prefill
    t = (
        be.base_s
        + be.prefill_token_s * prefill
        + be.decode_seq_s * decodes
        + be.decode_context_s * decode_context
        + be.prefill_context_s * prefill_context
        + be.attention_s * work
        + be.prefill_seq_s * requests
    )
    if be.knots_n > 0:
        t += _table_s(w, be.knots_at, be.knots_n, tokens)
    if prefill > 0 and be.prefill_knots_n > 0:
        t += _table_s(w, be.prefill_knots_at, be.prefill_knots_n, tokens)
    return t


@inlined
def stretch_s(step_s: float, inc_s: float, k: int) -> float:
    """Seconds of ``k`` steps, the first lasting ``step_s``, each further one ``inc_s`` longer: an arithmetic series."""
    return k * step_s + inc_s * (0.5 * k * (k - 1))


@inlined
def steps_by(step_s: float, inc_s: float, elapsed_s: float) -> int:
    """The least k >= 1 such that k steps end at or after ``elapsed_s`` from the start of the first."""
    half = 0.5 * inc_s
    linear = step_s - half
    if half > 0.0:
        k = int((math.sqrt(linear * linear + 4.0 * half * max(elapsed_s, 0.0)) - linear) / (2.0 * half))
    elif step_s > 0.0:
        k = int(elapsed_s / step_s)
    else:
        return 1
    k = max(k, 1)
    while k > 1 and stretch_s(step_s, inc_s, k - 1) >= elapsed_s - TIME_EPS_S:
        k -= 1
    while stretch_s(step_s, inc_s, k) < elapsed_s - TIME_EPS_S:
        k += 1
    return k
