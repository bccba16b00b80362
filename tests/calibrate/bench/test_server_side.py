"""What is asked of a server, its log and its machine."""

from __future__ import annotations

import doctest
import gzip
import shlex
from importlib import import_module

import pytest

from simlab.calibrate.bench.facts import Facts, guessed
from simlab.calibrate.bench.limits import Limits, defaults, limits
from simlab.calibrate.bench.machine import GpuCard, gpu_cards
from simlab.calibrate.bench.scrape import scrape
from simlab.calibrate.bench.startup import phases
from simlab.calibrate.bench.steplog import COLUMNS, steps, write_steps

MODULES = ["flags", "limits", "plan", "scrape", "startup", "steplog"]

GIB = 2**30


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    outcome = doctest.testmod(import_module(f"simlab.calibrate.bench.{name}"))
    assert outcome.attempted > 0
    assert outcome.failed == 0


def test_phases_of_a_start_on_a_gpu():
    log = """
(Worker pid=9) INFO 11-21 06:40:50 [default_loader.py:502] Loading weights took 12.25 seconds
(Worker pid=10) INFO 11-21 06:40:51 [default_loader.py:502] Loading weights took 13.75 seconds
(Worker pid=9) INFO 11-21 06:40:52 [gpu_model_runner.py:5150] Model loading took 14.99 GiB memory and 15.250000 seconds
(Worker pid=9) INFO 11-21 06:41:10 [monitor.py:20] [backbone] torch.compile took 21.30 s in total
(Worker pid=9) INFO 11-21 06:41:15 [gpu_model_runner.py:6582] Graph capturing finished in 18 secs, took 0.61 GiB
(EngineCore pid=8) INFO 11-21 06:41:19 [core.py:402] init engine (profile, create kv cache, warmup model) took 45.03 s
"""
    assert phases(log) == {
        "weights_loaded_s": 13.75,
        "model_loaded_s": 15.25,
        "compiled_s": 21.3,
        "graphs_captured_s": 18.0,
        "engine_ready_s": 45.03,
    }


def test_phases_of_a_real_start(shared_data):
    log = gzip.decompress((shared_data / "vllm-cpu" / "server-A.log.gz").read_bytes()).decode()
    assert phases(log) == {"model_initialised_s": 0.154536, "engine_ready_s": 29.03}
    known = limits(["--max-num-seqs", "64"], log=log)
    assert (known.max_num_seqs, known.max_num_batched_tokens) == (64, 2048)
    assert known.told_by == {"max_num_seqs": "flags", "max_num_batched_tokens": "vLLM's default"}  # it runs on a CPU


def test_a_real_scrape(shared_data):
    found = scrape((shared_data / "vllm-cpu" / "metrics-under-load.prom.txt").read_text())
    assert found.cache_config["num_gpu_blocks"] == "1024"
    assert found.counters['vllm:request_success_total{finished_reason="length"}'] > 0
    assert not any(name.startswith("vllm:num_requests_running") for name in found.counters)  # a gauge has no growth
    assert found.since(found) == {}
    known = limits([], cache_config=found.cache_config)
    assert (known.kv_blocks, known.block_size, known.kv_tokens, known.prefix_caching) == (1024, 128, 131072, True)


