"""Offline benches of vLLM, GuideLLM's reports and scrapes of ``/metrics``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_files import GPU, bench_serve, complaints, without, write

from simlab.calibrate import ServerHints, read_runs
from simlab.calibrate.read import read_measurements

LATENCY = {"model_id": "meta-llama/Llama-3.1-8B", "avg_latency": 0.5, "latencies": [0.4, 0.6], "percentiles": {}}
THROUGHPUT = {
    "model_id": "meta-llama/Llama-3.1-8B", "elapsed_time": 2.0, "num_requests": 10, "total_num_tokens": 1600,
    "requests_per_second": 5.0, "tokens_per_second": 800.0,
}  # fmt: skip
LATENCY_COMMAND = "vllm bench latency --input-len 128 --output-len 32 --batch-size 4 --dtype float32 --max-num-seqs 64"
THROUGHPUT_COMMAND = "vllm bench throughput --random-input-len 128 --random-output-len 32 -tp 2"


def test_an_offline_latency_result_is_a_batch_at_once(tmp_path: Path) -> None:
    path = write(tmp_path / "lat.json", LATENCY)
    write(tmp_path / "lat.metrics.json", {"command": LATENCY_COMMAND})
    (run,) = read_runs([path], server=GPU)
    assert run.load is not None
    assert run.load.point == "i128-o32-n4"
    assert dict(run.measured) == pytest.approx({"e2e_s_mean": 0.5, "output_tokens_per_s": 4 * 32 / 0.5})
    assert (run.server.precision, run.server.max_num_seqs) == ("fp32", 64)
    assert "no HTTP: requests go straight to the engine" in run.notes


def test_an_offline_throughput_result_is_all_requests_at_once(tmp_path: Path) -> None:
    path = write(tmp_path / "thr.json", THROUGHPUT)
    write(tmp_path / "thr.metrics.json", {"command": THROUGHPUT_COMMAND})
    (run,) = read_runs([path], server=GPU)
    assert run.load is not None
    assert (run.load.point, run.server.tp) == ("i128-o32-n10", 2)
    assert dict(run.measured) == pytest.approx({"output_tokens_per_s": 160.0})


def test_offline_results_without_their_command_are_passed_over(tmp_path: Path) -> None:
    lat, thr = write(tmp_path / "lat.json", LATENCY), write(tmp_path / "thr.json", THROUGHPUT)
    assert complaints(lat, thr) == [
        "lat.json: says nothing of lengths; put lat.metrics.json with its command (--input-len, --output-len and "
        "--batch-size) beside it",
        "thr.json: says nothing of lengths; put thr.metrics.json with its command (--random-input-len and "
        "--random-output-len) beside it",
    ]
    other = write(tmp_path / "a.json", bench_serve())
    read = read_measurements([lat, thr, other], server=GPU)
    assert [run.name for run in read.runs] == ["a"]
    assert len(read.skipped) == 2


@pytest.mark.parametrize(
    ("data", "command", "changed", "message"),
    [
        (LATENCY, LATENCY_COMMAND, {"avg_latency": 500.0},
         "avg_latency: read 500, but the mean of latencies is 0.5; one is in s and the other in ms"),
        (LATENCY, LATENCY_COMMAND, {"avg_latency": 0.0}, "avg_latency: read 0; allowed: seconds above 0"),
        (THROUGHPUT, THROUGHPUT_COMMAND, {"num_requests": 0}, "num_requests: no request was run"),
        (THROUGHPUT, THROUGHPUT_COMMAND, {"elapsed_time": 0}, "elapsed_time: read 0; allowed: seconds above 0"),
        (THROUGHPUT, THROUGHPUT_COMMAND, {"tokens_per_second": 8.0},
         "tokens_per_second: read 8, but 1600 tokens in 2 s are 800"),
        (THROUGHPUT, THROUGHPUT_COMMAND, {"total_num_tokens": 16000, "tokens_per_second": 8000},
         "total_num_tokens: read 16000, but 10 requests of 128 and 32 tokens have 1600; is this the command of"),
    ],
)  # fmt: skip
def test_wrong_offline_results(
    tmp_path: Path, data: dict[str, Any], command: str, changed: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "a.json", {**data, **changed})
    write(tmp_path / "a.metrics.json", {"command": command})
    found = complaints(path)
    assert len(found) == 1
    assert found[0].startswith(f"a.json: {message}"), found[0]


def distribution(values: list[float], weights: list[float] | None = None) -> dict[str, Any]:
    return {
        "successful": {
            "mean": float(np.average(values, weights=weights)),
            "count": len(values),
            "percentiles": {"p50": float(np.percentile(values, 50)), "p99": float(np.percentile(values, 99))},
        }
    }


def guidellm(
    strategy: dict[str, Any], *, n: int = 5, kept: int = 5, errored: int = 0, old: bool = False
) -> dict[str, Any]:
    """A report of GuideLLM, of today's form or that of 0.3."""
    rng = np.random.default_rng(n)
    prompt, output = [float(x) for x in rng.integers(60, 70, n)], [float(x) for x in rng.integers(5, 30, n)]
    ttft, itl = [float(x) for x in rng.uniform(40, 60, n)], [float(x) for x in rng.uniform(8, 12, n)]
    latency = [(t + i * (o - 1)) / 1e3 for t, i, o in zip(ttft, itl, output, strict=True)]
    start = [1_795_273_586.5 + 0.1 * i for i in range(n)]
    duration = max(s + e for s, e in zip(start, latency, strict=True)) - start[0]
    requests = [
        {
            ("start_time" if old else "request_start_time"): start[i], "prompt_tokens": int(prompt[i]),
            "output_tokens": int(output[i]), "time_to_first_token_ms": ttft[i], "inter_token_latency_ms": itl[i],
            "request_latency": latency[i],
        }
        for i in range(kept)
    ]  # fmt: skip
    metrics: dict[str, Any] = {
        "request_latency": distribution(latency),
        "prompt_token_count": distribution(prompt),
        "output_token_count": distribution(output),
        "time_to_first_token_ms": distribution(ttft),
        "inter_token_latency_ms": distribution(itl, [o - 1 for o in output]),
        "output_tokens_per_second": distribution([sum(output) / duration]),
    }
    counts = {"successful": n, "errored": errored, "incomplete": 0, "total": n + errored}
    common = {
        "metrics": metrics,
        "requests": {"successful": requests[::-1]},
        "start_time": start[0],
        "duration": duration,
    }
    if old:
        worker, args = {"backend_model": "meta-llama/Llama-3.1-8B"}, {"strategy": strategy}
        return {"benchmarks": [{"args": args, "worker": worker, "run_stats": {"requests_made": counts}, **common}]}
    metrics["request_totals"] = counts
    backend = {"kind": "openai_http", "model": "meta-llama/Llama-3.1-8B"}
    one = {"type_": "generative_benchmark", "config": {"strategy": strategy, "backend": backend}, **common}
    return {"metadata": {"version": 2}, "benchmarks": [one]}


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    ("strategy", "concurrency", "rate", "burstiness"),
    [
        ({"type_": "synchronous"}, 1, math.inf, 1.0),
        ({"type_": "concurrent", "streams": 3}, 3, math.inf, 1.0),
        ({"type_": "throughput", "max_concurrency": 8}, 8, math.inf, 1.0),
        ({"type_": "throughput", "max_concurrency": None}, None, math.inf, 1.0),
        ({"type_": "poisson", "rate": 2.5, "max_concurrency": 10240}, None, 2.5, 1.0),
        ({"type_": "constant", "rate": 2.5}, None, 2.5, math.inf),
    ],
)
def test_every_strategy_of_guidellm(
    tmp_path: Path, old: bool, strategy: dict[str, Any], concurrency: int | None, rate: float, burstiness: float
) -> None:
    data = guidellm(strategy, old=old)
    (run,) = read_runs([write(tmp_path / "report.json", data)], server=GPU)
    assert run.load is not None
    assert (run.load.concurrency, run.load.rate_rps, run.load.burstiness) == (concurrency, rate, burstiness)
    assert (run.name, run.server.model, run.date) == ("report#1", "llama-3.1-8b", "2026-11-21")
    metrics = data["benchmarks"][0]["metrics"]
    assert run.requests is not None
    assert run.requests.start_s[0] == 0.0
    expected = {
        "ttft_s_mean": metrics["time_to_first_token_ms"]["successful"]["mean"] / 1e3,
        "ttft_s_p99": metrics["time_to_first_token_ms"]["successful"]["percentiles"]["p99"] / 1e3,
        "itl_s_mean": metrics["inter_token_latency_ms"]["successful"]["mean"] / 1e3,
        "e2e_s_mean": metrics["request_latency"]["successful"]["mean"],
        "output_tokens_per_s": metrics["output_tokens_per_second"]["successful"]["mean"],
    }
    assert {name: run.measured[name] for name in expected} == pytest.approx(expected)


