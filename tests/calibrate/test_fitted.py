"""What is said of a fit."""

import json
from dataclasses import replace

import numpy as np
import pytest

from simlab.calibrate.fitted import Fits, Fitted, Unfitted, listed, weakest
from simlab.errors import OutputError
from simlab.profiles import Profile, StepTime, Uncertainty, load

STEP = StepTime(base_s=5e-3, attn_s=1e-10, per_kv_token_s=2e-8, linear=((1, 0.0), (1025, 0.1024)))


def profile(covariance, terms=("base_s", "attn_s", "per_kv_token_s")):
    rows = tuple(tuple(float(x) for x in row) for row in covariance)
    return Profile("m.g.tp1.bf16", "m", "g", 1, "bf16", "measured", STEP, Uncertainty(terms, rows))


def test_a_term_that_the_runs_do_not_tell_is_named_with_the_runs_that_would():
    found = weakest(profile(np.diag([0.01, 0.25, 0.04])))
    assert found == "prefill attention is not identified by these runs (known to 50%): add long prompts"


def test_two_terms_that_stand_for_each_other_are_named_together():
    covariance = np.diag([0.10, 0.0, 0.10]) + 0.0
    covariance[0, 2] = covariance[2, 0] = -0.0999
    found = weakest(profile(covariance))
    assert found.startswith(
        ("the fixed time of a step and reading", "reading the KV cache and the fixed time of a step")
    )
    assert "are not told apart" in found
    assert "add runs at low concurrency" in found or "or runs at low concurrency" in found


def test_when_all_is_known_the_least_known_is_said_without_advice():
    found = weakest(profile(np.diag([0.01, 0.0225, 0.0001])))
    assert found == "prefill attention is known least, to 15%"


def test_nothing_is_said_of_an_unknown_uncertainty():
    assert weakest(replace(profile(np.eye(3)), uncertainty=Uncertainty())) == ""


def test_coefficients_are_those_that_are_not_zero_with_their_deviation():
    one = Fitted(profile(np.diag([0.01, 0.25, 0.04])), ("benchmark runs",), 3, 600, 0)
    rows = one.coefficients()
    assert [row[0] for row in rows] == ["base_s", "per_kv_token_s", "attn_s", "linear"]
    assert [row[2] for row in rows] == [pytest.approx(0.1), pytest.approx(0.2), pytest.approx(0.5), None]
    assert rows[3][1] == pytest.approx(0.1023)


def test_one_file_or_a_folder(tmp_path):
    one = Fitted(profile(np.eye(3)), (), 3, 0, 0)
    fits = Fits((one,), (Unfitted("x.y.tp1.bf16", 1, "one operating point"),))
    files = fits.write(tmp_path / "new" / "own.json")
    assert files == {"m.g.tp1.bf16": tmp_path / "new" / "own.json"}
    assert load(files["m.g.tp1.bf16"]) == one.profile
    assert fits.write(tmp_path / "many") == {"m.g.tp1.bf16": tmp_path / "many" / "m.g.tp1.bf16.json"}
    data = json.loads(fits.to_json(files))
    assert data["profiles"][0]["file"] == str(tmp_path / "new" / "own.json")
    assert data["left_out"] == [{"setup": "x.y.tp1.bf16", "runs": 1, "reason": "one operating point"}]


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError, match="the folder cannot be made"):
        Fits(()).write(tmp_path / "taken" / "x")


def test_long_lists_are_cut():
    assert listed(["a", "b"]) == "a, b"
    assert listed(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
