"""Profiles from runs whose true step time is known: simulated by it, with noise, and given to the fit as measured."""

from dataclasses import replace

import numpy as np
import pytest

from simlab.calibrate.benchmark import Limits, simulate_requests, simulate_run
from simlab.calibrate.fit import fit
from simlab.calibrate.fit_setup import LEAST_POINTS, fit_setup
from simlab.calibrate.fitted import Unfitted
from simlab.calibrate.run import Load, Run, Server, Steps
from simlab.calibrate.step_design import step_seconds
from simlab.errors import InputError
from simlab.profiles import StepTime

TRUE = StepTime(
    base_s=8e-3, per_seq_s=6e-5, per_kv_token_s=4e-8, attn_s=6e-10, per_prefill_token_s=4e-5, overhead_s=12e-3
)
SERVER = Server("own-model", "own-gpu", max_num_seqs=64, max_num_batched_tokens=2048, kv_blocks=20_000, block_size=16)
LIMITS = Limits(64, 2048, 20_000, 16)
POINTS = [(1, 512, 64), (4, 512, 64), (16, 512, 64), (32, 128, 128), (8, 2000, 32), (2, 128, 128)]


def measured(concurrency, prompt, output, *, name="", noise=0.0, server=SERVER, seed=0):
    """A run as its client would have measured it."""
    load = Load(concurrency=concurrency, requests=10 * concurrency, prompt_tokens=prompt, output_tokens=output, low=0.8)
    run = Run(name or load.point, "made", server, load, source="made: here", date="2026-11-21")
    rng = np.random.default_rng(seed + concurrency)
    numbers = {
        metric: value * float(np.exp(noise * rng.standard_normal()))
        for metric, value in simulate_run(run, TRUE, LIMITS, seed=7).items()
    }
    return replace(run, measured=numbers)


def log(n=1500):
    """A step log of the true server, 1% noise."""
    rng = np.random.default_rng(3)
    batch = rng.integers(1, 40, n).astype(float)
    prompt = np.where(rng.random(n) < 0.25, rng.integers(64, 1024, n), 0).astype(float)
    context = batch * rng.integers(200, 1500, n)
    work = prompt * (prompt + 1) / 2
    none = np.zeros(n)
    steps = Steps(np.ones(n), prompt, (prompt > 0) * 1.0, none, batch, context, work, np.ones(n, bool))
    seconds = step_seconds(TRUE, steps) * np.exp(0.01 * rng.standard_normal(n))
    return Run("log", "made", SERVER, steps=replace(steps, seconds=seconds), source="made: log")


def misses(profile, point):
    """Relative errors of a profile at an operating point that it has not seen, with the very same requests."""
    run = measured(*point)
    found, true = (simulate_run(run, law, LIMITS) for law in (profile.step_time, TRUE))
    return {metric: abs(found[metric] / true[metric] - 1) for metric in found}


@pytest.fixture(scope="module")
def from_averages():
    """The fit of averages alone, of a model and a GPU that no table knows."""
    return fit_setup([measured(*point, noise=0.01) for point in POINTS])


@pytest.fixture(scope="module")
def from_steps():
    return fit_setup([log()])


def test_averages_tell_the_step_time_of_an_unknown_model_on_an_unknown_gpu(from_averages):
    missed = misses(from_averages.profile, (12, 700, 96))
    assert missed["tpot_s_mean"] < 0.04
    assert missed["output_tokens_per_s"] < 0.04
    assert missed["ttft_s_mean"] < 0.10


def test_a_profile_says_what_it_is_from_and_what_it_covers(from_averages):
    one = from_averages.profile
    assert one.name == SERVER.setup
    assert (one.kind, one.fitted_on, one.date) == ("measured", ("made: here",), "2026-11-21")
    assert (one.max_num_seqs, one.max_num_batched_tokens, one.kv_blocks, one.block_size) == (64, 2048, 20_000, 16)
    assert one.validity.max_decode_seqs == 32
    assert one.validity.max_context_tokens == pytest.approx(2032, abs=20)
    assert set(one.points) == {measured(*point).load.point for point in POINTS}
    assert (from_averages.runs, from_averages.requests, from_averages.steps) == (6, 630, 0)


