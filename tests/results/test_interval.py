"""Intervals: that they hold the truth at their rate, luck and calibration error apart and together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from simlab.results.interval import Draws, halves, student, student_factor

WORLDS = 4000


def draws(values: NDArray[np.float64] | list[float], one_sided: list[bool] | None = None) -> Draws:
    found = np.array(values, np.float64)
    return Draws(found, np.array(one_sided or [False] * len(found)))


@pytest.mark.parametrize("replications", [2, 3, 5, 10, 30])
@pytest.mark.parametrize(("luck", "calibration"), [(1.0, 0.0), (1.0, 0.3), (1.0, 1.0), (0.3, 3.0), (0.01, 1.0)])
def test_intervals_cover_the_truth_at_their_rate(replications: int, luck: float, calibration: float) -> None:
    """The truth is one draw of the calibration; the value is the mean of runs at the fit."""
    rng = np.random.default_rng([replications, round(100 * luck), round(100 * calibration)])
    shape = (replications, WORLDS)
    values = 10.0 + luck * rng.normal(size=shape)
    drawn = values + calibration * rng.normal(size=shape)
    truth = 10.0 + calibration * rng.normal(size=WORLDS)
    found = halves(values, draws(drawn))
    mean = values.mean(axis=0)
    covered = np.mean((mean - found.below <= truth) & (truth <= mean + found.above))
    # With two replications calibration adds a degree of freedom that the interval makes no use of where luck is large.
    assert 0.93 <= covered <= (0.99 if replications == 2 else 0.97)


@pytest.mark.parametrize("replications", [2, 5, 10])
@pytest.mark.parametrize(("luck", "sd"), [(0.3, 0.1), (0.1, 0.3), (0.02, 0.5), (0.5, 0.5)])
def test_amounts_are_off_by_a_factor(replications: int, luck: float, sd: float) -> None:
    """Lognormal calibration error: covered, and as often missed above as below."""
    rng = np.random.default_rng([replications, round(100 * luck), round(100 * sd)])
    shape = (replications, WORLDS)
    values = 10.0 + luck * rng.normal(size=shape)
    found = halves(values, draws(values * np.exp(sd * rng.normal(size=shape))), positive=True)
    truth = 10.0 * np.exp(sd * rng.normal(size=WORLDS))
    mean = values.mean(axis=0)
    below, above = np.mean(truth < mean - found.below), np.mean(truth > mean + found.above)
    assert 0.93 <= 1.0 - below - above <= (0.98 if replications == 2 else 0.97)
    assert (0.0 if replications == 2 else 0.015) <= below <= 0.035


def test_a_factor_never_reaches_below_nothing() -> None:
    found = halves(np.array([5.0, 5.0]), draws([50.0, 0.5]), positive=True)
    assert 4.9 < found.below < 5.0
    assert found.above > 50.0


def test_more_replications_narrow_luck_and_not_calibration_error() -> None:
    rng = np.random.default_rng(5)
    widths = []
    for replications in (10, 1000):
        values = rng.normal(10.0, 1.0, replications)
        drawn = values + rng.normal(0.0, 1.0, replications)
        widths.append((halves(values).below, halves(values, draws(drawn)).below))
    (luck_few, both_few), (luck_many, both_many) = widths
    assert luck_many < 0.15 * luck_few
    assert both_many == pytest.approx(1.96, rel=0.1)
    assert both_few > both_many


def test_the_share_of_calibration_by_hand() -> None:
    # Luck: variance 1 of three, 1/3 of the mean. Draws: changes 2, -2, 1, mean square 3.
    found = student([9.0, 10.0, 11.0], "1", draws=draws([11.0, 8.0, 12.0]))
    assert found.value == 10.0
    luck, error = 1 / 3, np.mean(np.log([11 / 9, 8 / 10, 12 / 11]) ** 2) * 100
    assert found.calibration_share == pytest.approx(error / (luck + error))
    freedom = (luck + error) ** 2 / (luck**2 / 2 + error**2 / 3)
    assert 3.0 < freedom < 5.0
    assert found.low == pytest.approx(10.0 - np.hypot(*_parts(luck, error, freedom, -1)))
    assert found.high == pytest.approx(10.0 + np.hypot(*_parts(luck, error, freedom, +1)))


def _parts(luck: float, error: float, freedom: float, side: int) -> tuple[float, float]:
    from scipy.stats import t

    factor = t.ppf(0.975, freedom)
    return factor * np.sqrt(luck), 10.0 * np.expm1(side * factor * np.sqrt(error) / 10.0)


def test_what_does_not_depend_on_speed_has_the_interval_of_luck() -> None:
    values = [3.0, 4.0, 6.0]
    plain, carried = student(values, "tasks"), student(values, "tasks", draws=draws(values))
    assert (carried.low, carried.high) == (plain.low, plain.high)
    assert (carried.calibration_share, plain.calibration_share) == (0.0, None)


def test_a_fixed_bill_has_no_width() -> None:
    # The same sum taken in another order.
    bill = 0.1 + 0.2 + 0.3
    found = student([bill, 0.3 + 0.2 + 0.1, bill], "USD", draws=draws([0.3 + 0.2 + 0.1, bill, bill]))
    assert found.low == found.value == found.high
    assert found.calibration_share == 0.0


def test_a_draw_that_overloads_a_pool_stretches_its_own_side_only() -> None:
    values, drawn = [0.5, 0.52, 0.48, 0.5], [0.51, 300.0, 0.47, 0.49]
    both = student(values, "s", draws=draws(drawn))
    lopsided = student(values, "s", draws=draws(drawn, [False, True, False, False]))
    assert lopsided.high == both.high
    assert lopsided.high > 100.0
    assert lopsided.low > 0.4
    assert both.low < 0.1


@given(st.integers(2, 8), st.integers(0, 2**32), st.floats(1e-3, 10.0))
def test_calibration_error_never_narrows(replications: int, seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    values = rng.lognormal(0.0, 1.0, replications)
    drawn = values * rng.lognormal(0.0, size, replications)
    for positive in (False, True):
        luck, both = halves(values), halves(values, draws(drawn), positive=positive)
        assert both.below >= luck.below * (1 - 1e-12) or positive
        assert both.above >= luck.above * (1 - 1e-12)
        assert 0.0 <= both.calibration_share <= 1.0


def test_undefined_values_are_left_out_in_pairs() -> None:
    nan = float("nan")
    found = student([1.0, 2.0, nan, 3.0], "s", draws=draws([1.1, nan, 9.0, 3.3]))
    alone = student([1.0, 2.0, 3.0], "s", draws=draws([1.1, nan, 3.3]))
    assert found == alone
    assert student([nan, 1.0], "s", draws=draws([nan, 2.0])).low is None
    assert student([nan, nan], "s", draws=draws([nan, nan])).value is None


def test_draws_from_nothing_or_to_nothing_are_differences_and_not_factors() -> None:
    found = student([0.0, 0.0, 1.0], "preemptions", draws=draws([0.0, 5.0, 1.0]))
    assert found.low == 0.0
    assert found.high is not None
    assert 5.0 < found.high < 20.0


def test_several_columns_at_once_are_each_alone() -> None:
    rng = np.random.default_rng(1)
    values = rng.lognormal(size=(4, 3))
    drawn = Draws(values * rng.lognormal(0.0, 0.2, (4, 3)), np.array([False, True, False, False]))
    every = halves(values, drawn, positive=True)
    for column in range(3):
        one = halves(values[:, column], Draws(drawn.values[:, column], drawn.one_sided), positive=True)
        assert one.below == pytest.approx(every.below[column])
        assert one.above == pytest.approx(every.above[column])


def test_student_factors() -> None:
    assert student_factor(2) == pytest.approx(12.706, rel=1e-4)
    assert student_factor(6) == pytest.approx(2.5706, rel=1e-4)
