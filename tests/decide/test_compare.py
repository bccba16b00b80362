"""Comparisons: the same luck everywhere, verdicts that mean what they say."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_plan import plan

import simlab
from simlab.decide.compare import labelled, unlike_traffic
from simlab.decide.difference import BETTER, LESS, MORE, SAME, UNKNOWN, WORSE, direction, paired
from simlab.results.metrics import METRICS

few = settings(max_examples=8, deadline=None)
poisson = "workload.chat.arrivals={kind: poisson, rate: 12}"


def compare(*scenarios: Any, replications: int = 3, **how: Any) -> Any:
    return simlab.compare(scenarios, replications=replications, workers=1, **how)


def test_a_plan_differs_from_itself_by_exactly_nothing() -> None:
    found = compare(plan("pool", poisson), plan("pool", poisson))
    for label, differences in found.differences.items():
        for item in differences.values():
            assert item.change in (0.0, None), (label, item)
            assert item.verdict in (SAME, UNKNOWN)
            assert item.change is None or (item.low, item.high) == (0.0, 0.0)
    assert found.exit_code == 0
    assert found.headline.startswith("pool (2) costs the same as pool (")


@few
@given(st.floats(0.01, 20.0), st.floats(1.0, 3.0), st.integers(0, 2**32))
def test_a_dearer_gpu_never_lowers_the_bill(usd: float, factor: float, seed: int) -> None:
    one, two = (plan("pool", poisson, f"pools.own.price.usd_per_gpu_hour={p}") for p in (usd, usd * factor))
    found = compare(one, two, seed=seed)
    cheap, dear = (result.values["cost_usd"] for result in found.results.values())
    assert (dear >= cheap).all()
    assert dear == pytest.approx(cheap * factor, rel=1e-9)


@few
@given(st.integers(1, 4), st.integers(1, 3), st.floats(2.0, 60.0), st.integers(0, 2**32))
def test_more_replicas_never_wait_longer(replicas: int, more: int, rate: float, seed: int) -> None:
    load = f"workload.chat.arrivals={{kind: poisson, rate: {rate}}}"
    one, two = (plan("pool", load, f"pools.own.replicas={n}") for n in (replicas, replicas + more))
    found = compare(one, two, seed=seed)
    before, after = (result.values["waiting_mean"] for result in found.results.values())
    assert (after <= before + 1e-9).all()


def test_better_and_worse() -> None:
    slow = plan("pool", poisson)
    found = compare(slow, plan("pool", poisson, "pools.own.replicas=2"))
    [differences] = found.differences.values()
    assert differences["ttft_s_p95"].verdict == BETTER
    assert differences["slo_ratio"].verdict == BETTER
    assert differences["cost_usd_per_month"].verdict == WORSE
    assert differences["cost_usd_per_month"].change == pytest.approx(365.0)
    assert differences["cost_usd_per_month"].relative[0] == pytest.approx(1.0)
    assert differences["gpu_hours"].verdict == MORE
    assert differences["gpu_utilization"].verdict == LESS
    assert differences["tasks"].verdict == SAME
    assert "costs $365 a month more than pool" in found.headline.replace("$365.00", "$365")
    assert "100" in found.headline


def test_it_is_worse_only_if_it_worked_before() -> None:
    sets = (poisson, "slo.ttft=1s")
    good, bad = plan("pool", *sets, "pools.own.replicas=2"), plan("pool", *sets)
    assert compare(good, bad, replications=2).exit_code == 1
    assert compare(bad, good, replications=2).exit_code == 0
    assert compare(bad, bad, replications=2).exit_code == 0
    [sentence] = compare(good, bad, replications=2).broken
    assert "slo chat: missed" in sentence


def test_one_replication_has_no_interval_and_no_verdict() -> None:
    found = compare(plan("pool", poisson), plan("api", poisson), replications=1)
    [differences] = found.differences.values()
    assert {item.verdict for item in differences.values()} == {UNKNOWN}
    assert "one replication" in found.headline


def test_three_plans_are_held_against_the_first() -> None:
    found = compare(plan("api"), plan("pool"), plan("pool", "pools.own.replicas=3"), replications=2)
    assert list(found.differences) == ["pool", "pool (2)"]
    assert found.baseline == "api"
    assert len(found.table()) == 2 * len(METRICS)
    data = json.loads(found.to_json())
    assert data["differences"]["pool"]["cost_usd"]["verdict"] == found.differences["pool"]["cost_usd"].verdict
    assert set(data["plans"]) == {"api", "pool", "pool (2)"}
    assert any(text.startswith("[api] cloud: ") for text in data["assumptions"])


def test_the_first_seed_is_used_for_all() -> None:
    found = compare(plan("api", "seed=5"), plan("api", "seed=6"), replications=2)
    assert found.seed == 5
    assert not np.diff([result.values["cost_usd"] for result in found.results.values()], axis=0).any()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("horizon=50", "horizon"),
        ("workload.chat.arrivals.rate=6", "workload.chat.arrivals"),
        ("workload.chat.lengths.output=11", "workload.chat.lengths"),
        ("start=2026-02-01T00:00:00", "start"),
    ],
)
def test_other_traffic_is_warned_of(change: str, named: str) -> None:
    [warning] = unlike_traffic({"a": plan("pool"), "b": plan("pool", change)})
    assert f"b does not see the traffic of a: different {named}." in warning


@pytest.mark.parametrize("change", ["pools.own.replicas=7", "slo.ttft=1s", "workload.chat.priority=3", "seed=9"])
def test_the_same_traffic_is_not_warned_of(change: str) -> None:
    assert unlike_traffic({"a": plan("pool"), "b": plan("pool", change)}) == []


def test_labels() -> None:
    assert list(labelled([plan("api"), plan("pool")])) == ["api", "pool"]
    assert list(labelled([plan("api"), plan(None)])) == ["api", "as written"]
    assert list(labelled([plan("api"), plan("api", name="other")])) == ["plain:api", "other:api"]
    assert list(labelled([plan(None), plan(None)])) == ["plain", "plain (2)"]


def test_fewer_than_two_plans_are_none() -> None:
    with pytest.raises(ValueError, match="at least two"):
        simlab.compare([plan("api")])


def test_every_metric_of_time_and_money_has_a_direction() -> None:
    parts = {"api_usd", "gpu_usd", "operations_usd", "cache_saved_usd"}
    parts |= {f"{reason}_usd" for reason in ("hedge", "escalation", "fallback", "shadow", "duplicate", "helper")}
    for name, metric in METRICS.items():
        if metric.unit == "s" or (metric.unit.startswith("USD") and name not in parts):
            assert direction(name) == -1, name
    assert direction("cache_saved_usd") == 1
    assert direction("goodput_rps") == 1
    assert direction("tasks") == 0


def test_paired_differences_are_students() -> None:
    before, after = np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0])
    item = paired("cost_usd", before, after)
    # Differences 1, 2, 3: mean 2, s = 1, t(2, 0.975) = 4.3027, half-width 4.3027/sqrt(3).
    assert (item.change, item.verdict) == (2.0, SAME)
    assert (item.low, item.high) == pytest.approx((2 - 2.48414, 2 + 2.48414), abs=1e-4)


def test_undefined_pairs_are_left_out() -> None:
    item = paired("cost_usd", np.array([1.0, np.nan, 1.0]), np.array([2.0, 5.0, 2.0]))
    assert (item.baseline, item.value, item.change, item.verdict) == (1.0, 2.0, 1.0, WORSE)
    assert paired("cost_usd", np.array([np.nan]), np.array([2.0])).change is None
