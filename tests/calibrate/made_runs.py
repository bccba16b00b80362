"""Runs as benchmarks of a made-up server would give them: simulated with a known step-time, and disturbed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from simlab.calibrate.benchmark import Limits, simulate_run
from simlab.calibrate.run import Load, Requests, Run, Server
from simlab.profiles import StepTime

SERVER = Server("made-up", "made-up-gpu", max_num_seqs=64, max_num_batched_tokens=2048, kv_blocks=4000, block_size=16)
LIMITS = Limits(max_num_seqs=64, max_num_batched_tokens=2048, kv_blocks=4000, block_size=16)
TRUTH = StepTime(
    base_s=8e-3,
    per_seq_s=2e-4,
    per_kv_token_s=4e-7,
    per_prefill_token_s=1.2e-4,
    attn_s=8e-9,
    prefill_linear=((1.0, 3e-3), (2.0, 3e-3)),
    overhead_s=6e-3,
)
LOADS = tuple(
    Load(concurrency=users, requests=5 * users + 5, prompt_tokens=prompt, output_tokens=output, low=0.7, high=1.3)
    for prompt, output in ((128, 64), (1024, 32), (512, 128))
    for users in (1, 6, 32)
)


def made_run(load: Load, name: str = "run", server: Server = SERVER, **more: Any) -> Run:
    """A run of which nothing was measured yet."""
    return replace(Run(name=name, where=f"{name}.json", server=server, load=load), **more)


def measured(
    run: Run,
    truth: StepTime = TRUTH,
    limits: Limits = LIMITS,
    *,
    noise: float = 0.0,
    seed: int = 0,
    factors: Mapping[str, float] | None = None,
    metrics: Sequence[str] = ("ttft_s_mean", "ttft_s_p50", "tpot_s_mean", "e2e_s_mean", "output_tokens_per_s"),
) -> Run:
    """The run with what its server would give, each number off by a factor of its own (lognormal, ``noise``)."""
    found = simulate_run(run, truth.scaled(factors or {}), limits)
    errors = np.random.default_rng(seed).normal(0.0, noise, len(metrics))
    numbers = {name: found[name] * float(np.exp(error)) for name, error in zip(metrics, errors, strict=True)}
    return replace(run, measured=numbers)


def made_runs(noise: float = 0.0, seed: int = 0, **more: Any) -> list[Run]:
    """A grid of closed loops."""
    return [
        measured(made_run(load, f"run{i}"), noise=noise, seed=1000 * seed + i, **more) for i, load in enumerate(LOADS)
    ]


def known(
    start_s: Sequence[float], lengths: Sequence[tuple[int, int]], load: Load, server: Server = SERVER
) -> Run:
    """A run of which each request's time and lengths are known."""
    prompts, outputs = np.array(lengths, np.int64).T
    nothing = np.zeros(len(lengths))
    return made_run(load, server=server, requests=Requests(np.array(start_s), prompts, outputs, nothing, nothing))
