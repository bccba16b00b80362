"""A provider's prompt cache: what is written first and read later, in which blocks, for how long, and for whom."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from small_worlds import Feed, Plan, arrivals, run, traced

from simlab.draws import Distribution
from simlab.engine import ApiSpec, ClassSpec, Engine, PromptCacheSpec, TokenPrice, WorldSpec

fixed = Distribution.fixed
PRICE = TokenPrice(prompt=3e-6, cached=3e-7, written=3.75e-6, output=15e-6)


def api(**more: Any) -> ApiSpec:
    return ApiSpec(fixed(0.5), fixed(0.0), price=PRICE, prompt_cache=PromptCacheSpec(**more))


def tokens(
    times: list[float], system: int, cache: ApiSpec, prompt: int = 1000, **more: Any
) -> tuple[list[int], list[int]]:
    """(written, cached) of each attempt."""
    cls = ClassSpec(prompt=fixed(float(prompt)), output=fixed(500.0), system_tokens=system, **more)
    log = run(Plan((cls,), (arrivals(times),), (cache,), horizon_s=1e5, window_s=1e5)).log
    return log["written_tokens"].tolist(), log["cached_tokens"].tolist()


def test_the_first_use_writes_and_later_ones_read() -> None:
    assert tokens([0.0, 10.0, 20.0], 3000, api(block=1)) == ([3000, 0, 0], [0, 3000, 3000])


@pytest.mark.parametrize(
    ("system", "block", "cached"), [(3000, 128, 2944), (1024, 128, 1024), (1023, 1, 0), (1100, 128, 1024), (0, 128, 0)]
)
def test_tokens_count_in_whole_blocks_above_a_minimum(system: int, block: int, cached: int) -> None:
    assert tokens([0.0, 10.0], system, api(block=block)) == ([cached, 0], [0, cached])


def test_a_use_makes_it_new_again() -> None:
    times = [0.0, 299.0, 598.0, 897.0, 1198.0, 1498.0]
    assert tokens(times, 2048, api(ttl_s=300.0))[1] == [0, 2048, 2048, 2048, 0, 0]


def test_share_of_reads_of_poisson_requests() -> None:
    """A request reads when the one before it came less than T ago: 1 − e^(−λT)."""
    n, ttl = 40_000, 300.0
    times = np.cumsum(np.random.default_rng(5).exponential(200.0, n))
    cls = ClassSpec(prompt=fixed(10.0), output=fixed(1.0), system_tokens=2048)
    log = run(Plan((cls,), (arrivals(times.tolist()),), (api(ttl_s=ttl),), horizon_s=1e8, window_s=1e8)).log
    p = -math.expm1(-ttl / 200.0)
    assert (log["cached_tokens"] > 0).mean() == pytest.approx(p, abs=3.3 * math.sqrt(p * (1 - p) / n))


def test_money_is_that_of_the_worked_example() -> None:
    """3 000 of 4 000 input tokens at a tenth: 1 000 × $3 + 3 000 × $0.3 a million, and 500 × $15."""
    cls = ClassSpec(prompt=fixed(1000.0), output=fixed(500.0), system_tokens=3000)
    done = run(Plan((cls,), (arrivals([float(i) for i in range(100)]),), (api(block=1),), horizon_s=200.0))
    (cell,) = done.world.cells
    usd = (
        (cell["prompt_tokens"] - cell["cached_tokens"] - cell["written_tokens"]) * 3.0
        + cell["cached_tokens"] * 0.3 + cell["written_tokens"] * 3.75 + cell["output_tokens"] * 15.0
    ) / 1e6  # fmt: skip
    each, write = 1000 * 3e-6 + 3000 * 0.3e-6 + 500 * 15e-6, 3000 * (3.75e-6 - 0.3e-6)
    assert usd == pytest.approx(100 * each + write, rel=1e-12)


def test_a_shorter_common_beginning_is_read_and_the_rest_written() -> None:
    rows = [
        (0.0, 9000, 1, [(1, 2000), (2, 3000)]),
        (1.0, 9000, 1, [(1, 2000), (3, 3000)]),
        (2.0, 9000, 1, [(1, 2000), (2, 3000), (4, 1000)]),
        (3.0, 9000, 1, [(2, 3000)]),
    ]
    plan = Plan((ClassSpec(segmented=True),), ((traced(rows),),), (api(block=1),))
    log = run(plan).log
    assert log["cached_tokens"].tolist() == [0, 2000, 5000, 0]
    assert log["written_tokens"].tolist() == [5000, 3000, 1000, 3000]


def conversation(history: bool) -> Any:
    cls = ClassSpec(
        prompt=fixed(600.0), output=fixed(400.0), system_tokens=2000, turns=fixed(3.0), think=fixed(10.0)
    )
    return run(Plan((cls,), (arrivals([0.0]),), (api(block=1, history=history),), horizon_s=100.0)).log


def test_a_conversation_reads_what_it_sent_before() -> None:
    log = conversation(history=True)
    assert log["prompt_tokens"].tolist() == [2600, 3600, 4600]
    assert log["cached_tokens"].tolist() == [0, 2600, 3600]
    assert log["written_tokens"].tolist() == [2600, 1000, 1000]


def test_without_history_only_the_shared_beginning_is_kept() -> None:
    log = conversation(history=False)
    assert log["cached_tokens"].tolist() == [0, 2000, 2000]
    assert log["written_tokens"].tolist() == [2000, 0, 0]


def test_tenants_with_accounts_of_their_own_share_nothing() -> None:
    times = [float(i) for i in range(60)]
    shares = {"tenant_weights": (1.0, 1.0, 1.0)}
    assert sum(w > 0 for w in tokens(times, 2048, api(by_tenant=True), **shares)[0]) == 3
    assert sum(w > 0 for w in tokens(times, 2048, api(), **shares)[0]) == 1


def test_endpoints_of_one_number_share_a_cache() -> None:
    cls = ClassSpec(prompt=fixed(10.0), output=fixed(1.0), system_tokens=2048, route=[1.0, 1.0])
    times = [float(i) for i in range(50)]
    for numbers, writes in (((4, 4), 1), ((4, 5), 2)):
        backends = tuple(api(number=number) for number in numbers)
        log = run(Plan((cls,), (arrivals(times),), backends, horizon_s=100.0)).log
        assert (log["written_tokens"] > 0).sum() == writes


def test_a_new_prompt_version_begins_anew_and_the_old_one_is_found_again() -> None:
    feed = Feed(arrivals([1.0, 2.0, 3.0, 4.0]))
    cls = ClassSpec(prompt=fixed(10.0), output=fixed(1.0), system_tokens=2048, feed=feed)
    rows: list[Any] = []
    engine = Engine(WorldSpec([cls], [api()], horizon_s=9.0, log_rows=1), rows.append)
    for at, version in ((1.6, 1), (3.6, 0)):
        engine.advance(at)
        engine.set_versions(0, version, 0, 0)
    engine.advance(9.0)
    engine.flush_log()
    assert np.concatenate(rows)["cached_tokens"].tolist() == [0, 0, 2048, 2048]


def test_what_is_read_takes_no_time() -> None:
    quick = replace(api(block=1), ttft_per_token_s=0.001)
    cls = ClassSpec(prompt=fixed(1000.0), output=fixed(1.0), system_tokens=3000)
    log = run(Plan((cls,), (arrivals([0.0, 10.0]),), (quick,))).log
    assert (log["finish_s"] - log["started_s"]).tolist() == [pytest.approx(4.5), pytest.approx(1.5)]


def test_forgotten_beginnings_make_room() -> None:
    """Ten thousand conversations, five minutes each in memory: no more than are alive are kept."""
    n = 10_000
    cls = ClassSpec(prompt=fixed(2000.0), output=fixed(1.0), turns=fixed(1.0), think=fixed(1.0))
    times = [1.0 * i for i in range(n)]
    done = run(Plan((cls,), (arrivals(times),), (api(ttl_s=300.0),), horizon_s=1e5, window_s=1e5))
    assert 0 < done.world.stores[3]["size"] <= 301
    assert len(done.world.entries) <= 4096
