"""Validation on runs whose truth is known."""

import math
from dataclasses import replace

import numpy as np
import pytest

from simlab.calibrate.benchmark import simulate_requests, simulate_run
from simlab.calibrate.limits import limits_of
from simlab.calibrate.run import METRICS, Load, Run, Server, Steps
from simlab.calibrate.shelf import Shelf
from simlab.calibrate.step_design import step_seconds
from simlab.calibrate.validate import validate, workload_of
from simlab.profiles import Profile, StepTime, Uncertainty, Validity

LAW = StepTime(base_s=10e-3, per_seq_s=2e-4, per_prefill_token_s=5e-5, overhead_s=5e-3)
SERVER = Server("own", "card", max_num_seqs=32, max_num_batched_tokens=2048, kv_blocks=4000, block_size=16)
PROFILE = Profile(
    "own.card.tp1.bf16", "own", "card", 1, "bf16", "measured", LAW,
    uncertainty=Uncertainty(("base_s", "per_prefill_token_s"), ((0.01, 0.0), (0.0, 0.04))),
    error={"tpot_left_out_median_ape": 0.0}, validity=Validity(32, 2048, 2000), points=("i256-o64-c4",),
)  # fmt: skip


def run(name, law=LAW, **load):
    """A run as a server of a step time would have measured it."""
    made = Run(name, "made", SERVER, Load(**{"prompt_tokens": 256, "output_tokens": 64, "requests": 300, **load}))
    return replace(made, measured=simulate_run(made, law, limits_of(SERVER)))


def check(*runs, profile=PROFILE, **options):
    return validate(Shelf("own", (profile,), single=True), runs, workers=1, **options)


def test_the_true_profile_is_right_in_every_metric():
    found = check(run("a", concurrency=4), run("b", rate_rps=2.0))
    assert {row.metric for row in found.rows} == set(METRICS) - {"step_s"}
    assert max(row.ape for row in found.rows) < 1e-12
    assert [row.kind for row in found.rows if row.metric == "ttft_s_mean"] == ["calibrated", "between"]


def test_a_slower_server_is_off_by_as_much_as_it_is_slower():
    slow = LAW.scaled(dict.fromkeys(("base_s", "per_seq_s", "per_prefill_token_s", "overhead_s"), 1.25))
    found = check(run("a", slow, concurrency=4))
    apes = {row.metric: row.ape for row in found.rows}
    assert apes["itl_s_mean"] == pytest.approx(0.2, abs=0.01)
    assert apes["output_tokens_per_s"] == pytest.approx(0.25, abs=0.01)


def test_what_was_not_measured_has_no_row():
    one = run("a", concurrency=4)
    found = check(replace(one, measured={"ttft_s_mean": one.measured["ttft_s_mean"]}))
    assert [row.metric for row in found.rows] == ["ttft_s_mean"]


def test_intervals_are_those_of_the_covariance():
    (row,) = [row for row in check(run("a", concurrency=1)).rows if row.metric == "itl_s_mean"]
    # One sequence decodes: of its step, 10 of 10.2 ms vary by 10%.
    sd = math.log(row.high / row.simulated) / 1.6449
    assert sd == pytest.approx(0.1 * 10 / 10.2, rel=0.06)
    assert row.low * row.high == pytest.approx(row.simulated**2)
    assert row.inside
    assert all(row.low is None for row in check(run("a", concurrency=1), intervals=False).rows)


def test_beyond_what_was_fitted_intervals_are_wider_and_it_is_said():
    near, far = run("near", concurrency=4), run("far", concurrency=4, prompt_tokens=3000)
    attends = replace(PROFILE, step_time=replace(LAW, attn_s=1e-9))
    found = check(near, far, profile=attends)
    width = {row.run: row.high / row.low for row in found.rows if row.metric == "ttft_s_mean"}
    assert width["far"] > width["near"]
    assert any("far: more tokens of context than own.card.tp1.bf16 was fitted on" in text for text in found.warnings)


