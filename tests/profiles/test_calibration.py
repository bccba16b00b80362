"""The stated errors of the bundled profiles come out again when the measured data is at hand."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from simlab.profiles import StepTime, profile, profiles

CALIBRATION = Path(__file__).resolve().parents[2] / "calibration"
CLOSED_LOOP = sorted(
    name for name, one in profiles().items() if one.kind == "measured" and "tpot_median_ape" in one.error
)
STEP_LOGS = sorted(name for name, one in profiles().items() if "step_median_ape" in one.error)


@pytest.fixture(scope="module")
def calibration():
    """Imports a module of the calibration folder."""
    sys.path.insert(0, str(CALIBRATION))
    yield import_module
    sys.path.remove(str(CALIBRATION))


def test_one_user_pays_every_step_alone(calibration):
    closed_loop = calibration("closed_loop").closed_loop
    law = StepTime(base_s=0.01, per_prefill_token_s=1e-4, overhead_s=0.5)
    found = closed_loop(law, 100, 11, 1, low=1.0, rounds=3)
    assert found.ttft_mean_s == pytest.approx(0.5 + 0.01 + 0.01)
    assert found.tpot_mean_s == pytest.approx(0.01)


def test_chunks_of_the_budget(calibration):
    closed_loop = calibration("closed_loop").closed_loop
    law = StepTime(base_s=1.0, attn_s=1e-3)
    found = closed_loop(law, 250, 2, 1, low=1.0, rounds=1, max_num_batched_tokens=100)
    # Chunks of 100, 100 and 50: together every token attends to those before it and itself.
    assert found.ttft_mean_s == pytest.approx(3.0 + 1e-3 * 250 * 251 / 2)


def test_a_jump_over_decode_steps_is_exact(calibration):
    closed_loop = calibration("closed_loop").closed_loop
    law = StepTime(base_s=0.01, per_kv_token_s=1e-5)
    found = closed_loop(law, 1000, 101, 1, low=1.0, rounds=1)
    # Step k of 100 reads 1000 + k tokens.
    assert found.tpot_mean_s == pytest.approx(0.01 + 1e-5 * (1000 + 101 / 2))


def test_the_closed_loop_agrees_with_the_engine(calibration):
    import pandas as pd

    import simlab

    closed_loop = calibration("closed_loop").closed_loop
    law = StepTime(
        base_s=0.01, per_seq_s=1e-4, per_kv_token_s=1e-7, per_prefill_kv_token_s=1e-7, per_prefill_token_s=2e-5
    )
    found = closed_loop(law, 3000, 40, 8, low=1.0, rounds=1)
    requests = pd.DataFrame({"arrival_s": [0.0] * 8, "prompt_tokens": [3000] * 8, "output_tokens": [40] * 8})
    coefficients = {"base_s": 0.01, "per_decode_seq_s": 1e-4, "per_context_token_s": 1e-7, "per_prefill_token_s": 2e-5}
    engine = simlab.replay(
        requests, step_time=coefficients, max_num_seqs=64, max_num_batched_tokens=8192, kv_blocks=10_000
    )
    tpot = (engine["finish_s"] - engine["first_token_s"]) / 39
    assert found.ttft_mean_s == pytest.approx(engine["first_token_s"].mean(), rel=1e-9)
    assert found.tpot_mean_s == pytest.approx(tpot.mean(), rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", CLOSED_LOOP)
def test_closed_loop_errors_are_as_stated(calibration, shared_data, name):
    silicon = calibration("silicon")
    one = profile(name)
    setup = next(setup for setup in silicon.read_setups(shared_data) if setup.name == name)
    ttft, tpot = silicon.misses(one.step_time, silicon.as_assumed(setup, one).rows)
    assert silicon.median_ape(tpot) == pytest.approx(one.error["tpot_median_ape"], abs=2e-4)
    assert silicon.median_ape(ttft) == pytest.approx(one.error["ttft_median_ape"], abs=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", STEP_LOGS)
def test_step_errors_are_as_stated(calibration, shared_data, name):
    step_data = calibration("step_data")
    one = profile(name)
    config = one.fitted_on[0].removeprefix("vllm_step_times: ")
    steps = step_data.load_steps(shared_data)
    steps = steps[steps["config_id"] == config]
    rows = steps[["prefill_tokens", "prefill_requests", "prefill_kv_tokens", "decode_requests", "decode_kv_tokens"]]
    simulated = [
        one.step_time.step_s(p, b, c, p + start, p * start / max(n, 1) + p * (p / max(n, 1) + 1) / 2)
        for p, n, start, b, c in rows.to_numpy(float)
    ]
    measured = steps["latency_ms"].to_numpy() / 1e3
    ape = np.abs(np.array(simulated) / measured - 1.0)
    assert float(np.median(ape)) == pytest.approx(one.error["step_all_median_ape"], abs=2e-4)
    real = (steps["segment"] == "real").to_numpy()
    assert np.array(simulated)[real].sum() == pytest.approx(measured[real].sum(), rel=0.03)
