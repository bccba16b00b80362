"""Right and wrong answers: by the model's chance at the task's difficulty, the same for the same task and model."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from small_worlds import Plan, arrivals, run

from simlab.draws import Distribution
from simlab.engine import QUALITY_POINTS, ApiSpec, ClassSpec, PolicySpec

fixed = Distribution.fixed
FINE = ApiSpec(fixed(0.25), fixed(0.0))
N = 20_000


def world(policy: PolicySpec, backends: tuple[ApiSpec, ...], route: list[float]) -> Plan:
    return Plan(
        classes=(ClassSpec(route=route),),
        chunks=(arrivals([0.01 * i for i in range(N)], [(1, 1)] * N),),
        backends=backends,
        policies=(policy,),
        horizon_s=1e4,
    )


def test_the_share_of_right_answers_is_the_mean_chance_over_difficulties() -> None:
    chance = [1.0 - (i / (QUALITY_POINTS - 1)) ** 2 for i in range(QUALITY_POINTS)]
    policy = PolicySpec(difficulty=Distribution.empirical({0.0: 0.0, 1.0: 1.0}), quality=[[chance]])
    tasks = run(world(policy, (FINE,), [1.0])).world.tasks[1, 0]
    # ∫ (1 − x²) dx = 2/3; straight lines between 33 points are off by 1/6/32² of it.
    p = 2.0 / 3.0
    assert tasks["succeeded"] / N == pytest.approx(p, abs=3.3 * math.sqrt(p * (1 - p) / N) + 2e-4)
    assert tasks["succeeded"] + tasks["failed"] == N
    assert tasks["wrong"] == tasks["failed"]


def test_the_same_model_is_right_about_the_same_tasks_wherever_it_runs() -> None:
    policy = PolicySpec(quality=[[[0.6] * QUALITY_POINTS] * 2])
    same = tuple(replace(FINE, model=3) for _ in range(2))
    other = (replace(FINE, model=3), replace(FINE, model=4))

    def right(backends: tuple[ApiSpec, ...], route: list[float]) -> int:
        return int(run(world(policy, backends, route)).world.tasks[1, 0]["succeeded"])

    assert right(same, [1.0, 0.0]) == right(same, [0.0, 1.0]) == right(same, [1.0, 1.0])
    assert right(other, [1.0, 0.0]) != right(other, [0.0, 1.0])


def test_wrong_answers_are_waited_for_and_paid() -> None:
    policy = PolicySpec(quality=[[[0.0] * QUALITY_POINTS]])
    done = run(world(policy, (FINE,), [1.0])).world
    assert done.tasks[1, 0]["good"] == done.tasks[1, 0]["succeeded"] == 0
    assert np.sum(done.hist_count[0]) == N
    assert done.cells["prompt_tokens"].sum() == N
