"""Agents and latency budgets from the scenario to the bill, the report and the alerts."""

from __future__ import annotations

import math
from typing import Any

import jsonschema
import pytest
from conftest import ROOT

from simlab import assemble, load
from simlab.engine import arrays as codes
from simlab.lint.offered import offered_load
from simlab.report.text import text
from simlab.results import Result, read_request_log, result_schema
from simlab.results.parts import AROUND, PARTS
from simlab.scenario import Scenario, scenario_from_dict
from simlab.simulation import simulate

EXAMPLE = ROOT / "scenarios" / "examples" / "agent.yaml"
HOUR_S = 3600.0


def scenario(agent: dict[str, Any], **more: Any) -> Scenario:
    cls = {
        "feature": "research",
        "arrivals": {"kind": "poisson", "rate": "120/h"},
        "lengths": {"prompt": 1000, "output": 200},
        "agent": {"call_tokens": 100, "tools": {"latency": 1, "result_tokens": 400}, **agent},
        **more.pop("cls", {}),
    }
    price = {"input_usd_per_mtok": 3, "output_usd_per_mtok": 15}
    api = {"provider": "acme", "model": "large", "ttft": 0.5, "itl": 0.01, "price": price}
    return scenario_from_dict({"workload": {"research": cls}, "apis": {"large": api}, "horizon": "1d", **more})


def test_what_is_written_is_what_the_engine_gets() -> None:
    tools = {"latency": 2, "parallel": 3, "failure_probability": 0.1, "retries": 2, "usd_per_call": 0.01, "name": "web"}
    written = scenario(
        {"finish": 0.25, "tools": tools, "when_stopped": "answer", "runaway": {"share": 0.5, "from": 60, "until": 90}},
        cls={"caps": {"tool_steps": 7}, "latency": {"network": 0.02, "rerank": 0.1}},
    )
    ready = assemble.backends(written)
    policy = ready.policies[0]
    assert policy is not None
    agent = policy.agent
    assert agent is not None
    assert agent.steps.mean() == pytest.approx(4.0)
    assert (agent.max_steps, agent.partial, agent.retries, agent.failure) == (7, True, 2, 0.1)
    assert (agent.runaway_share, agent.from_s, agent.until_s) == (0.5, 60.0, 90.0)
    assert agent.calls_a_step == codes.MOST_PARALLEL * 3
    assert ready.facts[agent.helper].name == "web"
    assert ready.facts[agent.helper].usd_per_call == 0.01
    assert [part.mean() for part in policy.latency] == [0.02, 0.0, 0.0, 0.1, 0.0, 0.0]
    assert policy.timed


def test_a_class_without_either_has_no_policy_for_it() -> None:
    plain = scenario({"steps": 2}, cls={"agent": None})
    assert assemble.backends(plain).policies == (None,)
    assert simulate(plain).latency_parts == []


def test_pre_flight_checks_know_how_a_loop_multiplies() -> None:
    """Five calls a task: E[N] = 5 and, with N always 5, prompts of 1000 + 2 · 500 on average."""
    load_of = offered_load(scenario({"steps": 5})).classes["research"]
    assert load_of.mean_rps == pytest.approx(5 * 120 / HOUR_S)
    assert load_of.prompt_tokens == pytest.approx(1000 + 2 * 500)
    assert load_of.output_tokens == pytest.approx((4 * 100 + 200) / 5)
    assert load_of.new_tokens == pytest.approx((1000 + 4 * 500) / 5)
    assert load_of.longest_tokens == pytest.approx(1200 + 4 * 500)


@pytest.fixture(scope="module")
def example() -> Result:
    return simulate(load(EXAMPLE, variant="no-runaway"), replications=3)


