"""Alerts on streams written by hand: which rule fires about whom, when it begins and when somebody can know."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import synthetic_run
from hypothesis import given
from hypothesis import strategies as st
from synthetic_run import Alerts

from simlab.results import Result
from simlab.results.alerts import Alert, alerts
from simlab.results.stream import Stream

HOUR_S = 3600.0
BLANK = synthetic_run.measurements(empty=True)
TENANTS, BACKENDS = 5, 2


def quiet(windows: int, **changed: np.ndarray) -> Stream:
    """Every tenant spends $1 in 100 calls an hour; nothing fails, and half of all lookups hit."""
    tables = {
        "usd": np.ones((windows, TENANTS)),
        "calls": np.full((windows, TENANTS), 100.0),
        "attempts": np.full((windows, BACKENDS), 250.0),
        "errors": np.zeros((windows, BACKENDS)),
        "refusals": np.zeros((windows, BACKENDS)),
        "lookups": np.full((windows, 3), 100.0),
        "hits": np.full((windows, 3), 50.0),
    }
    return Stream(HOUR_S, **{**tables, **changed})


def found(stream: Stream, **rules: float) -> list[Alert]:
    return alerts(Alerts(**rules), replace(BLANK, stream=stream))


ALL = {"tenant_spend": 10.0, "call_cost": 2.0, "cache_drop": 0.3, "errors": 0.1, "refusals": 0.1, "spend_sd": 4.0}


def test_nothing_happens_and_nothing_is_said() -> None:
    assert found(quiet(24 * 21), **ALL) == []
    assert alerts(Alerts(**ALL), BLANK) == []


def test_a_tenant_runs_away() -> None:
    usd = np.ones((48, TENANTS))
    usd[30:33, 2] = 40.0
    (alert,) = found(quiet(48, usd=usd), tenant_spend=10.0)
    assert (alert.rule, alert.subject) == ("tenant_spend", "chat/t2")
    # $10 of the $40 of hour 30 are spent after a quarter of it; its end is when anybody can know.
    assert alert.onset_s == pytest.approx(30.25 * HOUR_S)
    assert (alert.detected_s, alert.until_s) == (31 * HOUR_S, 33 * HOUR_S)
    assert (alert.value, alert.limit, alert.unit) == (40.0, 10.0, "USD")
    assert alert.sentence == "chat/t2 spent $40.00 in a window, over $10.00"


def test_the_median_is_of_tenants_that_spend_at_all() -> None:
    usd = np.zeros((3, TENANTS))
    usd[0, :2] = [1.0, 100.0]  # two tenants have no middle
    usd[1, :3] = [1.0, 1.0, 11.0]
    usd[2] = [0.0, 0.0, 3.0, 3.0, 30.0]  # not above ten times
    assert [(alert.subject, alert.detected_s) for alert in found(quiet(3, usd=usd), tenant_spend=10.0)] == [
        ("chat/t2", 2 * HOUR_S)
    ]


def test_a_call_costs_twice_as_much_as_a_week_ago() -> None:
    usd = np.ones((24 * 30, TENANTS))
    usd[24 * 15 :, :3] = 3.0  # the first class is a feature of its own; its calls cost three times as much
    (alert,) = found(quiet(24 * 30, usd=usd), call_cost=2.0)
    assert (alert.rule, alert.subject) == ("call_cost", "assistant")
    # The mean of seven days passes twice the old price when more than half of them are dear, which is after 3.5 days.
    assert alert.onset_s == 24 * 18.5 * HOUR_S
    assert alert.detected_s == alert.onset_s + HOUR_S
    assert (alert.value, alert.limit) == (pytest.approx((85 * 3 + 83) / 168 / 100), pytest.approx(0.02))
    assert alert.until_s < 24 * 30 * HOUR_S  # a week later the new price is the old one
    assert found(quiet(24 * 13, usd=usd[24 * 8 : 24 * 21]), call_cost=2.0) == []  # two weeks are needed


def test_a_cache_forgets() -> None:
    hits = np.full((60, 3), 50.0)
    hits[40:42, 1] = 30.0
    hits[50, 1] = 36.0
    (alert,) = found(quiet(60, hits=hits), cache_drop=0.3)
    assert (alert.rule, alert.subject) == ("cache_drop", "exact")
    assert (alert.onset_s, alert.detected_s, alert.until_s) == (40 * HOUR_S, 41 * HOUR_S, 42 * HOUR_S)
    assert (alert.value, alert.limit) == (pytest.approx(0.3), pytest.approx(0.35))
    lookups = np.full((60, 3), 49.0)
    assert found(quiet(60, hits=hits * 0.4, lookups=lookups), cache_drop=0.3) == []


@pytest.mark.parametrize("rule", ["errors", "refusals"])
def test_errors_and_refusals_jump(rule: str) -> None:
    bad = np.full((60, BACKENDS), 25.0)  # a tenth always does
    bad[50, 1] = 51.0
    (alert,) = found(quiet(60, **{rule: bad}), errors=0.1, refusals=0.1)
    assert (alert.rule, alert.subject) == (rule, "frontier-api")
    assert (alert.value, alert.limit) == (pytest.approx(0.204), pytest.approx(0.2))
    assert alert.detected_s == 51 * HOUR_S


def test_spending_is_judged_by_the_same_hour_of_the_days_before() -> None:
    usd = np.tile(1.0 + (np.arange(24) >= 12)[:, None], (8, TENANTS))  # afternoons cost twice as much
    assert found(quiet(len(usd), usd=usd), spend_sd=4.0) == []
    usd[24 * 5 + 3] = 2.0  # an afternoon's spending in the night
    (alert,) = found(quiet(len(usd), usd=usd), spend_sd=4.0)
    # Five like nights: mean 5, and a tenth of that in place of their standard deviation of nothing.
    assert (alert.value, alert.limit) == (10.0, pytest.approx(5.0 * 1.4))
    assert alert.onset_s == pytest.approx((24 * 5 + 3 + 0.7) * HOUR_S)
    assert found(quiet(len(usd) - 72, usd=usd[72:]), spend_sd=4.0) == []  # two days do not tell


def test_spread_of_the_days_before_is_student_of_nothing_but_their_own() -> None:
    usd = np.ones((24 * 4 + 1, 1)) * np.array([[0.2] * TENANTS])
    for day, spent in enumerate((8.0, 10.0, 12.0, 10.0)):
        usd[24 * day] = spent / TENANTS
    usd[24 * 4] = 17.0 / TENANTS
    (alert,) = found(quiet(len(usd), usd=usd), spend_sd=4.0)
    assert alert.limit == pytest.approx(10.0 + 4.0 * np.std([8.0, 10.0, 12.0, 10.0], ddof=1))


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.integers(0, TENANTS - 1))
def test_windows_in_a_row_are_one_alert(dear: list[bool], tenant: int) -> None:
    usd = np.ones((len(dear), TENANTS))
    usd[:, tenant] += 20.0 * np.array(dear)
    told = found(quiet(len(dear), usd=usd), tenant_spend=10.0)
    covered = np.zeros(len(dear), bool)
    for alert in told:
        first, last = round(alert.detected_s / HOUR_S) - 1, round(alert.until_s / HOUR_S)
        assert first * HOUR_S <= alert.onset_s <= alert.detected_s <= alert.until_s
        assert not covered[max(0, first - 1) : last].any()
        covered[first:last] = True
    assert covered.tolist() == dear


def test_alerts_are_in_the_result_of_every_replication() -> None:
    usd = np.ones((4, TENANTS))
    usd[1, 4] = 50.0
    runs = [replace(synthetic_run.measurements(seed), stream=quiet(4, usd=usd)) for seed in range(2)]
    scenario = synthetic_run.Scenario(alerts=Alerts(tenant_spend=10.0))
    result = Result(scenario, runs, synthetic_run.FACTS)
    assert [(alert.replication, alert.subject) for alert in result.alerts] == [(0, "summaries/t1"), (1, "summaries/t1")]
    assert [row["onset_s"] for row in result.to_dict()["alerts"]] == [1.2 * HOUR_S] * 2
    assert Result(synthetic_run.Scenario(), runs, synthetic_run.FACTS).alerts == []
