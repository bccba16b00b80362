"""The command line of `simlab calibrate bench`: what it prints, and what it refuses."""

from __future__ import annotations

import json
import shlex

import pytest
from faking import VLLM, free_port
from typer.testing import CliRunner

from simlab.calibrate.bench.client import Client, environment
from simlab.cli.calibrate_bench import default_name
from simlab.cli.main import app
from simlab.errors import InputError

OWN = {
    "points": [
        {"prompt_tokens": 64, "output_tokens": 16, "concurrency": 4, "requests": 16, "tells": "a"},
        {"prompt_tokens": 64, "output_tokens": 16, "share": 0.5, "seconds": 10, "tells": "b"},
    ]
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.json").write_text(json.dumps(OWN))
    return tmp_path


def invoke(*words: str):
    return CliRunner().invoke(app, ["calibrate", "bench", *words], catch_exceptions=False)


def commands(text: str) -> list[list[str]]:
    """What a shell would run of the printed lines."""
    return [shlex.split(line, comments=True) for line in text.splitlines() if line and not line.startswith("#")]


def test_a_dry_run_prints_commands_that_vllm_takes_and_runs_nothing(here):
    flags = ["--tensor-parallel-size", "2", "--load-format", "dummy", "--max-num-seqs", "256"]
    done = invoke("--model", "meta-llama/Llama-3.1-8B-Instruct", "--gpu", "h100", "--dry-run", "--", *flags)
    assert done.exit_code == 0
    server, *benches = commands(done.stdout)
    assert server == [
        "vllm", "serve", "meta-llama/Llama-3.1-8B-Instruct", "--host", "127.0.0.1", "--port", "8000", *flags,
    ]  # fmt: skip
    assert len(benches) == 19
    for words in benches:
        assert words[:3] == ["vllm", "bench", "serve"]
        assert {"--save-result", "--save-detailed", "--ignore-eos"} <= set(words)
        assert words[words.index("--metric-percentiles") + 1] == "50,90,95,99"
    assert len({words[words.index("--result-filename") + 1] for words in benches}) == 19
    assert len({words[words.index("--seed") + 1] for words in benches}) == 19
    head = done.stdout.splitlines()[0]
    assert "19 benchmarks, about 1" in head
    assert "the estimated profile llama-3.1-8b.h100-sxm.tp2.bf16" in head
    assert "# --request-rate will be 0.85 of the capacity measured before" in done.stdout
    assert [path.name for path in here.iterdir()] == ["own.json"]


def test_a_dry_run_against_a_running_server_starts_none(here):
    done = invoke("--model", "m", "--url", "http://gpu7:8000", "--plan", "own.json", "--dry-run")
    assert [words[:3] for words in commands(done.stdout)] == [["vllm", "bench", "serve"]] * 2
    assert "--base-url http://gpu7:8000" in done.stdout


def test_what_a_dry_run_leaves_out_is_said(here):
    done = invoke("--model", "m", "--dry-run", "--", "--max-model-len=4096", "--max-num-seqs=64")
    assert "# left out: i16384-o4-c1: 16388 tokens are above max_model_len 4096" in done.stdout
    assert "# left out: i128-o128-c256: concurrency 256 is above max_num_seqs 64" in done.stdout


def test_it_measures_and_tells_how_to_fit(here):
    words = ["--model", "org/Tiny", "--plan", "own.json", "--gpu", "NVIDIA H100 80GB HBM3", "--vllm", VLLM]
    done = invoke(*words, "--port", str(free_port()), "--", "--served-model-name", "tiny")
    assert done.exit_code == 0
    assert done.stdout.startswith("2 benchmarks of tiny.h100-sxm.tp1.bf16 in 0.")
    assert "i64-o16-u0.5" in done.stdout
    assert "max_num_seqs 1024 is vLLM's default, not stated" in done.stdout
    assert done.stdout.splitlines()[-1].startswith(
        "simlab calibrate fit bench-tiny/results --gpu h100-sxm --model tiny --tp 1 --precision bf16"
    )
    assert "1/2 i64-o16-c4: a\n" in done.stderr
    result = json.loads((here / "bench-tiny" / "results" / "i64-o16-c4.json").read_text())
    assert (result["model_id"], result["tokenizer_id"]) == ("tiny", "org/Tiny")


def test_words_that_are_no_flags_are_refused(here):
    done = CliRunner().invoke(app, ["calibrate", "bench", "--model", "m", "quick"])
    assert done.exit_code == 2
    assert "read 'quick'; flags of `vllm serve` begin with -" in done.stderr


def test_no_vllm_is_the_users_to_repair(here):
    with pytest.raises(InputError, match="pip install 'simlab"):
        invoke("--model", "m", "--vllm", "no-such-vllm")


def test_the_client_is_told_what_the_server_was_told_of_the_tokenizer():
    flags = ("--tokenizer", "tok", "--trust-remote-code", "--tokenizer-mode=slow", "--host", "0.0.0.0")
    from simlab.calibrate.run import Load

    words = Client(("vllm",), "http://x", "name", "model", flags).command(Load(requests=4, prompt_tokens=8), 1, None)
    assert words[words.index("--tokenizer") + 1] == "tok"
    assert words[words.index("--tokenizer-mode") + 1] == "slow"
    assert "--trust-remote-code" in words
    assert "--save-result" not in words


def test_vllm_reports_its_use_only_where_the_user_wants_it(monkeypatch):
    monkeypatch.delenv("VLLM_NO_USAGE_STATS", raising=False)
    assert environment()["VLLM_NO_USAGE_STATS"] == "1"
    monkeypatch.setenv("VLLM_NO_USAGE_STATS", "0")
    assert environment()["VLLM_NO_USAGE_STATS"] == "0"


@pytest.mark.parametrize(
    ("model", "name"),
    [("meta-llama/Llama-3.1-8B", "llama-3.1-8b"), ("models/tiny/", "tiny"), (".", "model"), ("/", "model")],
)
def test_the_default_folder(model, name):
    assert default_name(model) == name
