"""Limits of the gateway against theory: Erlang B and C at concurrency limits, M/D/1 and dead time at a bucket."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from queueing import agree, arriving, poisson

from simlab.draws import Distribution
from simlab.engine import ApiSpec, ClassSpec, Engine, GatewaySpec, LimitSpec, PolicySpec, WorldSpec
from simlab.engine import arrays as a

N = 30_000
DESK = ApiSpec(Distribution.fixed(0.0), Distribution.fixed(0.0))


def held(rate_rps: float, service: Distribution, limit: LimitSpec, seed: int) -> NDArray[Any]:
    """Poisson requests of one token at a gateway with one limit; the log after its first tenth."""
    times = poisson(rate_rps, N, seed)
    rows: list[NDArray[Any]] = []
    spec = WorldSpec(
        classes=[ClassSpec(feed=arriving(times, np.ones(N, np.int64)), route=[1.0, 0.0])],
        backends=[ApiSpec(service, Distribution.fixed(0.0)), DESK],
        horizon_s=float(times[-1]),
        window_s=float(times[-1]),
        gateway=GatewaySpec(refused_at=1),
        policies=[PolicySpec()],
        limits=[limit],
        seed=seed,
        log_rows=1,
    )
    engine = Engine(spec, rows.append)
    engine.advance(math.inf)
    engine.flush_log()
    log = np.concatenate(rows)
    assert len(log) == N
    return log[np.argsort(log["task"])][N // 10 :]


def erlang_b(servers: int, load: float) -> float:
    """Blocking of M/M/c/c (Erlang 1917), by its recursion."""
    blocked = 1.0
    for n in range(1, servers + 1):
        blocked = load * blocked / (n + load * blocked)
    return blocked


def refused(log: NDArray[Any]) -> float:
    return float((log["outcome"] == a.RATE_LIMITED).mean())


def waited_s(log: NDArray[Any]) -> float:
    assert (log["outcome"] == a.OK).all()
    return float((log["started_s"] - log["arrival_s"]).mean())


@pytest.mark.parametrize("service", [Distribution.exponential(1.0), Distribution.lognormal(1.0, 2.5)])
def test_erlang_b_at_a_limit_of_tasks(service: Distribution) -> None:
    limit = LimitSpec(concurrency=5, of_tenants=[[0]])
    agree(lambda seed: refused(held(4.0, service, limit, seed)), erlang_b(5, 4.0))


@pytest.mark.parametrize(("servers", "rho"), [(1, 0.6), (4, 0.7)])
@pytest.mark.parametrize("of", ["tasks", "calls"])
def test_erlang_c_in_the_line_at_a_limit(servers: int, rho: float, of: str) -> None:
    """The mean wait of M/M/c is C / (c μ − λ), with C = B / (1 − ρ (1 − B))."""
    who: dict[str, Any] = {"of_tenants": [[0]]} if of == "tasks" else {"of_backends": [0, -1]}
    limit = LimitSpec(concurrency=servers, over=a.QUEUE, **who)
    load = servers * rho
    blocked = erlang_b(servers, load)
    delayed = blocked / (1.0 - rho * (1.0 - blocked))
    mean_s = delayed / (servers - load)
    service = Distribution.exponential(1.0)
    agree(lambda seed: waited_s(held(load, service, limit, seed)), mean_s, width=0.08)


def test_a_line_at_a_bucket_of_one_is_m_d_1() -> None:
    """One request every D seconds: who waits for the bucket waits as at a server that takes D (Pollaczek–Khinchine)."""
    every_s, rho = 2.0, 0.6
    limit = LimitSpec(rpm=60.0 / every_s, burst=1.0, over=a.QUEUE, of_tenants=[[0]])
    mean_s = rho * every_s / (2.0 * (1.0 - rho))
    agree(lambda seed: waited_s(held(rho / every_s, Distribution.fixed(0.01), limit, seed)), mean_s, width=0.05)


def test_a_bucket_of_one_that_refuses_is_a_counter_with_dead_time() -> None:
    """After each request D seconds without another: 1 / (1 + λ D) pass (a counter that refusals do not prolong)."""
    every_s, rate = 2.0, 0.7
    limit = LimitSpec(rpm=60.0 / every_s, burst=1.0, of_tenants=[[0]])
    agree(
        lambda seed: 1.0 - refused(held(rate, Distribution.fixed(0.01), limit, seed)), 1.0 / (1.0 + rate * every_s)
    )


def test_a_bucket_of_a_few_that_refuses() -> None:
    """What a bucket of B that fills by one every D seconds lacks is the work at a server with B places.

    Each request that passes takes one, which is there again after D of filling; a full bucket fills no further. So the
    share that passes is that of M/D/1/B, from the chain of what is there just after departures (Takagi, 1993).
    """
    every_s, rate, size = 2.0, 0.5, 3
    load = rate * every_s
    arrive = [math.exp(-load) * load**k / math.factorial(k) for k in range(60)]
    # Customers in M/D/1/B just after a departure: 0 … B - 1.
    move = np.zeros((size, size))
    for i in range(size):
        for k, p in enumerate(arrive):
            move[i, min(max(i - 1, 0) + k, size - 1)] += p
    values, vectors = np.linalg.eig(move.T)
    law = np.real(vectors[:, np.argmin(abs(values - 1.0))])
    law /= law.sum()
    passed = 1.0 / (law[0] + load)
    limit = LimitSpec(rpm=60.0 / every_s, burst=float(size), of_tenants=[[0]])
    agree(lambda seed: 1.0 - refused(held(rate, Distribution.fixed(0.01), limit, seed)), passed)
