"""Floors from data sheets, and that a real server respects them."""

from __future__ import annotations

from pathlib import Path

import pytest

from simlab.calibrate import ServerHints, read_runs
from simlab.calibrate.run import Server
from simlab.calibrate.step_fit import fit_steps
from simlab.calibrate.step_floor import step_floor


def test_the_floor_is_bytes_and_flops_at_the_peaks() -> None:
    """Qwen3-32B: 64 layers of 8 KV heads of 128 in BF16, 64 heads; a B300 reads 7.75 TB/s and computes 2.25 PFLOP/s."""
    floor = step_floor(Server("qwen3-32b", "b300-sxm", 2))
    assert floor is not None
    assert floor.per_kv_token_s == pytest.approx(2 * 64 * 8 * 128 * 2 / 2 / 7.75e12, rel=1e-6)
    assert floor.attn_s == pytest.approx(4 * 64 * 64 * 128 / 2 / 2.25e15, rel=1e-6)
    assert floor.base_s == 0 == floor.linear_s(1000)


@pytest.mark.parametrize(
    ("model", "gpu"), [("nobody-knows", "b300-sxm"), ("qwen3-32b", "homemade"), ("gpt-oss-20b", "h100-sxm")]
)
def test_what_is_not_known_has_no_floor(model: str, gpu: str) -> None:
    assert step_floor(Server(model, gpu)) is None


@pytest.mark.slow
def test_a_measured_server_is_met_above_its_floor(shared_data: Path) -> None:
    hints = ServerHints(model="qwen3-32b", tp=1)
    run = read_runs([shared_data / "vllm_step_times" / "steps.csv.gz"], server=hints)[0]
    floor = step_floor(run.server)
    assert run.steps is not None
    assert floor is not None
    fit = fit_steps([run.steps], floor=floor)
    assert floor.per_kv_token_s <= fit.step_time.per_kv_token_s < 2 * floor.per_kv_token_s
    assert floor.attn_s <= fit.step_time.attn_s < 3 * floor.attn_s
    assert fit.errors["step_median_ape"] < 0.02
