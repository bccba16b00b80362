"""What limits, caps and budgets did, from the scenario to the result, its JSON and its page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from simlab.report.text import text
from simlab.results import Result, read_request_log
from simlab.results.schema import result_schema
from simlab.scenario import scenario_from_dict
from simlab.simulation import simulate

SCENARIO: dict[str, Any] = {
    "horizon": "1h",
    "workload": {
        "chat": {
            "tenants": {"count": 2},
            "arrivals": {"kind": "poisson", "rate": "30/min"},
            "lengths": {"prompt": 500, "output": {"kind": "geometric", "mean": 100}},
            "caps": {"output_tokens": 200},
        },
        "mail": {"arrivals": {"kind": "poisson", "rate": "10/min"}, "lengths": {"prompt": 900, "output": 50}},
    },
    "apis": {
        name: {"provider": "p", "model": name, "ttft": "300ms", "itl": "10ms",
               "price": {"input_usd_per_mtok": 1, "output_usd_per_mtok": 4}}
        for name in ("large", "spare")
    },
    "gateway": {
        "routes": [{"to": {"large": 1}}],
        "limits": [
            {"name": "fair", "per": "tenant", "classes": ["chat"], "rpm": 14, "burst": 1, "when_over": "queue"},
            {"name": "mails", "per": "class", "classes": ["mail"], "rpm": 8, "burst": 3},
            {"name": "keys", "per": "key", "apis": ["large"], "rpm": 25, "burst": 5, "when_over": "degrade",
             "degrade_to": "spare"},
        ],
        "queue": {"length": 4, "deadline": "20s"},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Any]:
    log: Path = tmp_path_factory.mktemp("log") / "requests.parquet"
    return simulate(scenario_from_dict(SCENARIO), log=log), read_request_log(log)


def test_limits_are_counted_as_the_log_has_them(found: tuple[Result, Any]) -> None:
    result, log = found
    fair, mails, keys = result.limits
    assert (fair["limit"], mails["limit"], keys["limit"]) == ("fair", "mails", "keys")
    refused = log[(log["outcome"] == "rate_limited") & (log["backend"] == "gateway")]
    assert mails["refused"] == (refused["class"] == "mail").sum() > 50
    assert keys["degraded"] == (log["backend"] == "spare").sum() > 50
    assert fair["queued"] > 100
    assert fair["refused"] == mails["queued"] == keys["refused"] == 0


def test_each_class_s_violations_have_words_and_shares(found: tuple[Result, Any]) -> None:
    result, log = found
    told = {(row["class"], row["what"]): row for row in result.violations}
    assert told["mail", "refused"]["count"] == result.limits[1]["refused"]
    assert told["mail", "refused"]["meaning"] == "tasks refused (429) by a limit"
    assert told["chat", "full"]["count"] == ((log["class"] == "chat") & (log["backend"] == "gateway")).sum() > 0
    arrived = result.measurements[0].tasks_total["arrived"][0]
    cut = told["chat", "cut_answers"]
    # A geometric answer of 100 tokens on average is longer than 200 with (99/100)^200 = 13.4%.
    assert cut["per_task"] == pytest.approx(cut["count"] / arrived)
    assert cut["per_task"] == pytest.approx(0.134, abs=0.04)
    assert ("mail", "cut_answers") not in told


def test_waits_are_those_of_the_line(found: tuple[Result, Any]) -> None:
    result, _ = found
    (row,) = result.waits
    assert row["class"] == "chat"
    # Who came to the line was turned away because it was full, has waited, or is one of two times four who still do.
    full = next(item["count"] for item in result.violations if item["what"] == "full")
    assert 0 <= result.limits[0]["queued"] - full - row["waits"] <= 8
    assert 0.0 < row["wait_s_p50"] < row["wait_s_p95"] <= 20.0 * 1.005
    assert row["wait_s_mean"] == pytest.approx(result.measurements[0].counters["waited_s"][0] / row["waits"])


def test_the_page_and_the_json_say_so(found: tuple[Result, Any]) -> None:
    result, _ = found
    told = text(result)
    for title in ("What limits did", "Limits, caps and budgets that were reached", "Waiting at limits"):
        assert title in told
    assert "chat: answers to be cut at their cap" in told
    data = json.loads(result.to_json())
    jsonschema.validate(data, result_schema())
    assert [row["limit"] for row in data["limits"]] == ["fair", "mails", "keys"]
