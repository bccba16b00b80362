"""Summaries of a validation, against the arithmetic done by hand."""

import json

import numpy as np
import pytest

from simlab.calibrate.judged import Knee, Row, Validation


def row(measured, simulated, **changes):
    plain = {"run": "r", "setup": "s", "metric": "ttft_s_mean", "kind": "between", "profile": "p"}
    return Row(measured=measured, simulated=simulated, **{**plain, **changes})


ROWS = (
    row(1.0, 1.1, saturated=False, low=0.9, high=1.3),
    row(2.0, 1.0, run="q", kind="calibrated", saturated=True, low=0.9, high=1.1),
    row(4.0, 4.0, run="t", setup="other", saturated=False),
    row(1.0, 1.02, run="log", metric="step_s", point="real/decode", steps=np.array([0.01, 0.03])),
    row(1.0, 1.10, run="log", metric="step_s", point="real/mixed", steps=np.array([0.10])),
    row(1.0, 1.04, run="log", metric="step_s", point="real/all"),
)


def test_an_error_is_a_share_of_what_was_measured():
    assert row(2.0, 1.0).ape == pytest.approx(0.5)
    assert row(2.0, 3.0).ape == pytest.approx(0.5)


def test_groups_hold_what_their_name_says():
    found = Validation("v", ROWS, groups={"s": ("dense", "h100-sxm"), "other": ("moe",)})
    sizes = {one.group: one.n for one in found.summary if one.metric == "ttft_s_mean"}
    assert sizes == {
        "all": 3, "calibrated": 1, "between": 2, "below saturation": 2, "between, below saturation": 2,
        "at saturation": 1, "calibrated, at saturation": 1, "dense": 2, "h100-sxm": 2, "moe": 1, "s": 2, "other": 1,
    }  # fmt: skip
    assert found.of("all", "ttft_s_mean").median_ape == pytest.approx(0.1)
    assert found.of("all", "ttft_s_mean").p90_ape == pytest.approx(np.quantile([0.0, 0.1, 0.5], 0.9))
    assert found.of("all", "ttft_s_mean").inside == pytest.approx(0.5)
    assert found.of("other", "ttft_s_mean").inside is None


def test_single_steps_count_and_their_sum_is_told_apart():
    found = Validation("v", ROWS)
    assert (found.of("all", "step_s").n, found.of("all", "step_s").median_ape) == (3, pytest.approx(0.03))
    assert (found.of("all", "step_s_total").n, found.of("all", "step_s_total").median_ape) == (1, pytest.approx(0.04))


def test_a_limit_of_one_metric_does_not_bind_the_others():
    assert Validation("v", ROWS, limits={"step_s": 0.05}).exit_code == 0
    assert Validation("v", ROWS, limits={"ttft_s_mean": 0.09, "step_s": 0.05}).exit_code == 1
    over = Validation("v", ROWS, limits={"": 0.035}).over
    assert [one.metric for one, _ in over] == ["ttft_s_mean", "step_s_total"]
    assert Validation("v", ROWS, limits={"": 0.035, "ttft_s_mean": 0.2, "step_s_total": 0.05}).exit_code == 0


def test_json_has_the_fields_it_promises():
    knee = Knee("s", "p", "between", "i128-o16", 2.0, 2.1)
    data = json.loads(Validation("v", ROWS, (knee,), limits={"": 0.01}).to_json())
    assert list(data["rows"][0])[:7] == ["run", "setup", "metric", "measured", "simulated", "ape", "kind"]
    assert list(data["summary"][0])[:5] == ["group", "metric", "n", "median_ape", "p90_ape"]
    assert data["rows"][3]["step_median_ape"] == pytest.approx(0.02)
    assert data["rows"][5]["steps"] is None
    assert data["knees"][0]["ape"] == pytest.approx(0.05)
    assert {one["metric"] for one in data["over"]} == {"ttft_s_mean", "step_s", "step_s_total"}