def test_the_example_costs_what_its_comment_says(example: Result) -> None:
    """$0.1115 a task, up to what failing tools change and the one task in 10⁴ that is stopped at 40 steps."""
    tasks = sum(int(measured.counters["loops"].sum()) for measured in example.measurements)
    usd = sum(float(rows["api_usd"].sum()) for rows in example.ledgers) / tasks
    # The cost of a task has its standard deviation from N(N−1)/2 of a geometric N: about twice its mean.
    assert usd == pytest.approx(0.1115, abs=4 * 2 * 0.1115 / math.sqrt(tasks) + 0.0005)
    steps = example["tool_steps_per_task"]
    assert steps.low is not None
    assert steps.high is not None
    assert steps.low - 0.1 < 4.0 < steps.high + 0.1
    failures = example["tool_failure_ratio"]
    assert failures.value == pytest.approx(0.03, abs=0.002)


def test_where_the_time_goes_adds_up_and_is_shown(example: Result) -> None:
    rows = example.latency_parts
    found = example.to_dict()
    jsonschema.validate(found, result_schema())
    assert found["latency_parts"] == rows
    assert {row["part"] for row in rows} < set(PARTS)
    for metric in ("ttft", "e2e"):
        for quantile in AROUND:
            mine = {row["part"]: row["value"] for row in rows if (row["metric"], row["quantile"]) == (metric, quantile)}
            # The mean of the twentieth of tasks around a quantile is the quantile but for the curve of the tail.
            assert sum(mine.values()) == pytest.approx(example[f"{metric}_s_{quantile}"].value, rel=0.06)
            assert mine["network"] == pytest.approx(0.08, rel=0.1)
            assert mine["app"] == pytest.approx(0.015)
    parts = {(row["metric"], row["quantile"], row["part"]): row["value"] for row in rows}
    assert parts["ttft", "p95", "tools"] > 3 * parts["ttft", "p50", "tools"]
    # After its first token only the answer's own 400 tokens at 12 ms are left.
    assert parts["e2e", "p50", "output"] - parts["ttft", "p50", "output"] == pytest.approx(399 * 0.012, rel=0.1)
    said = text(example)
    for words in ("Where the time goes", "Tools", "Network", "together", "Tool steps of an agent's task"):
        assert words in said


def test_the_example_tells_of_its_runaways() -> None:
    """They begin after 78 hours; spending that is four deviations off is told of within the first hours."""
    found = simulate(load(EXAMPLE), replications=3)
    for replication in range(3):
        told = [alert.detected_s / HOUR_S for alert in found.alerts if alert.replication == replication]
        assert any(78.0 < hour <= 90.0 for hour in told)
        assert sum(hour > 78.0 for hour in told) > sum(hour <= 78.0 for hour in told)


def test_a_prompt_cache_pays_for_a_loop(example: Result) -> None:
    cached = simulate(load(EXAMPLE, variant="prompt-cache", sets=["workload.research.agent.runaway=null"]))
    assert cached["tool_steps_per_task"].value == pytest.approx(
        float(example.values["tool_steps_per_task"][0]), rel=1e-9
    )
    # Nearly every prompt but its last step's growth was sent a moment before.
    assert cached["prefix_hit_ratio"].value > 0.75
    assert cached["cost_usd"].value < 0.5 * float(example.values["cost_usd"][0])


def test_a_runaway_feature_is_told_of(tmp_path: Any) -> None:
    """From noon of the fourth day one task in twenty runs into the cap of 40 steps, and everybody's bill says so.

    A usual task is three calls of 1,000, 1,500 and 2,000 tokens and costs $0.0195; a stopped one 41 calls with
    41 · 1,000 + 820 · 500 = 451,000 tokens and $1.41: a task costs 4.6 times as much on average, a call 2.6 times.
    """
    written = scenario(
        {"steps": 3, "runaway": {"share": 0.05, "from": "84h"}},
        cls={"caps": {"tool_steps": 40}, "tenants": {"count": 30}},
        horizon="5d",
        alerts={"window": "1h", "period": "1d"},
    )
    log = tmp_path / "log.parquet"
    found = simulate(written, log=log)
    begins = 84 * HOUR_S
    first: dict[str, Any] = {}
    for alert in found.alerts:
        assert alert.detected_s > begins, alert
        first.setdefault(alert.rule, alert)
    # All spending is four deviations off, and a tenant with one such task above ten others, when an hour is over.
    for rule in ("spend_sd", "tenant_spend"):
        assert begins < first[rule].detected_s <= begins + 2 * HOUR_S, rule
    assert first["tenant_spend"].subject.startswith("research/t")
    # The price of a call is looked at over a day: h hours of 24 have to be dear for twice the mean of the day before,
    # 0.0195 (24 − h) + 0.0892 h > 2 · 0.0039 · (5 (24 − h) + 8.8 h), so h > 11.7.
    assert begins + 8 * HOUR_S < first["call_cost"].detected_s <= begins + 16 * HOUR_S
    assert first["call_cost"].subject == "research"
    rows = read_request_log(log)
    assert rows["usd"].sum() == pytest.approx(found["cost_usd"].value, rel=1e-9)
    assert len(rows) == found["attempts"].value
    measured = found.measurements[0]
    stopped = int(measured.counters["stopped_steps"].sum())
    assert stopped == measured.counters["stopped_loops"].sum() == measured.tasks_total["failed"].sum()
    assert found["stopped_ratio"].value == pytest.approx(stopped / measured.counters["loops"].sum())


