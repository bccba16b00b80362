"""Estimates where nothing was measured: the roofline at efficiencies learned from the measured profiles."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from simlab.errors import InputError, Problem
from simlab.profiles.gpus import Gpu
from simlab.profiles.gpus import gpu as find_gpu
from simlab.profiles.models import KV_BYTES, WEIGHT_BYTES, Model
from simlab.profiles.models import model as find_model
from simlab.profiles.record import Profile, Uncertainty
from simlab.profiles.roofline import Efficiency, of_work, work
from simlab.profiles.step_time import StepTime

if TYPE_CHECKING:
    from simlab.profiles.pooling import Floats, States

# Terms of an estimate that are uncertain; those of one row by one and the same factor.
TERMS = (("base_s",), ("per_seq_s",), ("per_kv_token_s",), ("linear",), ("prefill_linear", "attn_s"), ("overhead_s",))
# What the regression cannot know of a server it never saw: software, its settings and how it was measured. Standard
# deviations of the logarithm of all decode steps and of all steps with prompts, and their correlation; chosen so that
# 90% intervals hold 90% of what was measured on GPUs and models left out (calibrate.estimate_check).
DECODE_SD, PROMPT_SD, TOGETHER = 0.11, 0.36, 0.3
RIDGE = 0.02


def learned(
    model: Model, gpu: Gpu, precision: str, measured: Iterable[Profile], *, dp: int = 1
) -> tuple[Efficiency, Floats, list[str]]:
    """Efficiencies for a set-up from the measured profiles; see `pooling` for how.

    Returns:
        The efficiencies; the covariance of their logarithms in the order of `pooling.NAMES`, [q, q]; and the names of
        the profiles used, of models and GPUs that the tables know.
    """
    from simlab.profiles import pooling

    known = [found for one in measured if (found := pooling.evidence(one)) is not None]
    prior = pooling.logs(pooling.expected(model, gpu, precision))
    mean, covariance = pooling.learned(pooling.kind(model, gpu, precision, dp), prior, known)
    return pooling.efficiency_of(mean), covariance, [one.profile for one in known]


def estimate(
    model: str,
    gpu: str,
    tp: int = 1,
    precision: str | None = None,
    *,
    dp: int = 1,
    expert_parallel: bool = False,
    kv_precision: str = "bf16",
    measured: Iterable[Profile] | None = None,
) -> Profile:
    """A profile from the model's architecture and the GPU's data sheet.

    Args:
        model: name of the model table.
        gpu: name of the GPU table.
        tp: GPUs of one replica, or of one rank.
        precision: of the weights; None is the published one.
        dp: data-parallel ranks.
        expert_parallel: experts are spread over the ranks.
        kv_precision: of the KV cache.
        measured: profiles to learn efficiencies from; None is every measured profile that comes with simlab.

    Raises:
        InputError: unknown model, GPU or precision.
    """
    from simlab.profiles import pooling
    from simlab.profiles.library import profiles

    architecture, card = find_model(model), find_gpu(gpu)
    weights = architecture.precision(precision)
    if weights not in WEIGHT_BYTES or kv_precision not in KV_BYTES or tp < 1 or dp < 1:
        allowed, cached = ", ".join(WEIGHT_BYTES), ", ".join(KV_BYTES)
        read = f"{weights!r}, {kv_precision!r}, {tp} and {dp}"
        message = f"need a precision of {allowed}, a KV precision of {cached}, tp >= 1 and dp >= 1; got {read}"
        raise InputError([Problem("", "", message)])
    known = [entry for entry in profiles().values() if entry.kind == "measured"] if measured is None else measured
    efficiency, covariance, names = learned(architecture, card, weights, known, dp=dp)
    need = work(architecture, card, tp, weights, dp=dp, expert_parallel=expert_parallel, kv_precision=kv_precision)
    step_time = of_work(need, efficiency)
    at = pooling.states(64, 8192, 8192)
    _, slope = pooling.sensitivity(need, pooling.logs(efficiency), at)
    ranks = [f"dp{dp}"] if dp > 1 else []
    ranks += ["ep"] if expert_parallel else []
    return Profile(
        name=".".join([architecture.name, card.name, f"tp{tp}", *ranks, weights]),
        model=architecture.name,
        gpu=card.name,
        tp=tp,
        precision=weights,
        kind="estimated",
        step_time=step_time,
        uncertainty=_uncertainty(step_time, at, slope @ covariance @ slope.T),
        fitted_on=tuple(f"efficiencies of {name}" for name in names),
        error=dict(known_errors()) if measured is None else {},
        efficiency=efficiency,
        kv_precision=kv_precision,
        dp=dp,
        expert_parallel=expert_parallel,
        engine="vLLM (estimate)",
        notes="Not measured: roofline over architecture and data sheet; efficiencies learned from measured profiles.",
    )


@cache
def known_errors() -> Mapping[str, float]:
    """How far such estimates were from what was measured, on GPUs left out of the regression; by metric."""
    text = (files("simlab.profiles") / "data" / "estimate_errors.json").read_text(encoding="utf-8")
    found: dict[str, float] = json.loads(text)
    return found


def _uncertainty(step_time: StepTime, at: States, learnt: Floats) -> Uncertainty:
    """Covariance of log factors on terms that gives states of steps the variance they should have.

    Args:
        step_time: the estimate.
        at: states of steps.
        learnt: covariance of the logarithms of their times and of the overhead, as learned, [n + 1, n + 1].
    """
    import numpy as np

    from simlab.profiles import pooling

    # The overhead's spread over servers is in what was learned.
    prompts = np.append(PROMPT_SD * (at.prompt > 0), 0.0)
    decodes = np.append(DECODE_SD * (at.prompt <= 0), 0.0)
    both = np.outer(decodes, prompts)
    unseen = np.outer(decodes, decodes) + np.outer(prompts, prompts) + TOGETHER * (both + both.T)
    here = pooling.log_seconds(step_time, at)
    shares = np.stack(
        [(pooling.log_seconds(step_time.scaled(dict.fromkeys(row, 1.01)), at) - here) / np.log(1.01) for row in TERMS],
        axis=1,
    )
    # The smallest changes of terms that move the states as wanted: a ridge keeps terms that matter little from swings.
    ridge = RIDGE * len(here) / len(TERMS)
    inverse = np.linalg.solve(shares.T @ shares + ridge * np.eye(len(TERMS)), shares.T)
    covariance = inverse @ (learnt + unseen) @ inverse.T
    terms = [(term, i) for i, row in enumerate(TERMS) for term in row]
    spread = np.array([[i == j for j in range(len(TERMS))] for _, i in terms], dtype=np.float64)
    full = spread @ covariance @ spread.T
    symmetric = np.round((full + full.T) / 2.0, 10) + 1e-9 * np.eye(len(terms))
    rows = tuple(tuple(float(value) for value in row) for row in symmetric)
    return Uncertainty(tuple(term for term, _ in terms), rows)
