"""Money is conserved (I4): however it is cut, the ledger adds up to the bill, and the bill to plain arithmetic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import synthetic_run
from hypothesis import given, settings
from hypothesis import strategies as st

from simlab.results import (
    CELL_DTYPE,
    HIST_BUCKETS,
    REPLICA_DTYPE,
    BackendFacts,
    Measurements,
    Result,
    TokenPrices,
)
from simlab.results.groups import TaskGroups
from simlab.results.keys import KEYS
from simlab.results.ledger import MONEY, NOBODY, WASTE, bill, billed_s, idle_share, ledger, token_usd
from simlab.results.measurements import CELL_KEYS, REASONS

BLANK = synthetic_run.measurements(empty=True)

usd = st.floats(0, 1e4, allow_subnormal=False)
tokens = st.integers(0, 10**13)
VAIN = ("timed_out", "cancelled", "discarded")

GROUPS = (
    TaskGroups(("low", "high"), ("v1", "v2"), (("cheap", "dear"), ("cheap", "dear"), ("own", "own"))),
    TaskGroups(("high",), ("v2",), (("dear",),)),
)
"""The first class has two tiers and two prompts, and one tenant with a route of its own."""


def whole(backends: int) -> Measurements:
    """`BLANK` with so many backends, and a class of several groups."""
    names = ("h100", "frontier-api", "exact cache", "classifier")[:backends]
    return replace(
        BLANK,
        backend_names=names,
        groups=GROUPS,
        hist=np.zeros((4, 2, backends, HIST_BUCKETS), np.int64),
        hist_sum=np.zeros((4, 2, backends)),
        hist_count=np.zeros((4, 2, backends), np.int64),
        windows=np.zeros((len(BLANK.windows), backends), BLANK.windows.dtype),
    )


@st.composite
def cells(draw: st.DrawFn) -> np.ndarray:
    """Some cells of the five tenants, all different, in any order."""
    places = st.tuples(
        st.sampled_from([(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]),
        st.integers(0, 3),
        st.integers(0, 3),
        st.integers(0, len(REASONS) - 1),
    )
    chosen = draw(st.lists(places, max_size=12, unique=True))
    table = np.zeros(len(chosen), CELL_DTYPE)
    for row, ((cls, tenant), group, backend, reason) in zip(table, chosen, strict=True):
        row["cls"], row["tenant"], row["backend"], row["reason"] = cls, tenant, backend, reason
        row["group"] = 0 if cls == 1 else group
        row["attempts"] = draw(st.integers(0, 100))
        row["tasks_right"] = draw(st.integers(0, int(row["attempts"])))
        row["prompt_tokens"] = draw(tokens)
        row["cached_tokens"] = draw(st.integers(0, int(row["prompt_tokens"])))
        row["output_tokens"] = draw(tokens)
        row["written_tokens"] = draw(st.integers(0, int(row["prompt_tokens"] - row["cached_tokens"])))
        row["long_cached_tokens"] = draw(st.integers(0, int(row["cached_tokens"])))
        row["long_written_tokens"] = draw(st.integers(0, int(row["written_tokens"])))
        fresh = int(row["prompt_tokens"] - row["cached_tokens"] - row["written_tokens"])
        read_or_written = int(row["long_cached_tokens"] + row["long_written_tokens"])
        row["long_prompt_tokens"] = read_or_written + draw(st.integers(0, fresh))
        row["long_output_tokens"] = draw(st.integers(0, int(row["output_tokens"])))
        row["work_s"] = draw(st.one_of(st.just(0.0), st.floats(1e-6, 1e6)))
        shares = [draw(st.floats(0, 0.25)) for _ in range(2 * len(VAIN))]
        for kind, work, dollars in zip(VAIN, shares[:3], shares[3:], strict=True):
            row[f"{kind}_work_s"], row[f"{kind}_usd"] = work * row["work_s"], dollars * 100.0
        for what in ("work_s", "usd"):
            row[f"lost_{what}"] = sum(row[f"{kind}_{what}"] for kind in VAIN)
        for outcome in ("failed", "timed_out", "cancelled"):
            row[outcome] = draw(st.integers(0, int(row["attempts"]) // 3))
    return table


@st.composite
def leases(draw: st.DrawFn) -> np.ndarray:
    table = np.zeros(draw(st.integers(0, 4)), REPLICA_DTYPE)
    for row in table:
        row["start_s"] = draw(st.floats(0, 9e4))
        row["stop_s"] = row["start_s"] + draw(st.one_of(st.just(np.inf), st.floats(0, 9e4)))
        row["busy_s"] = draw(st.floats(0, 1e5))
    return table


@st.composite
def facts(draw: st.DrawFn) -> tuple[BackendFacts, ...]:
    maybe = st.one_of(st.none(), usd)
    prices = TokenPrices(draw(usd), draw(usd), draw(maybe), 200_000, draw(maybe), draw(maybe), draw(maybe), draw(maybe))
    pool = BackendFacts(
        name="h100",
        kind="pool",
        gpus_per_replica=draw(st.integers(1, 8)),
        usd_per_gpu_hour=draw(maybe),
        billing_granularity_s=draw(st.sampled_from([0.0, 1.0, 60.0, 3600.0])),
        billing_minimum_s=draw(st.sampled_from([0.0, 600.0])),
        operations_usd_per_month=draw(usd),
    )
    api = BackendFacts(
        name="frontier-api",
        kind="api",
        operations_usd_per_month=draw(usd),
        provider="somebody",
        token_prices=draw(st.one_of(st.none(), st.just(prices))),
    )
    cache = BackendFacts(name="exact cache", kind="cache", provider="gateway")
    helper = BackendFacts(name="classifier", kind="service", provider="gateway", usd_per_call=draw(usd))
    return pool, api, cache, helper


@settings(deadline=None)  # The first example also imports pandas.
@given(cells(), leases(), facts())
def test_i4_rows_add_up_to_the_bill_however_they_are_cut(
    table: np.ndarray, replicas: np.ndarray, backends: tuple[BackendFacts, ...]
) -> None:
    measured = replace(whole(4), cells=table, replicas=replicas)
    rows = ledger(measured, backends)
    bills = bill(measured, backends)
    total = sum(owed["usd"] for owed in bills)
    for index, owed in enumerate(bills):
        mine = rows[rows["backend"] == index]
        for name in MONEY:
            assert mine[name].sum() == pytest.approx(owed[name], rel=1e-9, abs=1e-12)
            assert np.all(mine[name] >= 0)
        waste = np.sum([mine[f"waste_{kind}_usd"] for kind in WASTE], axis=0)
        assert np.all(mine["idle_usd"] + waste <= (mine["gpu_usd"] + mine["api_usd"]) * (1 + 1e-12) + 1e-12)
        assert np.all(waste >= 0)
    for name in (CELL_DTYPE.names or ())[len(CELL_KEYS) :]:
        assert rows[name].sum() == pytest.approx(table[name].sum(), rel=1e-12)
    result = Result(synthetic_run.Scenario(), [measured], backends)
    # Nothing that was used has a price: unknown, and not a sum of 0.
    known = result["cost_usd"].value
    assert (known is not None) or (total == 0 and result.unpriced)
    assert (known or 0.0) == pytest.approx(total, rel=1e-9, abs=1e-12)
    assert result.ledger()["usd"].sum() == pytest.approx(total, rel=1e-9, abs=1e-12)
    for key in KEYS:
        assert np.nansum([row["cost_usd"] for row in result.rows(key)]) == pytest.approx(total, rel=1e-9, abs=1e-12)
        attempts = sum(row["attempts"] for row in result.rows(key))
        assert attempts == pytest.approx(table["attempts"].sum())


def test_tokens_are_priced_by_tier() -> None:
    row = np.zeros(1, CELL_DTYPE)
    row["prompt_tokens"], row["cached_tokens"], row["output_tokens"] = 4_000_000, 3_000_000, 500_000
    api = BackendFacts("a", "api", token_prices=TokenPrices(3.0, 15.0, 0.3))
    assert token_usd(row, api)[0] == pytest.approx(1 * 3 + 3 * 0.3 + 0.5 * 15)
    row["long_prompt_tokens"], row["long_cached_tokens"], row["long_output_tokens"] = 2_000_000, 1_500_000, 100_000
    tiered = BackendFacts("a", "api", token_prices=TokenPrices(3.0, 15.0, 0.3, 200_000, 6.0, 0.6, 22.5))
    expected = 0.5 * 3 + 1.5 * 0.3 + 0.4 * 15 + 0.5 * 6 + 1.5 * 0.6 + 0.1 * 22.5
    assert token_usd(row, tiered)[0] == pytest.approx(expected)


def test_prices_left_out_fall_back() -> None:
    assert TokenPrices(3.0, 15.0).base == (3.0, 3.0, 3.0, 15.0)
    assert TokenPrices(3.0, 15.0, 0.3).long == pytest.approx((3.0, 0.3, 3.0, 15.0))
    assert TokenPrices(3.0, 15.0, 0.3, 200_000, 6.0).long == pytest.approx((6.0, 0.6, 6.0, 15.0))
    assert TokenPrices(0.0, 1.0, 0.0, 200_000, 2.0).long == (2.0, 0.0, 2.0, 1.0)
    written = TokenPrices(3.0, 15.0, 0.3, 200_000, 6.0, cache_write_usd_per_mtok=3.75)
    assert written.base == (3.0, 0.3, 3.75, 15.0)
    assert written.long == pytest.approx((6.0, 0.6, 7.5, 15.0))


@pytest.mark.parametrize(
    ("start", "stop", "granularity", "minimum", "seconds"),
    [
        (0.0, np.inf, 1.0, 0.0, 5400.0),
        (0.0, np.inf, 3600.0, 0.0, 7200.0),
        (0.0, 3600.0 + 1e-7, 3600.0, 0.0, 3600.0),
        (100.0, 161.0, 60.0, 0.0, 120.0),
        (100.0, 161.0, 1.0, 600.0, 600.0),
        (100.0, 161.5, 0.0, 0.0, 61.5),
        (6000.0, np.inf, 3600.0, 600.0, 0.0),
    ],
)
def test_a_lease_is_billed_in_whole_granules(
    start: float, stop: float, granularity: float, minimum: float, seconds: float
) -> None:
    billed = billed_s(
        np.array([start]), np.array([stop]), horizon_s=5400.0, granularity_s=granularity, minimum_s=minimum
    )
    assert billed.tolist() == [seconds]


def run_of(replicas: list[tuple[float, float, float]], work: list[float]) -> Measurements:
    table = np.zeros(len(replicas), REPLICA_DTYPE)
    table["start_s"], table["stop_s"], table["busy_s"] = np.array(replicas).T
    cells = np.zeros(10, CELL_DTYPE)
    cells["cls"] = np.repeat([0, 0, 0, 1, 1], 2)
    cells["tenant"] = np.repeat([0, 1, 2, 0, 1], 2)
    cells["backend"] = np.tile([0, 1], 5)
    cells["work_s"][::2] = work
    return replace(BLANK, cells=cells, replicas=table)


def test_a_pool_is_split_by_work_and_its_idle_part_is_named() -> None:
    pool = replace(synthetic_run.FACTS[0], usd_per_gpu_hour=2.0, operations_usd_per_month=730.0)
    backends = (pool, synthetic_run.FACTS[1])
    measured = run_of([(0.0, np.inf, 21_600.0), (0.0, 43_200.0, 10_800.0)], [3.0, 1.0, 0.0, 0.0, 0.0])
    rows = ledger(measured, backends)
    gpu_usd = (24 + 12) * 4 * 2.0
    assert rows["gpu_usd"][[0, 2]].tolist() == pytest.approx([gpu_usd * 0.75, gpu_usd * 0.25])
    assert rows["operations_usd"].sum() == pytest.approx(24.0)
    assert idle_share(measured, pool, 0) == pytest.approx(1 - 9 / 36)
    assert rows["idle_usd"].sum() == pytest.approx(gpu_usd * 0.75)


def test_a_pool_that_served_nobody_is_on_the_bill_under_no_name() -> None:
    measured = run_of([(0.0, np.inf, 0.0)], [0.0] * 5)
    rows = ledger(measured, synthetic_run.FACTS)
    paid = rows[rows["gpu_usd"] > 0]
    assert len(paid) == 1
    assert paid["cls"][0] == NOBODY
    assert paid["idle_usd"][0] == paid["gpu_usd"][0] == pytest.approx(24 * 4 * 2.49)
    frame = Result(synthetic_run.Scenario(), [measured], synthetic_run.FACTS).ledger()
    assert frame["tenant"].tolist() == ["(unused)"]


def test_what_was_paid_in_vain_is_named_and_idle_time_is_not_part_of_it() -> None:
    cells = np.zeros(3, CELL_DTYPE)
    cells["backend"] = [0, 1, 1]
    cells["reason"] = [0, 0, REASONS.index("duplicate")]
    cells["attempts"] = 10
    cells["prompt_tokens"][1:] = 1_000_000
    cells["work_s"][0], cells["lost_work_s"][0], cells["timed_out_work_s"][0] = 100.0, 30.0, 20.0
    cells["lost_usd"][1], cells["discarded_usd"][1] = 1.0, 0.75
    replicas = np.zeros(1, REPLICA_DTYPE)
    replicas["stop_s"], replicas["busy_s"] = np.inf, 21_600.0
    rows = ledger(replace(BLANK, cells=cells, replicas=replicas), synthetic_run.FACTS)
    running_usd = 6 * 4 * 2.49
    pool, first, again = rows[:3]
    assert pool["waste_timed_out_usd"] == pytest.approx(0.2 * running_usd)
    assert pool["waste_failed_usd"] == pytest.approx(0.1 * running_usd)
    assert first["waste_discarded_usd"] == pytest.approx(0.75)
    assert first["waste_failed_usd"] == pytest.approx(0.25)
    assert again["waste_duplicate_usd"] == again["api_usd"] == pytest.approx(3.0)
    result = Result(synthetic_run.Scenario(), [replace(BLANK, cells=cells, replicas=replicas)], synthetic_run.FACTS)
    assert result["waste_usd"].value == pytest.approx(0.3 * running_usd + 1.0 + 3.0)
    assert result["duplicate_usd"].value == pytest.approx(3.0)
    by = {row["outcome"]: row["cost_usd"] for row in result.rows("outcome")}
    leased_usd = 24 * 4 * 2.49 + 4000 / 730 * 24
    assert by["timed_out"] == pytest.approx(0.2 * leased_usd)
    assert by["failed"] == pytest.approx(0.1 * leased_usd + 0.25)


def test_a_group_tells_tier_route_and_prompt() -> None:
    cells = np.zeros(4, CELL_DTYPE)
    cells["backend"] = 1
    cells["tenant"] = [0, 0, 2, 0]
    cells["group"] = [0, 3, 2, 0]
    cells["cls"][3] = 1
    cells["attempts"] = [1, 2, 4, 8]
    result = Result(synthetic_run.Scenario(), [replace(BLANK, cells=cells, groups=GROUPS)], synthetic_run.FACTS)

    def attempts(key: str) -> dict[str, float]:
        return {row[key]: row["attempts"] for row in result.rows(key) if row["attempts"]}

    assert attempts("tier") == {"low": 1, "high": 2 + 4 + 8}
    assert attempts("prompt_version") == {"v1": 1 + 4, "v2": 2 + 8}
    assert attempts("route") == {"cheap": 1, "dear": 2 + 8, "own": 4}
    assert attempts("provider") == {"unknown": 15}
    assert attempts("model") == {"frontier-large": 15}
    assert attempts("reason") == {"first": 15}
    assert list(result.ledger()["tier"]) == ["low", "high", "high", "high", "(unused)"]


def test_a_price_out_of_all_proportion_leaves_the_bill_finite() -> None:
    prices = TokenPrices(
        2.2250738585072014e-308, 0.0, long_threshold_tokens=200_000, long_input_usd_per_mtok=1.0,
        cache_write_usd_per_mtok=4.0,
    )  # fmt: skip
    assert prices.long == (1.0, 1.0, 1.0, 0.0)
    assert TokenPrices(2.0, 8.0, 0.5, 200_000, 4.0, cache_write_usd_per_mtok=2.5).long == (4.0, 1.0, 5.0, 8.0)
