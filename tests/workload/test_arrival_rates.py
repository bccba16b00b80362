"""The rate over time, its integral and the inverse of that."""

import math
from datetime import datetime
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from simlab.scenario.workload import RateProfile
from simlab.workload import RateFunction
from simlab.workload.rates import MONTH_S

MONDAY = datetime(2026, 1, 5)


@st.composite
def rate_functions(draw):
    gaps = draw(st.lists(st.floats(1.0, 5000.0), min_size=1, max_size=6))
    edges = np.concatenate(([0.0], np.cumsum(gaps)[:-1]))
    multipliers = draw(
        st.lists(st.one_of(st.just(0.0), st.floats(0.01, 20.0)), min_size=len(gaps), max_size=len(gaps)).filter(any)
    )
    period = draw(st.sampled_from([float(np.sum(gaps)), math.inf]))
    growth = draw(st.sampled_from([0.0, 1e-5, -1e-5, 3e-4]))
    return RateFunction(draw(st.floats(0.1, 50.0)), edges, np.array(multipliers), period, growth)


@settings(deadline=None)  # the first example compiles the kernels
@given(rate_functions(), st.floats(0.0, 20_000.0))
def test_the_inverse_undoes_the_integral_wherever_something_arrives(rate, t):
    mass = rate.integral(t)
    assume(mass > 0.0)
    back = rate.inverse(mass, 1e6)
    assert back <= t + 1e-6 * max(1.0, t)
    assert rate.integral(back) == pytest.approx(mass, rel=1e-9, abs=1e-9)


@settings(deadline=None)
@given(rate_functions(), st.floats(0.0, 20_000.0), st.floats(0.0, 5000.0))
def test_the_integral_never_falls_and_adds_up(rate, t, more):
    assert rate.integral(t + more) >= rate.integral(t)
    low, high = rate.peak_rps(t + more), rate.integral(t + more) - rate.integral(t)
    assert high <= low * more * (1.0 + 1e-9) + 1e-6


def slow_rate(rate, t):
    """The rate at t by searching the pieces one by one: what the kernels must integrate."""
    inside = t
    while inside >= rate.period_s:
        inside -= rate.period_s
    multiplier = [m for edge, m in zip(rate.edges_s, rate.multipliers, strict=True) if edge <= inside][-1]
    return rate.base_rps * multiplier * math.exp(rate.growth_per_s * t)


@pytest.mark.parametrize("period", [1000.0, math.inf])
@pytest.mark.parametrize("growth", [0.0, 2e-4, -2e-4])
def test_the_integral_equals_numerical_integration_of_the_slow_rate(period, growth):
    rate = RateFunction(3.0, np.array([0.0, 100.0, 700.0]), np.array([1.0, 0.0, 4.0]), period, growth)
    breaks = sorted({e + k * 1000.0 for e in (0.0, 100.0, 700.0) for k in range(3)})
    for t in (50.0, 100.0, 650.0, 999.0, 2345.0):
        steps = [x for x in breaks if x < t] + [t]
        expected = sum(quad(lambda x: slow_rate(rate, x), a, b - 1e-9)[0] for a, b in pairwise(steps))
        assert rate.integral(t) == pytest.approx(expected, rel=1e-7)
        assert rate.rate_rps(t) == pytest.approx(slow_rate(rate, t))


def test_growth_compounds_to_its_ratio_each_month():
    rate = RateFunction.constant(2.0, 0.1)
    assert rate.rate_rps(MONTH_S) == pytest.approx(2.2)
    assert rate.rate_rps(12 * MONTH_S) == pytest.approx(2.0 * 1.1**12)
    mean_of_first_month = 2.0 * 0.1 / math.log(1.1)
    assert rate.mean_rps(MONTH_S) == pytest.approx(mean_of_first_month)
    assert rate.peak_rps(MONTH_S) == pytest.approx(2.2)


def test_a_shrinking_rate_has_a_last_arrival():
    rate = RateFunction.constant(1.0, -0.5)
    total = -1.0 / rate.growth_per_s
    assert rate.inverse(total * 1.001, math.inf) == math.inf
    assert math.isfinite(rate.inverse(total * 0.999, math.inf))


def test_hours_and_days_count_from_the_scenario_start():
    hours = [float(h) for h in range(24)]
    days = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    profile = RateProfile(hour_of_day=hours, day_of_week=days)
    rate = RateFunction.from_profile(1.0, profile, datetime(2026, 1, 7, 22, 30))  # a Wednesday
    assert rate.rate_rps(0.0) == 22 * 3
    assert rate.rate_rps(1799.0) == 22 * 3
    assert rate.rate_rps(1800.0) == 23 * 3
    assert rate.rate_rps(1800.0 + 3600.0) == 0 * 4
    assert rate.rate_rps(1800.0 + 2 * 3600.0) == 1 * 4
    week = 7 * 86_400.0
    assert rate.rate_rps(week - 1.0) == 22 * 3, "the last half hour of the week belongs to the hour it began in"
    assert rate.rate_rps(week + 1800.0) == rate.rate_rps(1800.0)
    assert rate.mean_rps(week) == pytest.approx(11.5 * 4.0)


def test_hours_alone_repeat_every_day():
    profile = RateProfile(hour_of_day=[2.0] * 12 + [0.0] * 12)
    rate = RateFunction.from_profile(5.0, profile, MONDAY)
    assert rate.period_s == 86_400.0
    assert rate.mean_rps(10 * 86_400.0) == pytest.approx(5.0)
    assert rate.peak_rps(86_400.0) == 10.0


def test_a_series_without_period_keeps_its_last_step():
    rate = RateFunction.from_profile(1.0, RateProfile(series=[(0, 1), (10, 3)]), MONDAY)
    assert rate.integral(20.0) == pytest.approx(40.0)
    repeated = RateFunction.from_profile(1.0, RateProfile(series=[(0, 1), (10, 3)], period=15), MONDAY)
    assert repeated.integral(30.0) == pytest.approx(2 * (10.0 + 15.0))
