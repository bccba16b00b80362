"""Results of ``vllm bench serve``: every form of them gives the same run, and what contradicts is refused."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_files import GPU, bench_serve, complaints, without, write

from simlab.calibrate import Run, ServerHints, read_runs
from simlab.calibrate.read import read_measurements


def read_one(path: Path, hints: ServerHints = GPU) -> Run:
    runs = read_runs([path], server=hints)
    assert len(runs) == 1
    return runs[0]


def test_a_detailed_result_gives_every_request_and_the_metrics_of_its_own_summary(tmp_path: Path) -> None:
    data = bench_serve(seed=3)
    run = read_one(write(tmp_path / "a.json", data))
    assert (run.name, run.where, run.date, run.failed) == ("a", str(tmp_path / "a.json"), "2026-11-21", 0)
    assert run.server.setup == "llama-3.1-8b.h100-sxm.tp1.bf16"
    assert run.load is not None
    assert (run.load.concurrency, run.load.rate_rps, run.load.requests) == (2, math.inf, 6)
    requests = run.requests
    assert requests is not None
    assert requests.itl_s is not None
    np.testing.assert_array_equal(requests.output_tokens, [len(gaps) + 1 for gaps in requests.itl_s])
    np.testing.assert_allclose(requests.ttft_s + [gaps.sum() for gaps in requests.itl_s], requests.e2e_s)
    assert requests.start_s[0] == 0.0
    assert (np.diff(requests.start_s) >= 0.0).all()
    for metric, field in {
        "ttft_s_mean": "mean_ttft_ms", "ttft_s_p50": "median_ttft_ms", "ttft_s_p99": "p99_ttft_ms",
        "itl_s_mean": "mean_itl_ms", "tpot_s_mean": "mean_tpot_ms", "e2e_s_mean": "mean_e2el_ms",
    }.items():  # fmt: skip
        assert run.measured[metric] * 1e3 == pytest.approx(data[field], rel=1e-9)
    assert run.measured["output_tokens_per_s"] == pytest.approx(data["output_throughput"], rel=1e-9)


def test_time_between_tokens_is_over_all_gaps_but_time_per_token_is_over_requests(tmp_path: Path) -> None:
    data = bench_serve(seed=3)
    run = read_one(write(tmp_path / "a.json", data))
    gaps = np.concatenate(data["itls"])
    by_request = [np.mean(itl) for itl in data["itls"]]
    assert run.measured["itl_s_mean"] == pytest.approx(gaps.mean())
    assert run.measured["tpot_s_mean"] == pytest.approx(np.mean(by_request))
    assert gaps.mean() != pytest.approx(np.mean(by_request), rel=1e-4)


def test_a_plain_result_gives_the_same_metrics(tmp_path: Path) -> None:
    detailed = read_one(write(tmp_path / "a.json", bench_serve(seed=3)))
    plain = read_one(write(tmp_path / "b.json", bench_serve(seed=3, detailed=False)))
    assert plain.requests is None
    assert dict(plain.measured) == pytest.approx(dict(detailed.measured))
    assert list(plain.measured) == list(detailed.measured)


def test_a_whole_request_follows_from_a_summary_without_it(tmp_path: Path) -> None:
    data = bench_serve(seed=3, detailed=False)
    less = without(data, *[name for name in data if name.endswith("_e2el_ms")], "output_throughput")
    run = read_one(write(tmp_path / "a.json", less))
    assert run.measured["e2e_s_mean"] * 1e3 == pytest.approx(data["mean_e2el_ms"])
    assert run.measured["output_tokens_per_s"] == pytest.approx(data["output_throughput"])


def test_gzip_and_appended_results_and_lists_are_read_alike(tmp_path: Path) -> None:
    one, two = bench_serve(seed=1), bench_serve(seed=2)
    packed = tmp_path / "packed.json.gz"
    packed.write_bytes(gzip.compress(json.dumps(one).encode()))
    lines = write(tmp_path / "appended.json", json.dumps(one) + "\n" + json.dumps(two))
    listed = write(tmp_path / "summary.json", [one, two])
    for path, names in (
        (packed, ["packed"]),
        (lines, ["appended#1", "appended#2"]),
        (listed, ["summary#1", "summary#2"]),
    ):
        runs = read_runs([path], server=GPU)
        assert [run.name for run in runs] == names
        for run, data in zip(runs, (one, two), strict=False):
            assert run.measured["ttft_s_mean"] * 1e3 == pytest.approx(data["mean_ttft_ms"])
    assert [run.where for run in read_runs([lines], server=GPU)] == [f"{lines}:1", f"{lines}:2"]


def test_lists_of_an_older_version_give_the_rest(tmp_path: Path) -> None:
    data = bench_serve(seed=3)
    run = read_one(write(tmp_path / "a.json", without(data, "latencies", "start_times", "failed", "date")))
    whole = read_one(write(tmp_path / "b.json", data))
    assert run.requests is not None
    assert whole.requests is not None
    np.testing.assert_allclose(run.requests.e2e_s, whole.requests.e2e_s)
    np.testing.assert_allclose(run.requests.start_s, whole.requests.start_s, atol=1e-9)
    assert any("reconstructed" in note for note in run.notes)


def test_times_of_sending_at_a_rate_cannot_be_reconstructed(tmp_path: Path) -> None:
    data = without(bench_serve(rate=4.0, concurrency=None), "start_times")
    run = read_one(write(tmp_path / "a.json", data))
    assert run.requests is not None
    assert np.isnan(run.requests.start_s).all()
    assert "when requests were sent is not in the file" in run.notes


def test_requests_that_failed_are_counted_and_nothing_is_of_them(tmp_path: Path) -> None:
    clean = read_one(write(tmp_path / "a.json", bench_serve(seed=3)))
    run = read_one(write(tmp_path / "b.json", bench_serve(seed=3, failed=3)))
    assert run.failed == 3
    assert run.requests is not None
    assert len(run.requests.ttft_s) == 6
    assert dict(run.measured) == pytest.approx(dict(clean.measured))
    assert "3 of 9 requests failed; nothing here is of them" in run.notes
    assert run.load is not None
    assert run.load.requests == 9


@pytest.mark.parametrize(
    ("written", "concurrency", "rate"),
    [("inf", 2, math.inf), (math.inf, 2, math.inf), (None, 2, math.inf), (2.5, None, 2.5), ("2.5", None, 2.5)],
)
def test_every_way_to_write_a_rate(tmp_path: Path, written: Any, concurrency: int | None, rate: float) -> None:
    run = read_one(write(tmp_path / "a.json", bench_serve(rate=written, concurrency=concurrency)))
    assert run.load is not None
    assert (run.load.rate_rps, run.load.concurrency) == (rate, concurrency)


def with_command(tmp_path: Path, flags: str, **changed: Any) -> Run:
    n = 6
    data = without(bench_serve(n, detailed=False), "mean_e2el_ms") | changed
    write(tmp_path / "results" / "a.json", data)
    write(tmp_path / "server_side" / "a.metrics.json", {"command": f"vllm bench serve --num-prompts {n} {flags}"})
    return read_one(tmp_path / "results" / "a.json")


@pytest.mark.parametrize(
    ("flags", "tokens", "shape"),
    [
        ("--random-input-len 100 --random-output-len 6", (100, 6), (100.0, 6.0, 1.0, 1.0, 0, 1)),
        ("--random-input-len=100 --random-output-len=6 --random-prefix-len 64", (164, 6), (164.0, 6.0, 1, 1, 64, 1)),
        ("--random-input-len 100 --random-output-len 6 --random-range-ratio 0.5", (100, 6), (100, 6, 0.5, 1.5, 0, 1)),
        # Until 0.8, the ratio was the smallest share: the mean is half-way between it and 1.
        ("--random-input-len 100 --random-output-len 6 --random-range-ratio 0.8", (90, 5.4), (100, 6, 0.8, 1, 0, 1)),
        (
            "--dataset-name prefix_repetition --prefix-repetition-num-prefixes 5 --prefix-repetition-prefix-len 96",
            (128, 6),
            (128.0, 6.0, 1.0, 1.0, 96, 5),
        ),
        ("--dataset-name prefix_repetition", (512, 6), (512.0, 6.0, 1.0, 1.0, 256, 10)),
    ],
)
def test_the_command_beside_a_result_says_what_was_asked_for(
    tmp_path: Path, flags: str, tokens: tuple[float, float], shape: tuple[float, ...]
) -> None:
    totals = {"total_input_tokens": round(tokens[0] * 6), "total_output_tokens": round(tokens[1] * 6)}
    rate = totals["total_output_tokens"] / bench_serve(6)["duration"]
    load = with_command(tmp_path, flags, **totals, output_throughput=rate).load
    assert load is not None
    found = (load.prompt_tokens, load.output_tokens, load.low, load.high, load.shared_tokens, load.shared_kinds)
    assert found == pytest.approx(shape, rel=0.02)


def test_a_prefix_can_be_a_hint_and_must_agree_with_the_command(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", bench_serve())
    load = read_one(path, ServerHints(gpu="h100", prefix="64x3")).load
    assert load is not None
    assert (load.shared_tokens, load.shared_kinds) == (64, 3)
    assert complaints(path, hints=ServerHints(gpu="h100", prefix="512")) == [
        "a.json: --prefix: 512 tokens of each prompt are said to be shared, but prompts have 98; correct it"
    ]
    write(tmp_path / "a.metrics.json", {"command": "vllm bench serve --random-prefix-len 64"})
    assert complaints(path, hints=ServerHints(gpu="h100", prefix="64x3")) == [
        "a.metrics.json: command: says 64x1, but --prefix says 64x3; leave out the flag or the file"
    ]


def test_what_lies_beside_tells_of_the_server(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", bench_serve())
    command = "vllm serve m --tensor-parallel-size 2 --max-num-seqs=64 --no-enable-prefix-caching --dtype bfloat16"
    write(tmp_path / "a.metrics.json", {"server_command": command, "server": {"gpu": "h200", "engine": "vLLM 0.32"}})
    cache = 'vllm:cache_config_info{block_size="16",num_gpu_blocks="2048",cache_dtype="fp8"} 1.0\n'
    write(tmp_path / "a.metrics.txt", cache)
    server = read_one(path, ServerHints()).server
    assert server.setup == "llama-3.1-8b.h200-sxm.tp2.bf16"
    assert (server.max_num_seqs, server.prefix_caching, server.engine) == (64, False, "vLLM 0.32")
    assert (server.kv_blocks, server.block_size, server.kv_precision) == (2048, 16, "fp8")


def test_metadata_and_a_sweep_put_flags_into_the_result(tmp_path: Path) -> None:
    extra = {"tp": "4", "gpu": "B200", "max_num_seqs": 32, "random_prefix_len": 32, "random_input_len": 66}
    data = bench_serve(**extra, random_output_len=6)
    run = read_one(write(tmp_path / "a.json", data), ServerHints())
    assert run.server.setup == "llama-3.1-8b.b200-sxm.tp4.bf16"
    assert run.server.max_num_seqs == 32
    assert run.load is not None
    assert (run.load.shared_tokens, run.load.prompt_tokens) == (32, 98.0)


def test_a_sweep_is_read_once(tmp_path: Path) -> None:
    combination = tmp_path / "20261121" / "SERVE--max_num_seqs=8-BENCH--max_concurrency=2"
    runs = [bench_serve(seed=i, detailed=False, max_num_seqs=8, run_number=i) for i in range(2)]
    for i, data in enumerate(runs):
        write(combination / f"run={i}.json", data)
    write(combination / "warmup.json", bench_serve(seed=9, detailed=False, run_number=-1))
    write(combination / "summary.json", runs)
    header = list(runs[0])
    rows = [",".join(str(data[name]) if data[name] is not None else "" for name in header) for data in runs]
    write(tmp_path / "20261121" / "summary.csv", "\n".join([",".join(["", *header]), *(f"0,{row}" for row in rows)]))
    write(combination / "run=7.failure.json", {"run_number": 7, "error": "no"})
    read = read_measurements([tmp_path], server=GPU)
    assert [run.name for run in read.runs] == ["run=0", "run=1"]
    assert [run.server.max_num_seqs for run in read.runs] == [8, 8]
    reasons = sorted({line.rsplit(": ", 1)[1] for line in read.skipped})
    assert reasons == ["no measurements", "the same run as run=0", "the same run as run=1", "the warm-up of a sweep"]


def test_the_same_name_in_two_folders_is_told_apart(tmp_path: Path) -> None:
    for folder, seed in (("one", 1), ("two", 2)):
        write(tmp_path / folder / "run=0.json", bench_serve(seed=seed))
    assert [run.name for run in read_runs([tmp_path], server=GPU)] == ["one/run=0", "two/run=0"]


def test_a_file_given_twice_is_read_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", bench_serve())
    assert len(read_runs([path, path, tmp_path], server=GPU)) == 1


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 12), concurrency=st.integers(1, 5), failed=st.integers(0, 3))
def test_whatever_the_requests_detail_and_summary_agree(
    tmp_path_factory: pytest.TempPathFactory, seed: int, n: int, concurrency: int, failed: int
) -> None:
    folder = tmp_path_factory.mktemp("any")
    data = bench_serve(n, seed=seed, concurrency=concurrency, failed=failed)
    run = read_one(write(folder / "a.json", data))
    assert run.failed == failed
    assert run.measured["ttft_s_p99"] * 1e3 == pytest.approx(data["p99_ttft_ms"])
    assert run.measured["output_tokens_per_s"] == pytest.approx(data["output_throughput"])


BAD = [
    ({"mean_ttft_ms": 1.0}, "mean_ttft_ms: read 1 ms, but the requests give 89.9168 ms; the file was changed"),
    ({"p99_itl_ms": 90.0}, "p99_itl_ms: read 90 ms, but the requests give 19.6899 ms; the file was changed"),
    ({"completed": 5}, "completed: read 5, but the lists of requests give 6; the file was changed or merged"),
    ({"total_output_tokens": 1}, "total_output_tokens: read 1, but the lists of requests give"),
    ({"duration": 0}, "duration: read 0; allowed: seconds above 0"),
    ({"duration": -1.0}, "duration: read -1.0; allowed: a number of 0 or more; correct it, or measure again"),
    ({"duration": math.nan}, "duration: read nan; allowed: a number of 0 or more; correct it, or measure again"),
    ({"request_rate": 0}, 'request_rate: read 0; allowed: requests a second above 0, or "inf"'),
    ({"request_rate": -2}, 'request_rate: read -2; allowed: a number of 0 or more, or "inf"'),
    ({"request_rate": "fast"}, "request_rate: read 'fast'; allowed: a number of 0 or more, or \"inf\""),
    ({"max_concurrency": 0}, "max_concurrency: read 0; allowed: a number of 1 or more"),
    ({"max_concurrency": 2.5}, "max_concurrency: read 2.5; allowed: a whole number"),
    ({"burstiness": 0}, "burstiness: read 0; allowed: a number above 0"),
    ({"ttfts": [0.1] * 5}, "ttfts: has 5 items, other lists of the file have 6; the file was changed"),
    ({"ttfts": ["x"] + [0.1] * 5}, "ttfts[0]: read 'x'; allowed: a number of 0 or more"),
    ({"input_lens": [100, -1, 1, 1, 1, 1]}, "input_lens[1]: read -1; allowed: a number of 0 or more"),
    ({"itls": 3}, "itls: read 3; allowed: 6 lists of seconds, one a request"),
    ({"itls": [[0.1], [math.nan], [], [], [], []]}, "itls[1]: read nan; allowed: seconds of 0 or more"),
    ({"p50_ttft_ms": 900.0, "detailed": False}, "p50_ttft_ms: read 900, but median_ttft_ms is"),
    ({"output_throughput": 1.0, "detailed": False}, "output_throughput: read 1 tokens/s, but"),
    ({"tp": "four"}, "tp: read 'four'; allowed: a whole number of 1 or more; correct it"),
]


@pytest.mark.parametrize(("changed", "message"), BAD)
def test_a_wrong_field_is_named(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    found = complaints(write(tmp_path / "a.json", bench_serve(seed=3, **changed)))
    assert len(found) == 1
    assert found[0].startswith(f"a.json: {message}"), found[0]


def scaled(data: dict[str, Any], factor: float, *names: str) -> dict[str, Any]:
    """The same with some fields in another unit."""

    def times(value: Any) -> Any:
        return [times(one) for one in value] if isinstance(value, list) else value * factor

    return {name: times(value) if name in names else value for name, value in data.items()}


ALL_MS = [f"{how}_{what}_ms" for how in ("mean", "median", "std", "p99") for what in ("ttft", "tpot", "itl", "e2el")]


@pytest.mark.parametrize(
    ("fields", "factor", "detailed", "message"),
    [
        (
            ["ttfts"],
            1e3,
            True,
            "ttfts: the mean of the list is 89.9168, but mean_ttft_ms is 89.9168 ms; lists are in s",
        ),
        (["latencies"], 1e3, True, "latencies[0]: read "),
        (ALL_MS, 1e-3, True, "mean_ttft_ms: read 0.0899168 ms, but the requests give 89.9168 ms; one is in s and"),
        (["mean_ttft_ms"], 1e3, False, "mean_ttft_ms: is 89916.8 ms, more than a whole request's"),
        (["mean_e2el_ms"], 1e-3, False, "mean_e2el_ms: is 0.15881 ms: no server answers that fast"),
        (["mean_itl_ms", "mean_tpot_ms"], 1e-3, False, "mean_itl_ms: is 0.015"),
        (["mean_itl_ms", "mean_tpot_ms"], 1e3, False, "mean_tpot_ms: is 15305.2 ms a token, but the first one comes"),
        (ALL_MS, 1e-3, False, "mean_itl_ms: is 0.0153095 ms a token: no server is that fast"),
        (["duration", "output_throughput"], 1e-3, False, "output_throughput: read"),
    ],
)
def test_mixed_up_units_are_seen(
    tmp_path: Path, fields: list[str], factor: float, detailed: bool, message: str
) -> None:
    data = scaled(bench_serve(seed=3, detailed=detailed), factor, *fields)
    found = complaints(write(tmp_path / "a.json", data))
    assert found
    assert found[0].startswith(f"a.json: {message}"), found[0]


def test_cut_off_json_says_where(tmp_path: Path) -> None:
    text = json.dumps(bench_serve())
    whole = write(tmp_path / "a.json", text)
    assert complaints(whole) == []
    for cut in (len(text) // 2, len(text) - 1, text.index("endpoint_type") + 4):
        path = write(tmp_path / "cut.json", text[:cut])
        found = complaints(path)
        assert len(found) == 1
        assert found[0].startswith("cut.json:1: the JSON ends")
        assert f"{cut}" in found[0]
        assert "the file is cut off; copy it whole, or run" in found[0]


def test_a_cut_off_line_of_appended_results_says_which(tmp_path: Path) -> None:
    text = json.dumps(bench_serve(seed=1)) + "\n" + json.dumps(bench_serve(seed=2))
    found = complaints(write(tmp_path / "a.json", text[:-9]))
    assert len(found) == 1
    assert found[0].startswith("a.json:2: the JSON ends in the middle of a value, at byte")


def test_a_cut_off_archive_an_empty_file_and_a_missing_one(tmp_path: Path) -> None:
    packed = tmp_path / "a.json.gz"
    packed.write_bytes(gzip.compress(json.dumps(bench_serve()).encode())[:-30])
    empty, other = write(tmp_path / "empty.json", ""), write(tmp_path / "other.md", "# Notes")
    found = complaints(packed, empty, other, tmp_path / "none.json")
    assert found[0].startswith("a.json.gz: the packed file is cut off or damaged")
    assert found[1:] == [
        "empty.json: is empty; copy it again, or run the benchmark again",
        "other.md: holds no measurements; known are results of vllm bench serve, latency and throughput, GuideLLM "
        "reports, step and request logs, tables of runs and /metrics scrapes",
        "none.json: no such file or folder; give a path that exists",
    ]


def test_nothing_completed(tmp_path: Path) -> None:
    data = bench_serve(1, failed=2)
    for name in ("input_lens", "output_lens", "ttfts", "itls", "latencies", "start_times", "errors"):
        data[name] = data[name][1:]
    data |= {"completed": 0, "total_output_tokens": 0}
    assert complaints(write(tmp_path / "a.json", data)) == [
        "a.json: completed: no request completed (the first error: 'ClientError: refused'); look at the server's log "
        "and run the benchmark again"
    ]


def test_all_files_are_told_of_at_once_and_the_same_thing_once(tmp_path: Path) -> None:
    write(tmp_path / "a.json", bench_serve(duration=0))
    write(tmp_path / "b.json", bench_serve(max_concurrency=0))
    assert complaints(tmp_path, hints=ServerHints()) == [
        "a.json: gpu: the file does not say which GPU; give --gpu (so also b.json)",
        "a.json: duration: read 0; allowed: seconds above 0",
        "b.json: max_concurrency: read 0; allowed: a number of 1 or more; correct it, or measure again",
    ]


def test_models_mixed_in_one_folder(tmp_path: Path) -> None:
    write(tmp_path / "a.json", bench_serve(model_id="tiny-a"))
    write(tmp_path / "b.json", bench_serve(model_id="tiny-b"))
    assert complaints(tmp_path, hints=ServerHints(gpu="h100", model="tiny")) == [
        "a.json: model_id: --model names one model, but the files are of 2 (tiny-a: a.json; tiny-b: b.json); give the "
        "files of one at a time"
    ]
    assert {run.server.model for run in read_runs([tmp_path], server=GPU)} == {"tiny-a", "tiny-b"}


def test_a_hint_that_contradicts_is_refused_but_a_served_name_may_be_anything(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", bench_serve(gpu="H200", tp=2))
    assert complaints(path, hints=ServerHints(gpu="h100", tp=4, model="qwen3-32b")) == [
        "a.json: gpu: says H200, but --gpu says h100-sxm; leave out the flag or the file",
        "a.json: model_id: says meta-llama/Llama-3.1-8B-Instruct, but --model says qwen3-32b; leave out the flag or "
        "the file",
        "a.json: tp: says 2, but --tp says 4; leave out the flag or the file",
    ]
    served = write(tmp_path / "b.json", bench_serve(model_id="prod"))
    run = read_one(served, ServerHints(gpu="my box", model="qwen3-32b"))
    assert run.server.setup == "qwen3-32b.my-box.tp1.bf16"
    assert "served as 'prod'" in run.notes
