"""The semantic cache: its hit ratio by law, wrong answers for what only looks alike, and what it costs to ask."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from small_worlds import Plan, Run, arrivals, run

from simlab.draws import Distribution
from simlab.engine import QUALITY_POINTS, AnswerCacheSpec, ApiSpec, ClassSpec, PolicySpec, TokenPrice
from simlab.engine import arrays as a

fixed = Distribution.fixed
MODEL = ApiSpec(fixed(2.0**-20), fixed(0.0), price=TokenPrice(prompt=3e-6, output=15e-6))
CACHE = ApiSpec(fixed(2.0**-30), fixed(0.0))
EMBEDDER = ApiSpec(fixed(0.0625), fixed(0.0), price=TokenPrice(prompt=2e-8))
ASKED = PolicySpec(caches=(a.SEMANTIC,))


def alike(**more: Any) -> AnswerCacheSpec:
    return AnswerCacheSpec(a.SEMANTIC, backend=1, **more)


def serve(n: int, cache: AnswerCacheSpec, policy: PolicySpec = ASKED, seed: int = 3, **more: Any) -> Run:
    times = np.cumsum(np.random.default_rng(seed).exponential(1.0, n))
    return run(
        Plan(
            classes=(more.pop("cls", ClassSpec(route=[1.0, 0.0, 0.0])),),
            chunks=(arrivals(times.tolist(), [(10, 5)] * n),),
            backends=(MODEL, CACHE, EMBEDDER),
            policies=(policy,),
            caches=(cache,),
            horizon_s=1e7,
            window_s=1e7,
            seed=seed,
            **more,
        )
    )


@pytest.mark.parametrize(("hit", "false_hit"), [(1.0, 0.0), (0.6, 0.0), (0.7, 0.1)])
def test_hits_need_a_like_question_within_the_time_to_live(hit: float, false_hit: float) -> None:
    """A question asked λ times a second. Its answer is kept anew by each request that is neither recognised nor misled:
    ν = λ (1 − h)(1 − f) times a second while there is one, so it is there for (e^(νT) − 1)/ν on average, and then away
    until the next request that keeps one, 1/(λ (1 − f)). The share of time it is there is the share of requests that
    meet it (Poisson arrivals see time averages); of those h hit, and f of all that did not.
    """
    p = np.arange(1, 201, dtype=float) ** -1.0
    p /= p.sum()
    ttl, n = 30.0, 200_000
    done = serve(n, alike(hit=hit, false_hit=false_hit, ttl_s=[ttl]), replace(ASKED, query_weights=p))
    rate = p * (1.0 - false_hit)
    anew = rate * (1.0 - hit)
    there = np.where(anew > 0, np.expm1(anew * ttl) / np.where(anew > 0, anew, 1.0), ttl)
    met = float(np.sum(p * there / (there + 1.0 / rate))) * hit
    saved = done.world.savings[a.SEMANTIC]
    # Runs of hits on the most popular question are some λT = 5 long: 3.3 standard deviations of n / 6 draws.
    assert saved["hits"] / n == pytest.approx(met + (1.0 - met) * false_hit, abs=3.3 * math.sqrt(0.25 * 6 / n))
    # Wrong answers of false hits are not kept, so they are all that is wrong.
    assert saved["wrong"] / n == pytest.approx((1.0 - met) * false_hit, abs=3.3 * math.sqrt(0.09 / n) + 1e-12)
    assert done.world.tasks[1, 0]["wrong"] == saved["wrong"]


def test_stated_shares_need_no_questions() -> None:
    n = 40_000
    done = serve(n, alike(hit=0.3, false_hit=0.02, stated=True))
    saved = done.world.savings[a.SEMANTIC]
    assert saved["hits"] / n == pytest.approx(0.3, abs=3.3 * math.sqrt(0.21 / n))
    assert saved["wrong"] / n == pytest.approx(0.02, abs=3.3 * math.sqrt(0.02 * 0.98 / n))
    assert done.world.stores[a.SEMANTIC]["size"] == 0


def test_a_stated_hit_is_as_right_as_the_model_it_stands_for() -> None:
    n = 20_000
    policy = replace(ASKED, quality=[[[0.8] * QUALITY_POINTS] * 3])
    done = serve(n, alike(hit=0.5, stated=True), policy)
    without = serve(n, alike(hit=0.0, stated=True), policy)
    # Common random numbers: the same tasks are right, whoever answers them.
    assert done.world.tasks[1, 0]["wrong"] == without.world.tasks[1, 0]["wrong"]
    assert done.world.savings[a.SEMANTIC]["hits"] > 0.4 * n


def test_every_lookup_asks_for_an_embedding_of_what_is_new() -> None:
    cls = ClassSpec(prompt=fixed(40.0), output=fixed(5.0), system_tokens=1000, route=[1.0, 0.0, 0.0])
    plan = Plan(
        classes=(cls,),
        chunks=(arrivals([float(i) for i in range(100)]),),
        backends=(MODEL, CACHE, EMBEDDER),
        policies=(replace(ASKED, query_weights=[1.0]),),
        caches=(alike(helper=2, miss_s=0.25),),
        horizon_s=200.0,
    )
    done = run(plan)
    asked = done.of(backend=2)
    assert len(asked) == 100
    assert (asked["reason"] == a.HELPER).all()
    cells = done.world.cells
    (cell,) = cells[(cells["backend"] == 2) & (cells["attempts"] > 0)]
    assert (cell["reason"], cell["prompt_tokens"], cell["output_tokens"]) == (a.HELPER, 4000, 0)
    first, later = done.of(backend=0), done.of(backend=1)
    assert (first["started_s"] - first["arrival_s"]).tolist() == [0.0625 + 0.25]
    assert set((later["started_s"] - later["arrival_s"]).tolist()) == {0.0625}
    assert done.world.tasks[1, 0]["succeeded"] == 100


def test_a_false_hit_needs_another_answer_to_give() -> None:
    one = serve(500, alike(false_hit=1.0, hit=0.0), replace(ASKED, query_weights=[1.0]))
    assert one.world.savings[a.SEMANTIC]["hits"] == 0
    many = serve(500, alike(false_hit=1.0, hit=0.0))
    assert many.world.savings[a.SEMANTIC]["wrong"] == 499
