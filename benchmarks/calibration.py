"""Calibration: one set-up fitted on twenty benchmarks, and hundreds of summary rows validated."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import product

import numpy as np

from benchmarks.case import Report
from simlab.calibrate.benchmark import Limits, simulate_requests, simulate_run
from simlab.calibrate.fit_setup import fit_setup
from simlab.calibrate.fitted import Fitted
from simlab.calibrate.run import Load, Run, Server
from simlab.calibrate.shelf import Shelf
from simlab.calibrate.validate import validate
from simlab.profiles import estimate

REQUESTS = 200
SERVER = Server(
    "llama-3.1-8b", "h100-sxm", max_num_seqs=256, max_num_batched_tokens=8192, kv_blocks=26_000, block_size=16
)
LIMITS = Limits(256, 8192, 26_000, 16)
TRUE = estimate(SERVER.model, SERVER.gpu, SERVER.tp, SERVER.precision, measured=()).step_time
"""The step time of the server that is taken to have been measured."""


def loads(count: int, requests: int) -> list[Load]:
    """Operating points: concurrencies up to 64 and lengths of chats, in turn."""
    points = product((1, 2, 4, 8, 16, 32, 64), ((128, 64), (512, 128), (1024, 256), (2048, 64)))
    chosen = [point for point, _ in zip(list(points) * (count // 28 + 1), range(count), strict=False)]
    return [
        Load(users, requests=requests, prompt_tokens=prompt, output_tokens=output, low=0.8)
        for users, (prompt, output) in chosen
    ]


def measured(name: str, load: Load, *, detailed: bool) -> Run:
    """A run as its client would have measured it; detailed: with the times between tokens."""
    run = Run(name, "made", SERVER, load)
    run = replace(run, measured=simulate_run(run, TRUE, LIMITS, seed=1))
    if not detailed:
        return run
    requests = simulate_requests(run, TRUE, LIMITS, seed=1)
    each = (requests.e2e_s - requests.ttft_s) / np.maximum(requests.output_tokens - 1, 1)
    itl = tuple(np.full(n - 1, gap) for n, gap in zip(requests.output_tokens, each, strict=True))
    return replace(run, requests=replace(requests, itl_s=itl))


def run(case: str, size: int) -> Report:
    """Times a fit of ``size`` runs, by their averages or by the times between tokens, or the validation of as many."""
    runs = [measured(f"run{i}", load, detailed=case == "tokens") for i, load in enumerate(loads(size, REQUESTS))]
    if case == "validate":
        profile = replace(estimate(SERVER.model, SERVER.gpu, SERVER.tp, SERVER.precision, measured=()), kind="measured")
        shelf = Shelf("made", (profile,), single=True)
        began = time.perf_counter()
        found = validate(shelf, runs, workers=2)
        return Report(seconds=time.perf_counter() - began, note=f"{len(found.rows):,} numbers")
    began = time.perf_counter()
    fitted = fit_setup(runs, measured=())
    assert isinstance(fitted, Fitted), fitted.reason
    error = fitted.profile.error["itl_left_out_median_ape"]
    return Report(seconds=time.perf_counter() - began, note=f"ITL left out {error:.1%}")
