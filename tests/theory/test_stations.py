"""Stations of the engine against queueing theory (DESIGN.md I12).

Formulas: L. Kleinrock, Queueing Systems I (1975); D. Gross et al., Fundamentals of Queueing Theory (2008).
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from queueing import agree, api, poisson, replica, serve, settled

from simlab.draws import Distribution
from simlab.engine import ClassSpec, Engine, StepCoefficients, WorldSpec
from simlab.engine.arrays import OK

N = 80_000
SERVICE_S = 0.5


def erlang_b(servers: int, load: float) -> float:
    """Blocking probability of M/M/c/c by the usual recursion (Gross §3.6)."""
    blocked = 1.0
    for c in range(1, servers + 1):
        blocked = load * blocked / (c + load * blocked)
    return blocked


def erlang_c(servers: int, load: float) -> float:
    """Probability of waiting in M/M/c (Gross §3.3)."""
    blocked = erlang_b(servers, load)
    return blocked / (1.0 - load / servers * (1.0 - blocked))


def pollaczek_khinchine(rate_rps: float, mean_s: float, second_moment: float) -> float:
    """Mean wait of M/G/1 (Kleinrock §5.6)."""
    return rate_rps * second_moment / (2.0 * (1.0 - rate_rps * mean_s))


@cache
def mm1_figures(rho: float, seed: int) -> dict[str, float]:
    """What one run of M/M/1 shows."""
    service = Distribution.exponential(SERVICE_S)
    log = settled(serve(api(service, 1), poisson(rho / SERVICE_S, N, seed), seed=seed))
    sojourn = log["finish_s"] - log["arrival_s"]
    # A single server in order of arrival: who comes after the one before has left does not wait (Lindley 1952).
    wait = np.maximum(log["finish_s"][:-1] - log["arrival_s"][1:], 0.0)
    return {
        "sojourn": float(sojourn.mean()),
        "wait": float(wait.mean()),
        "idle": float((wait == 0).mean()),
        "p95": float(np.quantile(sojourn, 0.95)),
    }


@pytest.mark.parametrize("what", ["sojourn", "wait", "idle", "p95"])
def test_mm1(what: str) -> None:
    rho = 0.6
    sojourn_s = SERVICE_S / (1.0 - rho)
    theory = {"sojourn": sojourn_s, "wait": rho * sojourn_s, "idle": 1.0 - rho, "p95": sojourn_s * math.log(20.0)}
    agree(lambda seed: mm1_figures(rho, seed)[what], theory[what])


@pytest.mark.parametrize(("servers", "rho"), [(2, 0.6), (5, 0.7), (20, 0.85)])
def test_mmc(servers: int, rho: float) -> None:
    rate = rho * servers / SERVICE_S

    def estimate(seed: int) -> float:
        log = settled(serve(api(Distribution.exponential(SERVICE_S), servers), poisson(rate, N, seed), seed=seed))
        return float((log["finish_s"] - log["arrival_s"]).mean())

    wait_s = erlang_c(servers, rho * servers) * SERVICE_S / (servers * (1.0 - rho))
    agree(estimate, SERVICE_S + wait_s)


@pytest.mark.parametrize("station", ["api", "replica"])
def test_md1(station: str) -> None:
    """A replica with one place and one-token answers is a server with a fixed time, too."""
    rho = 0.7
    rate = rho / SERVICE_S

    def estimate(seed: int) -> float:
        server = (
            api(Distribution.fixed(SERVICE_S), 1)
            if station == "api"
            else replica(StepCoefficients(base_s=SERVICE_S), max_num_seqs=1)
        )
        log = settled(serve(server, poisson(rate, N, seed), seed=seed))
        return float((log["finish_s"] - log["arrival_s"]).mean() - SERVICE_S)

    agree(estimate, pollaczek_khinchine(rate, SERVICE_S, SERVICE_S**2))


def test_mg1_lognormal() -> None:
    rho, p95_s = 0.5, 2.5 * SERVICE_S
    rate = rho / SERVICE_S
    z = 1.6448536269514722
    sigma = z - math.sqrt(z * z - 2.0 * math.log(p95_s / SERVICE_S))

    def estimate(seed: int) -> float:
        log = settled(serve(api(Distribution.lognormal(SERVICE_S, p95_s), 1), poisson(rate, 2 * N, seed), seed=seed))
        return float((log["finish_s"] - log["arrival_s"]).mean())

    second_moment = SERVICE_S**2 * math.exp(sigma * sigma)
    agree(estimate, SERVICE_S + pollaczek_khinchine(rate, SERVICE_S, second_moment))


def test_mg1_answers_of_geometric_length_on_a_replica() -> None:
    """One place, equal steps: the service time is the number of tokens, so M/G/1 with a geometric law."""
    rho, mean, step_s = 0.5, 20.0, 0.01
    rate = rho / (mean * step_s)

    def estimate(seed: int) -> float:
        tokens = np.random.default_rng(1000 + seed).geometric(1.0 / mean, N)
        station = replica(StepCoefficients(base_s=step_s), max_num_seqs=1)
        log = settled(serve(station, poisson(rate, N, seed), tokens))
        return float((log["finish_s"] - log["arrival_s"]).mean())

    second_moment = step_s**2 * (2.0 * mean * mean - mean)
    agree(estimate, mean * step_s + pollaczek_khinchine(rate, mean * step_s, second_moment))


@pytest.mark.parametrize(
    "service",
    [Distribution.exponential(SERVICE_S), Distribution.fixed(SERVICE_S), Distribution.lognormal(SERVICE_S, 1.2)],
    ids=["exponential", "fixed", "lognormal"],
)
def test_erlang_b_whatever_the_service_law(service: Distribution) -> None:
    """The blocking probability depends on the mean service time alone (insensitivity, Gross §3.6)."""
    servers, load = 6, 4.5

    def estimate(seed: int) -> float:
        log = settled(serve(api(service, servers, reject_full=True), poisson(load / SERVICE_S, N, seed), seed=seed))
        return float((log["outcome"] != OK).mean())

    agree(estimate, erlang_b(servers, load))


@pytest.mark.parametrize("law", ["geometric", "fixed"])
def test_replica_tends_to_processor_sharing(law: str) -> None:
    """When a step's time is shared by all in it, M/G/1-PS in the limit of many tokens: mean sojourn S / (1 - rho)."""
    rho, mean, token_s, n = 0.6, 2000, 1e-3, N // 2
    rate = rho / (mean * token_s)

    def estimate(seed: int) -> float:
        random = np.random.default_rng(2000 + seed)
        tokens = random.geometric(1.0 / mean, n) if law == "geometric" else np.full(n, mean)
        station = replica(StepCoefficients(0.0, prefill_token_s=token_s, decode_seq_s=token_s), max_num_seqs=256)
        log = settled(serve(station, poisson(rate, n, seed), tokens))
        return float((log["finish_s"] - log["arrival_s"]).mean())

    agree(estimate, mean * token_s / (1.0 - rho))


