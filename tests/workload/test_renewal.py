"""Arrivals: the right rate and burstiness, the same whatever the chunk, equal to a slow twin."""

import math
from datetime import datetime

import numpy as np
import pytest
from scipy import stats

from simlab.draws.counter import key, normal_quantile, uniform
from simlab.scenario.workload import RateProfile
from simlab.workload import RateFunction
from simlab.workload.renewal import RenewalSource, gap, law_of, standard_gamma, stream_key, weibull_shape

LAWS = [("poisson", 1.0), ("gamma", 0.4), ("gamma", 2.5), ("weibull", 0.4), ("weibull", 2.5), ("gamma", 1e-6)]


def times(source):
    parts = []
    while (part := source.next_times()) is not None:
        assert len(part) > 0
        parts.append(part)
    return np.concatenate(parts) if parts else np.empty(0)


def arrivals(kind="poisson", cv=1.0, rate=None, horizon_s=1000.0, seed=1, index=0, chunk=65536):
    rate = RateFunction.constant(10.0) if rate is None else rate
    return times(RenewalSource(rate, kind, cv, seed=seed, index=index, horizon_s=horizon_s, chunk=chunk))


@pytest.mark.parametrize(("kind", "cv"), LAWS)
def test_the_mean_rate_is_exact_from_time_zero(kind, cv):
    """A stationary renewal process has exactly rate x time arrivals on average, however short the time."""
    counts = np.array([len(arrivals(kind, cv, horizon_s=3.0, seed=seed)) for seed in range(2000)])
    half_width = stats.t.ppf(0.9995, len(counts) - 1) * counts.std(ddof=1) / math.sqrt(len(counts))
    assert abs(counts.mean() - 30.0) <= max(half_width, 0.02)
    assert half_width < 0.07 * 30.0


@pytest.mark.parametrize(("kind", "cv"), [law for law in LAWS if law[1] > 0.01])
def test_gaps_have_the_asked_coefficient_of_variation(kind, cv):
    gaps = np.diff(arrivals(kind, cv, horizon_s=20_000.0, seed=5))
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.03)


@pytest.mark.parametrize(("kind", "cv"), [law for law in LAWS if law[1] > 0.01])
def test_gaps_follow_the_law(kind, cv):
    gaps = np.diff(arrivals(kind, cv, horizon_s=2000.0, seed=3)) * 10.0
    if kind == "gamma":
        law = stats.gamma(1.0 / cv**2, scale=cv**2)
    elif kind == "weibull":
        shape = weibull_shape(cv)
        law = stats.weibull_min(shape, scale=1.0 / math.gamma(1.0 + 1.0 / shape))
    else:
        law = stats.expon()
    assert stats.kstest(gaps, law.cdf).pvalue > 1e-3
    correlation = np.corrcoef(gaps[:-1], gaps[1:])[0, 1]
    assert abs(correlation) < 4.0 / math.sqrt(len(gaps))


@pytest.mark.parametrize(("kind", "cv"), [("gamma", 2.5), ("weibull", 2.5), ("weibull", 0.4)])
def test_the_first_gap_is_the_residual_life(kind, cv):
    """The mean residual life is (1 + cv²) / 2 of a gap: longer than half a gap, the inspection paradox."""
    law, shape, scale = law_of(kind, cv)
    first = np.array([gap(law, shape, scale, stream_key(seed, 1, 0), 0) for seed in range(20_000)])
    error = first.std() / math.sqrt(len(first))
    assert abs(first.mean() - (1.0 + cv * cv) / 2.0) < 4.0 * error
    assert error < 0.05 * first.mean() + 0.05


@pytest.mark.parametrize(("kind", "cv"), LAWS)
def test_a_profile_is_a_change_of_clock(kind, cv):
    """Mapped back through the integrated rate, the arrivals are the same unit-rate process without a profile."""
    profile = RateProfile(hour_of_day=[1.0 + (h % 5) for h in range(23)] + [0.0])
    rate = RateFunction.from_profile(0.02, profile, datetime(2026, 1, 5, 13, 20), growth_per_month=0.5)
    moved = arrivals(kind, cv, rate=rate, horizon_s=5 * 86_400.0, seed=8)
    operational = np.array([rate.integral(t) for t in moved])
    plain = arrivals(kind, cv, rate=RateFunction.constant(1.0), horizon_s=rate.integral(5 * 86_400.0), seed=8)
    assert len(plain) == len(moved) > 10_000
    np.testing.assert_allclose(operational, plain, rtol=1e-9)


