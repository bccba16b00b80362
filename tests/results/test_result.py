"""The result of a made-up run: metrics that agree with each other, intervals, verdicts, JSON."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import synthetic_run
from synthetic_run import Budget, Scenario, Slo, WorkloadClass

from simlab.report.html import html
from simlab.report.text import text
from simlab.results import Estimate, Result, result_schema, words
from simlab.results.interval import student
from simlab.results.keys import KEYS
from simlab.results.metrics import METRICS
from simlab.results.windows import ALL

RESULT = synthetic_run.result(3)


@pytest.mark.parametrize(
    "result",
    [RESULT, synthetic_run.result(1), synthetic_run.result(2, empty=True), synthetic_run.result(1, windows=2)],
    ids=["three", "one", "empty", "two windows"],
)
def test_json_satisfies_its_schema(result: Result) -> None:
    data = json.loads(result.to_json())
    schema = result_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(data)


def test_the_schema_refuses_another_document() -> None:
    data = RESULT.to_dict()
    del data["metrics"]["ttft_s_p95"]
    with pytest.raises(jsonschema.ValidationError, match="ttft_s_p95"):
        jsonschema.Draft202012Validator(result_schema()).validate(data)


def test_metrics_agree_with_each_other() -> None:
    value = {name: estimate.value for name, estimate in RESULT.estimates.items()}
    assert list(value) == list(METRICS)
    assert value["tasks"] == pytest.approx(value["succeeded"] + value["failed"] + value["in_flight"])
    assert value["cost_usd"] == pytest.approx(value["api_usd"] + value["gpu_usd"] + value["operations_usd"])
    assert value["cost_usd_per_month"] == pytest.approx(value["cost_usd"] * 730 / 24)
    assert value["gpu_hours"] == 2 * 4 * 24
    assert value["gpu_usd"] == pytest.approx(2.49 * value["gpu_hours"])
    assert value["operations_usd"] == pytest.approx(4000 / 730 * 24)
    assert value["goodput_rps"] <= value["throughput_rps"] <= value["arrival_rate_rps"]
    for name in ("ttft", "itl", "tpot", "e2e"):
        assert value[f"{name}_s_p50"] <= value[f"{name}_s_p95"] <= value[f"{name}_s_p99"]


def test_every_interval_holds_its_value() -> None:
    for estimate in (*RESULT.estimates.values(), *synthetic_run.result(1).estimates.values()):
        if estimate.low is not None:
            assert 0 <= estimate.low <= estimate.value <= estimate.high
            assert estimate.unit != "ratio" or estimate.high <= 1


def test_student_by_hand() -> None:
    estimate = student([1.0, 2.0, 3.0], "s")
    assert estimate.value == 2.0
    assert estimate.high - 2.0 == pytest.approx(4.302652729911275 * 1.0 / math.sqrt(3))
    assert student([float("nan"), 5.0], "s") == Estimate(5.0, None, None, "s")
    assert student([float("nan")], "s") == Estimate(None, None, None, "s")
    assert student([0.99, 1.0], "ratio").high == 1.0


def test_equal_buckets_are_not_equal_values() -> None:
    estimate = student([0.1, 0.1, 0.1], "s", resolution=0.01)
    assert estimate.low < 0.1 < estimate.high


def test_student_intervals_cover_the_truth_at_their_rate() -> None:
    rng = np.random.default_rng(11)
    estimates = [student(row.tolist(), "s") for row in rng.normal(10.0, 1.0, (2000, 5))]
    covered = np.mean([e.low <= 10.0 <= e.high for e in estimates])
    assert 0.935 <= covered <= 0.965


def test_one_replication_gets_batch_means_where_windows_tell_and_says_so() -> None:
    one = synthetic_run.result(1)
    assert one["ttft_s_p95"].low < one["ttft_s_p95"].value < one["ttft_s_p95"].high
    assert one["itl_s_p95"].low is None
    assert any("one replication" in sentence for sentence in one.assumptions)
    assert not any("one replication" in sentence for sentence in RESULT.assumptions)
    assert synthetic_run.result(1, windows=3)["ttft_s_p95"].low is None


def test_batch_means_cover_what_replications_find() -> None:
    truth = synthetic_run.result(12)["ttft_s_mean"].value
    ones = [synthetic_run.result(1) for _ in range(1)]
    assert all(one["ttft_s_mean"].low <= truth <= one["ttft_s_mean"].high for one in ones)


def test_warmup_is_cut_from_metrics_and_not_from_cost() -> None:
    whole, cut = synthetic_run.result(2), synthetic_run.result(2, warmup_s=43_200.0)
    assert cut["cost_usd"].value == whole["cost_usd"].value
    assert cut["cost_per_success_usd"].value == whole["cost_per_success_usd"].value
    assert cut["output_tokens"].value == whole["output_tokens"].value
    assert cut["tasks"].value < 0.8 * whole["tasks"].value
    halves = [m.windows[48:]["output_tokens"].sum() / 43_200 for m in cut.measurements]
    assert cut["output_tokens_per_s"].value == pytest.approx(np.mean(halves))
    assert any("warm-up" in sentence for sentence in cut.assumptions)


@pytest.mark.parametrize("key", KEYS)
def test_breakdowns_add_up(key: str) -> None:
    frame = RESULT.by(key)
    assert frame["cost_share"].sum() == pytest.approx(1.0)
    assert frame["cost_usd"].sum() == pytest.approx(RESULT["cost_usd"].value, rel=1e-9)
    tokens = () if key == "outcome" else ("prompt_tokens", "output_tokens", "tasks_right", "waste_usd")
    for name in ("attempts", *tokens):
        whole = RESULT["succeeded"] if name == "tasks_right" else RESULT[name]
        assert frame[name].sum() == pytest.approx(whole.value)
    if key in ("feature", "class", "tenant"):
        assert frame["tasks"].sum() == pytest.approx(RESULT["tasks"].value)
        assert frame["goodput_rps"].sum() == pytest.approx(RESULT["goodput_rps"].value)
    assert (frame["cost_usd_low"] <= frame["cost_usd"]).all()


def test_a_breakdown_by_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="backend, feature, class, tenant, tier"):
        RESULT.by("colour")


def test_breakdown_latencies_are_those_of_the_histograms() -> None:
    row = RESULT.by("backend").set_index("backend").loc["frontier-api"]
    sums = [m.hist_sum[0, :, 1].sum() / m.hist_count[0, :, 1].sum() for m in RESULT.measurements]
    assert row["ttft_s_mean"] == pytest.approx(np.mean(sums))


def test_windows_add_up() -> None:
    frame = RESULT.windows()
    assert list(dict.fromkeys(frame["backend"])) == [ALL, "h100", "frontier-api"]
    every = frame[frame["backend"] == ALL]
    assert len(every) == 96
    assert every["arrival_rate_rps"].mean() == pytest.approx(RESULT["arrival_rate_rps"].value)
    apart = frame[frame["backend"] != ALL].groupby("start_s")["arrival_rate_rps"].sum()
    assert apart.to_numpy() == pytest.approx(every["arrival_rate_rps"].to_numpy())
    assert frame[frame["backend"] == "frontier-api"]["utilization"].isna().all()
    assert every["ttft_s_p95"].median() == pytest.approx(RESULT["ttft_s_p95"].value, rel=0.2)


def ruled(slo: Slo | None = None, **budget: float) -> Result:
    scenario = Scenario(slo=slo, budget=Budget(**budget) if budget else None)
    return synthetic_run.result(3, scenario=scenario, rate_rps=0.1)


@pytest.mark.parametrize(
    ("target", "outcome", "code"), [(0.5, "met", 0), (0.9999, "missed", 1)], ids=["easy", "hopeless"]
)
def test_an_slo_is_judged_by_class(target: float, outcome: str, code: int) -> None:
    scenario = Scenario(slo=None, workload={"chat": WorkloadClass(Slo(target=target)), "summaries": WorkloadClass()})
    verdict = synthetic_run.result(3, scenario=scenario).verdict
    assert [(check.name, check.outcome) for check in verdict.checks] == [("slo chat", outcome)]
    assert verdict.exit_code == code


def test_a_limit_within_the_interval_is_undecided_and_taken_by_the_mean() -> None:
    value = ruled()["cost_usd_per_month"]
    for limit, holds in (((value.value + value.high) / 2, True), ((value.value + value.low) / 2, False)):
        result = ruled(usd_per_month=limit)
        (check,) = result.verdict.checks
        assert (check.outcome, check.holds) == ("undecided", holds)
        assert f"taken as {'met' if holds else 'missed'} by its mean" in check.sentence
        assert result.verdict.exit_code == (0 if holds else 1)


def test_budgets() -> None:
    assert ruled(usd_per_month=1e6, usd_per_success=1.0).verdict.exit_code == 0
    result = ruled(usd_per_month=1e6, usd_per_success=1e-4)
    assert [check.outcome for check in result.verdict.checks] == ["met", "missed"]
    assert result.verdict.exit_code == 1
    assert ruled().verdict.checks == ()


def test_a_budget_is_never_surely_met_while_something_has_no_price() -> None:
    pool, api = synthetic_run.FACTS
    scenario = Scenario(slo=None, budget=Budget(usd_per_month=1e6))
    backends = (pool, replace(api, token_prices=None))
    result = Result(scenario, RESULT.measurements, backends)
    (check,) = result.verdict.checks
    assert check.outcome == "undecided"
    assert "frontier-api" in check.sentence
    assert result.unpriced == [{"backend": "frontier-api", "what": "frontier-large"}]
    month, each = (words.usd(result[name].value) for name in ("cost_usd_per_month", "cost_per_success_usd"))
    lacking = "no price for frontier-api"
    assert f"tasks/h, at least {each} per successful task (at least {month} a month: {lacking})" in result.headline
    rows = {row["backend"]: row["cost_usd"] for row in result.rows("backend")}
    assert rows["h100"] > 0
    assert math.isnan(rows["frontier-api"])
    assert [price["backend"] for price in result.prices] == ["h100"]


def test_a_bill_without_any_price_is_unknown_not_zero() -> None:
    pool, api = synthetic_run.FACTS
    unpriced = (replace(pool, usd_per_gpu_hour=None, operations_usd_per_month=0.0), replace(api, token_prices=None))
    scenario = Scenario(slo=None, budget=Budget(usd_per_month=1e6, usd_per_success=1.0))
    result = Result(scenario, RESULT.measurements, unpriced)
    assert "tasks/h; cost unknown: no price for h100, frontier-api;" in result.headline
    assert "$" not in result.headline
    assert [(check.outcome, check.holds) for check in result.verdict.checks] == [("undecided", True)] * 2
    data = json.loads(result.to_json())
    jsonschema.Draft202012Validator(result_schema()).validate(data)
    for name in ("cost_usd", "cost_usd_per_month", "cost_per_success_usd", "usd_per_mtok"):
        assert [data["metrics"][name][part] for part in ("value", "low", "high")] == [None] * 3
    assert all(row["cost_usd"] is None for key in KEYS for row in data["by"][key])
    assert "Cost a month" in html(result)
    assert "$0" not in text(result)


def test_people_who_run_an_unpriced_pool_are_the_least_it_costs() -> None:
    pool, api = synthetic_run.FACTS
    backends = (replace(pool, usd_per_gpu_hour=None, operations_usd_per_month=500.0), replace(api, token_prices=None))
    result = Result(Scenario(slo=None), RESULT.measurements, backends)
    assert result["cost_usd_per_month"].value == pytest.approx(500.0)
    assert "(at least $500 a month: no price for h100, frontier-api)" in result.headline


def test_no_traffic_breaks_no_slo_but_no_success_breaks_a_price() -> None:
    scenario = Scenario(budget=Budget(usd_per_success=1.0))
    verdict = synthetic_run.result(2, scenario=scenario, empty=True).verdict
    assert [check.outcome for check in verdict.checks] == ["undecided", "undecided", "missed"]


def test_nothing_finished_is_no_success() -> None:
    measured = synthetic_run.measurements(empty=True)
    measured.tasks["arrived"] = measured.tasks["in_flight"] = 10
    result = Result(Scenario(), [measured], synthetic_run.FACTS)
    assert result["slo_ratio"].value == 0.0
    assert result.verdict.exit_code == 1
    assert any("100% of the tasks were still unfinished" in sentence for sentence in result.assumptions)
    assert "no task finished" in result.headline


def test_headline() -> None:
    assert RESULT.headline == (
        "made-up chat: 1,189 tasks/h at $0.0250 per successful task ($21,648 a month); "
        "p95 TTFT 784 ms (754–814), 86.3% meet the SLO; GPUs running 21% of the time."
    )


def test_facts_of_other_backends_are_refused() -> None:
    with pytest.raises(ValueError, match="h100"):
        Result(Scenario(), RESULT.measurements, synthetic_run.FACTS[::-1])
    with pytest.raises(ValueError, match="at least one replication"):
        Result(Scenario(), [], synthetic_run.FACTS)


def test_every_metric_is_documented() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "results.md").read_text(encoding="utf-8")
    table = page.split("| metric | unit | meaning |\n| --- | --- | --- |\n")[1].split("\n\n")[0]
    assert table.splitlines() == [f"| `{m.name}` | {m.unit} | {m.meaning} |" for m in METRICS.values()]
    fields = set(result_schema()["properties"])
    assert fields <= set(re.findall(r"`(\w+)`", page.split("## Metrics")[0]))
