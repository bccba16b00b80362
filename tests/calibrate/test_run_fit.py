"""Fits to simulated benchmarks find what made them, whatever noise, slow days and full caches there are."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from made_runs import LIMITS, LOADS, SERVER, TRUTH, made_run, made_runs, measured

from simlab.calibrate.benchmark import Limits, simulate_run
from simlab.calibrate.cache_size import UNLIMITED
from simlab.calibrate.run import Load, Run, Server
from simlab.calibrate.run_fit import RunFit, fit_runs
from simlab.calibrate.run_prior import plain_prior, priors_of, roofline_prior, step_prior
from simlab.calibrate.step_fit import StepFit
from simlab.profiles import Uncertainty, estimate, gpu, model, roofline

UNSEEN = (
    Load(concurrency=8, requests=100, prompt_tokens=768, output_tokens=96, low=0.7, high=1.3),
    Load(concurrency=28, requests=200, prompt_tokens=256, output_tokens=64, low=0.7, high=1.3),
    Load(rate_rps=4.0, requests=200, prompt_tokens=512, output_tokens=64),
)
ALL_TERMS = ("base_s", "per_seq_s", "per_kv_token_s", "per_prefill_token_s", "attn_s", "linear", "prefill_linear")


def unseen_errors(fit: RunFit) -> dict[str, float]:
    """The largest log error by metric over loads that no fit saw."""
    worst: dict[str, float] = {}
    for load in UNSEEN:
        found = simulate_run(made_run(load), fit.step_time, LIMITS)
        for name, value in simulate_run(made_run(load), TRUTH, LIMITS).items():
            worst[name] = max(worst.get(name, 0.0), abs(math.log(found[name] / value)))
    return worst


@pytest.fixture(scope="module")
def clean() -> RunFit:
    runs = made_runs()
    return fit_runs(runs, plain_prior(runs))


def test_a_law_is_found_again(clean: RunFit) -> None:
    """Of a server that no table knows, from averages over requests alone."""
    misses = [abs(miss) for run in clean.misses for miss in run.values()]
    assert np.median(misses) < 0.01
    assert max(misses) < 0.08
    assert clean.step_time.per_prefill_token_s == pytest.approx(TRUTH.per_prefill_token_s, rel=0.1)
    one = clean.step_time.step_s(0, 1, 600), TRUTH.step_s(0, 1, 600)
    many = clean.step_time.step_s(0, 40, 40 * 600), TRUTH.step_s(0, 40, 40 * 600)
    assert one[0] == pytest.approx(one[1], rel=0.03)
    assert many[0] == pytest.approx(many[1], rel=0.05)
    errors = unseen_errors(clean)
    assert errors["ttft_s_mean"] < 0.06
    assert errors["itl_s_mean"] < 0.03
    assert errors["output_tokens_per_s"] < 0.03
    assert "no table knows" in clean.notes[0]


@pytest.mark.slow
def test_points_left_out_are_predicted_as_by_a_fit_without_them(clean: RunFit) -> None:
    """One Newton step from the whole fit stands for a new one."""
    runs = made_runs(noise=0.03)
    whole = fit_runs(runs, plain_prior(runs))
    i = 6
    anew = fit_runs(runs[:i] + runs[i + 1 :], plain_prior(runs))
    found = simulate_run(runs[i], anew.step_time, LIMITS)
    for name, miss in whole.left_out[i].items():
        assert miss == pytest.approx(math.log(found[name] / runs[i].measured[name]), abs=0.035), name
    assert abs(whole.left_out[i]["tpot_s_mean"]) >= 0.9 * abs(whole.misses[i]["tpot_s_mean"])


@pytest.mark.slow
def test_runs_of_one_point_are_left_out_together() -> None:
    """The same point twice: alike runs do not vouch for each other."""
    runs = made_runs()
    odd = [measured(replace(run, name=f"{run.name}-odd"), factors=dict.fromkeys(ALL_TERMS, 1.08)) for run in runs[-1:]]
    twice = fit_runs([*runs, *odd, *[replace(one, name="odd-2") for one in odd]], plain_prior(runs))
    assert twice.left_out[-1] == twice.left_out[-2]
    assert twice.left_out[-1]["tpot_s_mean"] < -0.04


def test_a_slow_run_does_not_spoil_the_fit(clean: RunFit) -> None:
    runs = made_runs()
    for i in (2, 7):
        runs[i] = measured(made_run(LOADS[i], f"run{i}"), factors=dict.fromkeys(ALL_TERMS, 1.35))
    fit = fit_runs(runs, plain_prior(runs))
    assert unseen_errors(fit)["itl_s_mean"] < 0.04
    assert fit.misses[2]["tpot_s_mean"] == pytest.approx(-math.log(1.35), abs=0.08)


@pytest.mark.slow
def test_where_slow_is_usual_slow_is_what_the_server_is() -> None:
    runs = [
        measured(made_run(load, f"run{i}"), factors=dict.fromkeys(ALL_TERMS, 1.3 if i % 4 else 1.0))
        for i, load in enumerate(LOADS)
    ]
    fit = fit_runs(runs, plain_prior(runs))
    slow = [run["tpot_s_mean"] for i, run in enumerate(fit.misses) if i % 4]
    assert abs(np.median(slow)) < 0.08


@pytest.mark.slow
def test_noise_is_what_left_out_points_show() -> None:
    runs = made_runs(noise=0.04, seed=3)
    fit = fit_runs(runs, plain_prior(runs))
    misses = [miss for run in fit.left_out for miss in run.values()]
    assert 0.02 < np.median(np.abs(misses)) < 0.06
    sure, unsure = (np.trace(one.uncertainty.log_covariance) for one in (fit_runs(runs[:6], plain_prior(runs)), fit))
    assert sure > unsure


@pytest.mark.slow
def test_ninety_percent_intervals_hold_the_truth_nine_times_in_ten() -> None:
    """Decode steps at low and high concurrency, and prefill, drawn from the covariance, over many noises."""
    states = ((0, 1, 300), (0, 48, 48 * 300), (1024, 16, 16 * 300))
    inside = []
    for seed in range(20):
        runs = made_runs(noise=0.03, seed=seed)
        fit = fit_runs(runs, plain_prior(runs))
        root = np.array(fit.uncertainty.root())
        rng = np.random.default_rng(seed)
        for state in states:
            work = state[0] * (state[0] + 1) / 2
            draws = []
            for _ in range(200):
                logs = root @ rng.standard_normal(len(root))
                factors = dict(zip(fit.uncertainty.terms, np.exp(logs).tolist(), strict=True))
                draws.append(fit.step_time.scaled(factors).step_s(*state, state[0], work))
            low, high = np.quantile(draws, [0.05, 0.95])
            inside.append(low <= TRUTH.step_s(*state, state[0], work) <= high)
    assert 0.75 <= np.mean(inside) <= 1.0


CROWDED = tuple(
    Load(concurrency=users, requests=3 * users, prompt_tokens=512, output_tokens=128, low=0.8, high=1.2)
    for users in (2, 8, 24, 40, 64)
)


@pytest.mark.parametrize("expected", [UNLIMITED, 700])
def test_a_cache_of_unknown_size_is_found_by_the_runs_that_fill_it(expected: int) -> None:
    """1100 blocks of 16 tokens hold 27 of these requests."""
    full = replace(LIMITS, kv_blocks=1100)
    silent = replace(SERVER, kv_blocks=None)
    runs = [measured(made_run(load, f"run{i}", silent), limits=full) for i, load in enumerate(CROWDED)]
    fit = fit_runs(runs, plain_prior(runs), limits=lambda _: replace(LIMITS, kv_blocks=expected))
    assert fit.kv_blocks == pytest.approx(1100, rel=0.15)
    assert any("KV blocks" in note for note in fit.notes)
    assert abs(fit.misses[-1]["ttft_s_mean"]) < 0.15


def test_stated_blocks_are_left_alone() -> None:
    runs = [measured(made_run(load, f"run{i}")) for i, load in enumerate(CROWDED)]
    asked: list[Server] = []

    def limits(server: Server) -> Limits:
        asked.append(server)
        return replace(LIMITS, kv_blocks=server.kv_blocks or 0)

    fit = fit_runs(runs, plain_prior(runs), limits=limits)
    assert fit.kv_blocks is None
    assert {server.kv_blocks for server in asked} == {SERVER.kv_blocks}


KNOWN = Server("llama-3.1-70b", "h100-sxm", 4, "fp8")
RANGE = tuple(
    Load(concurrency=users, requests=6 * users, prompt_tokens=prompt, output_tokens=256, low=0.8)
    for prompt in (1024, 4096)
    for users in (4, 16, 64)
)


def of_known(kv_precision: str, server: Server = KNOWN) -> list[Run]:
    """Runs of a server a little slower than expected."""
    usual = estimate(server.model, server.gpu, server.tp, server.precision, measured=()).efficiency
    assert usual is not None
    slower = replace(
        usual, bandwidth=0.9 * usual.bandwidth, flops=0.85 * usual.flops, overhead_s=1.5 * usual.overhead_s
    )
    card = gpu(server.gpu)
    truth = roofline(model(server.model), card, server.tp, server.precision, slower, kv_precision=kv_precision)
    roomy = Limits(max_num_seqs=256, kv_blocks=100_000)
    return [measured(made_run(load, f"run{i}", server), truth, roomy) for i, load in enumerate(RANGE)]


def test_a_known_model_on_a_known_gpu_has_efficiencies() -> None:
    runs = of_known("bf16", replace(KNOWN, kv_blocks=100_000, kv_precision="bf16"))
    fit = fit_runs(runs, roofline_prior(runs[0].server, ()), limits=lambda _: Limits(256, kv_blocks=100_000))
    assert fit.efficiency is not None
    assert fit.kv_precision == "bf16"
    # The median first token of an overloaded server is that of one wave or the next.
    assert max(abs(miss) for run in fit.misses for name, miss in run.items() if name != "ttft_s_p50") < 0.06
    assert set(fit.uncertainty.terms) >= {"base_s", "linear", "prefill_linear", "overhead_s"}


def test_priors_are_tried_where_a_source_is_silent() -> None:
    runs = of_known("bf16")
    assert len(priors_of(KNOWN, runs, ())) == 2
    assert len(priors_of(replace(KNOWN, kv_precision="fp8"), runs, ())) == 1
    ranks = priors_of(replace(KNOWN, dp=4, kv_precision="bf16"), runs, ())
    assert [prior.server.tp for prior in ranks if prior.server is not None] == [4, 1]
    assert "share the stated GPUs" in ranks[1].note
    unknown = priors_of(SERVER, made_runs(), ())
    assert len(unknown) == 1
    assert unknown[0].server is None


def test_steps_first_runs_after() -> None:
    """What a step log says is kept; what passes between steps and outside the scheduler comes from the runs."""
    steps = StepFit(
        step_time=replace(TRUTH, overhead_s=10e-3),
        uncertainty=Uncertainty(("base_s", "per_prefill_token_s"), ((4e-4, 0.0), (0.0, 4e-4))),
        errors={},
        kept={},
        together=False,
        steps=1000,
        outlier_share=0.0,
        outlier_time_share=0.0,
        max_decode_seqs=48,
        max_step_tokens=2048,
        max_context_tokens=1024,
        notes=(),
    )
    between = replace(TRUTH, base_s=TRUTH.base_s + 1e-3, overhead_s=3e-3)
    runs = [measured(made_run(load, f"run{i}"), between) for i, load in enumerate(LOADS)]
    fit = fit_runs(runs, step_prior(steps))
    assert fit.step_time.per_prefill_token_s == pytest.approx(TRUTH.per_prefill_token_s, rel=0.04)
    assert fit.step_time.base_s == pytest.approx(between.base_s, rel=0.03)
    assert fit.step_time.overhead_s == pytest.approx(3e-3, rel=0.4)
    assert fit.efficiency is None


@pytest.mark.slow
def test_any_metrics_do(clean: RunFit) -> None:
    """Throughput alone, as `vllm bench throughput` has it, beside times to the first token of other runs."""
    runs = [
        measured(made_run(load, f"run{i}"), metrics=("output_tokens_per_s",) if i % 2 else ("ttft_s_p50", "ttft_s_p99"))
        for i, load in enumerate(LOADS)
    ]
    fit = fit_runs(runs, plain_prior(runs))
    assert [set(run) for run in fit.misses[:2]] == [{"ttft_s_p50", "ttft_s_p99"}, {"output_tokens_per_s"}]
    assert np.median([abs(miss) for run in fit.misses for miss in run.values()]) < 0.08


def test_nothing_to_fit_is_said() -> None:
    with pytest.raises(ValueError, match="at least one run and one prior"):
        fit_runs([])