def test_counts_by_hour_follow_the_profile():
    hours = [0.5 + (h % 7) for h in range(24)]
    rate = RateFunction.from_profile(0.2, RateProfile(hour_of_day=hours), datetime(2026, 1, 5))
    days = 30
    seen = np.bincount((arrivals(rate=rate, horizon_s=days * 86_400.0) // 3600).astype(int) % 24, minlength=24)
    expected = 0.2 * 3600.0 * days * np.array(hours)
    chi_square = ((seen - expected) ** 2 / expected).sum()
    assert stats.chi2.sf(chi_square, 24) > 1e-3


def test_growth_brings_more_arrivals_in_the_right_proportion():
    rate = RateFunction.constant(0.05, 0.2)
    t = arrivals(rate=rate, horizon_s=4 * 730 * 3600.0)
    by_month = np.bincount((t // (730 * 3600.0)).astype(int), minlength=4)
    expected = np.diff([rate.integral(k * 730 * 3600.0) for k in range(5)])
    assert (((by_month - expected) ** 2 / expected).sum()) < stats.chi2.ppf(0.999, 4)
    assert expected[1] / expected[0] == pytest.approx(1.2)


@pytest.mark.parametrize(("kind", "cv"), LAWS)
def test_chunks_do_not_change_the_stream(kind, cv):
    rate = RateFunction.from_profile(
        10.0, RateProfile(series=[(0, 1), (30, 0), (35, 2)], period=50), datetime(2026, 1, 5)
    )
    whole = arrivals(kind, cv, rate=rate)
    for chunk in (1, 7, 1000):
        np.testing.assert_array_equal(arrivals(kind, cv, rate=rate, chunk=chunk), whole)
    assert np.all(np.diff(whole) >= 0.0)
    assert whole[-1] < 1000.0


def test_a_shorter_horizon_is_the_beginning_of_a_longer_one():
    long = arrivals("gamma", 2.5, horizon_s=500.0)
    np.testing.assert_array_equal(arrivals("gamma", 2.5, horizon_s=200.0), long[long < 200.0])


def test_seed_and_class_name_the_stream():
    base = arrivals(seed=1, index=0)
    np.testing.assert_array_equal(base, arrivals(seed=1, index=0))
    for other in (arrivals(seed=2, index=0), arrivals(seed=1, index=1), arrivals(seed=2**63 + 1, index=0)):
        assert not np.isin(other, base).any()


def test_nothing_arrives_where_the_rate_is_zero():
    rate = RateFunction(5.0, np.array([0.0, 10.0]), np.array([0.0, 1.0]), 20.0)
    t = arrivals(rate=rate, horizon_s=400.0)
    assert np.all(t % 20.0 >= 10.0)
    assert arrivals(rate=RateFunction(5.0, np.array([0.0]), np.array([0.0]), 20.0)).size == 0
    assert arrivals(rate=RateFunction.constant(0.0)).size == 0


def slow_gamma(shape, k):
    """Marsaglia and Tsang step by step."""
    boosted = shape + 1.0 if shape < 1.0 else shape
    d = boosted - 1.0 / 3.0
    for attempt in range(1000):
        x = normal_quantile(uniform(np.uint64(key(k, 2 * attempt + 1))))
        v = (1.0 + x / math.sqrt(9.0 * d)) ** 3
        u = uniform(np.uint64(key(k, 2 * attempt + 2)))
        if v > 0.0 and math.log(u) < 0.5 * x * x + d - d * v + d * math.log(v):
            break
    return d * v * (uniform(np.uint64(key(k, 0))) ** (1.0 / shape) if shape < 1.0 else 1.0)


@pytest.mark.parametrize("shape", [0.1, 0.9, 1.0, 6.25])
def test_gamma_numbers_equal_their_slow_twin_and_the_law(shape):
    keys = [np.uint64(key(np.uint64(9), i)) for i in range(4000)]
    fast = np.array([standard_gamma(shape, k) for k in keys])
    np.testing.assert_allclose(fast[:300], [slow_gamma(shape, k) for k in keys[:300]], rtol=1e-10)
    assert stats.kstest(fast, stats.gamma(shape).cdf).pvalue > 1e-3


def slow_arrivals(kind, cv, rate, horizon_s, seed, index):
    """One gap after the other, each mapped through the inverse of the integrated rate."""
    law, shape, scale = law_of(kind, cv)
    stream = stream_key(seed, 0x41525256, index)
    operational, out = 0.0, []
    for number in range(100_000):
        operational += gap(law, shape, scale, stream, number)
        t = rate.inverse(operational, horizon_s)
        if t >= horizon_s:
            return np.array(out)
        out.append(t)
    raise AssertionError("the horizon should have ended the loop")


@pytest.mark.parametrize(("kind", "cv"), LAWS)
@pytest.mark.parametrize("growth", [0.0, 2.0])
def test_the_stream_equals_its_slow_twin(kind, cv, growth):
    profile = RateProfile(series=[(0, 1), (100, 0), (150, 5), (400, 0.1)], period=700)
    rate = RateFunction.from_profile(1.0, profile, datetime(2026, 1, 5), growth)
    fast = arrivals(kind, cv, rate=rate, horizon_s=3000.0, seed=4, index=2)
    np.testing.assert_allclose(fast, slow_arrivals(kind, cv, rate, 3000.0, 4, 2), rtol=1e-12)


@pytest.mark.parametrize("cv", [0.01, 0.4, 1.0, 3.0, 20.0])
def test_the_weibull_shape_gives_the_cv(cv):
    mean, var = stats.weibull_min.stats(weibull_shape(cv), moments="mv")
    assert math.sqrt(var) / mean == pytest.approx(cv, rel=1e-6)


@pytest.mark.parametrize("cv", [-1.0, 0.0, 1e9])
def test_impossible_weibull_cvs_are_refused(cv):
    with pytest.raises(ValueError, match="no Weibull law"):
        weibull_shape(cv)
