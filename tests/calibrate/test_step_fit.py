"""Fits of step logs: what is known is found again, what is strange is left out, what is not seen is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_steps import random_batches, stairs, timed

from simlab.calibrate import ServerHints, read_runs
from simlab.calibrate.run import Steps
from simlab.calibrate.step_design import contents, step_seconds
from simlab.calibrate.step_fit import StepFit, fit_steps
from simlab.profiles import StepTime

LAW = StepTime(
    base_s=0.012,
    per_kv_token_s=3e-8,
    attn_s=1e-9,
    per_prefill_seq_s=2e-3,
    linear=(*stairs((2, 0.001), (8, 0.001), (16, 0.002), (32, 0.003), (48, 0.002))[:-1], (64.0, 0.0091), (8192.0, 0.4)),
    prefill_linear=((1.0, 0.004), (512.0, 0.004), (513.0, 0.012), (8192.0, 0.012)),
)


def noise(count: int, sd: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).lognormal(0.0, sd, count)


@pytest.fixture(scope="module")
def stream() -> Steps:
    """Batches of a stream, a fifth with prompts."""
    return random_batches(3000, np.random.default_rng(5))


@pytest.fixture(scope="module")
def fit(stream: Steps) -> StepFit:
    """The fit to times with 1% noise, of which every 25th is start-up, compilation or somebody else's."""
    steps = timed(stream, LAW, noise(3000, 0.01, 6))
    steps.seconds[::25] *= np.random.default_rng(7).uniform(5, 300, 120)
    return fit_steps([steps])


def test_known_step_times_are_found_again(stream: Steps, fit: StepFit) -> None:
    truth = step_seconds(LAW, stream)
    found = step_seconds(fit.step_time, stream)
    assert np.median(np.abs(found / truth - 1)) < 0.003
    assert np.quantile(np.abs(found / truth - 1), 0.95) < 0.02
    assert fit.step_time.per_kv_token_s == pytest.approx(LAW.per_kv_token_s, rel=0.05)
    assert fit.step_time.attn_s == pytest.approx(LAW.attn_s, rel=0.1)
    assert {"stairs", "eager", "attention", "prefill_seq"} <= {name for name, gain in fit.kept.items() if gain}


def test_held_out_errors_are_the_noise(fit: StepFit) -> None:
    """The median of |normal| is 0.674 deviations; a held-out fit adds a little, outliers none."""
    for phase in ("", "decode_", "mixed_", "prefill_"):
        assert 0.005 < fit.errors[f"step_{phase}median_ape"] < 0.011
    assert fit.errors["step_new_shapes_median_ape"] < 0.02


def test_outliers_weigh_nothing_and_are_counted(fit: StepFit) -> None:
    assert 0.04 <= fit.outlier_share < 0.06
    assert fit.outlier_time_share > 0.5
    assert any("do not explain" in note for note in fit.notes)


def test_a_plain_server_needs_no_further_terms() -> None:
    plain = StepTime(base_s=0.01, per_kv_token_s=5e-8, linear=((1.0, 0.0), (8192.0, 0.3)))
    fit = fit_steps([timed(random_batches(1500, np.random.default_rng(1)), plain, noise(1500, 0.02, 2))])
    assert {name for name, gain in fit.kept.items() if gain} <= {"attention"}
    assert not fit.together


