"""Rules: every way to choose a backend, against shares and thresholds worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from small_worlds import Plan, Run, arrivals, run

from simlab.draws import Distribution
from simlab.engine import (
    QUALITY_POINTS,
    ApiSpec,
    ChoiceSpec,
    ClassSpec,
    PolicySpec,
    PoolSpec,
    RuleSpec,
    StepCoefficients,
    TokenPrice,
)
from simlab.engine import arrays as a
from simlab.policies.routing import weak_chances

fixed = Distribution.fixed
FINE = ApiSpec(fixed(0.25), fixed(0.0))
N = 20_000


def serve(
    rule: RuleSpec,
    backends: tuple[ApiSpec | PoolSpec, ...],
    *,
    lengths: list[tuple[int, int]] | None = None,
    gap_s: float = 0.01,
    **policy: Any,
) -> Run:
    lengths = lengths or [(10, 10)] * N
    policy.setdefault("rules", [[0] * len(policy.get("tier_weights", (1.0,)))])
    plan = Plan(
        classes=(ClassSpec(route=[1.0] + [0.0] * (len(backends) - 1)),),
        chunks=(arrivals([gap_s * i for i in range(len(lengths))], lengths),),
        backends=backends,
        policies=(PolicySpec(**policy),),
        rules=(rule,),
        horizon_s=1e4,
    )
    return run(plan)


def near(p: float, n: int = N) -> Any:
    """99.9 % of samples of a share lie inside."""
    return pytest.approx(p, abs=3.3 * math.sqrt(p * (1 - p) / n) + 1e-12)


def shares(log: np.ndarray, n: int) -> np.ndarray:
    return np.bincount(log["backend"], minlength=n) / len(log)


def test_a_classifier_sends_each_tier_by_its_row_of_the_confusion_matrix() -> None:
    confusion = [[0.9, 0.1, 0.0], [0.2, 0.5, 0.3]]
    rule = RuleSpec(a.BY_CLASSIFIER, [ChoiceSpec(b) for b in range(3)], guesses=confusion)
    found = shares(serve(rule, (FINE,) * 3, tier_weights=(0.25, 0.75)).log, 3)
    for b in range(3):
        assert found[b] == near(0.25 * confusion[0][b] + 0.75 * confusion[1][b])


def test_a_classifier_is_paid_and_waited_for() -> None:
    helper = ApiSpec(fixed(0.125), fixed(0.0), usd_call=0.5)
    rule = RuleSpec(a.BY_CLASSIFIER, [ChoiceSpec(0)], guesses=[[1.0]], helper=1)
    done = serve(rule, (FINE, helper), lengths=[(10, 1)] * 4, gap_s=1.0)
    own, asked = done.of(backend=0), done.of(backend=1)
    assert (asked["reason"] == a.HELPER).all()
    np.testing.assert_allclose(own["started_s"] - own["arrival_s"], 0.125)
    np.testing.assert_allclose(own["finish_s"] - own["arrival_s"], 0.375)
    assert len(asked) == len(own) == done.world.tasks[1, 0]["succeeded"] == 4


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_a_learned_router_reaches_its_curve(share: float) -> None:
    curve = {0.0: 0.5, 0.25: 0.7, 0.5: 0.8, 1.0: 0.9}
    weak, top = weak_chances(curve)
    rule = RuleSpec(
        a.BY_LEARNED, [ChoiceSpec(0), ChoiceSpec(1)], weak_chance=weak, top=top, strong_share=share
    )
    done = serve(rule, (FINE, FINE))
    assert shares(done.log, 2)[1] == near(share)
    right = done.world.tasks[1, 0]["succeeded"] / N
    # A corner of the curve is rounded over one step of the table: at most (slope change) · step / 8 of all tasks.
    q = float(np.interp(share, list(curve), list(curve.values())))
    assert right == pytest.approx(q, abs=3.3 * math.sqrt(q * (1 - q) / N) + 0.8 / (QUALITY_POINTS - 1) / 8)


def test_the_cheapest_that_fits() -> None:
    cheap = ApiSpec(fixed(0.25), fixed(0.0), price=TokenPrice(1e-6, output=2e-6))
    dear = ApiSpec(fixed(0.25), fixed(0.0), price=TokenPrice(3e-6, output=1e-6))
    choices = [ChoiceSpec(1), ChoiceSpec(0, context=1000)]
    lengths = [(100, 100), (900, 100), (900, 101), (10, 10)]
    rule = RuleSpec(a.BY_PRICE, choices)
    log = serve(rule, (cheap, dear), lengths=lengths, gap_s=1.0, mean_output=50.0).log
    # The third is too long for the cheap one; the last is mostly answer, which the other sells for less.
    assert log["backend"].tolist() == [0, 0, 1, 1]
    log = serve(rule, (cheap, dear), lengths=[(10, 10)], gap_s=1.0, mean_output=10.0).log
    assert log["backend"].tolist() == [0]


def test_the_quickest_is_found_and_kept() -> None:
    quick, slow = ApiSpec(fixed(0.1), fixed(0.0)), ApiSpec(fixed(0.4), fixed(0.0))
    choices = [ChoiceSpec(0), ChoiceSpec(1)]
    log = serve(RuleSpec(a.BY_LATENCY, choices), (slow, quick), gap_s=1.0, lengths=[(1, 1)] * 5).log
    assert log["backend"].tolist() == [0, 1, 1, 1, 1]  # each is tried once
    rule = RuleSpec(a.BY_LATENCY, choices, explore=0.1)
    log = serve(rule, (slow, quick), gap_s=1.0, lengths=[(1, 1)] * 2000).log
    assert shares(log, 2)[0] == pytest.approx(0.05, abs=3.3 * math.sqrt(0.05 * 0.95 / 2000) + 1e-3)


def test_a_full_pool_spills_and_takes_the_traffic_back() -> None:
    pool = PoolSpec(step=StepCoefficients(base_s=1.0), max_num_seqs=1, max_num_batched_tokens=64, kv_blocks=100)
    rule = RuleSpec(a.BY_OVERFLOW, [ChoiceSpec(0), ChoiceSpec(1)], queue_per_replica=2.0, resume=0.5)
    # One request is served (2 steps) and two wait; what comes then spills until one or none waits.
    times = [0.0, 0.25, 0.5, 0.75, 1.5, 2.5, 3.0, 5.0]
    plan = Plan(
        classes=(ClassSpec(route=[1.0, 0.0]),),
        chunks=(arrivals(times, [(4, 2)] * len(times)),),
        backends=(pool, FINE),
        policies=(PolicySpec(rules=[[0]]),),
        rules=(rule,),
    )
    log = np.sort(run(plan).log, order="task")
    #             served, waits, waits, spills, spills, 1 waits: not below half of 2, …
    assert log["backend"].tolist() == [0, 0, 0, 1, 1, 1, 1, 0]


def test_tenants_and_tiers_have_rules_of_their_own() -> None:
    plan = Plan(
        classes=(ClassSpec(route=[1.0, 0.0, 0.0], tenant_weights=[1.0, 1.0]),),
        chunks=(arrivals([0.01 * i for i in range(2000)], [(1, 1)] * 2000),),
        backends=(FINE,) * 3,
        policies=(PolicySpec(tier_weights=(1.0, 1.0), rules=[[-1, 0], [1, 1]]),),
        rules=(RuleSpec(a.BY_WEIGHTS, [ChoiceSpec(1)]), RuleSpec(a.BY_WEIGHTS, [ChoiceSpec(2)])),
    )
    log = run(plan).log
    assert set(log["backend"][log["tenant"] == 1]) == {2}
    assert set(log["backend"][log["tenant"] == 0]) == {0, 1}