def test_processor_sharing_slows_short_and_long_alike() -> None:
    """Kleinrock 1967: under processor sharing a job's mean slowdown 1 / (1 - rho) does not depend on its length."""
    rho, token_s, n, short, long = 0.6, 1e-3, N // 2, 1000, 8000
    rate = rho / (0.5 * (short + long) * token_s)

    @cache
    def slowdowns(seed: int) -> dict[int, float]:
        tokens = np.random.default_rng(3000 + seed).choice([short, long], n)
        station = replica(StepCoefficients(0.0, prefill_token_s=token_s, decode_seq_s=token_s), max_num_seqs=256)
        log = settled(serve(station, poisson(rate, n, seed), tokens))
        slow = (log["finish_s"] - log["arrival_s"]) / (log["output_tokens"] * token_s)
        return {size: float(slow[log["output_tokens"] == size].mean()) for size in (short, long)}

    agree(lambda seed: slowdowns(seed)[short], 1.0 / (1.0 - rho))
    agree(lambda seed: slowdowns(seed)[long], 1.0 / (1.0 - rho))


def test_closed_loop_of_a_repairman() -> None:
    """M/M/1//N: N users who think and then wait for one server; throughput from the birth-death chain (Gross §3.8)."""
    users, think_s, horizon_s = 8, 3.0, 30_000.0
    ratio = SERVICE_S / think_s
    weights = [math.factorial(users) / math.factorial(users - n) * ratio**n for n in range(users + 1)]
    throughput = (1.0 - weights[0] / sum(weights)) / SERVICE_S

    def estimate(seed: int) -> float:
        one = Distribution.fixed(1.0)
        spec = WorldSpec(
            classes=[ClassSpec(users=users, think=Distribution.exponential(think_s), prompt=one, output=one)],
            backends=[api(Distribution.exponential(SERVICE_S), 1)],
            horizon_s=horizon_s,
            window_s=horizon_s,
            seed=seed,
        )
        engine = Engine(spec)
        engine.advance(horizon_s)
        return float(engine.world.tasks[1]["succeeded"].sum()) / horizon_s

    agree(estimate, throughput)
