"""Which replica a request goes to, policy by policy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats
from small_worlds import Order, Plan, Run, arrivals, run, traced

from simlab.draws import Distribution
from simlab.engine import ClassSpec, Engine, PoolSpec, StepCoefficients
from simlab.engine import arrays as a

STEP = StepCoefficients(base_s=0.01)


def pool(dispatch: int, replicas: int, **more: Any) -> PoolSpec:
    return PoolSpec(step=STEP, replicas=replicas, max_replicas=replicas, dispatch=dispatch, **more)


def tokens_by_replica(done: Run) -> list[int]:
    return [int(n) for n in done.world.reps["prompt_tokens"]]


def sent(policy: int, replicas: int, lengths: list[tuple[int, int]], gap_s: float, **more: Any) -> list[int]:
    """The replica of each request, told by its prompt length: a power of two of its own."""
    plan = Plan(
        classes=(ClassSpec(),),
        chunks=(arrivals([gap_s * i for i in range(len(lengths))], lengths),),
        backends=(pool(policy, replicas, **more),),
    )
    seen: list[tuple[int, ...]] = []
    run(
        plan,
        [gap_s * i for i in range(len(lengths))],
        lambda engine: seen.append(tuple(engine.world.reps["prompt_tokens"].tolist())),
    )
    chosen, before = [], (0,) * replicas
    for now in seen[: len(lengths)]:
        (which,) = [r for r in range(replicas) if now[r] != before[r]]
        chosen.append(which)
        before = now
    return chosen


def test_round_robin_goes_round() -> None:
    assert sent(a.ROUND_ROBIN, 3, [(8, 50)] * 9, 0.001) == [0, 1, 2] * 3


def test_round_robin_passes_over_replicas_that_are_not_up() -> None:
    plan = Plan(
        classes=(ClassSpec(),),
        chunks=(arrivals([0.1 * i for i in range(12)], [(8, 1)] * 12),),
        backends=(pool(a.ROUND_ROBIN, 3),),
        orders=(Order(0.55, "drain", 0, 1),),
    )
    assert tokens_by_replica(run(plan)) == [8 * 5, 8 * 2, 8 * 5]


def test_least_outstanding_fills_the_emptiest_and_takes_the_first_of_equals() -> None:
    # The long one keeps replica 0 busy; the short ones on 1 and 2 are gone after two steps.
    lengths = [(8, 1000), (8, 2), (8, 2), (8, 1000), (8, 1000), (8, 1000)]
    assert sent(a.LEAST_OUTSTANDING, 3, lengths, 0.1) == [0, 1, 1, 1, 2, 0]


def test_least_kv_looks_at_tokens_not_at_requests() -> None:
    lengths = [(4000, 1000), (16, 1000), (16, 1000), (16, 1000)]
    assert sent(a.LEAST_KV, 2, lengths, 0.001, max_num_batched_tokens=8192) == [0, 1, 1, 1]
    assert sent(a.LEAST_OUTSTANDING, 2, lengths, 0.001, max_num_batched_tokens=8192) == [0, 1, 0, 1]


def test_least_kv_counts_what_waits() -> None:
    lengths = [(16, 1000), (16, 1000), (4000, 10), (16, 10), (16, 10)]
    assert sent(a.LEAST_KV, 2, lengths, 0.05, max_num_seqs=1) == [0, 1, 0, 1, 1]


def test_random_is_uniform_and_goes_everywhere() -> None:
    n = 3000
    plan = Plan(
        classes=(ClassSpec(),),
        chunks=(arrivals([0.1 * i for i in range(n)], [(1, 1)] * n),),
        backends=(pool(a.RANDOM, 4),),
        horizon_s=0.1 * n,
        seed=11,
    )
    counts = np.array(tokens_by_replica(run(plan)))
    assert counts.sum() == n
    assert stats.chisquare(counts).pvalue > 0.001


def test_random_does_not_depend_on_load() -> None:
    """Common random numbers: the same request goes to the same replica however long answers are."""
    busy, light = (sent(a.RANDOM, 4, [(8, n)] * 40, 0.01) for n in (500, 1))
    assert busy == light


CHAINS = [[(7, 64)], [(8, 64)], [(9, 64)]]


def prefixes(
    dispatch: int, replicas: int, order: list[int], gap_s: float = 1.0, output: int = 4, **more: Any
) -> Run:
    """Requests that begin with one of three long prefixes, each known by its number."""
    rows = [(gap_s * i, 80, output, CHAINS[which]) for i, which in enumerate(order)]
    plan = Plan(
        classes=(ClassSpec(segmented=True),),
        chunks=((traced(rows),),),
        backends=(pool(dispatch, replicas, **more),),
        horizon_s=gap_s * len(order) + 100.0,
    )
    return run(plan)


def test_prefix_affinity_goes_where_the_prefix_is() -> None:
    done = prefixes(a.PREFIX_AFFINITY, 2, [0, 1, 0, 1, 2, 0, 2, 1])
    # An idle pool sends a new prefix to the first replica, and there it stays.
    assert done.log["cached_tokens"].tolist() == [0, 0, 64, 64, 0, 64, 64, 64]


def test_prefix_affinity_sends_a_conversation_back_to_its_replica() -> None:
    cls = ClassSpec(
        prompt=Distribution.fixed(40.0),
        output=Distribution.fixed(24.0),
        turns=Distribution.fixed(4.0),
        think=Distribution.fixed(1.0),
    )
    plan = Plan(
        classes=(cls,),
        chunks=(arrivals([0.0, 0.001, 0.002, 0.003]),),
        backends=(pool(a.PREFIX_AFFINITY, 4),),
        horizon_s=100.0,
    )
    done = run(plan)
    assert sorted(tokens_by_replica(done)) == [sum(40 + 64 * turn for turn in range(4))] * 4
    # All full blocks of the 63, 127 and 191 tokens computed: the last token of an answer never is.
    assert sorted(set(done.log["cached_tokens"].tolist())) == [0, 48, 112, 176]


def test_prefix_affinity_gives_a_hot_prefix_to_others_when_its_replica_is_far_busier() -> None:
    """At most twice the least load plus four outstanding requests."""
    done = prefixes(a.PREFIX_AFFINITY, 2, [0] * 12, gap_s=0.02, output=1000)
    loads = sorted(n // 80 for n in tokens_by_replica(done))
    assert loads[0] > 0
    assert loads[1] <= 2 * loads[0] + 5


def test_prefix_affinity_without_a_cache_is_least_outstanding() -> None:
    affinity, least = (
        prefixes(policy, 3, [0, 1, 0, 0, 2, 1], gap_s=0.01, output=200, prefix_caching=False)
        for policy in (a.PREFIX_AFFINITY, a.LEAST_OUTSTANDING)
    )
    assert tokens_by_replica(affinity) == tokens_by_replica(least)
    assert affinity.log.tobytes() == least.log.tobytes()


@pytest.mark.parametrize("policy", range(5))
def test_a_pool_with_nobody_up_fails_its_requests_at_once(policy: int) -> None:
    plan = Plan(
        classes=(ClassSpec(),),
        chunks=(arrivals([1.0], [(8, 8)]),),
        backends=(PoolSpec(step=STEP, replicas=0, max_replicas=1, dispatch=policy),),
    )
    log = run(plan).log
    assert log["outcome"].tolist() == [a.ERROR]
    assert log["finish_s"].tolist() == [1.0]


@pytest.mark.parametrize("policy", range(5))
def test_all_traffic_arrives_somewhere(policy: int) -> None:
    plan = Plan(
        classes=(ClassSpec(prompt=Distribution.geometric(40.0), output=Distribution.geometric(40.0)),),
        chunks=(arrivals([0.02 * i for i in range(300)]),),
        backends=(pool(policy, 3),),
        horizon_s=1000.0,
    )
    done = run(plan)
    assert sum(tokens_by_replica(done)) == done.log["prompt_tokens"].sum()
    assert (done.log["outcome"] == a.OK).all()
    assert isinstance(done.engine, Engine)
