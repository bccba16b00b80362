"""Pre-flight checks: each fires on a plan that is wrong in its way, with figures that can be checked by hand."""

import math
from dataclasses import replace

import pytest

from simlab.lint import lint
from simlab.lint.capacity import Mix, alone_s, mix, replica_rps
from simlab.profiles import StepTime, Validity, kv_blocks, model, select
from simlab.scenario import bundled, scenario_from_dict, variants_of
from simlab.scenario import load as load_scenario


def plan(**changes):
    """A plan nothing can be said against, with some of its parts replaced."""
    return {
        "horizon": "1h",
        "workload": {
            "chat": {"arrivals": {"kind": "poisson", "rate": 5}, "lengths": {"prompt": 1000, "output": 200}},
        },
        "pools": {"local": {"model": "llama-3.1-70b", "gpu": "h100-sxm", "tp": 4, "precision": "fp8", "replicas": 2}},
        "apis": {"remote": {"provider": "openai", "model": "gpt-4.1-mini", "ttft": "500ms", "itl": "10ms"}},
        "gateway": {"routes": [{"to": {"local": 1, "remote": 1}}]},
        "slo": {"ttft": "2s", "itl": "50ms"},
    } | changes


def findings(*sets, **changes):
    found = lint(scenario_from_dict(plan(**changes), sets=sets))
    return [(finding.severity, finding.path) for finding in found if finding.severity != "note"]


def message(path, *sets, **changes):
    [text] = [f.message for f in lint(scenario_from_dict(plan(**changes), sets=sets)) if f.path == path]
    return text


def test_a_good_plan_has_no_findings():
    assert findings() == []


@pytest.mark.parametrize(
    ("path", "change", "severity"),
    [
        ("pools.local.model", "pools.local.model=lama-3.1-70b", "error"),
        ("pools.local.gpu", "pools.local.gpu=h1000", "error"),
        ("pools.local.profile", "pools.local.profile=nobody-measured-this", "error"),
        ("pools.local.tp", "pools.local.tp=1", "error"),
        ("pools.local.max_model_len", "pools.local.max_model_len=10M", "error"),
        ("pools.local.max_model_len", "pools.local.kv_blocks=500", "warning"),
        ("pools.local.replicas", "workload.chat.arrivals.rate=100", "warning"),
        ("pools.local.replicas", "pools.local.replicas=0", "warning"),
        ("workload.chat.lengths", "pools.local.max_model_len=1100", "warning"),
        ("workload.chat", "workload.chat.lengths={joint: nowhere.csv}", "error"),
        ("slo.ttft", "slo.ttft=1ms", "warning"),
        ("slo.itl", "slo.itl=1ms", "warning"),
        ("slo.e2e", "slo.e2e=2.01s", "warning"),
        ("apis.remote.model", "apis.remote.model=no-such-model", "warning"),
        ("apis.remote.rpm", "apis.remote.rpm=100", "warning"),
        ("apis.remote.tpm", "apis.remote.tpm=100k", "warning"),
        ("apis.remote.concurrency", "apis.remote.concurrency=6", "warning"),
        ("budget.usd_per_month", "budget.usd_per_month=$5k", "warning"),
        ("budget.usd_per_success", "budget.usd_per_success=$0.0001", "warning"),
        ("pools.local.price", "pools.local.price.provider=nobody", "warning"),
    ],
)
def test_each_check_fires(path, change, severity):
    assert (severity, path) in findings(change)


def test_a_class_s_own_objectives_are_named_as_its_own():
    assert ("warning", "workload.chat.slo.itl") in findings("workload.chat.slo.itl=1ms")


