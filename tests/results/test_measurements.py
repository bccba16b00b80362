"""Histograms: every quantile within half a percent, for any values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simlab.results import HIST_BUCKETS, HIST_GAMMA, HIST_LOW_S, histogram_mean, histogram_quantile
from simlab.results.measurements import (
    COARSE_BUCKETS,
    COARSE_FACTOR,
    bucket_of,
    bucket_values,
    histogram_cdf,
)

TIMES = st.lists(st.floats(1e-6, 1e5), min_size=1, max_size=60)


def counted(times: list[float]) -> np.ndarray:
    counts = np.zeros(HIST_BUCKETS, np.int64)
    for time in times:
        counts[bucket_of(time)] += 1
    return counts


@given(TIMES, st.floats(0, 1))
def test_a_quantile_is_the_order_statistic_to_half_a_percent(times: list[float], q: float) -> None:
    true = float(np.quantile(times, q, method="inverted_cdf"))
    assert histogram_quantile(counted(times), q) == pytest.approx(true, rel=0.005 + 1e-9)


@given(TIMES, st.floats(0, 1))
def test_a_coarse_quantile_is_within_five_percent(times: list[float], q: float) -> None:
    true = float(np.quantile(times, q, method="inverted_cdf"))
    coarse = counted(times).reshape(COARSE_BUCKETS, COARSE_FACTOR).sum(axis=1)
    assert histogram_quantile(coarse, q) == pytest.approx(true, rel=0.05)


@given(TIMES)
def test_mean_and_cdf_agree_with_the_values(times: list[float]) -> None:
    counts = counted(times)
    assert histogram_mean(counts) == pytest.approx(np.mean(times), rel=0.005 + 1e-9)
    x, share = histogram_cdf(counts)
    assert share[-1] == 1.0
    assert np.all(np.diff(x) > 0)
    assert np.all(np.diff(share) > 0)
    for at, below in zip(x, share, strict=True):
        assert np.mean(np.array(times) <= at / 0.995 * (1 + 1e-9)) >= below - 1e-12


@pytest.mark.parametrize("bucket", [1, 2, 100, 2598])
def test_a_bucket_holds_its_upper_edge_and_not_its_lower(bucket: int) -> None:
    upper = HIST_LOW_S * HIST_GAMMA**bucket
    assert bucket_of(upper * (1 - 1e-9)) == bucket
    assert bucket_of(upper * (1 + 1e-9)) == bucket + 1
    assert bucket_values()[bucket] == pytest.approx(upper * 0.995)


def test_the_ends() -> None:
    assert bucket_of(0.0) == 0
    assert bucket_of(HIST_LOW_S) == 0
    assert bucket_of(1e9) == HIST_BUCKETS - 1
    assert HIST_LOW_S * HIST_GAMMA ** (HIST_BUCKETS - 1) > 2 * 86_400
    assert np.isnan(histogram_quantile(np.zeros(HIST_BUCKETS, np.int64), 0.5))
    assert np.isnan(histogram_mean(np.zeros(COARSE_BUCKETS, np.int64)))


def test_rank_does_not_suffer_from_float_dust() -> None:
    times = [float(i) for i in range(1, 101)]
    assert 0.07 * 100 > 7  # the dust in question
    assert histogram_quantile(counted(times), 0.07) == pytest.approx(7.0, rel=0.005)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="2600 or 260 buckets"):
        histogram_quantile(np.zeros(17, np.int64), 0.5)
    with pytest.raises(ValueError, match=r"0\.\.1"):
        histogram_quantile(np.zeros(HIST_BUCKETS, np.int64), 95)
