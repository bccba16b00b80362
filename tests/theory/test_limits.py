"""What must hold on every path, not only on average: Little's law and the limits of load (DESIGN.md I6, I8)."""

from __future__ import annotations

import math

import numpy as np
import pytest
from queueing import agree, api, arriving, poisson, replica, serve, settled

from simlab.draws import Distribution
from simlab.engine import ClassSpec, Engine, PoolSpec, StepCoefficients, WorldSpec

STEP_S = {
    "base_s": 2**-7,
    "prefill_token_s": 2**-14,
    "decode_seq_s": 2**-12,
    "decode_context_s": 2**-22,
    "prefill_context_s": 2**-22,
}
STEP = StepCoefficients(**STEP_S)
N = 20_000


def answers(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).geometric(1 / 60, n)


@pytest.mark.parametrize("rate_rps", [0.5, 20.0, 200.0])
@pytest.mark.parametrize("max_num_seqs", [4, 64])
def test_littles_law_holds_on_the_path(rate_rps: float, max_num_seqs: int) -> None:
    """Of a system that begins and ends empty, the time integral of the number in it is the sum of all sojourns.

    (J. D. C. Little 1961; on a path: S. Stidham 1974.) The first is metered by windows, the second by requests.
    """
    n = 3000
    arrival_s, tokens = poisson(rate_rps, n, 1), answers(n, 2)
    station = replica(STEP, max_num_seqs)
    log = serve(station, arrival_s, tokens)
    end_s = float(log["finish_s"].max()) + 1.0
    spec = WorldSpec(
        classes=[ClassSpec(feed=arriving(arrival_s, tokens))], backends=[station], horizon_s=end_s, window_s=end_s / 7
    )
    engine = Engine(spec)
    engine.advance(end_s)
    windows = engine.world.windows
    inside_s = float(windows["waiting_s"].sum() + windows["running_s"].sum())
    assert inside_s == pytest.approx(float((log["finish_s"] - log["arrival_s"]).sum()), rel=1e-9)
    assert int(windows["finished"].sum()) == n


def test_littles_law_on_average() -> None:
    """L = lambda W, where L is known: M/M/1."""
    rho, service_s, n = 0.6, 0.5, 80_000

    def estimate(seed: int) -> float:
        log = settled(serve(api(Distribution.exponential(service_s), 1), poisson(rho / service_s, n, seed), seed=seed))
        rate = len(log) / (log["arrival_s"][-1] - log["arrival_s"][0])
        return float(rate * (log["finish_s"] - log["arrival_s"]).mean())

    agree(estimate, rho / (1.0 - rho), width=0.04)


def test_without_load_a_request_takes_its_own_time() -> None:
    n = 200
    tokens = answers(n, 3)
    log = serve(replica(STEP, 64), np.arange(n) * 1000.0, tokens)
    own_s = [
        sum(
            STEP.base_s
            + (STEP.prefill_token_s if k == 1 else STEP.decode_seq_s)
            + (STEP.prefill_context_s if k == 1 else STEP.decode_context_s) * k
            for k in range(1, count + 1)
        )
        for count in tokens
    ]
    np.testing.assert_allclose(log["finish_s"] - log["arrival_s"], own_s, rtol=1e-12, atol=1e-9)


def test_under_overload_the_bottleneck_sets_the_pace() -> None:
    """All places always taken by one-token decodes of equal length: max_num_seqs tokens a step."""
    seqs, count, n = 16, 50, 3200
    step = StepCoefficients(base_s=0.01)
    log = serve(replica(step, seqs), np.zeros(n), np.full(n, count))
    # Batches of `seqs` requests follow each other; each takes `count` steps.
    assert float(log["finish_s"].max()) == pytest.approx(n / seqs * count * 0.01, rel=1e-9)


def faster(factor: float) -> PoolSpec:
    """The replica of these tests with every time divided."""
    return replica(StepCoefficients(**{name: value / factor for name, value in STEP_S.items()}), max_num_seqs=8)


@pytest.mark.parametrize("kind", ["api", "replica"])
def test_twice_as_fast_a_world_takes_half_the_time(kind: str) -> None:
    def run(factor: float) -> np.ndarray:
        station = api(Distribution.exponential(0.5 / factor), 2) if kind == "api" else faster(factor)
        tokens = None if kind == "api" else answers(N, 6)
        return np.asarray(serve(station, poisson(3.0, N, 5) / factor, tokens)["finish_s"])

    np.testing.assert_allclose(run(2.0) * 2.0, run(1.0), rtol=1e-12)


def test_more_blocks_never_hurt_a_replica_that_lacks_them() -> None:
    """With blocks for one request at a time the replica is a single server; with many it is faster."""
    arrival_s, tokens = poisson(2.0, 400, 7), np.full(400, 160)
    finish = []
    for blocks in (12, 24, 48, 4000):
        station = PoolSpec(step=STEP, kv_blocks=blocks, prefix_caching=False, max_num_seqs=32)
        log = serve(station, arrival_s, tokens)
        finish.append(float((log["finish_s"] - log["arrival_s"]).mean()))
    assert finish == sorted(finish, reverse=True)
    assert math.isfinite(finish[0])
