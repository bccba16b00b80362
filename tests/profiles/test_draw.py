"""Draws of a profile's step time: pure functions of their key, with the covariance that was asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simlab.profiles import Profile, StepTime, Uncertainty, drawn

TERMS = ("base_s", "per_seq_s", "linear")
COVARIANCE = ((0.04, 0.01, 0.0), (0.01, 0.09, 0.02), (0.0, 0.02, 0.16))
PROFILE = Profile(
    name="m.g.tp1.bf16",
    model="m",
    gpu="g",
    tp=1,
    precision="bf16",
    kind="measured",
    step_time=StepTime(base_s=0.01, per_seq_s=1e-4, per_kv_token_s=1e-8, linear=((1, 0.005), (8, 0.02))),
    uncertainty=Uncertainty(TERMS, COVARIANCE),
)


def logs(step: StepTime) -> list[float]:
    fit = PROFILE.step_time
    pairs = ((step.base_s, fit.base_s), (step.per_seq_s, fit.per_seq_s), (step.linear[1][1], fit.linear[1][1]))
    return [float(np.log(one / other)) for one, other in pairs]


def test_a_draw_is_a_function_of_seed_and_name_alone() -> None:
    assert drawn(PROFILE, 7) == drawn(PROFILE, 7)
    assert drawn(PROFILE, 7) != drawn(PROFILE, 8)
    assert drawn(PROFILE, 7) != drawn(replace(PROFILE, name="m.other.tp1.bf16"), 7)
    assert drawn(replace(PROFILE, fitted_on=("another run",), date="2026-01-01"), 7) == drawn(PROFILE, 7)


def test_terms_without_uncertainty_stay_as_fitted() -> None:
    assert drawn(PROFILE, 3).per_kv_token_s == PROFILE.step_time.per_kv_token_s
    assert drawn(replace(PROFILE, uncertainty=Uncertainty()), 3) == PROFILE.step_time
    zero = Uncertainty(("base_s",), ((0.0,),))
    assert drawn(replace(PROFILE, uncertainty=zero), 3) == PROFILE.step_time


def test_a_term_keeps_its_luck_when_others_come_and_go() -> None:
    """What widens one term does not redraw another."""
    alone = replace(PROFILE, uncertainty=Uncertainty(("base_s",), ((0.04,),)))
    assert drawn(alone, 5).base_s == drawn(PROFILE, 5).base_s


def test_draws_have_the_covariance_of_the_profile() -> None:
    n = 4000
    sample = np.array([logs(drawn(PROFILE, seed)) for seed in range(n)])
    sd = np.sqrt(np.diag(COVARIANCE))
    assert np.abs(sample.mean(axis=0) / sd).max() < 4.0 / np.sqrt(n)
    # The standard error of a covariance is √((cᵢᵢ·cⱼⱼ + cᵢⱼ²) / n).
    wanted = np.array(COVARIANCE)
    error = np.sqrt((np.outer(sd**2, sd**2) + wanted**2) / n)
    assert (np.abs(np.cov(sample.T) - wanted) < 4.0 * error).all()


def test_draws_of_two_set_ups_are_independent() -> None:
    other = replace(PROFILE, name="m.h.tp1.bf16")
    one, two = (np.array([logs(drawn(each, seed))[0] for seed in range(2000)]) for each in (PROFILE, other))
    assert abs(np.corrcoef(one, two)[0, 1]) < 4.0 / np.sqrt(2000)


@pytest.mark.parametrize("seed", [0, 2**63 - 1])
def test_any_seed_will_do(seed: int) -> None:
    assert drawn(PROFILE, seed).base_s > 0.0
