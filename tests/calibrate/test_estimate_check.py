"""Estimates of GPUs and models left out: how far off they are, and that their intervals hold what was measured."""

from __future__ import annotations

import pytest

from simlab.calibrate.estimate_check import LeftOut, check_estimates, profile_errors, summarise
from simlab.calibrate.judged import Row
from simlab.calibrate.read import read_runs
from simlab.calibrate.read.hints import ServerHints
from simlab.calibrate.run import Server
from simlab.profiles import profiles

MEASURED = tuple(one for one in profiles().values() if one.kind == "measured")


@pytest.mark.parametrize(
    ("left", "out"),
    [
        ("gpu", lambda one: one.gpu == "h200-sxm"),
        ("model", lambda one: one.model == "gpt-oss-120b"),
        ("both", lambda one: one.gpu == "h200-sxm" or one.model == "gpt-oss-120b"),
    ],
)
def test_what_is_left_out_teaches_nothing(left, out):
    found = LeftOut("x", MEASURED, single=False, left=left).find(Server("gpt-oss-120b", "h200-sxm", 4, "fp4"))
    assert found.kind == "estimated"
    taught = {name.removeprefix("efficiencies of ") for name in found.fitted_on}
    assert taught
    assert taught.isdisjoint(one.name for one in MEASURED if out(one))
    assert taught >= {one.name for one in MEASURED if not out(one) and one.model == "llama-3.1-70b"}


def row(measured, simulated, low, high, metric="ttft_s_mean", setup="a"):
    return Row("r", setup, metric, measured, simulated, "estimated", "p", low=low, high=high)


def test_errors_by_setup_and_in_all():
    rows = [
        row(1.0, 1.1, 0.9, 1.3),
        row(1.0, 1.3, 1.1, 1.6, setup="b"),
        row(1.0, 2.0, 0.5, 4.0, setup="b"),
        row(1.0, 1.0, None, None),
        row(2.0, 1.0, 0.5, 3.0, metric="tpot_s_mean"),
    ]
    found = {(one.group, one.metric): one for one in summarise("gpu", rows)}
    assert set(found) == {
        ("all", "ttft_s_mean"),
        ("all", "tpot_s_mean"),
        ("a", "ttft_s_mean"),
        ("a", "tpot_s_mean"),
        ("b", "ttft_s_mean"),
    }
    every = found["all", "ttft_s_mean"]
    assert (every.n, every.inside) == (3, pytest.approx(2 / 3))
    assert every.median_ape == pytest.approx(0.3)
    assert every.bias == pytest.approx(0.3)
    assert found["b", "ttft_s_mean"].width == pytest.approx((1.6 / 1.3 - 1 + 1) / 2)
    assert found["all", "tpot_s_mean"].bias == pytest.approx(-0.5)
    assert profile_errors(tuple(found.values()))["tpot_other_hardware_median_ape"] == 0.5


@pytest.mark.slow
@pytest.mark.parametrize("left", ["gpu", "model", "both"])
def test_estimates_of_what_nobody_measured(shared_data, left):
    runs = read_runs([shared_data / "vllm_infx_silicon" / "vllm_agg.csv"], server=ServerHints())
    found = {(one.group, one.metric): one for one in check_estimates(MEASURED, runs, left=(left,))}
    ttft, tpot = found["all", "ttft_s_mean"], found["all", "tpot_s_mean"]
    assert ttft.n == tpot.n > 600
    assert tpot.median_ape < 0.15
    assert ttft.median_ape < 0.27
    assert min(ttft.inside, tpot.inside) > 0.85
    # Honest, and still of use: the interval ends within a factor of two.
    assert tpot.width < 0.55
    assert ttft.width < 1.0


@pytest.mark.slow
def test_estimates_of_a_gpu_no_profile_is_of(shared_data):
    runs = read_runs([shared_data / "llmd_lmbench" / "summary.csv"], server=ServerHints())
    setup = "llama-3.1-70b.a100-sxm-80gb.tp2.bf16"
    assert not any(one.gpu == "a100-sxm-80gb" for one in MEASURED if one.precision != "bf16")
    found = {(one.group, one.metric): one for one in check_estimates(MEASURED, runs, left=("gpu",))}
    assert found[setup, "tpot_s_mean"].median_ape < 0.10
    assert found[setup, "ttft_s_mean"].median_ape < 0.25
    assert min(found[setup, metric].inside for metric in ("tpot_s_mean", "ttft_s_mean")) > 0.75
