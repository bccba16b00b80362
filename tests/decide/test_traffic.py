"""More and less traffic, and the busiest part of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from plain_plan import plan

from simlab.decide.traffic import LEAD_S, busiest, scaled
from simlab.scenario import Scenario

LENGTHS = {"prompt": 10, "output": 10}


def with_arrivals(arrivals: dict[str, Any], **changes: Any) -> Scenario:
    cls = {"arrivals": arrivals} if arrivals["kind"] == "summary" else {"arrivals": arrivals, "lengths": LENGTHS}
    made: Scenario = plan("pool", workload={"chat": cls}, **changes)
    return made


@pytest.mark.parametrize(
    ("arrivals", "field", "wanted"),
    [
        ({"kind": "poisson", "rate": 4}, "rate", 6.0),
        ({"kind": "gamma", "rate": 4, "cv": 2}, "rate", 6.0),
        ({"kind": "closed", "users": 4, "think_time": 1}, "users", 6),
        ({"kind": "closed", "users": 1, "think_time": 1}, "users", 2),
        ({"kind": "summary", "file": "azure-2023-conv", "rate_scale": 2}, "rate_scale", 3.0),
    ],
)
def test_every_kind_of_arrivals_scales(arrivals: dict[str, Any], field: str, wanted: float) -> None:
    found = scaled(with_arrivals(arrivals), 1.5)
    assert getattr(found.workload["chat"].arrivals, field) == wanted
    assert found.slo == plan("pool").slo


def test_a_closed_loop_keeps_a_user() -> None:
    arrivals = {"kind": "closed", "users": 3, "think_time": 1}
    assert scaled(with_arrivals(arrivals), 0.01).workload["chat"].arrivals.users == 1


def test_steady_traffic_is_taken_as_it_is() -> None:
    scenario = plan("pool")
    found, words = busiest(scenario)
    assert (found.horizon, found.warmup, found.workload) == (60.0, 10.0, scenario.workload)
    assert words == "the run of 1 min"


def test_steady_traffic_of_a_month_is_cut_to_an_hour_after_warmup() -> None:
    found, words = busiest(plan("pool", horizon="30d", warmup="10min"))
    assert (found.warmup, found.horizon) == (600.0, 600.0 + 3600.0)
    assert "first 1.17 h" in words


def test_the_busiest_hour_of_a_daily_profile() -> None:
    hours = [1.0] * 24
    hours[14] = 3.0
    arrivals = {"kind": "poisson", "rate": 4, "profile": {"hour_of_day": hours}}
    scenario = with_arrivals(arrivals, horizon="1d", start="2026-01-05T00:00:00")
    found, words = busiest(scenario)
    # To a thousandth of a day, the hour from 14:00; the run begins a little before it.
    assert found.horizon - found.warmup == pytest.approx(3600.0)
    begin_s = (found.start - datetime(2026, 1, 5)).total_seconds() + found.warmup
    assert begin_s == pytest.approx(14 * 3600.0, abs=86.4)
    assert found.warmup == pytest.approx(LEAD_S)
    assert "busiest 1 h" in words


def test_growth_is_in_the_rate_of_the_busiest_hour() -> None:
    arrivals = {"kind": "poisson", "rate": 4, "growth_per_month": 1.0}
    found, _ = busiest(with_arrivals(arrivals, horizon=730 * 3600))
    # The last hour of the month, at nearly twice the rate.
    assert found.workload["chat"].arrivals.rate == pytest.approx(8.0, rel=0.01)


def test_a_series_keeps_its_clock_and_is_warm_until_the_peak() -> None:
    arrivals = {"kind": "poisson", "rate": 4, "profile": {"series": [[0, 1], [20_000, 5], [23_600, 1]]}}
    scenario = with_arrivals(arrivals, horizon=40_000)
    found, _ = busiest(scenario)
    assert found.start == scenario.start
    assert found.warmup == pytest.approx(20_000, abs=40)
    assert found.horizon == pytest.approx(23_600, abs=40)
