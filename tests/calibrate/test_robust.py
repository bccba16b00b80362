"""Robust non-negative least squares: exact where data are, blind to outliers, never negative."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import nnls

from simlab.calibrate.robust import nonnegative, robust_fit


@given(st.integers(0, 2**32 - 1), st.integers(1, 8))
def test_the_triangle_gives_what_scipy_gives(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.random((40, k)), rng.normal(size=40)
    np.testing.assert_allclose(nonnegative(x, y), nnls(x, y)[0], atol=1e-8)


def test_columns_without_content_get_nothing() -> None:
    assert nonnegative(np.zeros((5, 2)), np.ones(5)).tolist() == [0.0, 0.0]


@given(st.integers(0, 2**32 - 1))
def test_a_tenth_of_strange_steps_changes_nothing(seed: int) -> None:
    """Start-up steps last hundreds of times too long; steps whose time was booked elsewhere next to nothing."""
    rng = np.random.default_rng(seed)
    x = np.stack([np.ones(400), rng.uniform(1, 64, 400), rng.uniform(1e3, 1e5, 400)], axis=1)
    truth = np.array([0.01, 1e-4, 5e-8])
    seconds = x @ truth * rng.lognormal(0.0, 0.01, 400)
    strange = rng.choice(400, 40, replace=False)
    seconds[strange[:20]] *= 300.0
    seconds[strange[20:]] *= 0.03
    fit = robust_fit(x, seconds, np.zeros(400, dtype=np.int64))
    np.testing.assert_allclose(x @ fit.solution, x @ truth, rtol=0.01)
    assert (fit.weights[strange] == 0).all()


def test_a_floor_holds() -> None:
    rng = np.random.default_rng(0)
    x = np.stack([np.ones(100), rng.uniform(1, 2, 100)], axis=1)
    fit = robust_fit(x, x @ [1.0, 0.0], np.zeros(100, dtype=np.int64), floor=np.array([0.0, 0.2]))
    assert fit.solution[1] >= 0.2


def test_a_small_group_is_not_lost_among_many() -> None:
    """One coefficient for two groups that disagree: by count it would be the large one's alone."""
    seconds = np.concatenate([np.full(10_000, 1.0), np.full(100, 1.1)])
    groups = np.concatenate([np.zeros(10_000), np.ones(100)]).astype(np.int64)
    rng = np.random.default_rng(0)
    seconds *= rng.lognormal(0.0, 0.05, len(seconds))
    fit = robust_fit(np.ones((len(seconds), 1)), seconds, groups)
    assert 1.004 < fit.solution[0] < 1.02