def test_needed_replicas_are_the_load_over_the_capacity():
    text = message("pools.local.replicas", "workload.chat.arrivals.rate=100")
    assert text.startswith("the peak of 50 requests/s needs at least ")
    needed = float(text.split("at least ")[1].split()[0])
    more = message("pools.local.replicas", "workload.chat.arrivals.rate=200")
    assert float(more.split("at least ")[1].split()[0]) == pytest.approx(
        2 * needed, abs=0.16
    )  # both are printed with one decimal
    enough = math.ceil(needed / 0.85)
    assert findings("workload.chat.arrivals.rate=100", f"pools.local.replicas={enough}") == []


def test_added_replicas_count():
    operations = [{"at": 0, "pool": "local", "action": "add", "replicas": 50}]
    assert findings("workload.chat.arrivals.rate=100", operations=operations) == []


def test_a_pool_without_traffic_is_noted():
    scenario = scenario_from_dict(plan(gateway={"routes": [{"to": {"remote": 1}}]}))
    assert [(f.severity, f.path) for f in lint(scenario)] == [("note", "pools.local")]


def test_closed_loops_have_no_rate_to_exceed():
    closed = {
        "chat": {"arrivals": {"kind": "closed", "users": 5000, "think_time": 0}, "lengths": {"prompt": 9, "output": 9}}
    }
    assert findings("apis.remote.rpm=1", "budget.usd_per_success=$0.0001", workload=closed) == []


def test_the_least_cost_of_a_month_is_gpu_hours_operations_and_tokens():
    sets = [
        "pools.local.price.usd_per_gpu_hour=2",
        "pools.local.operations_usd_per_month=1000",
        "apis.remote.price={input_usd_per_mtok: 1, output_usd_per_mtok: 10}",
        "budget.usd_per_month=1",
    ]
    gpus = 2 * 4 * 2.0 * 730
    tokens = 2.5 * 730 * 3600 * (1000 * 1 + 200 * 10) / 1e6
    assert message("budget.usd_per_month", *sets) == (
        f"$1 cannot hold: the plan costs at least ${gpus + 1000 + tokens:,.0f} a month"
    )


def test_kv_cache_memory_and_kv_blocks_say_the_same():
    per_token = model("llama-3.1-70b").kv_bytes_per_token() / 4
    blocks = 500
    by_bytes = message("pools.local.max_model_len", f"pools.local.kv_cache_memory={blocks * 16 * per_token}")
    assert by_bytes == message("pools.local.max_model_len", f"pools.local.kv_blocks={blocks}")
    assert kv_blocks("llama-3.1-70b", "h100-sxm", 4, "fp8") > blocks


def test_a_kv_cache_in_fp8_holds_what_a_run_puts_there():
    """The measured profile ran with an FP8 cache, half the bytes of a BF16 one."""
    pool = {"model": "minimax-m2.5", "gpu": "b200-sxm", "tp": 2, "precision": "fp8"}
    assert select(pool["model"], pool["gpu"], 2, "fp8").kv_precision == "fp8"
    blocks = 500
    memory = blocks * 16 * model("minimax-m2.5").kv_bytes_per_token("fp8") / pool["tp"]  # of each GPU
    by_bytes = message("pools.local.max_model_len", pools={"local": pool | {"kv_cache_memory": memory}})
    assert by_bytes == message("pools.local.max_model_len", pools={"local": pool | {"kv_blocks": blocks}})


def test_capacity_with_a_constant_step_is_batch_over_output():
    step = StepTime(base_s=0.02)
    request = Mix(prompt_tokens=0, new_tokens=0, output_tokens=100)
    assert replica_rps(step, request, max_num_seqs=64, token_budget=8192, kv_tokens=1e9) == pytest.approx(
        64 / 100 / 0.02
    )
    assert replica_rps(step, request, max_num_seqs=64, token_budget=32, kv_tokens=1e9) == pytest.approx(32 / 100 / 0.02)
    assert replica_rps(step, request, max_num_seqs=64, token_budget=8192, kv_tokens=500) == pytest.approx(
        10 / 100 / 0.02
    )


