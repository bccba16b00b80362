"""The step-time family: closed form, monotonicity, refusals."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from simlab.profiles import TERMS, StepTime, profiles
from simlab.profiles.step_time import TABLES

seconds = st.floats(0, 1e-2, allow_nan=False)
counts = st.integers(0, 20_000)


@st.composite
def tables(draw):
    later = draw(st.sets(st.integers(2, 16_384), max_size=6))
    tokens = sorted({draw(st.integers(0, 1)), *later}) if later else []
    table = sorted(draw(st.lists(seconds, min_size=len(tokens), max_size=len(tokens))))
    return tuple(zip(map(float, tokens), table, strict=True))


@st.composite
def step_times(draw):
    return StepTime(**{name: draw(tables() if name in TABLES else seconds) for name in TERMS})


def test_closed_form():
    law = StepTime(
        base_s=1.0,
        per_seq_s=0.1,
        per_kv_token_s=1e-3,
        per_prefill_kv_token_s=1e-4,
        attn_s=1e-6,
        per_prefill_token_s=1e-2,
        per_prefill_seq_s=0.7,
        linear=((0.0, 0.0), (100.0, 2.0)),
        prefill_linear=((0.0, 3.0), (50.0, 4.0)),
    )
    expected = 1.0 + 0.1 * 5 + 1e-3 * 700 + 1e-4 * 300 + 1e-6 * 4000 + 1e-2 * 40 + 45 * 0.02
    prompts = 0.7 * 2 + 3.0 + 45 * 0.02
    assert law.step_s(40, 5, 700, 300, 4000, 2) == pytest.approx(expected + prompts, rel=1e-12)
    decodes = 1.0 + 0.1 * 5 + 1e-3 * 700 + 5 * 0.02
    assert law.step_s(0, 5, 700, 0, 0, 2) == pytest.approx(decodes, rel=1e-12)


@given(step_times(), st.tuples(*[counts] * 6), st.integers(0, 5), st.integers(0, 5000))
def test_more_work_never_takes_less_time(law, work, which, more):
    larger = tuple(amount + (more if i == which else 0) for i, amount in enumerate(work))
    assert law.step_s(*larger) >= law.step_s(*work) * (1 - 1e-12)


@given(step_times(), st.floats(0, 40_000))
def test_linear_equals_numpy_within_and_goes_on_straight_beyond(law, tokens):
    assume(law.linear and tokens >= law.linear[0][0])
    at, table = np.array(law.linear).T
    if tokens <= at[-1]:
        assert law.linear_s(tokens) == pytest.approx(float(np.interp(tokens, at, table)), rel=1e-9, abs=1e-15)
    else:
        slope = (table[-1] - table[-2]) / (at[-1] - at[-2])
        assert law.linear_s(tokens) == pytest.approx(table[-1] + slope * (tokens - at[-1]), rel=1e-9, abs=1e-15)


@given(step_times(), st.floats(0.1, 10))
def test_scaling_every_term_scales_the_step(law, factor):
    scaled = law.scaled(dict.fromkeys(TERMS, factor))
    assert scaled.step_s(100, 10, 5000, 200, 9000) == pytest.approx(factor * law.step_s(100, 10, 5000, 200, 9000))
    assert scaled.overhead_s == pytest.approx(factor * law.overhead_s)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base_s": -1e-3}, "base_s is -0.001"),
        ({"per_seq_s": math.nan}, "per_seq_s is nan"),
        ({"attn_s": math.inf}, "attn_s is inf"),
        ({"per_prefill_seq_s": -1.0}, "per_prefill_seq_s is -1.0"),
        ({"prefill_linear": ((1.0, 2.0), (8.0, 1.0))}, "prefill_linear must have .* never fall"),
        ({"linear": ((1.0, 1.0), (0.0, 2.0))}, "rising tokens"),
        ({"linear": ((1.0, 2.0), (8.0, 1.0))}, "never fall"),
        ({"linear": ((1.0, -2.0), (2.0, 1.0))}, "negative"),
        ({"linear": ((1.0, 2.0),)}, "two or more points"),
        ({"linear": ((4.0, 2.0), (8.0, 3.0))}, "the first at 1 token or fewer"),
    ],
)
def test_impossible_coefficients_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(StepTime(), **change)


@pytest.mark.parametrize("name", sorted(profiles()))
def test_bundled_profiles_are_monotone_and_sane(name):
    law = profiles()[name].step_time
    decode = [law.step_s(0, n, n * 1000) for n in (1, 4, 16, 64, 256)]
    assert decode == sorted(decode)
    assert 1e-3 < decode[0] < 0.1
    prefill = [law.step_s(n, 0, 0, n, n * (n + 1) / 2) for n in (64, 512, 2048, 8192)]
    assert prefill == sorted(prefill)
    assert 1e3 < 8192 / prefill[-1] < 1e6
