"""The same seed gives the same bytes however a run is cut up, and the same luck to every variant (DESIGN.md I5, I9)."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_worlds import TICK_S, Plan, arrivals, run, small_world

from simlab.draws import Distribution
from simlab.engine import ApiSpec, ClassSpec, PoolSpec, StepCoefficients
from simlab.engine import arrays as a

METERS = ("cells", "tasks", "tenants", "hist", "hist_sum", "hist_count", "windows", "window_hist", "state", "reps")
STEP = StepCoefficients(base_s=0.01, prefill_token_s=1e-4, decode_seq_s=1e-3)


@settings(deadline=None, max_examples=60)
@given(st.builds(small_world, st.randoms(use_true_random=False)), st.lists(st.integers(0, 9_000_000), max_size=20))
def test_many_small_advances_are_one(plan: Plan, stops: list[int]) -> None:
    grid = [i * 16 * TICK_S for i in range(64)]
    whole, parts = run(plan), run(plan, [us * 1e-6 for us in stops] + grid)
    assert whole.log.tobytes() == parts.log.tobytes()
    for name in METERS:
        assert getattr(whole.world, name).tobytes() == getattr(parts.world, name).tobytes(), name


def test_another_seed_is_another_run() -> None:
    plan = Plan(
        classes=(ClassSpec(prompt=Distribution.geometric(50.0), output=Distribution.geometric(20.0)),),
        chunks=(arrivals([0.1 * i for i in range(50)]),),
        backends=(PoolSpec(step=STEP),),
    )
    one, same, other = run(plan), run(plan), run(replace(plan, seed=1))
    assert one.log.tobytes() == same.log.tobytes()
    assert (one.log["prompt_tokens"] != other.log["prompt_tokens"]).any()


def test_classes_and_tasks_have_luck_of_their_own() -> None:
    cls = ClassSpec(prompt=Distribution.exponential(1e6), output=Distribution.fixed(1.0))
    plan = Plan(
        classes=(cls, cls),
        chunks=(arrivals([0.1 * i for i in range(200)]),) * 2,
        backends=(ApiSpec(ttft=Distribution.fixed(0.1), itl=Distribution.fixed(0.0)),),
    )
    assert len(np.unique(run(plan).log["prompt_tokens"])) == 400


def conversations(speed_s: float, users: int = 0, seed: int = 3) -> Plan:
    """Three-turn conversations, or a closed loop, on a provider that takes ``speed_s`` to answer."""
    lengths = {"prompt": Distribution.geometric(500.0), "output": Distribution.geometric(500.0)}
    think = Distribution.exponential(1.0)
    if users:
        cls = ClassSpec(users=users, think=think, **lengths)
    else:
        cls = ClassSpec(turns=Distribution.fixed(3.0), think=think, **lengths)
    return Plan(
        classes=(cls,),
        chunks=(() if users else arrivals([0.7 * i for i in range(20)]),),
        backends=(ApiSpec(ttft=Distribution.fixed(speed_s), itl=Distribution.fixed(0.0)),),
        horizon_s=200.0,
        seed=seed,
    )


def test_conversations_say_the_same_however_fast_they_are_answered() -> None:
    """What a session's n-th turn asks must not depend on what happened elsewhere before it (common random numbers)."""
    slow, fast = run(conversations(0.9)).log, run(conversations(0.1)).log
    assert len(slow) == len(fast) == 60
    for column in ("prompt_tokens", "output_tokens"):
        assert sorted(slow[column].tolist()) == sorted(fast[column].tolist())


def test_users_of_a_closed_loop_ask_the_same_however_fast_they_are_answered() -> None:
    slow, fast = (run(conversations(speed_s, users=4)).log for speed_s in (0.9, 0.1))
    common = set(slow["output_tokens"].tolist()) & set(fast["output_tokens"].tolist())
    assert len(common) >= 0.9 * len(set(slow["output_tokens"].tolist()))


def test_users_first_think_as_long_as_the_seed_and_the_class_say() -> None:
    first = [np.sort(run(conversations(100.0, users=3, seed=seed)).log["arrival_s"])[:3].tolist() for seed in (1, 2)]
    assert first[0] != first[1]
    twice = replace(conversations(100.0, users=3))
    two = replace(twice, classes=twice.classes * 2, chunks=((), ()))
    log = run(two).log
    assert set(log[log["cls"] == 0]["arrival_s"]).isdisjoint(log[log["cls"] == 1]["arrival_s"])


@pytest.mark.parametrize("dispatch", [a.ROUND_ROBIN, a.LEAST_OUTSTANDING, a.LEAST_KV])
def test_more_replicas_never_raise_waiting(dispatch: int) -> None:
    random = Random(5)
    times = np.cumsum([random.expovariate(12.0) for _ in range(600)])
    waits = []
    for replicas in (1, 2, 3, 5, 9):
        plan = Plan(
            classes=(ClassSpec(prompt=Distribution.geometric(60.0), output=Distribution.geometric(40.0)),),
            chunks=(arrivals(times.tolist()),),
            backends=(
                PoolSpec(
                    step=StepCoefficients(base_s=0.01), replicas=replicas, max_replicas=9, max_num_seqs=4,
                    dispatch=dispatch, prefix_caching=False,
                ),
            ),
        )  # fmt: skip
        done = run(plan, until=1000.0)
        assert len(done.log) == 600
        waits.append(float(done.world.windows["waiting_s"].sum()))
    assert waits == sorted(waits, reverse=True)
    assert waits[0] > 10.0 > waits[-1]


def test_more_places_at_a_provider_never_raise_anybodys_wait() -> None:
    """First come first served with more servers starts every request no later (Kiefer and Wolfowitz 1955)."""
    random = Random(6)
    times = np.cumsum([random.expovariate(10.0) for _ in range(500)])
    finishes = []
    for places in (1, 2, 4, 8, 0):
        plan = Plan(
            classes=(ClassSpec(prompt=Distribution.fixed(1.0), output=Distribution.fixed(1.0)),),
            chunks=(arrivals(times.tolist()),),
            backends=(
                ApiSpec(ttft=Distribution.exponential(0.3), itl=Distribution.fixed(0.0), concurrency=places),
            ),
        )
        log = run(plan, until=1e5).log
        finishes.append(log["finish_s"][np.argsort(log["task"])])
    for fewer, more in pairwise(finishes):
        assert (more <= fewer + 1e-9).all()
    assert math.isfinite(finishes[0].max())