def test_a_sample_of_requests_is_not_taken_for_all_of_them(tmp_path: Path) -> None:
    data = guidellm({"type_": "concurrent", "streams": 3}, kept=3, errored=2)
    (run,) = read_runs([write(tmp_path / "report.json", data)], server=GPU)
    assert run.requests is None
    assert (run.failed, run.load and run.load.requests) == (2, 7)
    assert "tpot_s_mean" not in run.measured
    assert "2 of 7 requests failed or were cut off" in run.notes


def test_wrong_reports_of_guidellm(tmp_path: Path) -> None:
    data = guidellm({"type_": "concurrent"})
    data["benchmarks"] += guidellm({"type_": "poisson", "rate": 1.0}, n=4, kept=4)["benchmarks"]
    data["benchmarks"] += guidellm({"type_": "synchronous"})["benchmarks"]
    data["benchmarks"][1]["metrics"]["time_to_first_token_ms"]["successful"]["mean"] /= 1e3
    data["benchmarks"][2]["metrics"]["request_totals"]["successful"] = 0
    found = complaints(write(tmp_path / "report.json", data))
    assert found[0] == (
        "report.json: benchmarks[0]: strategy: read concurrent; allowed: synchronous, concurrent with streams, "
        "throughput, constant or poisson with a rate"
    )
    assert found[1].startswith("report.json: benchmarks[1]: metrics.time_to_first_token_ms: read ")
    assert "one is in s and the other in ms; the file was changed" in found[1]
    assert found[2].startswith("report.json: benchmarks[2]: metrics.request_totals: no request completed")
    assert len(found) == 3
    assert complaints(write(tmp_path / "empty.json", {"benchmarks": []})) == [
        "empty.json: benchmarks: is empty: no benchmark completed; run GuideLLM again"
    ]


