"""Work that may wait, from the scenario to the bill: batch endpoints, troughs, deadlines, and the example."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import simlab
from simlab import assemble
from simlab.engine import ApiSpec
from simlab.lint import lint
from simlab.report.text import text
from simlab.results import Result
from simlab.scenario import Scenario, scenario_from_dict
from simlab.simulation import simulate

EXAMPLE = Path(__file__).resolve().parents[2] / "scenarios" / "examples" / "offline.yaml"
PRICE = {"input_usd_per_mtok": 3, "output_usd_per_mtok": 15, "cached_input_usd_per_mtok": 0.3}


def scenario(**more: Any) -> Scenario:
    """A chat that cannot wait and papers that can, of 2,000 and 400 tokens each."""
    batch = more.pop("batch", {})
    to = more.pop("to", {"large:batch": 1})
    papers = more.pop("papers", {})
    common = {"arrivals": {"kind": "poisson", "rate": "0.5/s"}, "lengths": {"prompt": 2000, "output": 400}}
    api = {"provider": "acme", "model": "large", "ttft": 0.5, "itl": 0.01, "price": PRICE, "batch": batch}
    return scenario_from_dict(
        {
            "horizon": "2h",
            "workload": {"chat": common, "papers": {**common, "task": {"deadline": "30min"}, **papers}},
            "apis": {"large": api},
            "gateway": {"routes": [{"classes": ["papers"], "to": to}, {"to": {"large": 1}}]},
            **more,
        }
    )


def papers(result: Result) -> dict[str, Any]:
    """The row of the papers."""
    return next(row for row in result.rows("class") if row["class"] == "papers")


def test_a_batch_endpoint_is_a_backend_with_its_own_prices() -> None:
    ready = assemble.backends(scenario(batch={"discount": "40%", "window": "6h", "collect": "5min", "tpm": "1M"}))
    assert ready.names == ("large", "large:batch")
    spec, facts = ready.specs[1], ready.facts[1]
    assert isinstance(spec, ApiSpec)
    assert spec.batch is not None
    assert (spec.batch.window_s, spec.batch.collect_s, spec.tpm, spec.ttft.mean()) == (21600.0, 300.0, 1e6, 21600.0)
    assert spec.price.prompt == pytest.approx(1.8e-6)
    assert facts.token_prices is not None
    assert facts.token_prices.base == pytest.approx((1.8, 0.18, 1.8, 9.0))
    assert facts.price_source == "40% off: stated in the scenario"
    assert "takes its whole window" in facts.assumptions[0]


def test_half_price_is_half_the_cost() -> None:
    real_time = simulate(scenario(to={"large": 1}))
    batches = simulate(scenario(batch={"completion": {"kind": "exponential", "mean": "2min"}}))
    # 2,000 at $3 and 400 at $15 a million are $0.012; in a batch $0.006.
    assert papers(real_time)["cost_per_success_usd"] == pytest.approx(0.012, rel=0.01)
    each = papers(batches)["cost_usd"] / papers(batches)["tasks_right"]
    assert each == pytest.approx(0.006)
    assert papers(batches)["deadline_ratio"] == 1.0
    rows = {row["backend"]: row for row in batches.rows("backend")}
    assert rows["large:batch"]["api_usd"] == pytest.approx(papers(batches)["cost_usd"])


def test_latencies_and_objectives_of_the_whole_are_of_what_cannot_wait() -> None:
    done = simulate(scenario(batch={"completion": "20min"}, slo={"ttft": "1s"}))
    assert done["ttft_s_p99"].value == pytest.approx(0.5, rel=0.01)
    assert papers(done)["ttft_s_p50"] == pytest.approx(1200.0, rel=0.01)
    assert [check.name for check in done.verdict.checks] == ["slo chat"]
    assert done["slo_ratio"].value == 1.0
    late = simulate(scenario(batch={"completion": "40min"}, slo={"ttft": "1s"}))
    # Those of the first half hour before the end are neither done nor late.
    assert late["deadline_ratio"].value == papers(late)["deadline_ratio"] == 0.0
    assert papers(late)["slo_ratio"] == 0.0
    assert papers(late)["success_ratio"] == 1.0
    assert "Done by their deadline" in text(late)


def test_work_that_all_may_wait_has_latencies_all_the_same() -> None:
    plan = scenario(batch={"completion": "5min"})
    only = simulate(plan.model_copy(update={"workload": {"papers": plan.workload["papers"]}}))
    assert only["ttft_s_p50"].value == pytest.approx(300.0, rel=0.01)


def test_expired_requests_fall_back_to_real_time() -> None:
    done = simulate(
        scenario(
            batch={"completion": {"kind": "exponential", "mean": "10min"}, "window": "10min"},
            gateway={
                "routes": [{"classes": ["papers"], "to": {"large:batch": 1}}, {"to": {"large": 1}}],
                "fallback": {"large:batch": "large"},
            },
        )
    )
    row = papers(done)
    assert row["deadline_ratio"] == 1.0
    share = done["fallback_usd"].value / 0.012 / row["tasks_right"]
    assert share == pytest.approx(0.368, abs=0.035)  # 1/e, ± 4 standard deviations of 3,000 tasks
    assert row["timed_out"] == pytest.approx(share * row["tasks_right"], rel=0.05)


def test_limits_of_a_provider_do_not_hold_for_its_batches() -> None:
    gateway = {
        "routes": [{"classes": ["papers"], "to": {"large:batch": 1}}, {"to": {"large": 1}}],
        "limits": [{"per": "provider", "rpm": 6}],
        "timeout": "10s",
    }
    done = simulate(scenario(batch={"completion": "1min"}, gateway=gateway))
    assert papers(done)["success_ratio"] == 1.0
    assert done["rate_limited"].value > 2000  # 3,600 of the chat, of which six a minute pass


def test_checks_before_a_run_say_what_will_expire_or_be_late() -> None:
    def found(plan: Scenario) -> list[str]:
        return [finding.path for finding in lint(plan) if finding.severity != "note" and "model" not in finding.path]

    assert found(scenario(batch={"completion": "5min"})) == []
    assert found(scenario()) == ["workload.papers.task.deadline"]
    long = {"kind": "exponential", "mean": "10min"}
    assert found(scenario(batch={"completion": long, "window": "20min"})) == ["apis.large.batch.completion"]
    filled = simlab.load(EXAMPLE, variant="trough", sets=["workload.documents.priority=0"])
    assert "workload.documents.priority" in found(filled)
    assert found(simlab.load(EXAMPLE, variant="trough")) == []


@pytest.fixture(scope="module")
def example() -> dict[str, Result]:
    """The example in all its variants."""
    return {name: simulate(simlab.load(EXAMPLE, variant=name or None)) for name in ("", "batch", "at-once", "trough")}


def row_of(result: Result, name: str) -> dict[str, Any]:
    return next(row for row in result.rows("class") if row["class"] == name)


def test_the_example_s_arithmetic(example: dict[str, Result]) -> None:
    tasks = row_of(example[""], "documents")["tasks"]
    assert tasks == pytest.approx(151_200, abs=4.0 * 151_200**0.5)
    each = {name: result["api_usd"].value / tasks for name, result in example.items()}
    assert each[""] == pytest.approx(0.0064)
    expired = 0.1 * 6 * 3600 / (30 * 3600 - 3600)
    assert each["batch"] == pytest.approx(0.0032 * (1.0 - expired) + 0.0064 * expired, rel=0.01)
    assert each["at-once"] == each["trough"] == 0.0
    for result in example.values():
        assert result["gpu_usd"].value == pytest.approx(120.0)
        assert row_of(result, "documents")["deadline_ratio"] == 1.0
        assert row_of(result, "documents")["cost_per_success_usd"] > 0.0


def test_in_its_troughs_a_pool_does_more_and_its_chat_hardly_waits(example: dict[str, Result]) -> None:
    alone, at_once, trough = (row_of(example[name], "chat") for name in ("", "at-once", "trough"))
    assert trough["ttft_s_p95"] < 1.4 * alone["ttft_s_p95"]
    assert at_once["ttft_s_p95"] > 100.0 * alone["ttft_s_p95"]
    assert trough["slo_ratio"] > 0.999
    assert example["trough"]["gpu_utilization"].value > example[""]["gpu_utilization"].value
    assert example["trough"]["running_mean"].value > 1.4 * example[""]["running_mean"].value
    # The replica's bill is the same, so what is done in its troughs makes all of it cheaper.
    assert trough["cost_per_success_usd"] < 0.7 * alone["cost_per_success_usd"]
