"""Break-evens that can be worked out by hand, and what is said where there is none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest import ROOT
from plain_plan import plan

import simlab
from simlab import assemble
from simlab.decide.answer import BreakEven, Luck
from simlab.decide.capacity import TOLERANCE, Staircase, most
from simlab.decide.sides import sides
from simlab.errors import InputError
from simlab.lint.capacity import Mix, replica_rps
from simlab.scenario import load

MONTH_S = 730 * 3600
TOKENS = 20
"""Of a request of the plain scenario."""

PER_RPS = TOKENS * MONTH_S
"""Tokens a month of one request a second; the API takes $1 per million of them."""


def find(*sets: str, max_replicas: int = 4, replications: int = 2, **how: Any) -> BreakEven:
    api, pool = (plan(side, *sets) for side in ("api", "pool"))
    return simlab.break_even(api, pool, max_replicas=max_replicas, replications=replications, workers=1, **how)


@pytest.fixture
def plain() -> BreakEven:
    return find()


def test_capacity_is_what_the_replicas_can_serve(plain: BreakEven) -> None:
    # 10 steps of 10 ms a request, one at a time: 10 requests/s a replica, and nobody waits below.
    for replicas, capacity, usd in plain.steps:
        assert capacity.value == pytest.approx(10 * replicas * PER_RPS, rel=2 * TOLERANCE)
        assert usd == pytest.approx(365.0 * replicas)


def test_crossings_are_those_of_hand_arithmetic(plain: BreakEven) -> None:
    # $0.50/h · 730 h = $365 a replica and month = 365M tokens at $1. One replica carries 525.6M, so it pays from 365M
    # on; two cost $730 but are needed from 525.6M on, three $1,095 from 1,051M on, and pay from 1,095M on; four cost
    # $1,460, which is below the $1,577 of tokens where they are first needed: from three on it pays for good.
    assert plain.first is not None
    assert plain.durable is not None
    assert plain.first.tokens_per_month.value == pytest.approx(365e6, rel=1e-6)
    assert plain.durable.tokens_per_month.value == pytest.approx(1095e6, rel=1e-6)
    assert (plain.first.replicas, plain.durable.replicas) == (1, 3)
    assert plain.first.usd_per_month == pytest.approx(365.0, rel=1e-6)
    assert plain.first.tasks_per_s == pytest.approx(365e6 / PER_RPS, rel=0.01)
    assert plain.exit_code == 0
    assert "becomes cheaper than api at 365M tokens a month" in plain.headline
    assert "for good from 1.09G" in plain.headline.replace("1.10G", "1.09G")
    assert plain.api_check is not None
    assert plain.api_check[0] == "met"


def test_operations_cost_is_paid_once() -> None:
    found = find("pools.own.operations_usd_per_month=100", max_replicas=2)
    assert [usd for *_, usd in found.steps] == pytest.approx([465.0, 830.0])
    assert found.first is not None
    assert found.first.tokens_per_month.value == pytest.approx(465e6, rel=1e-6)


def test_twice_the_api_price_moves_the_crossing_left(plain: BreakEven) -> None:
    price = "apis.cloud.price={input_usd_per_mtok: 2, output_usd_per_mtok: 2}"
    dear = find(price)
    assert dear.first is not None
    assert plain.first is not None
    assert dear.first.tokens_per_month.value == pytest.approx(plain.first.tokens_per_month.value / 2, rel=1e-6)


def test_points_have_the_fewest_replicas_and_the_cheaper_side() -> None:
    found = find(volumes=[100e6, 400e6, 600e6, 1500e6, 1700e6, 9e12])
    rows = found.points()
    assert [row["replicas"] for row in rows] == [1, 1, 2, 3, 4, None]
    assert [row["cheaper"] for row in rows] == ["api", "selfhost", "api", "selfhost", "selfhost", None]
    assert [row["api_usd_per_month"] for row in rows[:2]] == pytest.approx([100.0, 400.0], rel=1e-6)


def test_json_says_it_all(plain: BreakEven) -> None:
    data = json.loads(plain.to_json())
    assert data["first"]["tokens_per_month"]["value"] == plain.first.tokens_per_month.value  # type: ignore[union-attr]
    assert data["first"]["replications"] == 2
    assert data["between"] == {"api": "api", "selfhost": "pool"}
    assert [step["replicas"] for step in data["steps"]] == [1, 2, 3, 4]
    assert data["headline"] == plain.headline


def test_the_order_of_the_two_does_not_matter() -> None:
    swapped = simlab.break_even(plan("pool"), plan("api"), max_replicas=1, replications=1, workers=1)
    assert (swapped.sides.api_label, swapped.sides.selfhost_label) == ("api", "pool")


def test_no_crossing() -> None:
    found = find("pools.own.price.usd_per_gpu_hour=5", max_replicas=2)
    assert (found.first, found.durable, found.exit_code) == (None, None, 0)
    assert "api stays cheaper than pool up to 1.0" in found.headline
    assert "the most that 2 replicas carry" in found.headline


def test_cheaper_for_a_while_only() -> None:
    # One replica costs $511 (0.7 · 730) and pays from 511M to the 525.6M it carries; the two needed from there on cost
    # $1,022 and carry 1,051M, three $1,533 and 1,577M: each pays just before it is full, and the next undoes it.
    found = find("pools.own.price.usd_per_gpu_hour=0.7", max_replicas=3)
    assert found.first is not None
    assert found.durable is not None
    assert found.first.tokens_per_month.value == pytest.approx(511e6, rel=1e-6)
    assert found.durable.tokens_per_month.value == pytest.approx(1533e6, rel=1e-6)
    assert "for good from 1.53G tokens a month" in found.headline


def made_up(*capacities: tuple[float, ...]) -> BreakEven:
    """The plain plans with capacities (in requests/s) that were not simulated, one tuple a replication."""
    lucks = [Luck(Staircase(rps, 1.0, 1), float(PER_RPS), 1.0, PER_RPS / 1e6) for rps in capacities]
    return BreakEven(sides(plan("api"), plan("pool")), lucks)


def drawn(*capacities: tuple[tuple[float, ...], tuple[float, ...]]) -> BreakEven:
    """Likewise, each replication as fitted and with a drawn step time."""
    lucks = [
        Luck(Staircase(fit, 1.0, 1), float(PER_RPS), 1.0, PER_RPS / 1e6, Staircase(again, 1.0, 1))
        for fit, again in capacities
    ]
    return BreakEven(sides(plan("api"), plan("pool")), lucks)


def test_capacities_carry_the_error_of_the_profile() -> None:
    found = drawn(((8.0, 16.0), (10.0, 20.0)), ((8.0, 16.0), (6.4, 12.8)))
    (_, one, _), (_, two, _) = found.steps
    assert one.value == pytest.approx(8 * PER_RPS)
    assert one.calibration_share == 1.0
    # Student: t(2, 0.975) = 4.3027, both draws are off by the factor 1.25.
    assert one.high == pytest.approx(8 * PER_RPS * 1.25**4.30265, rel=1e-3)
    assert one.low == pytest.approx(8 * PER_RPS / 1.25**4.30265, rel=1e-3)
    assert two.high == pytest.approx(2 * one.high)
    assert [row["replicas_low"] for row in found.points()][-1] == 2
    assert [row["replicas_high"] for row in found.points()][-1] is None


def test_a_crossing_that_leaps_stretches_its_own_side() -> None:
    # One replica of 8/s pays from 365M; of 6/s it never does, and two do from $730 on.
    found = drawn(*[((8.0, 20.0), (8.0, 20.0))] * 3, ((8.0, 20.0), (6.0, 20.0)))
    assert found.first is not None
    assert found.first.tokens_per_month.low == found.first.tokens_per_month.value == pytest.approx(365e6)
    assert found.first.tokens_per_month.high > 500e6
    assert (found.first.found, found.first.drawn) == (4, 4)


def test_draws_without_an_answer_are_counted() -> None:
    found = drawn(*[((8.0, 20.0), (8.0, 20.0))] * 2, ((8.0, 20.0), (0.0, 0.0)), ((8.0, 20.0), (6.0, 9.0)))
    assert found.first is not None
    assert found.first.drawn == 2
    assert "in 1 of 4 draws of the calibration no number of replicas meets the SLO" in found.warnings
    assert "in 1 of 4 draws of the calibration api stays cheaper all along" in found.warnings
    never = drawn(*[((6.0, 9.0), (6.0, 9.0))] * 2, ((6.0, 9.0), (8.0, 9.0)))
    assert never.first is None
    assert never.warnings == ["in 1 of 3 draws of the calibration pool does become cheaper"]


def test_cheaper_and_then_never_again() -> None:
    # $365 pays from 6.94/s to 8/s; two replicas carry 10/s only, which is $526 of tokens and $730 of GPUs.
    found = made_up((8.0, 10.0), (8.0, 10.0))
    assert found.first is not None
    assert found.durable is None
    assert "but not for good: at 526M tokens a month" in found.headline


def test_the_interval_is_that_of_the_replications() -> None:
    # First steps that end before $365 pays (6.94/s): the crossing is on step 2, at $730, in the second replication.
    found = made_up((8.0, 20.0), (6.0, 20.0), (8.0, 20.0))
    assert found.first is not None
    mean = (365e6 + 730e6 + 365e6) / 3
    assert found.first.tokens_per_month.value == pytest.approx(mean)
    # Student: t(2, 0.975) = 4.3027, s = 210.7M.
    assert found.first.tokens_per_month.high == pytest.approx(mean + 4.30265 * 365e6 / 3**0.5 / 3**0.5, rel=1e-4)
    assert found.first.replicas == 1


def test_a_crossing_that_few_replications_have_is_none() -> None:
    found = made_up((8.0, 9.0), (6.0, 9.0), (6.0, 9.0))
    assert found.first is None
    assert "api stays cheaper" in found.headline


def test_an_slo_no_replica_can_meet() -> None:
    found = find("slo.ttft=1ms", max_replicas=2)
    assert not found.feasible
    assert found.exit_code == 1
    assert "cannot meet the SLO with any number of replicas" in found.headline
    assert found.points() == []
    json.loads(found.to_json())


def test_a_short_run_at_heavy_load_is_not_hopeless() -> None:
    # 200 requests in 50 s wait for each other too often; with fewer the replica does keep its SLO.
    sets = (
        "workload.chat.lengths.output={kind: geometric, mean: 10}",
        "workload.chat.arrivals={kind: poisson, rate: 5}",
        "slo.ttft=150ms",
    )
    found = find(*sets, max_replicas=1)
    assert found.feasible
    assert 0.0 < (found.steps[0][1].value or 0.0) < 4.0 * PER_RPS


def test_an_slo_without_ttft_still_asks_replicas_to_keep_up() -> None:
    found = find("slo={itl: 1s, target: 99%}", max_replicas=1)
    assert found.steps[0][1].value == pytest.approx(10 * PER_RPS, rel=0.03)


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (("api",), ("api",), r"api uses API cloud; api \(2\) uses API cloud; a break-even is between"),
        (("pool",), (None,), "as written uses pool own"),
        (
            ("api",),
            (None, "gateway.routes.0.to={own: 1, cloud: 1}"),
            "as written uses pool own and API cloud",
        ),
        (("api",), ("pool", "slo=null"), "slo: pool has no SLO"),
        (("api", "apis.cloud.price=null"), ("pool",), "no price is known for something"),
    ],
)
def test_plans_that_cannot_be_held_against_each_other(one: tuple[Any, ...], other: tuple[Any, ...], said: str) -> None:
    with pytest.raises(InputError, match=said):
        simlab.break_even(plan(*one), plan(*other), workers=1)


def test_two_pools_with_traffic_are_refused() -> None:
    own = plan("pool").model_dump()["pools"]["own"]
    two = plan(None, pools={"own": own, "more": own}, gateway={"routes": [{"to": {"own": 1, "more": 1}}]}, apis={},
               variants={})  # fmt: skip
    with pytest.raises(InputError, match="pools own, more; the number of replicas can be searched in one pool only"):
        simlab.break_even(plan("api"), two, workers=1)


@pytest.mark.parametrize("how", [{"max_replicas": 0}, {"replications": 0}, {"volumes": [0.0]}])
def test_arguments(how: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at least 1, volumes positive"):
        simlab.break_even(plan("api"), plan("pool"), **how)


@pytest.mark.parametrize("limit", [0.003, 0.9, 1.0, 1.7, 80.0])
@pytest.mark.parametrize("guess", [0.5, 1.0, 30.0])
def test_the_search_finds_the_limit(limit: float, guess: float) -> None:
    tried: list[float] = []

    def meets(factor: float) -> bool:
        tried.append(factor)
        return factor <= limit

    assert limit / (1 + TOLERANCE) <= most(meets, guess, 1.04) <= limit
    assert len(tried) < 30


def test_the_bundled_chat_scenario_against_closed_forms() -> None:
    sets = ("horizon=15min",)
    path = ROOT / "scenarios" / "chat-breakeven.yaml"
    api, pool = (load(path, variant=name, sets=sets) for name in ("api", "selfhost"))
    found = simlab.break_even(api, pool, max_replicas=2, replications=2, workers=1)
    [own], [cloud] = assemble.backends(pool).facts, assemble.backends(api).facts
    assert own.usd_per_gpu_hour is not None
    assert cloud.token_prices is not None
    # The API: USD per million tokens of the mix, 900 prompt to 250 output tokens before both are cut off.
    lengths = pool.workload["chat"].lengths
    assert lengths is not None
    assert lengths.prompt is not None
    assert lengths.output is not None
    prompt, output = lengths.prompt.distribution().mean(), lengths.output.distribution().mean()
    input_usd, _, _, output_usd = cloud.token_prices.base
    usd_per_mtok = (prompt * input_usd + output * output_usd) / (prompt + output)
    assert found.api_usd_per_mtok.value == pytest.approx(usd_per_mtok, rel=0.02)
    # One replica: four GPUs for 730 h, and the people. It pays from bill / price on, if it carries as much.
    bill = 4 * 730 * own.usd_per_gpu_hour + 3000
    assert found.steps[0][2] == pytest.approx(bill)
    assert found.first is not None
    assert found.first.tokens_per_month.value == pytest.approx(bill / usd_per_mtok * 1e6, rel=0.02)
    # No replica carries more than its full batches allow, and within this SLO it carries a good part of that.
    profile = assemble.pool_profile(pool.pools["local"])
    most_rps = replica_rps(
        profile.step_time, Mix(prompt, prompt, output), max_num_seqs=256, token_budget=8192, kv_tokens=16.0 * 41_671
    )
    carried = found.steps[0][1].value
    assert carried is not None
    carried_rps = carried / (prompt + output) / MONTH_S
    assert 0.5 * most_rps < carried_rps < most_rps
    assert carried > found.first.tokens_per_month.value