SCRAPE = """# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="tiny"} 2.0
vllm:cache_config_info{block_size="128",cache_dtype="auto",enable_prefix_caching="True",num_gpu_blocks="1024"} 1.0
vllm:time_to_first_token_seconds_bucket{le="0.5",model_name="tiny"} 4.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="tiny"} 3.0
vllm:time_to_first_token_seconds_count{engine="1",model_name="tiny"} 1.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="tiny"} 0.3
vllm:time_to_first_token_seconds_sum{engine="1",model_name="tiny"} 0.1
vllm:e2e_request_latency_seconds_count{model_name="tiny"} 4.0
vllm:e2e_request_latency_seconds_sum{model_name="tiny"} 4.0
vllm:time_per_output_token_seconds_count{model_name="tiny"} 100.0
vllm:time_per_output_token_seconds_sum{model_name="tiny"} 3.0
"""


def test_a_scrape_gives_limits_and_means_over_all_engines(tmp_path: Path) -> None:
    (run,) = read_runs([write(tmp_path / "metrics.txt", SCRAPE)], server=GPU)
    server = run.server
    assert (server.model, server.kv_blocks, server.block_size, server.prefix_caching) == ("tiny", 1024, 128, True)
    assert server.kv_precision is None
    assert run.load is None
    assert dict(run.measured) == pytest.approx({"ttft_s_mean": 0.1, "itl_s_mean": 0.03, "e2e_s_mean": 1.0})


def test_wrong_scrapes(tmp_path: Path) -> None:
    idle = "\n".join(line for line in SCRAPE.splitlines() if "seconds" not in line)
    assert complaints(write(tmp_path / "idle.txt", idle)) == [
        "idle.txt: a scrape of a server that has not answered any request yet"
    ]
    cut = SCRAPE[: SCRAPE.rindex(" 3.0")]
    assert complaints(write(tmp_path / "cut.txt", cut)) == [
        "cut.txt:12: read 'vllm:time_per_output_token_seconds_sum{model_name=\"tiny\"}'; allowed: name, labels and a "
        "number"
    ]
    two = SCRAPE + 'vllm:num_requests_running{model_name="other"} 2.0\n'
    assert complaints(write(tmp_path / "two.txt", two)) == [
        "two.txt: model_name: has other, tiny; scrape one server at a time"
    ]


def test_a_precision_that_others_state_is_not_assumed(tmp_path: Path) -> None:
    write(tmp_path / "lat.json", LATENCY | {"model_id": "tiny"})
    write(tmp_path / "lat.metrics.json", {"command": LATENCY_COMMAND})
    write(tmp_path / "a.json", bench_serve(model_id="tiny"))
    assert {run.server.precision for run in read_runs([tmp_path], server=GPU)} == {"fp32"}
    (alone,) = read_runs([tmp_path / "a.json"], server=GPU)
    assert alone.server.precision == "bf16"
    assert "precision bf16 is assumed" in alone.notes
    (told,) = read_runs([tmp_path / "a.json"], server=ServerHints(gpu="h100", precision="half"))
    assert (told.server.precision, told.notes) == ("bf16", ())


def test_a_request_without_times_between_tokens_has_none(tmp_path: Path) -> None:
    data = bench_serve(3, output_lens=[1, 1, 1], itls=[[], [], []], total_output_tokens=3)
    data |= {"latencies": data["ttfts"], "output_throughput": 3 / data["duration"]}
    data = without(data, *[name for name in data if "_itl_" in name or "_tpot_" in name or "_e2el_" in name])
    (run,) = read_runs([write(tmp_path / "a.json", data)], server=GPU)
    assert "itl_s_mean" not in run.measured
    assert "tpot_s_mean" not in run.measured
    assert run.measured["e2e_s_mean"] == run.measured["ttft_s_mean"]