def test_errors_of_points_left_out_are_small_and_larger_than_those_of_points_seen(from_averages):
    error = from_averages.profile.error
    assert error["tpot_median_ape"] <= error["tpot_left_out_median_ape"] < 0.10
    assert error["ttft_left_out_median_ape"] < 0.20
    assert len({run for run, _ in from_averages.misses}) == len(POINTS)


def test_steps_alone_tell_all_but_what_is_outside_the_scheduler(from_steps):
    batch = log()
    found = step_seconds(from_steps.profile.step_time, batch.steps)
    assert np.median(np.abs(found / step_seconds(TRUE, batch.steps) - 1)) < 0.01
    assert from_steps.profile.error["step_left_out_median_ape"] < 0.02
    assert (from_steps.runs, from_steps.requests, from_steps.steps) == (1, 0, 1500)
    assert from_steps.profile.validity.max_decode_seqs == 39


def test_steps_and_runs_together_also_tell_the_overhead_of_a_request():
    both = fit_setup([log(), *(measured(*point) for point in POINTS[:3])])
    assert both.data == ("step logs of 1 runs", "3 simulated benchmarks")
    assert both.profile.step_time.overhead_s == pytest.approx(TRUE.overhead_s, rel=0.35)
    assert misses(both.profile, (12, 700, 96))["ttft_s_mean"] < 0.05


def test_one_detailed_run_is_enough():
    load = Load(concurrency=8, requests=80, prompt_tokens=400, output_tokens=60, low=0.5)
    run = Run("detailed", "made", SERVER, load)
    requests = simulate_requests(run, TRUE, LIMITS)
    # Every token one step after the one before, as the engine has them on average.
    itl = tuple(
        np.full(n - 1, (e2e - ttft) / (n - 1))
        for n, ttft, e2e in zip(requests.output_tokens, requests.ttft_s, requests.e2e_s, strict=True)
    )
    run = replace(run, requests=replace(requests, itl_s=itl), measured=simulate_run(run, TRUE, LIMITS))
    found = fit_setup([run])
    assert not isinstance(found, Unfitted)
    assert found.data[0] == "token times of 1 runs"


@pytest.mark.parametrize("points", range(1, LEAST_POINTS))
def test_too_few_operating_points_are_said_and_not_fitted(points):
    found = fit_setup([measured(*point) for point in POINTS[:points]])
    assert isinstance(found, Unfitted)
    assert found.reason.startswith(f"{points} operating point")
    assert "--save-detailed" in found.reason


def test_repetitions_of_one_point_are_one_point():
    runs = [measured(*POINTS[0], name=f"rep{i}", noise=0.01, seed=i) for i in range(5)]
    assert isinstance(fit_setup(runs), Unfitted)


def test_several_set_ups_make_several_profiles_and_those_without_enough_runs_are_named():
    other = replace(SERVER, tp=2)
    runs = [measured(*point) for point in POINTS[:4]] + [measured(*POINTS[0], server=other)]
    found = fit(runs, measured=(), workers=1)
    assert [one.profile.name for one in found.fitted] == [SERVER.setup]
    assert [(one.setup, one.runs) for one in found.unfitted] == [(other.setup, 1)]
    with pytest.raises(InputError, match=r"2 set-ups .*-o DIR"):
        fit(runs, one=True)


def test_nothing_to_fit():
    with pytest.raises(InputError, match="no runs"):
        fit([])
    with pytest.raises(InputError, match="1 operating point"):
        fit([measured(*POINTS[0])], measured=(), workers=1)


def test_runs_of_which_nothing_was_measured_are_left_out_with_the_reason():
    runs = [measured(*point) for point in POINTS[:3]]
    runs.append(replace(runs[0], name="empty", measured={}, load=replace(runs[0].load, concurrency=64)))
    found = fit_setup(runs)
    assert found.left_out[0][0] == "empty"
    assert found.runs == 3
    assert "i512-o64-c64-l0.8-1" not in found.profile.points
