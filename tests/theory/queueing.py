"""Stations of the engine fed with Poisson arrivals, and the interval that a law of queueing theory must lie in."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from small_worlds import Feed

from simlab.draws import Distribution
from simlab.engine import ApiSpec, ClassSpec, Engine, PoolSpec, StepCoefficients, WorldSpec
from simlab.workload import Chunk

SEEDS = range(10)
CHUNK = 65536


def arriving(arrival_s: NDArray[np.float64], output_tokens: NDArray[np.int64]) -> Feed:
    """Requests with one prompt token each, in chunks as long as a stream's."""
    parts = [slice(at, at + CHUNK) for at in range(0, len(arrival_s), CHUNK)]
    return Feed([Chunk(arrival_s[p], np.ones(len(arrival_s[p]), np.int64), output_tokens[p]) for p in parts])


def poisson(rate_rps: float, n: int, seed: int) -> NDArray[np.float64]:
    """The first ``n`` arrivals of a Poisson process."""
    return np.cumsum(np.random.default_rng(seed).exponential(1.0 / rate_rps, n))


def api(service: Distribution, servers: int, reject_full: bool = False) -> ApiSpec:
    """``servers`` servers with one queue: a request is served for its time to first token, and has no other."""
    return ApiSpec(ttft=service, itl=Distribution.fixed(0.0), concurrency=servers, reject_full=reject_full)


def replica(step: StepCoefficients, max_num_seqs: int) -> PoolSpec:
    """One replica that never lacks blocks."""
    return PoolSpec(
        step=step,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max(max_num_seqs, 16),
        kv_blocks=4_000_000,
        prefix_caching=False,
    )


def serve(
    station: ApiSpec | PoolSpec,
    arrival_s: NDArray[np.float64],
    output_tokens: NDArray[np.int64] | None = None,
    seed: int = 0,
) -> NDArray[Any]:
    """Serves all arrivals to the end; the log of attempts in order of arrival."""
    tokens = np.ones(len(arrival_s), np.int64) if output_tokens is None else output_tokens
    rows: list[NDArray[Any]] = []
    horizon_s = float(arrival_s[-1]) + 1.0
    spec = WorldSpec(
        classes=[ClassSpec(feed=arriving(arrival_s, tokens))],
        backends=[station],
        horizon_s=horizon_s,
        window_s=horizon_s,
        seed=seed,
        log_rows=1,
    )
    engine = Engine(spec, rows.append)
    engine.advance(math.inf)
    engine.flush_log()
    log = np.concatenate(rows)
    return log[np.argsort(log["task"], kind="stable")]


def settled(log: NDArray[Any]) -> NDArray[Any]:
    """The log without its first tenth, in which an empty system fills up."""
    return log[len(log) // 10 :]


def agree(estimate: Callable[[int], float], theory: float, width: float = 0.03, seeds: Sequence[int] = SEEDS) -> None:
    """Runs the seeds; their 99% Student interval must contain ``theory`` and be narrow.

    Raises:
        AssertionError: the interval misses theory, or its half-width is over ``width`` times theory.
    """
    values = np.array([estimate(seed) for seed in seeds])
    half = float(stats.t.ppf(0.995, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
    mean = float(values.mean())
    assert abs(mean - theory) <= half, f"theory says {theory:.6g}, simulated {mean:.6g} ± {half:.2g}"
    assert half <= width * theory, f"the interval {mean:.6g} ± {half:.2g} is too wide to say anything"
