"""Profile files: read back what was written, refuse what is broken with its place."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest

from simlab.errors import InputError, OutputError
from simlab.profiles import Uncertainty, load, parse, profile, profiles, schema

NAME = "llama-3.1-70b.h100-sxm.tp4.fp8"


@pytest.fixture
def text():
    return json.dumps(asdict(profile(NAME)))


@pytest.mark.parametrize("name", sorted(profiles()))
def test_bundled_profiles_say_where_they_are_from(name):
    one = profile(name)
    ranks = (f".dp{one.dp}" if one.dp > 1 else "") + (".ep" if one.expert_parallel else "")
    assert one.name == name == f"{one.model}.{one.gpu}.tp{one.tp}{ranks}.{one.precision}"
    assert one.fitted_on
    assert one.error
    assert one.engine.startswith(("vLLM", "llm-d"))
    assert one.uncertainty.terms
    assert all(0 < share < 0.6 for metric, share in one.error.items() if "median" in metric)


def test_the_set_the_main_job_needs_is_there():
    measured = {(one.model, one.gpu) for one in profiles().values() if one.kind == "measured"}
    wanted = {
        ("qwen3-32b", "h100-sxm"),
        ("qwen3-32b", "b300-sxm"),
        ("llama-3.1-70b", "h100-sxm"),
        ("llama-3.1-70b", "b200-sxm"),
        ("gpt-oss-120b", "h200-sxm"),
        ("gpt-oss-120b", "b200-sxm"),
    }
    assert wanted <= measured
    assert profile("llama-3.1-8b.h100-sxm.tp1.bf16").kind == "estimated"
    assert profile("llama-3.1-8b.h100-sxm.tp1.fp8").kind == "estimated"


def test_saved_profiles_read_back_the_same(tmp_path):
    path = tmp_path / "mine.json"
    profile(NAME).save(path)
    assert load(path) == profile(NAME)
    assert profile(path) == profile(NAME)
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine.json"]


def test_unwritable_places_are_said(tmp_path):
    with pytest.raises(OutputError, match="could not be written"):
        profile(NAME).save(tmp_path / "missing" / "mine.json")


def test_schema_lists_the_fields():
    properties = schema()["properties"]
    assert {"name", "model", "gpu", "tp", "precision", "kind", "step_time", "error", "uncertainty"} <= set(properties)
    assert schema()["additionalProperties"] is False


@pytest.mark.parametrize(
    ("change", "path", "message"),
    [
        (lambda p: p.pop("step_time"), "step_time", "Field required"),
        (lambda p: p.update(tp="four"), "tp", "valid integer"),
        (lambda p: p.update(tp=0), "", "tp is 0"),
        (lambda p: p.update(kind="guessed"), "kind", "'measured' or 'estimated'"),
        (lambda p: p.update(speed=1), "speed", "Unexpected keyword argument"),
        (lambda p: p.update(schema_version=99), "", "schema_version is 99"),
        (lambda p: p.update(name=""), "", "name is empty"),
        (lambda p: p["step_time"].update(base_s=-1), "step_time", "base_s is -1"),
        (lambda p: p["step_time"].update(per_seq=1), "step_time.per_seq", "Unexpected keyword argument"),
        (lambda p: p["step_time"].update(linear=[[1, 2, 3]]), "step_time.linear.0", "at most 2 items"),
        (lambda p: p["uncertainty"].update(terms=["speed"]), "uncertainty", "terms must be different names"),
        (lambda p: p["uncertainty"].update(log_covariance=[]), "uncertainty", "one row for each of terms"),
    ],
)
def test_broken_profiles_name_the_field(text, change, path, message):
    broken = json.loads(text)
    change(broken)
    with pytest.raises(InputError, match=message) as caught:
        parse(json.dumps(broken), "mine.json")
    assert [problem.where for problem in caught.value.problems] == ["mine.json"]
    assert caught.value.problems[0].path == path


def test_all_problems_come_at_once(text):
    broken = json.loads(text)
    broken.update(tp="four", kind="guessed", speed=1)
    with pytest.raises(InputError) as caught:
        parse(json.dumps(broken), "mine.json")
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"name": NaN}', b"\xff\xfe\x00"])
def test_files_that_are_no_profile(tmp_path, content):
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.json"):
        profile(path)


def test_missing_files_and_unknown_names(tmp_path):
    with pytest.raises(InputError, match="no such profile file"):
        profile(tmp_path / "none.json")
    with pytest.raises(InputError, match=r"did you mean llama-3\.1-70b\.h100-sxm\.tp4\.fp8"):
        profile("llama-3.1-70b.h100-sxm.tp4.fp9")


def test_zero_draws_give_the_fit_and_draws_have_the_stated_spread():
    one = profile(NAME)
    count = len(one.uncertainty.terms)
    assert one.sampled([0.0] * count).step_s(100, 8, 9000) == pytest.approx(one.step_time.step_s(100, 8, 9000))
    rng = np.random.default_rng(7)
    logs = [math.log(one.sampled(rng.standard_normal(count)).base_s / one.step_time.base_s) for _ in range(2000)]
    # The standard deviation of 2000 normal draws is within 5 standard errors (each 1/sqrt(2 n)) of its law's.
    assert np.std(logs) == pytest.approx(one.uncertainty.relative_sd()["base_s"], rel=5 / math.sqrt(4000))


def test_correlated_draws_have_the_covariance():
    cov = ((0.04, 0.03), (0.03, 0.09))
    one = replace(profile(NAME), uncertainty=Uncertainty(("base_s", "per_seq_s"), cov))
    low = np.array(one.uncertainty.root())
    assert low @ low.T == pytest.approx(np.array(cov))


@pytest.mark.parametrize(
    "cov",
    [((1.0, 2.0), (2.0, 1.0)), ((1.0, 0.5), (0.1, 1.0)), ((-1.0, 0.0), (0.0, 1.0)), ((math.nan, 0.0), (0.0, 1.0))],
)
def test_matrices_that_are_no_covariance(cov):
    with pytest.raises(ValueError, match="positive semi-definite"):
        Uncertainty(("base_s", "per_seq_s"), cov)


def test_summary_says_kind_and_error():
    assert profile(NAME).summary().startswith(f"{NAME} (measured); TPOT 1.1% (p90 3%), TTFT 3.2% (p90 7%); median, ")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ({}, ""),
        ({"step_decode_median_ape": 0.02, "step_all_median_ape": 0.1}, "decode steps 2.0%; median"),
        ({"tpot_median_ape": 0.01, "ttft_left_out_median_ape": 0.05}, "TTFT 5.0%; median, runs left out of the fit"),
        (
            {
                "itl_left_out_median_ape": 0.02,
                "tpot_left_out_median_ape": 0.03,
                "step_decode_left_out_median_ape": 0.04,
                "ttft_p50_left_out_median_ape": 0.05,
                "throughput_left_out_median_ape": 0.015,
            },
            "ITL 2.0%, median TTFT 5.0%, output rate 1.5%; median, runs left out of the fit",
        ),
        ({"tpot_other_hardware_median_ape": 0.13}, "TPOT 13.0%; median of such estimates, other hardware"),
        ({"odd": 0.25}, "odd 25.0%"),
    ],
)
def test_errors_in_words_are_those_of_runs_the_fit_did_not_see(error, words):
    assert replace(profile(NAME), error=error).error_in_words() == words