def test_time_booked_with_a_neighbour_is_seen_in_sums() -> None:
    """With asynchronous scheduling a step with prompts hands most of its time to the step before it."""
    steps = timed(random_batches(3000, np.random.default_rng(3), prompts=0.05), LAW, noise(3000, 0.01, 4))
    begins = np.flatnonzero((steps.prefill_tokens > 0) & (steps.decode_requests > 0))
    begins = begins[begins > 0]
    moved = 0.8 * steps.seconds[begins] * np.random.default_rng(8).random(len(begins))
    total = steps.seconds.sum()
    np.subtract.at(steps.seconds, begins, moved)
    np.add.at(steps.seconds, begins - 1, moved)
    fit = fit_steps([steps])
    assert fit.together
    assert step_seconds(fit.step_time, steps).sum() == pytest.approx(total, rel=0.02)
    assert any("neighbours" in note for note in fit.notes)


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.floats(0.0, 0.5), st.floats(0.0, 1.0))
def test_any_log_gives_a_step_time_that_never_falls(seed: int, count: int, sd: float, prompts: float) -> None:
    """Even a single step, pure noise, or prompts alone: `StepTime` refuses what is negative or falls."""
    rng = np.random.default_rng(seed)
    steps = timed(random_batches(count, rng, prompts=prompts), LAW, rng.lognormal(0.0, sd, count))
    fit = fit_steps([steps])
    assert fit.steps == count
    assert fit.step_time.step_s(100, 10, 5000, 100, 5050) >= fit.step_time.step_s(0, 10, 5000) >= 0
    assert (np.linalg.eigvalsh(np.array(fit.uncertainty.log_covariance)) > -1e-6).all()
    assert max(fit.uncertainty.relative_sd().values(), default=0.0) <= 0.5 + 1e-6


@pytest.mark.slow
def test_the_covariance_covers_the_truth() -> None:
    """90% intervals of four steps over 20 logs of one server hold most truths, and are narrow."""
    law = StepTime(base_s=0.01, per_kv_token_s=5e-8, attn_s=1e-9, linear=((1.0, 0.0), (8192.0, 0.3)))
    asked = contents(random_batches(4, np.random.default_rng(9), prompts=0.5))
    truth = step_seconds(law, asked)
    inside, widths = [], []
    for seed in range(20):
        steps = timed(random_batches(300, np.random.default_rng(seed)), law, noise(300, 0.03, 100 + seed))
        fit = fit_steps([steps], seed=seed)
        terms, covariance = fit.uncertainty.terms, np.array(fit.uncertainty.log_covariance)
        normals = np.random.default_rng(seed).multivariate_normal(np.zeros(len(terms)), covariance, 100)
        laws = [fit.step_time.scaled(dict(zip(terms, row, strict=True))) for row in np.exp(normals)]
        sd = np.std([step_seconds(drawn, asked) for drawn in laws], axis=0)
        inside += (np.abs(step_seconds(fit.step_time, asked) - truth) <= 1.645 * sd).tolist()
        widths += (sd / truth).tolist()
    assert np.mean(inside) > 0.8
    assert np.median(widths) < 0.02


def test_a_floor_and_a_prior_tell_what_steps_do_not() -> None:
    """Decodes of short contexts alone: neither large batches, nor prompts, nor the KV cache can be known from them."""
    prior = StepTime(
        base_s=0.006, per_kv_token_s=1e-7, attn_s=2e-9, linear=((1.0, 0.0), (64.0, 0.001), (256.0, 0.02), (8192.0, 0.5))
    )
    small = random_batches(500, np.random.default_rng(2), most=16, prompts=0.0)
    slower = prior.scaled({"base_s": 2, "per_kv_token_s": 2, "attn_s": 2, "linear": 2})
    steps = timed(small, slower, noise(500, 0.01, 3))
    blind = fit_steps([steps])
    told = fit_steps([steps], prior=prior, floor=StepTime(per_kv_token_s=1e-7, attn_s=1e-9))
    truth = 2 * prior.step_s(0, 256, 256 * 2048)
    assert told.step_time.step_s(0, 256, 256 * 2048) == pytest.approx(truth, rel=0.2)
    prompt = (4096, 0, 0, 4096, 4096 * 4097 / 2)
    assert told.step_time.step_s(*prompt) == pytest.approx(2 * prior.step_s(*prompt), rel=0.2)
    assert blind.step_time.step_s(*prompt) < 0.7 * 2 * prior.step_s(*prompt)
    assert blind.step_time.attn_s == 0
    assert told.step_time.per_kv_token_s >= 1e-7
    assert told.errors["step_median_ape"] == pytest.approx(blind.errors["step_median_ape"], abs=0.005)
    assert any("the prior's" in note for note in told.notes)
    assert any("not known" in note for note in blind.notes)


