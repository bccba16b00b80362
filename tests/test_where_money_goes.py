"""A small gateway with most of what spends money, from the scenario to the bill, the log, the alerts and the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simlab.report.text import text
from simlab.report.view import page
from simlab.results import Result, read_request_log
from simlab.results.keys import KEYS
from simlab.scenario import scenario_from_dict
from simlab.simulation import simulate

HOUR_S = 3600.0
LENGTHS = {"prompt": 800, "output": {"kind": "geometric", "mean": 100}}
PRICE = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 4.0}
DEAR = {"input_usd_per_mtok": 10.0, "output_usd_per_mtok": 40.0}

VERIFIER = {"kind": "verifier", "accept_right": 0.9, "accept_wrong": 0.2, "usd_per_call": 0.0002}


def api(provider: str, model: str, price: dict[str, float], **more: Any) -> dict[str, Any]:
    return {"provider": provider, "model": model, "ttft": "300ms", "itl": "10ms", "price": price, **more}


SCENARIO: dict[str, Any] = {
    "horizon": "48h",
    "workload": {
        "chat": {
            "feature": "assistant",
            "tenants": {"count": 6, "skew": 0},
            "arrivals": {"kind": "poisson", "rate": "216/h"},
            "lengths": LENGTHS,
            "task": {"tiers": {"low": 3, "high": 1}, "changes": [{"at": "12h", "prompt_version": "v2"}]},
            "queries": {"count": 400, "zipf": 0.8},
        },
        "agent": {
            "arrivals": {"kind": "poisson", "rate": "36/h", "profile": {"series": [[0, 1], ["30h", 40]]}},
            "lengths": LENGTHS,
        },
    },
    "models": {"small": {"quality": 0.7}},
    "apis": {
        "cheap": api("acme", "small", PRICE),
        "best": api("acme", "large", DEAR, error_probability=0.1),
        "spare": api("other", "large", DEAR),
    },
    "gateway": {
        "routes": [
            {
                "name": "hard work",
                "tiers": ["high"],
                "by": "cascade",
                "cascade": [
                    {
                        "to": "cheap",
                        "confidence": VERIFIER,
                    },
                    {"to": "best"},
                ],
            },
            {"to": {"cheap": 1}},
        ],
        "timeout": "3s",
        "retry": {"max_attempts": 2, "on": ["error"]},
        "fallback": {"best": "spare"},
        "caches": {"exact": {"classes": ["chat"]}},
    },
    "alerts": {"spend_sd": None},
}


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    log = tmp_path_factory.mktemp("log") / "requests.parquet"
    return simulate(scenario_from_dict(SCENARIO), log=log), log


def test_every_cut_adds_up_to_the_bill(result: tuple[Result, Path]) -> None:
    found, _ = result
    total = found["cost_usd"].value
    assert total == pytest.approx(found.ledger()["usd"].sum(), rel=1e-9)
    for key in KEYS:
        assert sum(row["cost_usd"] for row in found.rows(key)) == pytest.approx(total, rel=1e-9), key
    assert {row["tier"] for row in found.rows("tier")} == {"low", "high", "medium"}
    assert {row["route"] for row in found.rows("route")} == {"hard work", "route 2"}
    assert {row["prompt_version"] for row in found.rows("prompt_version")} == {"v1", "v2"}
    assert {row["provider"] for row in found.rows("provider")} == {"acme", "other", "gateway"}
    assert {row["reason"] for row in found.rows("reason")} == {"first", "retry", "fallback", "escalation", "helper"}


def test_the_log_has_every_dollar_and_says_what_for(result: tuple[Result, Path]) -> None:
    found, path = result
    log = read_request_log(path)
    assert log["usd"].sum() == pytest.approx(found["cost_usd"].value, rel=1e-9)
    assert len(log) == found["attempts"].value
    for key in ("feature", "class", "tier", "route", "prompt_version", "backend", "provider", "model", "reason"):
        mine = log.groupby(key, observed=True)["usd"].sum()
        for row in found.rows(key):
            assert mine[row[key]] == pytest.approx(row["cost_usd"], rel=1e-9), (key, row[key])
    assert (log[log["route"] == "hard work"]["tier"] == "high").all()
    before = log[log["arrival_s"] < 12 * HOUR_S]
    assert (before["prompt_version"] == "v1").all()
    after = log[(log["arrival_s"] >= 12 * HOUR_S) & (log["class"] == "chat")]
    assert (after["prompt_version"] == "v2").all()


def test_tasks_end_once_and_cost_per_success_counts_right_answers(result: tuple[Result, Path]) -> None:
    found, _ = result
    (measured,) = found.measurements
    rows = found.ledgers[0]
    total = measured.tasks_total
    assert rows["tasks_right"].sum() == total["succeeded"].sum()
    assert rows["tasks_wrong"].sum() == total["wrong"].sum() > 0
    assert (rows["tasks_wrong"] + rows["tasks_failed"]).sum() == total["failed"].sum()
    right = total["succeeded"].sum()
    assert found["cost_per_success_usd"].value == pytest.approx(found["cost_usd"].value / right)
    assert found["answered_ratio"].value > found["success_ratio"].value
    for name, n in (("chat", 0), ("agent", 1)):
        (row,) = (row for row in found.rows("class") if row["class"] == name)
        assert row["tasks_right"] == total["succeeded"][n]


def test_parts_of_the_bill_are_named(result: tuple[Result, Path]) -> None:
    found, path = result
    log = read_request_log(path)
    for reason in ("retry", "escalation", "fallback", "helper"):
        assert found[f"{reason}_usd"].value == pytest.approx(log[log["reason"] == reason]["usd"].sum(), rel=1e-9)
        assert found[f"{reason}_usd"].value > 0
    chat = log[log["class"] == "chat"]  # the others number their tasks anew
    escalated = chat[chat["reason"] == "escalation"]["task_id"]
    thrown = chat[(chat["backend"] == "cheap") & chat["task_id"].isin(escalated)]
    late = log[(log["outcome"] == "timed_out")]
    by = {item["what"]: item["usd"] for item in found.waste}
    assert by["discarded"] == pytest.approx(thrown[thrown["outcome"] == "succeeded"]["usd"].sum(), rel=1e-9)
    assert by["timed_out"] == pytest.approx(late["usd"].sum(), rel=1e-9)
    assert found["waste_usd"].value == pytest.approx(sum(by.values()))
    # One in ten fails, one retry, then the fallback: a hundredth of what reaches the best model, within chance.
    fallen = set(chat[chat["reason"] == "fallback"]["task_id"])
    ended = found.measurements[0].tasks_total[["succeeded", "failed"]]
    n = ended["succeeded"].sum() + ended["failed"].sum()
    assert found["fallback_ratio"].value == pytest.approx(len(fallen) / n)
    assert found["escalation_ratio"].value == pytest.approx(len(set(escalated) - fallen) / n)
    assert len(fallen) < 0.05 * len(set(escalated))


def test_what_the_cache_saved_is_what_its_answers_would_have_cost(result: tuple[Result, Path]) -> None:
    found, path = result
    log = read_request_log(path)
    (cache,) = found.caches
    assert cache["cache"] == "exact cache"
    assert cache["hits"] == (log["provider"] == "gateway").sum() - (log["reason"] == "helper").sum()
    assert cache["lookups"] == found["tasks"].value - next(
        row["tasks"] for row in found.rows("class") if row["class"] == "agent"
    )
    # Hits are kept answers of the cheap model's requests, so each saves about as much as one of those costs.
    each = log[(log["backend"] == "cheap") & (log["outcome"] == "succeeded")]["usd"].mean()
    assert cache["saved_usd"] / cache["hits"] == pytest.approx(each, rel=0.1)
    assert found["cache_saved_usd"].value == pytest.approx(cache["saved_usd"])


def test_a_runaway_is_told_at_the_end_of_its_first_hour(result: tuple[Result, Path]) -> None:
    found, _ = result
    (alert,) = [alert for alert in found.alerts if alert.rule == "tenant_spend"]
    assert alert.subject == "agent/t0"
    assert 30 * HOUR_S < alert.onset_s < 30.6 * HOUR_S
    assert alert.detected_s == 31 * HOUR_S
    assert alert.until_s == 48 * HOUR_S
    (measured,) = found.measurements
    assert measured.stream is not None
    assert measured.stream.usd.shape == (48, 7)
    assert measured.stream.usd.sum() == pytest.approx(found["cost_usd"].value, rel=1e-9)
    assert measured.stream.attempts.sum() == found["attempts"].value
    assert np.all(measured.stream.hits <= measured.stream.lookups)


def test_the_page_says_where_the_money_went(result: tuple[Result, Path]) -> None:
    found, _ = result
    titles = [table.title for table in page(found).tables]
    for title in ("Why attempts were made", "Paid in vain", "By route", "By tier", "By prompt version"):
        assert title in titles
    for title in ("Caches, against a run without them", "Errors by provider and model", "Alerts, the first about each"):
        assert title in titles
    said = text(found)
    assert "agent/t0" in said
    assert "  of it for escalations" in said
    assert [table.title for table in page(found, by=["model"]).tables][1] == "By model"