def test_loops_under_many_policies_stay_in_the_books() -> None:
    """Two levels of a cascade, a fallback, retries, limits, budgets of context, caps and an exact cache at once."""
    written = scenario(
        {
            "steps": {"kind": "geometric", "mean": 3},
            "tools": {"latency": {"kind": "exponential", "mean": 0.5}, "usd_per_call": 0.001, "parallel": 2,
                      "failure_probability": 0.2, "retries": 1},
            "when_stopped": "answer",
        },
        cls={
            "caps": {"tool_steps": 6, "usd": 0.2, "retries": 3},
            "queries": {"count": 200, "zipf": 1.0},
            "context": {"caps": {"history": 2500}},
            "latency": {"network": 0.03},
            "tenants": {"count": 3},
        },
        models={"large": {"quality": 0.8}},
        gateway={
            "routes": [
                {
                    "by": "cascade",
                    "cascade": [
                        {
                            "to": "large",
                            "confidence": {"kind": "verifier", "accept_right": 0.9, "accept_wrong": 0.3,
                                           "usd_per_call": 0.0005},
                        },
                        {"to": "spare"},
                    ],
                }
            ],
            "retry": {"max_attempts": 2},
            "timeout": "20s",
            "deadline": "60s",
            "fallback": {"large": "spare"},
            "caches": {"exact": {}},
            "limits": [{"per": "tenant", "concurrency": 5, "when_over": "queue"}],
            "hedge": {"after": "5s"},
        },
        apis={
            "large": {"provider": "acme", "model": "large", "ttft": {"kind": "exponential", "mean": 1}, "itl": 0.01,
                      "error_probability": 0.1, "price": {"input_usd_per_mtok": 3, "output_usd_per_mtok": 15}},
            "spare": {"provider": "other", "model": "best", "ttft": 1, "itl": 0.01,
                      "price": {"input_usd_per_mtok": 5, "output_usd_per_mtok": 25}},
        },
    )  # fmt: skip
    found = simulate(written)
    measured = found.measurements[0]
    total = measured.tasks_total
    assert (total["arrived"] == total["succeeded"] + total["failed"] + total["in_flight"]).all()
    assert measured.counters["loops"].sum() == (total["succeeded"] + total["failed"]).sum()
    rows = found.ledgers[0]
    ended = rows["tasks_right"].sum() + rows["tasks_wrong"].sum() + rows["tasks_failed"].sum()
    assert ended == measured.counters["loops"].sum()
    assert found["cost_usd"].value == pytest.approx(sum(row["cost_usd"] for row in found.rows("reason")), rel=1e-9)
    assert {row["reason"] for row in found.rows("reason")} >= {"first", "escalation", "helper"}
    assert measured.counters["stopped_loops"].sum() > 0
    assert measured.counters["cut_history"].sum() > 0
    spans = measured.spans
    assert spans[0, 0, :, 0].sum() == measured.hist_count[0].sum()
    assert spans[1, 0, :, 1:].sum() == pytest.approx(measured.hist_sum[3].sum(), rel=1e-9)
    assert (spans[:, 0].sum(axis=1) >= -1e-6).all()
