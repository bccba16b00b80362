"""What the ledger's cells keep apart: tiers and prompt versions, how tasks ended, and what was paid in vain."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from small_worlds import Feed, arrivals

from simlab.draws import Distribution
from simlab.engine import ApiSpec, ChoiceSpec, ClassSpec, Engine, PolicySpec, RuleSpec, TokenPrice, WorldSpec
from simlab.engine.arrays import BY_CASCADE, ESCALATION, FIRST

HORIZON_S = 400.0
PRICE = TokenPrice(1e-6, 1e-6, 1e-6, 5e-6)
DEAR = TokenPrice(1e-5, 1e-5, 1e-5, 5e-5)


def ran(
    policy: PolicySpec | None, rules: tuple[RuleSpec, ...] = (), versions: bool = False, tenants: int = 2
) -> tuple[NDArray[np.void], NDArray[np.void], Engine]:
    """The cells and the log of 4000 tasks of one class at a cheap and a dear API."""
    rows: list[NDArray[np.void]] = []
    cls = ClassSpec(
        feed=Feed(arrivals(np.arange(4000) * 0.05)),
        prompt=Distribution.fixed(100.0),
        output=Distribution.geometric(10.0),
        tenant_weights=[1.0] * tenants,
        route=[1.0, 0.0],
    )
    apis = [ApiSpec(Distribution.fixed(0.1), Distribution.fixed(0.001), price=price) for price in (PRICE, DEAR)]
    spec = WorldSpec([cls], apis, HORIZON_S, log_rows=1, policies=[policy], rules=rules)
    engine = Engine(spec, rows.append)
    if versions:
        engine.advance(100.0)
        engine.set_versions(0, 1, 0, 0)
    engine.advance(HORIZON_S)
    engine.flush_log()
    return np.array(engine.world.cells), np.concatenate(rows), engine


def test_cells_keep_tiers_and_prompt_versions_apart() -> None:
    policy = PolicySpec(tier_weights=[3.0, 1.0], prompt_versions=2)
    cells, log, engine = ran(policy, versions=True)
    assert len(cells) == 2 * 4 * 2
    by_group = np.bincount(cells["group"], weights=cells["attempts"])
    # Half of the tasks came before the new version, three quarters are of the first tier: groups are tier by tier.
    assert by_group[0] + by_group[2] == 2001
    assert by_group / 4000 == pytest.approx([0.375, 0.375, 0.125, 0.125], abs=0.03)
    for cell in cells:
        mine = log[(log["tenant"] == cell["tenant"]) & (log["group"] == cell["group"])]
        mine = mine[mine["backend"] == cell["backend"]]
        assert cell["attempts"] == cell["tasks_right"] == len(mine)
        assert cell["output_tokens"] == mine["output_tokens"].sum()
    assert engine.world.tasks[1]["succeeded"].sum() == cells["tasks_right"].sum() == 4000


def test_a_class_of_one_tier_has_one_group() -> None:
    cells, log, _ = ran(PolicySpec())
    assert len(cells) == 2 * 2
    assert not log["group"].any()
    none, _, _ = ran(None)
    assert np.array_equal(none, cells)


def test_an_attempt_in_the_log_has_its_price() -> None:
    _, log, _ = ran(None)
    assert log["usd"] == pytest.approx(100 * 1e-6 + log["output_tokens"] * 5e-6)


def test_an_answer_that_did_not_pass_was_paid_in_vain() -> None:
    levels = [ChoiceSpec(0, accept_right=0.3), ChoiceSpec(1)]
    rule = RuleSpec(BY_CASCADE, levels)
    cells, log, _ = ran(PolicySpec(rules=[[0], [0]]), (rule,))
    first, second = (cells[cells["reason"] == reason] for reason in (FIRST, ESCALATION))
    assert first["attempts"].sum() == 4000
    assert second["attempts"].sum() == second["tasks_right"].sum() == pytest.approx(2800, abs=100)
    assert first["tasks_right"].sum() == 4000 - second["attempts"].sum()
    again = set(log["task"][log["reason"] == ESCALATION])
    vain = log[(log["reason"] == FIRST) & np.isin(log["task"], list(again))]
    assert cells["discarded_usd"].sum() == pytest.approx(vain["usd"].sum(), rel=1e-12)
    assert cells["lost_usd"].sum() == pytest.approx(vain["usd"].sum(), rel=1e-12)
