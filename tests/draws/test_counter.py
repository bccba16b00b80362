"""The random numbers: the published generator, and a normal quantile as exact as it says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from simlab.draws.counter import key, mix, normal_quantile, uniform

WORDS = st.integers(0, 2**64 - 1)


def test_mix_is_the_finaliser_of_splitmix64() -> None:
    """The first numbers of the reference implementation for seed 1234567, whose state grows by the golden ratio."""
    golden = 0x9E3779B97F4A7C15
    made = [int(mix(np.uint64((1234567 + i * golden) % 2**64))) for i in range(1, 4)]
    assert made == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(WORDS)
def test_a_uniform_number_lies_strictly_between_0_and_1(word: int) -> None:
    assert 0.0 < uniform(np.uint64(word)) < 1.0


@pytest.mark.parametrize("word", [0, 2**64 - 1])
def test_the_ends_of_the_words_are_not_the_ends_of_the_interval(word: int) -> None:
    assert 0.0 < uniform(np.uint64(word)) < 1.0


def test_uniform_numbers_of_neighbouring_keys_are_uniform_and_unrelated() -> None:
    """At 1 in 10,000 by chance each; the keys are fixed, so it is always the same 20,000 numbers."""
    numbers = np.array([uniform(np.uint64(key(np.uint64(key(7, 3)), i))) for i in range(20_000)])
    assert stats.kstest(numbers, "uniform").pvalue > 1e-4
    assert abs(float(np.corrcoef(numbers[:-1], numbers[1:])[0, 1])) < 4.0 / np.sqrt(len(numbers))


def test_the_order_of_the_words_of_a_key_matters() -> None:
    assert len({int(key(a, b)) for a in range(50) for b in range(50)}) == 2500


@given(st.floats(1e-300, 1.0, exclude_max=True))
def test_the_normal_quantile_is_as_exact_as_it_says(p: float) -> None:
    assert normal_quantile(p) == pytest.approx(float(stats.norm.ppf(p)), rel=1.2e-9, abs=1e-12)