def test_many_logs_tell_how_much_runs_differ() -> None:
    speeds = np.random.default_rng(0).lognormal(0.0, 0.08, 12)
    logs = [
        timed(random_batches(100, np.random.default_rng(i)), LAW, speed * noise(100, 0.01, i))
        for i, speed in enumerate(speeds)
    ]
    fit = fit_steps(logs)
    assert fit.errors["between_logs_sd"] == pytest.approx(np.std(np.log(speeds), ddof=1), rel=0.35)
    alike = fit_steps([timed(log, LAW, noise(100, 0.01, i)) for i, log in enumerate(logs)])
    assert alike.errors["between_logs_sd"] < 0.02
    assert alike.uncertainty.relative_sd()["base_s"] < fit.uncertainty.relative_sd()["base_s"]


def test_the_same_steps_give_the_same_fit() -> None:
    steps = timed(random_batches(300, np.random.default_rng(4)), LAW, noise(300, 0.05, 1))
    assert fit_steps([steps]) == fit_steps([steps])


def test_no_steps_cannot_be_fitted() -> None:
    with pytest.raises(ValueError, match="no steps"):
        fit_steps([])


# Data-parallel ranks wait for each other's prompts, and the one-GPU DeepSeek log is mostly compilation: no batch of a
# rank's own explains their sums, so that only their single steps are held to the target.
CLEAN = 0.05
MEASURED = {
    "qwen3-32b.b300-sxm.tp1.bf16": CLEAN,
    "qwen3-32b.b300-sxm.tp2.bf16": CLEAN,
    "qwen3-32b.b300-sxm.tp8.bf16": CLEAN,
    "qwen3.6-35b-a3b.b300-sxm.tp1.bf16": CLEAN,
    "qwen3.6-35b-a3b.b300-sxm.tp2.bf16": CLEAN,
    "qwen3.6-35b-a3b.b300-sxm.tp4.bf16": CLEAN,
    "qwen3.6-35b-a3b.b300-sxm.tp4.ep.bf16": CLEAN,
    "qwen3.6-35b-a3b.b300-sxm.tp8.ep.bf16": CLEAN,
    "qwen3.6-35b-a3b.b300-sxm.tp1.dp2.ep.bf16": None,
    "qwen3.6-35b-a3b.b300-sxm.tp2.dp2.ep.bf16": None,
    "qwen3.6-35b-a3b.b300-sxm.tp1.dp4.ep.bf16": None,
    "qwen3.6-35b-a3b.b300-sxm.tp2.dp4.ep.bf16": None,
    "deepseek-v4-flash.b300-sxm.tp1.dp4.ep.bf16": None,
    "deepseek-v4-flash.b300-sxm.tp2.dp2.ep.bf16": None,
}


@pytest.mark.slow
def test_measured_servers_are_met(shared_data: Path) -> None:
    """Steps held out: each within 4% in the median, and the whole of a real stream within 5% where it is clean."""
    runs = read_runs([shared_data / "vllm_step_times" / "steps.csv.gz"], server=ServerHints())
    seen = set()
    for run in runs:
        if run.server.setup not in MEASURED:
            continue
        assert run.steps is not None
        seen.add(run.server.setup)
        fit = fit_steps([run.steps])
        assert fit.errors["step_median_ape"] < 0.04, run.name
        assert fit.errors["step_decode_median_ape"] < 0.04, run.name
        limit = MEASURED[run.server.setup]
        if limit is not None:
            assert fit.errors["real_total_time_error"] < limit, run.name
        else:
            assert any("waiting for other ranks" in note for note in fit.notes), run.name
    assert seen == set(MEASURED)
