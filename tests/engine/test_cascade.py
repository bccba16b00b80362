"""Cascades against the expected cost and quality of their closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
from small_worlds import Plan, Run, arrivals, run

from simlab.draws import Distribution
from simlab.engine import QUALITY_POINTS, ApiSpec, ChoiceSpec, ClassSpec, PolicySpec, RuleSpec, TokenPrice
from simlab.engine import arrays as a
from simlab.scenario.routing import Agreement, Auc, Roc

fixed = Distribution.fixed
N = 20_000
CHEAP = ApiSpec(fixed(0.5), fixed(0.01), price=TokenPrice(1e-6, output=4e-6))
DEAR = ApiSpec(fixed(1.0), fixed(0.02), price=TokenPrice(10e-6, output=40e-6))


def cascade(first: ChoiceSpec, chances: tuple[float, float], n: int = N, *more: ApiSpec) -> Run:
    backends = (CHEAP, DEAR, *more)
    quality = [[[chance] * QUALITY_POINTS for chance in (*chances, *(1.0 for _ in more))]]
    plan = Plan(
        classes=(ClassSpec(route=[1.0] + [0.0] * (len(backends) - 1)),),
        chunks=(arrivals([0.01 * i for i in range(n)], [(100, 10)] * n),),
        backends=backends,
        policies=(PolicySpec(quality=quality, rules=[[0]]),),
        rules=(RuleSpec(a.BY_CASCADE, [first, ChoiceSpec(1)]),),
        horizon_s=1e4,
    )
    return run(plan)


@pytest.mark.parametrize("wrong", [0.0, 0.1, 0.3, 0.6, 1.0])
def test_cost_and_quality_of_a_swept_threshold(wrong: float) -> None:
    """FrugalGPT's trade: cost c1 + P(escalate)·c2, quality P(right, passes) + P(escalate, then right)."""
    right, _ = Auc(kind="auc", auc=0.85, accept_wrong=wrong).accepted()
    p, q = 0.7, 0.9
    done = cascade(ChoiceSpec(0, accept_right=right, accept_wrong=wrong), (p, q))
    up = p * (1 - right) + (1 - p) * (1 - wrong)
    quality = p * right + up * q
    escalated = done.of(backend=1)
    assert (escalated["reason"] == a.ESCALATION).all()
    assert len(escalated) / N == pytest.approx(up, abs=3.3 * math.sqrt(up * (1 - up) / N) + 1e-12)
    assert done.world.tasks[1, 0]["succeeded"] / N == pytest.approx(
        quality, abs=3.3 * math.sqrt(quality * (1 - quality) / N)
    )
    cost = sum(
        row["prompt_tokens"] * price.prompt + row["output_tokens"] * price.output
        for row, price in ((cell, (CHEAP, DEAR)[cell["backend"]].price) for cell in done.world.cells)
    )
    c1, c2 = 140e-6, 1400e-6
    assert cost / N == pytest.approx(c1 + up * c2, abs=3.3 * c2 * math.sqrt(up * (1 - up) / N) + 1e-12)


def test_nobody_sees_a_token_that_has_not_passed() -> None:
    kept = cascade(ChoiceSpec(0), (1.0, 1.0), 1)
    assert np.sum(kept.world.hist_sum[0]) == pytest.approx(0.5 + 9 * 0.01)  # TTFT is when the whole answer passed
    thrown = cascade(ChoiceSpec(0, accept_right=0.0, accept_wrong=0.0), (1.0, 1.0), 1)
    assert np.sum(thrown.world.hist_sum[0]) == pytest.approx(0.59 + 1.0)
    assert np.sum(thrown.world.hist_sum[3]) == pytest.approx(0.59 + 1.0 + 9 * 0.02)


def test_a_verifier_is_paid_and_waited_for() -> None:
    verifier = ApiSpec(fixed(0.25), fixed(0.0), usd_call=1e-3)
    done = cascade(ChoiceSpec(0, accept_right=0.0, verifier=2), (1.0, 1.0), 5, verifier)
    assert len(done.of(backend=2)) == len(done.of(backend=1)) == 5
    np.testing.assert_allclose(np.sort(done.of(backend=1)["started_s"]), 0.59 + 0.25 + 0.01 * np.arange(5))


def test_every_sample_is_paid_and_the_slowest_waited_for() -> None:
    done = cascade(ChoiceSpec(0, samples=3), (1.0, 1.0), 4)
    assert len(done.of(backend=0, reason=a.HELPER)) == 2 * 4
    assert done.world.cells["output_tokens"].sum() == 3 * 4 * 10
    assert done.world.tasks[1, 0]["succeeded"] == 4


def test_what_passes() -> None:
    assert Roc(kind="roc", points={0.1: 0.6, 0.5: 0.9}, accept_wrong=0.3).accepted() == pytest.approx((0.75, 0.3))
    right, wrong = Auc(kind="auc", auc=0.5, accept_wrong=0.4).accepted()
    assert (right, wrong) == pytest.approx((0.4, 0.4))  # a coin
    sure = Agreement(kind="agreement", samples=3, quorum=2, alike_right=0.9, alike_wrong=0.3).accepted()
    assert sure == pytest.approx((1 - 0.1**2, 1 - 0.7**2))
