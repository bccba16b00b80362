"""Every real file of measurements at hand is read whole, and gives what its own summaries say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from simlab.calibrate import ServerHints, read_runs
from simlab.calibrate.read import read_measurements

CPU = ServerHints(gpu="cpu", model="tiny")


def test_detailed_results_give_their_own_summary(shared_data: Path) -> None:
    folder = shared_data / "vllm-cpu" / "results"
    runs = {run.name: run for run in read_runs([folder], server=CPU)}
    assert set(runs) == {path.stem for path in folder.glob("*.json")}
    assert {run.server.precision for run in runs.values()} == {"fp32"}
    for name, run in runs.items():
        data = json.loads((folder / f"{name}.json").read_text())
        if run.requests is None:
            continue
        assert len(run.requests.ttft_s) == data["completed"]
        for metric, field in {
            "ttft_s_p99": "p99_ttft_ms", "itl_s_mean": "mean_itl_ms", "tpot_s_mean": "mean_tpot_ms",
            "e2e_s_mean": "mean_e2el_ms",
        }.items():  # fmt: skip
            assert run.measured[metric] * 1e3 == pytest.approx(data[field], rel=1e-9)
        assert run.measured["output_tokens_per_s"] == pytest.approx(data["output_throughput"], rel=1e-9)
    points = {name: run.load.point for name, run in runs.items() if run.load}
    assert points["A-i384-o64-rr0.6-c8"] == "i384-o64-c8-l0.4-1.6"
    assert points["A-prefix512-i128-o32-r2"] == "i640-o32-r2-p512x1"
    assert points["A-prefixrep-5x768+128-o32-c4"] == "i896-o32-c4-p768x5"
    assert points["A-i128-o64-r3-burst0.5"] == "i128-o64-r3-b0.5"
    assert points["A-i128-o64-inf"] == "i128-o64-n200"
    assert points["lat-i128-o64-b16"] == "i128-o64-n16"
    assert runs["thr-i512-o128-n64"].server.max_num_batched_tokens == 2048


def test_a_whole_folder_is_read_once(shared_data: Path) -> None:
    folder = shared_data / "vllm-cpu"
    read = read_measurements([folder], server=CPU)
    results, steps = len(list(folder.glob("results/*.json"))), len(list(folder.glob("server_side/*.iterations.csv.gz")))
    assert len(read.runs) == results + steps + 1  # and a scrape
    assert len({run.server.setup for run in read.runs}) == 1
    assert sum("the same run as" in line for line in read.skipped) == len(pd.read_csv(folder / "runs.csv"))


def test_a_table_of_the_runs_drives_them_alike(shared_data: Path) -> None:
    results = {run.name: run for run in read_runs([shared_data / "vllm-cpu" / "results"], server=CPU)}
    for row in read_runs([shared_data / "vllm-cpu" / "runs.csv"], server=CPU):
        own = results[row.name]
        assert row.load == own.load, row.name
        assert dict(row.measured) == pytest.approx({name: own.measured[name] for name in row.measured}, rel=1e-3)


def test_iterations_hold_every_token_of_their_run(shared_data: Path) -> None:
    for name in ("A-i1024-o32-c16", "C-i512-o128-c16"):
        (steps,) = read_runs([shared_data / "vllm-cpu" / "server_side" / f"{name}.iterations.csv.gz"], server=CPU)
        (run,) = read_runs([shared_data / "vllm-cpu" / "results" / f"{name}.json"], server=CPU)
        assert steps.steps is not None
        assert run.requests is not None
        made = steps.steps.decode_requests.sum() + len(run.requests.ttft_s)
        # A preempted request makes the token of its prefill again.
        assert run.requests.output_tokens.sum() == pytest.approx(made, rel=0.002)
        assert steps.steps.seconds.sum() < run.requests.start_s.max() + run.requests.e2e_s.max()


def test_the_silicon_table(shared_data: Path) -> None:
    path = shared_data / "vllm_infx_silicon" / "vllm_agg.csv"
    table, runs = pd.read_csv(path), read_runs([path])
    assert [run.name for run in runs] == list(table["id"])
    np.testing.assert_allclose([run.measured["ttft_s_mean"] for run in runs], table["ttft_ms"] / 1e3)
    np.testing.assert_allclose([run.measured["tpot_s_mean"] for run in runs], table["tpot_ms"] / 1e3)
    assert {run.server.model for run in runs} == {
        "minimax-m2.5", "llama-3.1-70b", "gpt-oss-120b", "kimi-k2.5", "qwen3-32b", "qwen3-235b-a22b",
    }  # fmt: skip
    assert {run.server.gpu for run in runs} == {"b200-sxm", "h100-sxm", "h200-sxm", "b300-sxm"}
    assert all(run.load and run.load.concurrency for run in runs)
    assert all(run.server.tp * run.server.dp == gpus for run, gpus in zip(runs, table["num_gpus"], strict=True))
    assert read_measurements([path.parent]).skipped[0].endswith("rows are left out: not vLLM")


def test_step_times(shared_data: Path) -> None:
    folder = shared_data / "vllm_step_times"
    log, runs = pd.read_csv(folder / "steps.csv.gz"), read_runs([folder])
    assert [run.name for run in runs] == list(dict.fromkeys(log["config_id"]))
    assert sum(len(run.steps.seconds) for run in runs if run.steps) == len(log)
    assert sum(run.steps.seconds.sum() for run in runs if run.steps) == pytest.approx(log["latency_ms"].sum() / 1e3)
    assert {run.server.max_num_batched_tokens for run in runs} == {8192}
    assert {(run.server.max_num_seqs, run.server.gpu) for run in runs} == {(128, "b300-sxm")}
    assert "deepseek-v4-flash.b300-sxm.tp2.dp2.ep.bf16" in {run.server.setup for run in runs}


def test_request_logs_agree_with_the_summary_beside_them(shared_data: Path) -> None:
    folder = shared_data / "llmd_lmbench"
    summary = pd.read_csv(folder / "summary.csv")
    runs = read_runs([folder / "requests.csv.gz"])
    assert len(runs) == len(summary)
    rows = {f"{row.config_id}-{row.workload}-{row.qps}": row for row in summary.itertuples()}
    assert sum(len(run.requests.ttft_s) for run in runs if run.requests) == summary["n_requests"].sum()
    for run in runs:
        row = rows[run.name]
        assert any("is not in the log" in note for note in run.notes)
        assert (run.server.tp, run.server.replicas, run.load and run.load.rate_rps) == (row.tp, row.replicas, row.qps)
        for metric, said in {
            "ttft_s_mean": row.ttft_mean_s, "ttft_s_p50": row.ttft_p50_s, "ttft_s_p99": row.ttft_p99_s,
            "tpot_s_mean": row.tpot_mean_ms / 1e3, "output_tokens_per_s": row.output_tok_per_s,
        }.items():  # fmt: skip
            rounding = 0.051 if metric == "output_tokens_per_s" else 1e-4
            assert run.measured[metric] == pytest.approx(said, rel=2e-3, abs=rounding), (run.name, metric)
    whole = read_measurements([folder])
    assert sum("the same run as" in line for line in whole.skipped) > 0.9 * len(summary)


def test_logs_of_another_tool(shared_data: Path) -> None:
    runs = read_runs([shared_data / "llmservingsim_vllm_runs"])
    assert [run.server.gpu for run in runs] == ["rtx-pro-6000", "rtx-pro-6000", "rtx-4090"]
    assert (runs[2].server.kv_blocks, runs[2].server.block_size) == (41408 // 16, 16)
    assert all(run.requests and run.requests.queue_s is not None for run in runs)


def test_tables_of_other_sources(shared_data: Path) -> None:
    long = read_runs([shared_data / "vllm_infx_long_context_h200"])
    assert {run.server.setup for run in long} == {
        "minimax-m2.5.h200-sxm.tp1.dp8.ep.fp8", "minimax-m2.5.h200-sxm.tp8.ep.fp8",
    }  # fmt: skip
    assert all({"ttft_s_p50", "ttft_s_p99", "output_tokens_per_s"} <= run.measured.keys() for run in long)
    dstack = read_runs([shared_data / "dstack_benchmarks"])
    table = pd.read_csv(shared_data / "dstack_benchmarks" / "offline_throughput_405b_h100_mi300x.csv")
    offline = [run for run in dstack if run.measured.keys() == {"output_tokens_per_s"}]
    assert len(offline) == len(table)
    share = table["output_len"] / (table["input_len"] + table["output_len"])
    np.testing.assert_allclose(
        [run.measured["output_tokens_per_s"] for run in offline], table["tokens_per_second"] * share, rtol=1e-4
    )


def test_what_holds_no_measurements_is_passed_over(shared_data: Path) -> None:
    folders = ["vllm_infx_long_context_h200", "gpu_hourly_prices", "trace_azure_llm_2023", "op_profiles_vidur"]
    read = read_measurements([shared_data / folder for folder in folders])
    assert {Path(run.where.split(":")[0]).parent.name for run in read.runs} == {"vllm_infx_long_context_h200"}
