"""From a real vLLM server to a profile that predicts it: bench, fit on two thirds of the runs, validate on the rest."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

FLAGS = ["--load-format", "dummy", "--dtype", "float32", "--max-model-len", "4096", "--seed", "0"]
LIMITS = ["--max-num-seqs", "64", "--max-num-batched-tokens", "2048"]
SHORT = {"prompt_tokens": 128, "output_tokens": 32}
FITTED = [
    {**SHORT, "concurrency": 1, "tells": "base"},
    {"prompt_tokens": 512, "output_tokens": 8, "concurrency": 1, "tells": "prefill"},
    {"prompt_tokens": 1536, "output_tokens": 8, "concurrency": 1, "tells": "prefill"},
    {**SHORT, "concurrency": 4, "tells": "ladder"},
    {**SHORT, "concurrency": 16, "tells": "ladder"},
    {"prompt_tokens": 1024, "output_tokens": 64, "concurrency": 4, "tells": "ladder"},
]
KEPT = [
    {**SHORT, "concurrency": 8, "tells": "ladder"},
    {**SHORT, "share": 0.5, "tells": "open"},
    {"prompt_tokens": 640, "output_tokens": 32, "shared_tokens": 512, "concurrency": 4, "tells": "prefix"},
]


def vllm_python() -> str:
    """A Python that has vLLM: `$SIMLAB_VLLM_PYTHON`, else this one if it has."""
    python = os.environ.get("SIMLAB_VLLM_PYTHON") or (sys.executable if importlib.util.find_spec("vllm") else "")
    if not python:
        pytest.skip("vLLM is not installed here: name a Python that has it in SIMLAB_VLLM_PYTHON")
    return python


def simlab(folder: Path, *words: str) -> str:
    environment = {
        "VLLM_CPU_KVCACHE_SPACE": "2",
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-m", "simlab.cli.main", *words],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_a_profile_of_a_real_server_predicts_runs_it_was_not_fitted_on(tmp_path):
    python = vllm_python()
    subprocess.run([python, str(Path(__file__).with_name("tiny_model.py")), str(tmp_path / "tiny")], check=True)
    points = [{"seconds": 8, **point} for point in [*FITTED, *KEPT]]
    (tmp_path / "plan.json").write_text(json.dumps({"points": points}))
    vllm = f"{python} -m vllm.entrypoints.cli.main"
    bench = ["--model", "tiny", "--plan", "plan.json", "--out", "bench", "--gpu", "some machine", "--vllm", vllm]
    printed = simlab(tmp_path, "calibrate", "bench", *bench, "--", *FLAGS, *LIMITS)
    results = sorted((tmp_path / "bench" / "results").glob("*.json"))
    assert len(results) == len(points)
    starts = json.loads((tmp_path / "bench" / "server.json").read_text())["starts"]
    assert starts[0]["ready_s"] > starts[0]["phases"]["engine_ready_s"] > 0

    kept = {"i128-o32-c8", "i128-o32-u0.5", "i640-o32-c4-p512x1"}
    fitted = [str(path) for path in results if path.stem not in kept]
    assert len(fitted) == len(FITTED)
    words = shlex.split(printed.splitlines()[-1])
    assert words[:4] == ["simlab", "calibrate", "fit", "bench/results"]
    simlab(tmp_path, "calibrate", "fit", *fitted, *words[4:])
    profile = words[words.index("-o") + 1]

    rest = [str(path) for path in results if path.stem in kept]
    found = json.loads(simlab(tmp_path, "calibrate", "validate", profile, *rest, "--model", "tiny", "--format", "json"))
    assert {row["kind"] for row in found["rows"]} == {"between"}
    errors = {one["metric"]: one["median_ape"] for one in found["summary"] if one["group"] == "all"}
    # A machine that does other work besides varies by as much between two runs.
    for metric in ("itl_s_mean", "output_tokens_per_s", "e2e_s_mean"):
        assert errors[metric] < 0.25, errors