def test_flags_go_before_the_log_and_the_log_before_defaults():
    card = GpuCard("NVIDIA H100 80GB HBM3", "570.1", 80 * GIB)
    log = "INFO Chunked prefill is enabled with max_num_batched_tokens=4096."
    bare = limits([], cards=[card])
    assert (bare.max_num_seqs, bare.max_num_batched_tokens) == (1024, 8192)
    assert limits([], log=log, cards=[card]).max_num_batched_tokens == 4096
    told = limits(["--max-num-batched-tokens", "512"], log=log, cards=[card])
    assert (told.max_num_batched_tokens, told.told_by["max_num_batched_tokens"]) == (512, "flags")


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """A machine with an H100 and an A100, as its driver tells of them."""
    program = tmp_path / "nvidia-smi"
    lines = "NVIDIA H100 80GB HBM3, 570.86.10, 81559\nNVIDIA A100-SXM4-80GB, 570.86.10, 81920\nN/A, N/A, [N/A]\n"
    program.write_text(f"#!/bin/sh\ncat <<END\n{lines}END\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_the_gpus_of_a_machine(driver, monkeypatch):
    both = gpu_cards()
    assert both[0] == GpuCard("NVIDIA H100 80GB HBM3", "570.86.10", 81559 * 2**20)
    assert [card.name for card in both] == ["NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert gpu_cards() == both[1:]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8e7c")
    assert gpu_cards() == both


def test_the_driver_names_the_gpu_unless_the_user_does(driver):
    assert guessed("Qwen/Qwen3-8B", (), None, here=True).server.setup == "qwen3-8b.h100-sxm.tp1.bf16"
    assert guessed("Qwen/Qwen3-8B", (), "l40s", here=True).server.gpu == "l40s"
    assert guessed("Qwen/Qwen3-8B", (), None, here=False).server.gpu == "unknown"


def test_no_driver_no_gpus(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_cards() == []


@pytest.mark.parametrize(
    ("name", "memory_gib", "expected"),
    [
        ("NVIDIA B200", 179, (1024, 16384)),
        ("NVIDIA H200", 140, (1024, 8192)),
        ("NVIDIA A100-SXM4-80GB", 80, (256, 2048)),
        ("NVIDIA L40S", 45, (256, 2048)),
    ],
)
def test_vllms_defaults(name, memory_gib, expected):
    assert defaults([GpuCard(name, "", memory_gib * GIB)], "cuda", 1) == expected


def test_nothing_is_made_up_where_nothing_is_known():
    assert limits([]) == Limits()
    assert defaults([], None, 1) == (None, None)
    assert defaults([], "cpu", 2) == (256, 4096)


def test_steps_of_a_log(tmp_path):
    line = (
        "(APIServer pid=1) INFO 11-21 06:24:25 [loggers.py:199] Engine 000: Iteration({}): 1 context requests, 128 "
        "context tokens, 3 generation requests, 3 generation tokens, iteration elapsed time: {} ms{}, "
        "GPU KV cache usage: 0.1%"
    )
    log = "\n".join([line.format(7, "79.85", ""), "INFO something else", line.format(8, "1.00", " (dummy)")])
    rows = steps(log)
    assert rows == [("7", "23065", "1", "128", "3", "3", "79.85", "0.1")]  # a dummy step is no step
    path = tmp_path / "x.iterations.csv.gz"
    write_steps(rows, path)
    assert gzip.decompress(path.read_bytes()).decode() == ",".join(COLUMNS) + "\n" + ",".join(rows[0]) + "\n"


@pytest.mark.parametrize(
    ("model", "flags", "setup"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", (), "llama-3.1-8b.h100-sxm.tp1.bf16"),
        ("RedHatAI/Meta-Llama-3.1-70B-Instruct-FP8", ("-tp", "4"), "meta-llama-3.1-70b-instruct.h100-sxm.tp4.fp8"),
        ("Qwen/Qwen3-8B", ("--quantization", "fp8", "--dtype", "auto"), "qwen3-8b.h100-sxm.tp1.fp8"),
        ("./tiny-llama", ("--dtype=float32",), "tiny-llama.h100-sxm.tp1.fp32"),
        (
            "deepseek-ai/DeepSeek-R1", ("--data-parallel-size", "8", "--enable-expert-parallel"),
            "deepseek-r1.h100-sxm.tp1.dp8.ep.fp8",
        ),
    ],
)  # fmt: skip
def test_the_set_up_is_named_as_a_profile(model, flags, setup):
    facts = guessed(model, flags, "NVIDIA H100 80GB HBM3", here=False)
    assert facts.server.setup == setup


def test_the_fit_is_told_all_that_is_known():
    facts = Facts(
        model="Qwen/Qwen3-8B",
        served="qwen",
        flags=("-tp", "2"),
        vllm="0.32.0",
        gpu="NVIDIA H100 80GB HBM3",
        limits=Limits(1, 256, 8192, 40960, 12345, 16, prefix_caching=False),
    )
    assert shlex.join(facts.fit_command([])) == (
        "simlab calibrate fit --gpu h100-sxm --model qwen3-8b --tp 2 --precision bf16 --engine 'vLLM 0.32.0' "
        "--max-num-seqs 256 --max-num-batched-tokens 8192 --max-model-len 40960 --kv-blocks 12345 --block-size 16 "
        "--no-prefix-caching -o qwen3-8b.h100-sxm.tp2.bf16.json"
    )
    assert facts.told()["gpu"] == "h100-sxm"
    assert "gpu" not in Facts("m", "m", (), "").told()