def test_capacity_bound_by_prefill():
    step = StepTime(per_prefill_token_s=1e-4)
    request = Mix(prompt_tokens=1000, new_tokens=500, output_tokens=10)
    assert replica_rps(step, request, max_num_seqs=64, token_budget=8192, kv_tokens=1e9) == pytest.approx(
        1 / (500 * 1e-4)
    )


def test_alone_is_overhead_chunks_and_one_decode_step():
    step = StepTime(base_s=0.01, per_prefill_token_s=1e-5, per_seq_s=0.001, attn_s=1e-9, overhead_s=0.005)
    first, further = alone_s(step, Mix(prompt_tokens=3000, new_tokens=2500, output_tokens=10), token_budget=1000)
    pairs = 3000 * 3001 / 2 - 500 * 501 / 2
    assert first == pytest.approx(0.005 + 3 * 0.01 + 2500 * 1e-5 + pairs * 1e-9)
    assert further == pytest.approx(0.011)


def test_mix_is_weighted_by_rate():
    assert mix([(1.0, Mix(100, 50, 10)), (3.0, Mix(200, 100, 20))]) == Mix(175, 87.5, 17.5)


@pytest.mark.parametrize("name", sorted(set(bundled()) - {"azure-2023-replay"}))
def test_bundled_scenarios_pass(name):
    for variant in [None, *variants_of(name)]:
        assert [f for f in lint(load_scenario(name, variant=variant)) if f.severity != "note"] == []


def test_the_replay_passes_where_its_trace_is(shared_data, monkeypatch):
    monkeypatch.setenv("SIMLAB_DATA", str(shared_data / "trace_azure_llm_2023"))
    assert [f for f in lint(load_scenario("azure-2023-replay")) if f.severity != "note"] == []


def profiled(tmp_path, **changes):
    """The plan on a profile of its own, measured with little."""
    known = replace(
        select("llama-3.1-70b", "h100-sxm", 4, "fp8"),
        name="mine",
        kv_blocks=None,
        validity=Validity(max_decode_seqs=16, max_step_tokens=8192, max_context_tokens=4096),
    )
    known.save(tmp_path / "mine.json")
    return {"local": plan()["pools"]["local"] | {"profile": str(tmp_path / "mine.json")} | changes}


def test_what_may_leave_the_measured_range_is_noted(tmp_path):
    pools = profiled(tmp_path)
    assert findings("workload.chat.arrivals.rate=0.5", pools=pools) == []
    said = message("pools.local", "workload.chat.arrivals.rate=0.5", pools=pools)
    assert "may go beyond what the profile mine was measured on: up to 256 sequences decoding at once" in said
    assert "(measured up to 16)" in said
    assert findings(pools=profiled(tmp_path, max_num_seqs=16)) == []


def test_what_will_leave_the_measured_range_is_warned_of(tmp_path):
    pools = profiled(tmp_path)
    found = lint(scenario_from_dict(plan(pools=pools), sets=["workload.chat.arrivals.rate=24"]))
    [warning] = [f for f in found if f.severity == "warning"]
    assert warning.path == "pools.local"
    assert "takes batches above the 16 sequences" in warning.message
    long = ["workload.chat.lengths={prompt: 4000, output: 200}", "workload.chat.arrivals.rate=0.5"]
    [warning] = [f for f in lint(scenario_from_dict(plan(pools=pools), sets=long)) if f.severity == "warning"]
    assert "mean requests of 4200 tokens lie beyond the 4,096 tokens of context" in warning.message


def test_a_profile_of_ones_own_needs_no_names_that_tables_know(tmp_path):
    pools = profiled(tmp_path, model="our-own", gpu="asic", kv_blocks=4000, max_num_seqs=16)
    pools["local"]["price"] = {"usd_per_gpu_hour": 1.0}
    assert findings(pools=pools) == []
    del pools["local"]["kv_blocks"]
    assert findings(pools=pools) == [("error", "pools.local.kv_blocks")]
    assert "give kv_blocks" in message("pools.local.kv_blocks", pools=pools)
