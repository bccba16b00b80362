"""Logs of steps and of requests, and tables of runs."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_files import complaints, write

from simlab.calibrate import ServerHints, read_runs
from simlab.calibrate.read import read_measurements

CONFIGS = """config_id,gpu,model,tp,dp,expert_parallel,vllm_version,dtype,max_num_seqs,max_num_batched_tokens,\
block_size,observed_max_prefill_tokens
one,B300-SXM (b300_sxm),Qwen/Qwen3-32B,2,1,False,0.20.1,bfloat16,128,2048,16,8191
two,B300-SXM (b300_sxm),deepseek-ai/DeepSeek-V4-Flash,1,4,True,0.20.1,bfloat16,128,2048,16,1500
"""
STEPS = """config_id,segment,prefill_tokens,prefill_requests,prefill_kv_tokens,decode_requests,decode_kv_tokens,\
latency_ms
one,sweep,128,1,64,0,0,17.0
one,real,0,0,0,4,400,14.0
one,real,300,2,0,1,99,20.0
two,real,0,0,0,1,50,9.0
"""
ITERATIONS = """iteration,second_of_day,context_requests,context_tokens,generation_requests,generation_tokens,\
elapsed_ms,kv_usage_pct
1,0,1,128,0,0,80.0,0.1
2,0,0,0,2,2,20.0,0.1
"""


def test_steps_by_configuration(tmp_path: Path) -> None:
    write(tmp_path / "configs.csv", CONFIGS)
    packed = tmp_path / "steps.csv.gz"
    packed.write_bytes(gzip.compress(STEPS.encode()))
    one, two = read_runs([packed])
    assert (one.name, one.server.setup) == ("one", "qwen3-32b.b300-sxm.tp2.bf16")
    assert two.server.setup == "deepseek-v4-flash.b300-sxm.tp1.dp4.ep.bf16"
    # Steps larger than the stated budget occur in one of them.
    assert (one.server.max_num_batched_tokens, two.server.max_num_batched_tokens) == (8192, 2048)
    assert one.notes == ("steps of up to 8191 tokens occur: max_num_batched_tokens is taken as 8192",)
    steps = one.steps
    assert steps is not None
    np.testing.assert_array_equal(steps.seconds, [0.017, 0.014, 0.02])
    np.testing.assert_array_equal(steps.real, [False, True, True])
    # What is in the cache before the step, and each sequence's new token.
    np.testing.assert_array_equal(steps.decode_context_tokens, [0, 404, 100])
    # 128 tokens after 64 of context: 128 · (64 + 129/2); of two prefills only the sum is known.
    np.testing.assert_array_equal(steps.work, [128 * (64 + 64.5), 0.0, math.nan])
    assert one.measured == {"step_s": pytest.approx(0.017)}
    assert one.load is None
    assert one.where == f"{packed}:2"


def test_steps_of_one_server_without_contexts(tmp_path: Path) -> None:
    path = write(tmp_path / "server_side" / "a.iterations.csv", ITERATIONS)
    write(tmp_path / "server_side" / "a.metrics.json", {"server": {"gpu": "h100", "tp": 2}})
    write(tmp_path / "results" / "a.json", '{"model_id": "meta-llama/Llama-3.1-8B"}')
    (run,) = read_runs([path])
    assert (run.name, run.server.setup) == ("a.iterations", "llama-3.1-8b.h100-sxm.tp2.bf16")
    assert run.steps is not None
    np.testing.assert_array_equal(run.steps.prefill_tokens, [128, 0])
    np.testing.assert_array_equal(run.steps.decode_context_tokens, [0, math.nan])
    np.testing.assert_array_equal(run.steps.prefill_start_tokens, [math.nan, 0])
    assert run.steps.real.all()


def test_hints_choose_configurations(tmp_path: Path) -> None:
    write(tmp_path / "configs.csv", CONFIGS)
    path = write(tmp_path / "steps.csv", STEPS)
    assert [run.name for run in read_runs([path], server=ServerHints(model="Qwen/Qwen3-32B"))] == ["one"]
    assert complaints(path, hints=ServerHints(model="Qwen3-8B", tp=3)) == [
        "steps.csv: config_id: no configuration is of model qwen3-8b, tp 3; there are one, two"
    ]


def test_wrong_step_logs(tmp_path: Path) -> None:
    path = write(tmp_path / "steps.csv", STEPS)
    assert complaints(path, hints=ServerHints()) == [
        "steps.csv: config_id: one is not described: put configs.csv, with its gpu, model and tp, beside the file, or "
        "give --gpu and --model",
        "steps.csv: config_id: two is not described: put configs.csv, with its gpu, model and tp, beside the file, or "
        "give --gpu and --model",
    ]
    write(tmp_path / "configs.csv", CONFIGS)
    for old, new, message in (
        ("17.0", "x", "steps.csv:2: latency_ms: read 'x'; allowed: a number above 0; correct or delete the row"),
        ("17.0", "0", "steps.csv:2: latency_ms: read 0; allowed: a number above 0; correct or delete the row"),
        ("17.0", "", "steps.csv:2: latency_ms: read nothing; allowed: a number above 0; correct or delete the row"),
        ("real,0,0", "real,-1,0", "steps.csv:3: prefill_tokens: read -1; allowed: a number of 0 or more; correct or "
         "delete the row"),
        ("latency_ms", "latency_s", "steps.csv:1: latency_s: the median step takes 15.5 s, which no server does; "),
        (STEPS[STEPS.index("one,"):], "", "steps.csv: has column names but no steps; it must hold at least one"),
    ):  # fmt: skip
        write(path, STEPS.replace(old, new, 1))
        found = complaints(path, hints=ServerHints())
        assert len(found) == 1, found
        assert found[0].startswith(message), found[0]


REQUESTS = """config_id,workload,qps,t_launch_s,prompt_tokens,generation_tokens,ttft_s,generation_time_s,t_finish_s
one,chat,2,1.0,100,11,0.2,1.0,2.2
one,chat,2,0.5,110,21,0.1,2.0,2.6
one,chat,2,1.5,120,31,0.3,3.0,4.8
one,chat,2,2.0,130,1,0.4,0.001,2.4
two,chat,4,0.0,50,5,0.1,0.4,0.5
"""


def test_requests_by_run(tmp_path: Path) -> None:
    write(tmp_path / "summary.csv", CONFIGS)
    one, two = read_runs([write(tmp_path / "requests.csv", REQUESTS)])
    assert (one.name, two.name) == ("one-chat-2", "two-chat-4")
    assert one.load is not None
    assert one.load.point == "i115-o16-r2-binf"
    requests = one.requests
    assert requests is not None
    np.testing.assert_allclose(requests.start_s, [0.0, 0.5, 1.0, 1.5])
    np.testing.assert_array_equal(requests.prompt_tokens, [110, 100, 120, 130])
    np.testing.assert_allclose(requests.e2e_s, [2.1, 1.2, 3.3, 0.401])
    assert dict(one.measured) == pytest.approx(
        {
            "ttft_s_mean": 0.25, "ttft_s_p50": 0.25, "ttft_s_p99": np.percentile([0.1, 0.2, 0.3, 0.4], 99),
            "itl_s_mean": 6.001 / 60, "tpot_s_mean": 0.1, "e2e_s_mean": 7.001 / 4, "output_tokens_per_s": 64 / 4.3,
        }
    )  # fmt: skip


def test_a_log_of_one_server_and_lost_requests(tmp_path: Path) -> None:
    rows = [f"{i / 2 if i < 5 else i},100,10,50,400,10" for i in range(10)]
    text = "\n".join(["arrival_s,input_tokens,output_tokens,ttft_ms,e2e_ms,queue_ms", *rows])
    (run,) = read_runs([write(tmp_path / "log.csv", text)], server=ServerHints(gpu="l4", model="qwen3-8b"))
    assert (run.name, run.server.setup) == ("log", "qwen3-8b.l4.tp1.bf16")
    assert run.load is not None
    assert run.load.rate_rps == pytest.approx(1.0)
    assert run.requests is not None
    assert run.requests.queue_s is not None
    assert run.requests.queue_s[0] == pytest.approx(0.01)
    write(tmp_path / "summary.csv", CONFIGS)
    lost = "\n".join(line for line in REQUESTS.splitlines() if ",1.0,100" not in line and ",1.5,120" not in line)
    run, _ = read_runs([write(tmp_path / "requests.csv", lost)])
    assert run.notes[-1] == "2 requests are in the log, about 4 were offered: the others failed or were not kept"


def test_wrong_request_logs(tmp_path: Path) -> None:
    head = "start_s,prompt_tokens,output_tokens,ttft_s,e2e_s\n"
    for rows, message in (
        ("0,1,1,300,0.4\n", "log.csv:2: ttft_s: the first token came after 300 s, but the whole request took 0.4 s; "
         "one is in s and the other in ms; correct ttft_s or e2e_s"),
        ("0,1,1,0.1,0.4\n\n0,0,1,0.1,0.4\n", "log.csv:4: prompt_tokens: read 0; allowed: a number of 1 or more"),
        ("0,1,1,nan,0.4\n", "log.csv:2: ttft_s: read nothing; allowed: a number above 0"),
        ("0,1,1,inf,0.4\n", "log.csv:2: ttft_s: read inf; allowed: a number above 0"),
        ("", "log.csv: has column names but no requests; it must hold at least one"),
    ):  # fmt: skip
        found = complaints(write(tmp_path / "log.csv", head + rows), hints=ServerHints(gpu="l4", model="qwen3-8b"))
        assert len(found) == 1, found
        assert found[0].startswith(message), found[0]


SILICON = (
    "id,system,model,precision,backend,backend_version,image,mode,tp,pp,attention_dp,moe_tp,moe_ep,isl,osl,concurrency,"
    "batch_size_per_dp_rank,ttft_ms,tpot_ms,measured_date,source\n"
)
SILICON_ROWS = [
    "a,h100_sxm,meta-llama/Llama-3.1-70B,fp8,vllm,,vllm/vllm-openai:v0.10.2,agg,4,1,1,4,1,1024,1024,16,16,80,11.5,2025-10-01,infx-dump-1",
    "b,b200_sxm,moonshotai/Kimi-K2.5,int4,vllm,0.19.0,,agg,2,1,4,1,8,8192,1024,64,16,300,12,2026-04-01,nvidia-inhouse:x",
    "c,h100_sxm,Qwen/Qwen3-32B,bf16,vllm,0.12.0,,agg,1,1,2,1,1,4000,1000,,24,294,16.8,,nvidia-inhouse:x",
    "d,h100_sxm,Qwen/Qwen3-32B,bf16,vllm,0.12.0,,agg,1,2,1,1,1,4000,1000,8,8,294,16.8,,nvidia-inhouse:x",
    "e,h100_sxm,Qwen/Qwen3-32B,bf16,trtllm,1.0,,agg,1,1,1,1,1,4000,1000,8,8,294,16.8,,nvidia-inhouse:x",
]


def test_rows_of_the_silicon_table(tmp_path: Path) -> None:
    path = write(tmp_path / "table.csv", SILICON + "\n".join(SILICON_ROWS))
    a, b, c = read_runs([path])
    assert [run.server.setup for run in (a, b, c)] == [
        "llama-3.1-70b.h100-sxm.tp4.fp8", "kimi-k2.5.b200-sxm.tp2.dp4.ep.int4", "qwen3-32b.h100-sxm.tp1.dp2.bf16",
    ]  # fmt: skip
    assert [run.load and run.load.point for run in (a, b, c)] == [
        "i1024-o1024-c16-l0.8-1", "i8192-o1024-c64-l0.7-1.3", "i4000-o1000-c48-l0.7-1.3",
    ]  # fmt: skip
    assert [run.server.engine for run in (a, b, c)] == ["vLLM 0.10.2", "vLLM 0.19.0", "vLLM 0.12.0"]
    assert dict(a.measured) == pytest.approx({"ttft_s_mean": 0.08, "tpot_s_mean": 0.0115})
    assert (a.date, a.where, a.source) == ("2025-10-01", f"{path}:2", "vllm_infx_silicon: a")
    assert a.notes == (
        "ttft_ms and tpot_ms are taken as means",
        "of table.csv, 1 rows are left out: not vLLM; 1 rows are left out: pipeline parallelism",
    )


def test_hints_choose_rows_of_a_table_and_nothing_left_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "table.csv", SILICON + "\n".join(SILICON_ROWS))
    (run,) = read_runs([path], server=ServerHints(gpu="B200", model="Kimi-K2.5"))
    assert run.name == "b"
    assert complaints(path, hints=ServerHints(gpu="b200", model="qwen3-32b")) == [
        "table.csv: no row is of model qwen3-32b, gpu b200-sxm; the table has kimi-k2.5, b200-sxm, 2, 4, True, int4; "
        "llama-3.1-70b, h100-sxm, 4, 1, fp8; qwen3-32b, h100-sxm, 1, 2, bf16"
    ]
    other = write(tmp_path / "other.csv", SILICON + "\n".join(SILICON_ROWS[3:]))
    assert complaints(other) == ["other.csv: 1 rows are left out: not vLLM; 1 rows are left out: pipeline parallelism"]
    one = write(tmp_path / "one.csv", SILICON + SILICON_ROWS[0])
    assert complaints(one, hints=ServerHints(tp=2)) == [
        "one.csv:2: tp: says 4, but --tp says 2; leave out the flag or the file"
    ]


PLAIN = "gpu,model,tp,input_len,output_len,concurrency,mean_ttft_ms,mean_tpot_ms,output_throughput\n"


def test_a_table_with_plain_names(tmp_path: Path) -> None:
    path = write(
        tmp_path / "mine.csv", PLAIN + "H200,Qwen3-8B,1,512,128,8,60,7.5,950\nH200,Qwen3-8B,1,512,128,16,70,8,\n"
    )
    first, second = read_runs([path])
    assert first.server.setup == "qwen3-8b.h200-sxm.tp1.bf16"
    assert first.load is not None
    assert (first.name, first.load.point) == ("mine#2", "i512-o128-c8")
    assert dict(first.measured) == pytest.approx(
        {"ttft_s_mean": 0.06, "tpot_s_mean": 0.0075, "output_tokens_per_s": 950.0}
    )
    assert "output_tokens_per_s" not in second.measured


def test_case_brackets_and_separators_of_a_head_do_not_matter(tmp_path: Path) -> None:
    text = "GPU;Model;TP;Input Length;Output Length;Max Concurrency;Mean TTFT (ms);Mean TPOT [ms];Output tokens/s\n"
    (run,) = read_runs([write(tmp_path / "mine.csv", text + "H200;Qwen3-8B;2;512;128;8;60;7.5;950\n")])
    assert (run.server.setup, run.load and run.load.point) == ("qwen3-8b.h200-sxm.tp2.bf16", "i512-o128-c8")
    assert dict(run.measured) == pytest.approx(
        {"ttft_s_mean": 0.06, "tpot_s_mean": 0.0075, "output_tokens_per_s": 950.0}
    )
    wrong = write(tmp_path / "wrong.csv", text + "H200;Qwen3-8B;2;512;128;8;x;7.5;950\n")
    assert complaints(wrong, hints=ServerHints()) == [
        "wrong.csv:2: Mean TTFT (ms): read 'x'; allowed: a number of 0 or more; correct or delete the row"
    ]


@pytest.mark.parametrize("unit", ["s", "ms"])
@pytest.mark.parametrize("style", ["ttft_mean_{}", "mean_ttft_{}", "ttft_{}", "ttft_{}_mean"])
@settings(max_examples=10)
@given(milliseconds=st.floats(20.0, 5000.0))
def test_any_unit_in_a_columns_name_gives_the_same_seconds(
    tmp_path_factory: pytest.TempPathFactory, unit: str, style: str, milliseconds: float
) -> None:
    column, factor = style.format(unit), {"s": 1e-3, "ms": 1.0}[unit]
    text = f"gpu,model,isl,osl,conc,{column}\nL4,m,10,10,1,{milliseconds * factor!r}\n"
    (run,) = read_runs([write(tmp_path_factory.mktemp("unit") / "t.csv", text)])
    assert run.measured["ttft_s_mean"] == pytest.approx(milliseconds / 1e3)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("mean_ttft_ms", "ttft", "mine.csv:1: ttft: the column is in no unit; name it ttft_ms or ttft_s"),
        (",60,", ",0.06,", "mine.csv:2: mean_ttft_ms: is 0.06 ms: no server answers that fast"),
        (",7.5,", ",0.0075,", "mine.csv:2: mean_tpot_ms: is 0.0075 ms a token: no server is that fast"),
        (",7.5,", ",7500,", "mine.csv:2: mean_tpot_ms: is 7500 ms a token, but the first one comes after 60 ms"),
        (",950", ",950000", "mine.csv:2: output_throughput: is 950000 tokens/s, but 8 requests at a time of 7.5 ms"),
        (",60,", ",fast,", "mine.csv:2: mean_ttft_ms: read 'fast'; allowed: a number of 0 or more; correct or delete"),
        (",60,", ",-60,", "mine.csv:2: mean_ttft_ms: read -60; allowed: a number of 0 or more"),
        (",60,", ",inf,", "mine.csv:2: mean_ttft_ms: read inf; allowed: a number of 0 or more"),
        (",8,", ",0,", "mine.csv:2: concurrency: read 0; allowed: a number of 1 or more"),
        (",1,", ",x,", "mine.csv:2: tp: read 'x'; allowed: a whole number of 1 or more; correct it"),
        ("H200", "", "mine.csv:2: gpu: the file does not say which GPU; give --gpu"),
        (",8,", ",,", "mine.csv: 1 rows are left out: neither concurrency nor rate"),
        (",512,", ",,", "mine.csv: 1 rows are left out: lengths are not given"),
        (",60,7.5,950", ",,,", "mine.csv: 1 rows are left out: nothing measured"),
        ("\nH200", "\nH200,", "mine.csv: not a table:"),
    ],
)
def test_wrong_tables(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = PLAIN + "H200,Qwen3-8B,1,512,128,8,60,7.5,950\n"
    assert complaints(write(tmp_path / "mine.csv", text), hints=ServerHints()) == []
    if message.startswith("mine.csv: not"):
        text += "H200,Qwen3-8B,1,512,128,8,60,7.5,950,1,2\n"
        old, new = "xx", ""
    found = complaints(write(tmp_path / "mine.csv", text.replace(old, new, 1)), hints=ServerHints())
    assert len(found) == 1, found
    assert found[0].startswith(message), found[0]


def test_many_wrong_values_of_a_column_are_counted(tmp_path: Path) -> None:
    rows = "".join(f"H200,Qwen3-8B,1,512,128,{i},bad,8,\n" for i in range(1, 8))
    found = complaints(write(tmp_path / "mine.csv", PLAIN + rows), hints=ServerHints())
    assert found == [
        "mine.csv:2: mean_ttft_ms: read 'bad'; allowed: a number of 0 or more; correct or delete the row (so also "
        "mine.csv:3)",
        "mine.csv:4: mean_ttft_ms: read 'bad'; allowed: a number of 0 or more; correct or delete the row (7 such rows)",
    ]


def test_totals_give_lengths_and_rates_of_other_sources(tmp_path: Path) -> None:
    head = (
        "gpu,num_prompts,request_rate,max_concurrency,duration,completed,total_input_tokens,total_output_tokens,"
        "mean_ttft_ms,mean_tpot_ms,num-scheduler-step,filename,model\n"
    )
    rows = "8xH100 1FP8-meta,1000,16,,100,1000,215000,120000,1486,106,1,f1,Llama-3.1-405B-FP8\n"
    rows += "8xH100 2FP8-meta,1000,1000,,100,1000,215000,120000,18688,106,1,f2,Llama-3.1-405B-FP8\n"
    rate, once = read_runs([write(tmp_path / "serving.csv", head + rows)])
    assert (rate.server.setup, rate.server.replicas) == ("llama-3.1-405b.h100-sxm.tp8.fp8", 1)
    assert (once.server.tp, once.server.replicas) == (4, 2)
    assert [run.load and run.load.point for run in (rate, once)] == ["i215-o120-r16", "i215-o120-n1000"]
    assert rate.measured["output_tokens_per_s"] == pytest.approx(1200.0)


def test_rows_that_do_not_say_enough_are_left_out_among_others(tmp_path: Path) -> None:
    head = (
        "gpu,model,precision,parallelism,spec_decode,isl,osl,concurrency,ttft_median_s,tpot_median_s,output_tok_per_s\n"
    )
    rows = "H200-SXM-141GB,MiniMaxAI/MiniMax-M2.5,fp8,DP8+EP,none,1024,128,4,0.73,0.0158,191\n"
    rows += "unstated (8 GPUs),zai-org/GLM-5-FP8,fp8,TP8,none,1024,128,4,0.9,0.02,150\n"
    rows += "H200-SXM-141GB,MiniMaxAI/MiniMax-M2.5,fp8,TP8+EP,mtp1,1024,128,4,0.73,0.0158,191\n"
    path = write(tmp_path / "runs.csv", head + rows)
    (run,) = read_runs([path])
    assert run.server.setup == "minimax-m2.5.h200-sxm.tp1.dp8.ep.fp8"
    assert run.measured == {"ttft_s_p50": 0.73, "output_tokens_per_s": 191.0}
    assert run.notes == ("of runs.csv, 1 rows are left out: speculative decoding; 1 rows are left out: GPU not stated",)
    assert len(read_runs([path], server=ServerHints(gpu="h200"))) == 2


def test_a_folder_says_what_it_skipped(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", PLAIN + "H200,Qwen3-8B,1,512,128,8,60,7.5,950\n")
    write(tmp_path / "notes.txt", "warm-up was cold")
    (tmp_path / "dump.txt").write_bytes(b"\x00\xff\xfe")
    write(tmp_path / "series.csv", "t,running\n1,2\n")
    write(tmp_path / ".hidden" / "b.csv", PLAIN)
    write(tmp_path / "picture.png", "x")
    read = read_measurements([tmp_path], server=ServerHints())
    assert len(read.runs) == 1
    assert [line.replace(f"{tmp_path}/", "") for line in read.skipped] == [
        "dump.txt: no measurements",
        "notes.txt: no measurements",
        "series.csv: no measurements",
    ]
    (tmp_path / "a.csv").unlink()
    assert complaints(tmp_path) == ["dump.txt: no measurements (so also notes.txt, series.csv)"]
    (tmp_path / "bare").mkdir()
    assert complaints(tmp_path / "bare", within=tmp_path)[0].startswith(
        "bare: holds no file of measurements; known are"
    )
