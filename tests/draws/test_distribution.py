"""Distributions: what they say of themselves is what is drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simlab.draws import Distribution
from simlab.draws.distribution import draw, pack

CASES = {
    "fixed": Distribution.fixed(3.5),
    "exponential": Distribution.exponential(2.0),
    "geometric": Distribution.geometric(5.0),
    "geometric of 1": Distribution.geometric(1.0),
    "lognormal": Distribution.lognormal(100.0, 300.0),
    "empirical": Distribution.empirical({0.0: 1.0, 0.5: 4.0, 1.0: 40.0}),
}


@pytest.mark.parametrize("law", CASES.values(), ids=CASES)
def test_the_mean_is_the_mean_of_what_is_drawn(law: Distribution) -> None:
    """The midpoint rule on the quantiles, which is what even draws average to."""
    n = 200_000
    records, tables = pack([law])
    values = [draw(records, tables, 0, (i + 0.5) / n) for i in range(n)]
    assert math.fsum(values) / n == pytest.approx(law.mean(), rel=1e-3)


@given(st.sampled_from(sorted(CASES)), st.floats(1e-9, 1 - 1e-9), st.floats(1e-9, 1 - 1e-9), st.floats(0.1, 10.0))
def test_quantiles_rise_and_scale(name: str, one: float, other: float, factor: float) -> None:
    law = CASES[name]
    low, high = sorted((one, other))
    assert law.quantile(low) <= law.quantile(high)
    if law.kind != CASES["geometric"].kind:
        assert law.scaled(factor).quantile(one) == pytest.approx(factor * law.quantile(one), rel=1e-9)


@given(st.floats(0.01, 1e6), st.floats(1.01, 3.8))
def test_a_lognormal_has_the_mean_and_the_95th_percentile_it_was_given(mean: float, ratio: float) -> None:
    law = Distribution.lognormal(mean, ratio * mean)
    assert law.mean() == pytest.approx(mean, rel=1e-9)
    assert law.quantile(0.95) == pytest.approx(ratio * mean, rel=1e-6)


@pytest.mark.parametrize("p95", [0.5, 1.0, 3.9])
def test_no_lognormal_has_such_a_95th_percentile(p95: float) -> None:
    with pytest.raises(ValueError, match=r"p95 must lie above the mean and at most 3\.86 times it"):
        Distribution.lognormal(1.0, p95)


def test_draws_are_clipped() -> None:
    law = Distribution.lognormal(100.0, 300.0, low=50.0, high=200.0)
    assert (law.quantile(1e-6), law.quantile(1 - 1e-6)) == (50.0, 200.0)


def test_an_empirical_law_goes_through_its_quantiles_and_straight_between_them() -> None:
    law = CASES["empirical"]
    assert [law.quantile(p) for p in (0.25, 0.5, 0.75)] == pytest.approx([2.5, 4.0, 22.0])


def test_a_geometric_law_has_its_probabilities() -> None:
    """P(N > k) = (1 - 1/mean)^k, so the quantile passes from k to k + 1 at 1 minus that."""
    law = CASES["geometric"]
    for k in range(1, 30):
        edge = 1.0 - 0.8**k
        assert (law.quantile(edge - 1e-9), law.quantile(edge + 1e-9)) == (k, k + 1)


def test_packed_laws_keep_their_own_tables() -> None:
    laws = list(CASES.values())
    other = Distribution.empirical({0.0: 7.0, 1.0: 8.0})
    records, tables = pack([*laws, other])
    for i, law in enumerate([*laws, other]):
        for u in np.linspace(0.01, 0.99, 9):
            assert draw(records, tables, i, float(u)) == law.quantile(float(u))
