"""The compiled replica answers as vLLM's own scheduler does (DESIGN.md I11)."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from by_priority import serve_by_priority
from oracle_cases import cases
from recordings import COLUMNS, FOLDER, TOLERANCE_S, load, names

from simlab.one_replica import replay

FCFS = [name for name in names() if load(name)["limits"]["scheduling"] == "fcfs"]
PRIORITY = [name for name in names() if load(name)["limits"]["scheduling"] == "priority"]


@pytest.mark.parametrize("name", FCFS)
def test_replay_equals_vllm(name: str) -> None:
    recording = load(name)
    limits = {key: value for key, value in recording["limits"].items() if key != "scheduling"}
    answer = replay(pd.DataFrame(recording["requests"]), **limits)
    for column in ("first_token_s", "finish_s"):
        np.testing.assert_allclose(
            answer[column], recording["answer"][column], rtol=0, atol=TOLERANCE_S, err_msg=column
        )
    for column in ("preemptions", "cached_tokens"):
        np.testing.assert_array_equal(answer[column], recording["answer"][column], err_msg=column)


@pytest.mark.parametrize("name", PRIORITY)
def test_priority_scheduling_equals_vllm(name: str) -> None:
    recording = load(name)
    answer = serve_by_priority(recording["requests"], recording["limits"])
    for i, column in enumerate(COLUMNS):
        expected = recording["answer"][column]
        np.testing.assert_allclose([row[i] for row in answer], expected, rtol=0, atol=TOLERANCE_S, err_msg=column)


def test_recordings_exercise_every_rule() -> None:
    """A recording in which nothing is preempted or cached would agree with a replica that can do neither."""
    answers = {name: load(name)["answer"] for name in names()}
    assert sum(sum(answer["preemptions"]) > 20 for answer in answers.values()) >= 5
    assert sum(sum(answer["cached_tokens"]) > 1000 for answer in answers.values()) >= 8
    both = [name for name, a in answers.items() if sum(a["preemptions"]) > 20 and sum(a["cached_tokens"]) > 1000]
    assert len(both) >= 3


def test_recordings_hold_the_cases_asked_today() -> None:
    asked = {case.name: case for case in cases()}
    assert sorted(asked) == names()
    for name, case in asked.items():
        recording = load(name)
        assert recording["limits"] == case.limits, name
        assert recording["requests"] == json.loads(json.dumps(case.requests)), name


def vllm_python() -> str | None:
    """A Python that has vLLM: `$SIMLAB_VLLM_PYTHON`, else this one if it has."""
    if chosen := os.environ.get("SIMLAB_VLLM_PYTHON"):
        return chosen
    return sys.executable if importlib.util.find_spec("vllm") else None


@pytest.mark.slow
def test_installed_vllm_still_gives_the_recorded_answers(tmp_path: Path) -> None:
    python = vllm_python()
    if python is None:
        pytest.skip("vLLM is not installed here: name a Python that has it in SIMLAB_VLLM_PYTHON")
    script = Path(__file__).with_name("record_oracle.py")
    subprocess.run([python, str(script), "--out", str(tmp_path)], check=True, capture_output=True)
    assert sorted(path.name for path in tmp_path.glob("*.json")) == sorted(path.name for path in FOLDER.glob("*.json"))
    for name in names():
        now, then = json.loads((tmp_path / f"{name}.json").read_text())["answer"], load(name)["answer"]
        assert now["batches_sha256"] == then["batches_sha256"], name
        for column in COLUMNS:
            np.testing.assert_allclose(now[column], then[column], rtol=0, atol=1e-9, err_msg=f"{name}: {column}")