def test_saturation_is_told_from_rates_and_users():
    # 32 sequences of 64 tokens at 16.4 ms a step, and the prompts between: about 16 requests a second.
    found = check(
        run("low", rate_rps=4.0), run("high", rate_rps=40.0), run("few", concurrency=8), run("many", concurrency=64)
    )
    said = {row.run: row.saturated for row in found.rows}
    assert said == {"low": False, "high": True, "few": False, "many": True}


def test_the_knee_of_a_ladder_is_what_is_served_when_more_is_sent():
    ladder = [run(f"r{rate}", rate_rps=rate) for rate in (2.0, 6.0, 40.0)]
    (knee,) = check(*ladder).knees
    assert knee.ape < 1e-12
    assert knee.workload == "i256-o64"
    assert 6.0 < knee.measured_rps < 40.0
    assert check(*ladder[:2]).knees == ()


def test_a_ladder_is_of_one_engine_and_of_requests_that_are_about_as_long():
    ladder = [run(f"r{rate}", rate_rps=rate) for rate in (2.0, 6.0, 40.0)]
    assert ladder[0].load is not None
    longer = replace(ladder[0], load=replace(ladder[0].load, prompt_tokens=258.0))
    assert len(check(longer, *ladder[1:]).knees) == 1
    other = replace(ladder[2], server=replace(ladder[2].server, engine="another"))
    assert check(*ladder[:2], other).knees == ()


def test_workloads_are_points_without_their_rate():
    assert {workload_of(run("a", rate_rps=3.0)), workload_of(run("b", rate_rps=0.5))} == {"i256-o64"}


def test_step_logs_have_a_row_for_each_segment_and_phase():
    rng = np.random.default_rng(0)
    n = 400
    prompt = np.where(rng.random(n) < 0.3, 128.0, 0.0)
    batch = np.where(rng.random(n) < 0.9, 8.0, 0.0) + (prompt == 0)
    none = np.zeros(n)
    steps = Steps(none, prompt, (prompt > 0) * 1.0, none, batch, 100 * batch, prompt * 64.5, rng.random(n) < 0.5)
    seconds = step_seconds(LAW, steps) * np.where(prompt > 0, 1.1, 1.0)
    found = check(Run("log", "made", SERVER, steps=replace(steps, seconds=seconds)))
    apes = {row.point: row.ape for row in found.rows}
    phases = {f"{segment}/{phase}" for segment in ("sweep", "real") for phase in ("prefill", "decode", "mixed", "all")}
    assert set(apes) == phases
    assert apes["real/decode"] < 1e-12
    assert apes["real/mixed"] == pytest.approx(1 - 1 / 1.1)
    assert found.of("all", "step_s").n == n
    assert found.of("all", "step_s").median_ape < 1e-12
    assert found.of("all", "step_s_total").n == 2


def test_a_run_whose_steps_took_longer_is_named():
    slow = LAW.scaled({"base_s": 1.2, "per_seq_s": 1.2})
    one = run("slow", slow, concurrency=4)
    requests = simulate_requests(one, slow, limits_of(SERVER))
    pairs = zip(requests.output_tokens, requests.ttft_s, requests.e2e_s, strict=True)
    itl = tuple(np.full(n - 1, (end - first) / (n - 1)) for n, first, end in pairs)
    found = check(replace(one, requests=replace(requests, itl_s=itl)))
    assert any(text.startswith("slow (") and "took over 7% longer" in text for text in found.warnings)


def test_runs_that_cannot_be_judged_are_named_with_the_reason():
    other = replace(run("other", concurrency=4), server=Server("secret", "card"))
    empty = replace(run("empty", concurrency=4), measured={})
    found = check(other, empty)
    assert found.rows == ()
    assert [name for name, _ in found.left_out] == ["other", "empty"]
    assert "unknown model 'secret'" in found.left_out[0][1]


def test_failed_requests_are_said():
    found = check(replace(run("a", concurrency=4), failed=3))
    assert found.warnings == ("a: 3 requests failed; they are in no measured number",)


@pytest.mark.slow
def test_the_number_of_workers_never_changes_a_result():
    runs = [run(f"c{users}", concurrency=users) for users in (1, 2, 3, 4, 5, 6)]
    one, two = (validate(Shelf("own", (PROFILE,), single=True), runs, workers=n) for n in (1, 2))
    assert one.to_json() == two.to_json()
