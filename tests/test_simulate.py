"""`simlab.simulate` on the bundled scenarios and on small ones of its own."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from simlab.errors import InputError
from simlab.results import OUTCOMES, Result, read_request_log, result_schema
from simlab.scenario import Scenario, bundled, load, scenario_from_dict, variants_of
from simlab.simulation import measure, replication_seed, simulate

SHORT = ["horizon=120", "warmup=10", "window=10"]
NEEDS_A_FILE = {"azure-2023-replay"}
SCENARIOS = Path(__file__).resolve().parent.parent / "scenarios"
BUNDLED = [
    (path.stem, variant)
    for path in sorted(SCENARIOS.glob("*.yaml"))
    if path.stem not in NEEDS_A_FILE
    for variant in (None, *variants_of(path))
]


def short(name: str, variant: str | None, *sets: str) -> Scenario:
    return load(SCENARIOS / f"{name}.yaml", variant=variant, sets=[*SHORT, *sets])


def check(result: Result) -> dict[str, Any]:
    """What every result has: valid JSON, books that balance, facts of profiles and prices; returns the JSON."""
    data = json.loads(result.to_json())
    jsonschema.Draft202012Validator(result_schema()).validate(data)
    names = list(result.scenario.backends)
    assert [row["backend"] for row in data["profiles"]] == names
    assert all(row["name"] and row["kind"] in ("measured", "estimated", "stated") for row in data["profiles"])
    priced = {row["backend"] for row in data["prices"]} | {row["backend"] for row in data["unpriced"]}
    assert priced == set(names)
    assert all(row["source"] for row in data["prices"])
    assert data["assumptions"]
    ledger = result.ledger()
    assert math.fsum(ledger["usd"]) == pytest.approx(data["metrics"]["cost_usd"]["value"], rel=1e-9)
    for key, rows in data["by"].items():
        total = math.fsum(row["cost_usd"] for row in rows)
        assert total == pytest.approx(data["metrics"]["cost_usd"]["value"], rel=1e-9), key
    for measured in result.measurements:
        for tasks in (measured.tasks, measured.tasks_total):
            assert (tasks["arrived"] == tasks["succeeded"] + tasks["failed"] + tasks["in_flight"]).all()
            assert (tasks["in_flight"] >= 0).all()
    return data


@pytest.mark.parametrize(("name", "variant"), BUNDLED)
def test_every_bundled_scenario_and_variant_runs(name: str, variant: str | None) -> None:
    data = check(simulate(short(name, variant), replications=2, workers=1))
    assert data["variant"] == variant
    assert data["replications"] == 2
    assert data["metrics"]["tasks"]["value"] > 0
    assert data["metrics"]["success_ratio"]["value"] > 0.5


def test_the_trace_replay_runs_where_the_trace_is(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMLAB_DATA", str(shared_data / "trace_azure_llm_2023"))
    for variant in (None, "selfhost", "api"):
        data = check(simulate(short("azure-2023-replay", variant), workers=1))
        assert data["metrics"]["tasks"]["value"] > 100


def test_the_list_of_bundled_scenarios_is_the_one_that_ships() -> None:
    assert {name for name, _ in BUNDLED} | NEEDS_A_FILE == set(bundled())


@pytest.mark.parametrize("name", sorted({name for name, variant in BUNDLED if variant}))
def test_variants_see_the_same_arrivals(name: str) -> None:
    """Common random numbers: what arrives does not depend on who serves it. (Later turns of sessions do.)"""
    arrived = []
    for variant in (None, *variants_of(SCENARIOS / f"{name}.yaml")):
        (measured,) = simulate(short(name, variant), workers=1).measurements
        arrived.append((measured.tasks_total["arrived"].tolist(), measured.windows["arrived"].sum(axis=1).tolist()))
    if name != "sessions":
        assert all(one == arrived[0] for one in arrived)


SMALL: dict[str, Any] = {
    "schema": 1,
    "name": "small",
    "horizon": 300,
    "window": 10,
    "seed": 4,
    "workload": {
        "chat": {
            "tenants": {"count": 3, "skew": 1.0},
            "feature": "assistant",
            "arrivals": {"kind": "poisson", "rate": 3.0},
            "lengths": {
                "prompt": {"kind": "lognormal", "mean": 300, "p95": 900},
                "output": {"kind": "geometric", "mean": 60},
            },
            "prefix": {"system": 128},
        },
        "users": {
            "arrivals": {"kind": "closed", "users": 3, "think_time": {"kind": "exponential", "mean": 5.0}},
            "lengths": {"prompt": 50, "output": 20},
        },
    },
    "pools": {
        "local": {
            "model": "llama-3.1-8b",
            "gpu": "h100-sxm",
            "replicas": 2,
            "startup": 20,
            "operations_usd_per_month": 100,
            "price": {"usd_per_gpu_hour": 3.0},
        }
    },
    "apis": {
        "far": {
            "provider": "somebody",
            "model": "something",
            "ttft": {"kind": "lognormal", "mean": 0.5, "p95": 1.0},
            "itl": 0.01,
            "error_probability": 0.1,
            "concurrency": 4,
            "when_full": "reject",
            "price": {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 4.0},
        }
    },
    "gateway": {"routes": [{"to": {"local": 1, "far": 1}}], "timeout": 4.0, "retry": {"max_attempts": 2}},
}


def small(**changes: Any) -> Scenario:
    return scenario_from_dict(SMALL | changes)


def pool(**changes: Any) -> dict[str, Any]:
    return {"local": SMALL["pools"]["local"] | changes}


def test_the_number_of_workers_never_changes_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = simulate(small(), replications=3, workers=1).to_json()
    with ThreadPoolExecutor(2) as threads:
        assert simulate(small(), replications=3, executor=threads).to_json() == alone
    assert simulate(small(), replications=3, workers=1).to_json() == alone


@pytest.mark.slow
def test_processes_give_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simlab.simulation._WORTH_A_PROCESS_S", 0.0)
    results = [simulate(small(), replications=3, workers=workers).to_json() for workers in (1, 2)]
    assert results[0] == results[1]


def test_replications_differ_and_the_first_is_the_only_one_alone() -> None:
    three, one = simulate(small(), replications=3, workers=1), simulate(small(), workers=1)
    assert three.measurements[0].hist.tobytes() == one.measurements[0].hist.tobytes()
    assert three.measurements[1].hist.tobytes() != three.measurements[0].hist.tobytes()
    assert len({replication_seed(4, i) for i in range(1000)}) == 1000
    again = measure(small(), replication_seed(4, 2))
    assert again.hist.tobytes() == three.measurements[2].hist.tobytes()


def test_a_seed_given_beats_the_scenarios() -> None:
    own, other = simulate(small(), workers=1), simulate(small(), seed=5, workers=1)
    assert simulate(small(seed=5), workers=1).values["e2e_s_mean"] == other.values["e2e_s_mean"]
    assert own.values["e2e_s_mean"] != other.values["e2e_s_mean"]


def test_no_replications_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        simulate(small(), replications=0)


def test_progress_rises_to_the_end() -> None:
    seen: list[tuple[float, float]] = []
    simulate(small(), replications=2, workers=1, progress=lambda done, total, note="": seen.append((done, total)))
    shares = [done for done, _ in seen]
    assert shares == sorted(shares)
    assert {total for _, total in seen} == {2}
    assert 1.9 < shares[-1] <= 2


def test_progress_does_not_change_a_result() -> None:
    quiet = simulate(small(), workers=1)
    heard = simulate(small(), workers=1, progress=lambda done, total, note="": None)
    assert quiet.to_json() == heard.to_json()


def test_the_request_log_is_what_the_metrics_say(tmp_path: Path) -> None:
    path = tmp_path / "requests.parquet"
    result = simulate(small(), log=path, workers=1)
    data = check(result)
    frame = read_request_log(path)
    (measured,) = result.measurements
    for b, name in enumerate(measured.backend_names):
        mine = frame[frame["backend"] == name]
        cells = measured.cells[measured.cells["backend"] == b]
        assert len(mine) == cells["attempts"].sum()
        for outcome in OUTCOMES:
            assert (mine["outcome"] == outcome).sum() == cells[outcome].sum(), f"{name}: {outcome}"
    met = {outcome for outcome in OUTCOMES if (frame["outcome"] == outcome).any()}
    assert met >= {"succeeded", "failed", "rate_limited", "timed_out"}
    ok = frame[frame["outcome"] == "succeeded"]
    assert len(ok) == measured.tasks_total["succeeded"].sum()
    assert data["metrics"]["e2e_s_mean"]["value"] == pytest.approx((ok["finish_s"] - ok["arrival_s"]).mean(), rel=1e-9)
    assert data["metrics"]["ttft_s_mean"]["value"] == pytest.approx(
        (ok["first_token_s"] - ok["arrival_s"]).mean(), rel=1e-9
    )
    for metric, column in (("ttft", "first_token_s"), ("e2e", "finish_s")):
        for q in (0.5, 0.95, 0.99):
            exact = np.quantile(ok[column] - ok["arrival_s"], q, method="inverted_cdf")
            assert data["metrics"][f"{metric}_s_p{round(100 * q)}"]["value"] == pytest.approx(exact, rel=0.0051)
    assert ok["first_token_s"].notna().all()
    assert frame[frame["outcome"] == "rate_limited"]["first_token_s"].isna().all()
    assert not frame.duplicated(["class", "task_id", "attempt"]).any()
    assert simulate(small(), workers=1).to_json() == result.to_json()


def operations(*orders: dict[str, Any]) -> Result:
    gateway = {"routes": [{"to": {"local": 1}}], "retry": {"max_attempts": 3}}
    return simulate(small(operations=list(orders), gateway=gateway), workers=1)


def test_planned_operations_are_carried_out() -> None:
    result = operations(
        {"at": 60, "pool": "local", "action": "add", "replicas": 2},
        {"at": 120, "pool": "local", "action": "fail"},
        {"at": 200, "pool": "local", "action": "drain", "replicas": 2},
    )
    check(result)
    reps = result.measurements[0].replicas
    assert reps["start_s"].tolist() == [0.0, 0.0, 60.0, 60.0]
    assert reps["ready_s"].tolist() == [0.0, 0.0, 80.0, 80.0]
    assert reps["stop_s"][3] == 120.0
    assert (reps["stop_s"][1:3] >= 200.0).all()
    assert (reps["stop_s"][1:3] < 260.0).all()
    assert reps["stop_s"][0] == math.inf
    hours = (300.0 + reps["stop_s"][1] + reps["stop_s"][2] - 60 + 60) / 3600
    assert result.values["gpu_hours"][0] == pytest.approx(hours, rel=0.01)
    assert result.values["success_ratio"][0] == 1.0


def test_operations_at_the_ends_of_the_horizon() -> None:
    result = operations(
        {"at": 0, "pool": "local", "action": "add"},
        {"at": 300, "pool": "local", "action": "drain"},
        {"at": 290, "pool": "local", "action": "add"},
    )
    reps = result.measurements[0].replicas
    assert reps["start_s"].tolist() == [0.0, 0.0, 0.0, 290.0]
    assert reps["ready_s"].tolist()[:3] == [0.0, 0.0, 20.0]
    assert reps["ready_s"][3] == math.inf


def test_a_pool_that_lost_all_its_replicas_fails_its_tasks() -> None:
    result = operations({"at": 100, "pool": "local", "action": "fail", "replicas": 5})
    check(result)
    tasks = result.measurements[0].tasks_total
    assert tasks["failed"].sum() > 100
    assert result.values["success_ratio"][0] < 0.6


def test_a_dearer_gpu_never_lowers_the_bill_of_a_fixed_plan() -> None:
    bills = [
        simulate(small(pools=pool(price={"usd_per_gpu_hour": usd})), workers=1).values["cost_usd"][0]
        for usd in (0.0, 1.0, 3.0, 9.0)
    ]
    assert bills == sorted(bills)
    # Two replicas of one GPU for 300 s.
    assert np.diff(bills) == pytest.approx(np.array([1.0, 2.0, 6.0]) * 2 * 300 / 3600, rel=1e-9)


def test_more_replicas_never_raise_waiting() -> None:
    waits = []
    for replicas in (1, 2, 4):
        changed = pool(replicas=replicas, max_num_seqs=2, max_num_batched_tokens=2048)
        gateway = {"routes": [{"to": {"local": 1}}]}
        (measured,) = simulate(small(pools=changed, gateway=gateway), workers=1).measurements
        waits.append(float(measured.windows["waiting_s"].sum()))
    assert waits == sorted(waits, reverse=True)


def test_what_cannot_be_simulated_is_said() -> None:
    with pytest.raises(InputError, match=r"llama-3\.1-9b"):
        simulate(small(pools=pool(model="llama-3.1-9b")), workers=1)


def test_requests_that_no_replica_can_hold_are_said_to_be_refused() -> None:
    short = ["horizon=2min", "warmup=0s", "pools.local.max_model_len=1000"]
    plan = load(SCENARIOS / "quickstart.yaml", variant="selfhost", sets=short)
    result = simulate(plan)
    refused = int(result.measurements[0].cells["rejected"].sum())
    assert refused > 0
    assert any(f"{refused:,} of" in text and "1,000 tokens" in text for text in result.assumptions)


def test_a_model_is_split_by_whole_attention_heads() -> None:
    plan = load(SCENARIOS / "quickstart.yaml", variant="selfhost", sets=["pools.local.tp=3"])
    with pytest.raises(InputError, match=r"pools\.local: tp is 3: vLLM cannot split the 64 attention heads"):
        simulate(plan)
