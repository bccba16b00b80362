"""Step times against the profiles' formula, and how many steps fit into a time against a plain loop."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simlab.assemble import coefficients
from simlab.draws import Distribution
from simlab.engine import ClassSpec, Engine, PoolSpec, WorldSpec
from simlab.engine.build import alias_table
from simlab.engine.step_time import step_seconds, steps_by
from simlab.engine.tasks import draw_alias
from simlab.profiles import StepTime

ONE = Distribution.fixed(1.0)
LINEARS: list[tuple[tuple[float, float], ...]] = [
    (),
    ((1.0, 0.01), (100.0, 0.02)),
    ((1.0, 0.01), (64.0, 0.01), (256.0, 0.03), (8192.0, 0.4)),
    ((1.0, 0.01), (2.0, 0.02), (3.0, 0.03), (4.0, 0.03), (5.0, 0.05), (8.0, 0.05), (9.0, 0.07), (16.0, 0.07)),
]


def engine(step: StepTime, weights: tuple[float, ...] = (1.0,)) -> Engine:
    """A world with one replica of that step time, where nothing happens."""
    users = ClassSpec(users=1, think=Distribution.fixed(1e9), prompt=ONE, output=ONE, tenant_weights=weights)
    return Engine(WorldSpec(classes=[users], backends=[PoolSpec(step=coefficients(step))], horizon_s=1.0))


@settings(deadline=None, max_examples=150)
@given(
    linear=st.sampled_from(LINEARS),
    prefill_linear=st.sampled_from(LINEARS),
    requests=st.integers(1, 9),
    prefill=st.integers(0, 10_000),
    decodes=st.integers(0, 300),
    context=st.integers(0, 10**6),
    prefill_context=st.integers(0, 10**6),
    work=st.floats(0.0, 1e8),
)
def test_a_step_lasts_as_its_profile_says(
    linear: tuple[tuple[float, float], ...],
    prefill_linear: tuple[tuple[float, float], ...],
    requests: int,
    prefill: int,
    decodes: int,
    context: int,
    prefill_context: int,
    work: float,
) -> None:
    step = StepTime(
        base_s=0.004,
        per_seq_s=1e-5,
        per_kv_token_s=3e-8,
        per_prefill_kv_token_s=2e-8,
        attn_s=1e-10,
        per_prefill_token_s=5e-6,
        per_prefill_seq_s=3e-5,
        linear=linear,
        prefill_linear=prefill_linear,
        overhead_s=0.0,
    )
    if prefill + decodes == 0:
        decodes = 1
    world = engine(step)  # which must live as long as its address is used
    seconds = step_seconds(world._p, 0, decodes, prefill, min(prefill, requests), context, prefill_context, work)
    expected = step.step_s(prefill, decodes, context, prefill_context, work, min(prefill, requests))
    assert seconds == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("linear", LINEARS[1:])
def test_knots_are_met_exactly_and_the_last_slope_goes_on(linear: tuple[tuple[float, float], ...]) -> None:
    world = engine(StepTime(base_s=0.0, linear=linear))
    for tokens, seconds in linear:
        assert step_seconds(world._p, 0, 0, int(tokens), 1, 0, 0, 0.0) == pytest.approx(seconds, rel=1e-12)
    (x0, y0), (x1, y1) = linear[-2:]
    beyond = y1 + (y1 - y0) / (x1 - x0) * 1000
    assert step_seconds(world._p, 0, 0, int(x1) + 1000, 1, 0, 0, 0.0) == pytest.approx(beyond, rel=1e-12)


@settings(deadline=None, max_examples=400)
@given(
    step_s=st.one_of(st.sampled_from([2**-9, 2**-7, 0.01]), st.floats(1e-6, 1.0)),
    inc_s=st.one_of(st.just(0.0), st.sampled_from([2**-20, 1e-9, 1e-15]), st.floats(1e-12, 1e-3)),
    whole=st.integers(0, 2000),
    part=st.sampled_from([0.0, 0.0, 1e-12, -1e-12, 0.3, 0.999]),
)
def test_steps_by_is_the_first_boundary_not_before_a_time(step_s: float, inc_s: float, whole: int, part: float) -> None:
    def end_s(k: int) -> float:
        return k * step_s + inc_s * 0.5 * k * (k - 1)

    elapsed_s = end_s(whole) + part * step_s
    k = steps_by(step_s, inc_s, elapsed_s)
    assert k >= 1
    assert end_s(k) >= elapsed_s - 1e-9
    plain = 1
    while end_s(plain) < elapsed_s - 1e-9:
        plain += 1
    assert k == plain


def test_steps_that_take_no_time_end_at_once() -> None:
    assert steps_by(0.0, 0.0, 5.0) == 1
    assert steps_by(0.1, 0.0, -3.0) == 1


@settings(deadline=None, max_examples=200)
@given(st.lists(st.one_of(st.just(0.0), st.floats(0.01, 100.0)), min_size=1, max_size=30).filter(sum))
def test_an_alias_table_holds_the_weights(weights: list[float]) -> None:
    """Summing what each column gives to itself and to its alias restores every probability (Vose 1991)."""
    table = alias_table(weights)
    n = len(weights)
    share = [0.0] * n
    for i in range(n):
        threshold, alias = table[2 * i], int(table[2 * i + 1])
        assert -1e-9 <= threshold <= 1 + 1e-9
        share[i] += threshold / n
        share[alias] += (1 - threshold) / n
    assert share == pytest.approx([weight / sum(weights) for weight in weights], abs=1e-12)


def test_drawing_by_an_alias_table_gives_the_shares() -> None:
    weights = (5.0, 0.0, 1.0, 2.5, 1.5)
    world = engine(StepTime(base_s=0.01), weights)
    at = int(world.world.classes[0]["tenant_alias_at"])
    n = 50_000
    counts = [0] * 5
    for i in range(n):
        counts[draw_alias(world._p, at, 5, (i + 0.5) / n)] += 1
    assert [count / n for count in counts] == pytest.approx([weight / 10 for weight in weights], abs=2e-4)
    assert draw_alias(world._p, at, 5, 1.0) < 5
