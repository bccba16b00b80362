"""Profiles from step logs: non-negative, robust least squares of measured step times on what was in each batch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import least_squares, nnls

from simlab.profiles import Efficiency, Profile, StepTime, Uncertainty, Validity, gpu, model, roofline
from simlab.profiles.estimates import PRIOR

Floats = NDArray[np.float64]

# Knots of the piecewise-linear part, tokens in the step; slopes between them are free but never negative.
KNOTS = (1.0, 32.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0)
TERMS = ("base_s", "per_seq_s", "per_kv_token_s", "per_prefill_kv_token_s", "attn_s")
# Blocks of the real segment alternate between fit and test, so that the test is of other moments of the run.
BLOCK = 100
CONFIGS = {
    "Qwen3-32B_tp1_dp1_noep_20260613194007": ("qwen3-32b", 1),
    "Qwen3-32B_tp2_dp1_noep_20260613194007": ("qwen3-32b", 2),
    "Qwen3-32B_tp8_dp1_noep_20260613194007": ("qwen3-32b", 8),
}


@dataclass(frozen=True)
class StepFit:
    """A fitted configuration: its profile and its errors on held-out steps, by phase."""

    profile: Profile
    errors: dict[str, float]
    steps: int


def load_steps(data: Path) -> pd.DataFrame:
    """All steps of the log."""
    return pd.read_csv(data / "vllm_step_times" / "steps.csv.gz")


def design(steps: pd.DataFrame) -> Floats:
    """One column a coefficient: the five terms, then the slopes between knots."""
    prefill = steps["prefill_tokens"].to_numpy(float)
    requests = np.maximum(steps["prefill_requests"].to_numpy(float), 1.0)
    start = steps["prefill_kv_tokens"].to_numpy(float)
    sequences = steps["decode_requests"].to_numpy(float)
    # Lengths of the single chunks are not logged: their mean stands for all, so the work is a little underestimated.
    work = prefill * start / requests + prefill * (prefill / requests + 1.0) / 2.0
    tokens = prefill + sequences
    slopes = [np.clip(tokens - low, 0.0, high - low) for low, high in pairwise(KNOTS)]
    columns = [np.ones(len(steps)), sequences, steps["decode_kv_tokens"].to_numpy(float), prefill + start, work]
    return np.stack([*columns, *slopes], axis=1)


def physical_floor(architecture: str, card: str, tp: int) -> Floats:
    """What no coefficient can be below: KV bytes at peak bandwidth, attention at peak FLOP/s, nothing else."""
    peak = roofline(model(architecture), gpu(card), tp, "bf16", Efficiency(kv_bandwidth=1.0, attention_flops=1.0))
    floor = np.zeros(len(TERMS) + len(KNOTS) - 1)
    floor[TERMS.index("per_kv_token_s")], floor[TERMS.index("attn_s")] = peak.per_kv_token_s, peak.attn_s
    return floor


def robust_fit(x: Floats, seconds: Floats, phase: NDArray[np.object_], floor: Floats) -> Floats:
    """Least squares of relative errors above the floor; phases weigh by the root of their count, outliers nothing.

    Tukey's biweight at 4.7 scaled median deviations: start-up and compilation steps are many times too long.
    """
    names, index, counts = np.unique(phase, return_inverse=True, return_counts=True)
    balance = (1.0 / np.sqrt(counts))[index]
    weight = np.ones(len(seconds))
    scale = x.max(axis=0) / np.median(seconds)
    solution = np.zeros(x.shape[1])
    for _ in range(15):
        root = np.sqrt(weight * balance) / seconds
        solution = floor + nnls(x / scale * root[:, None], (seconds - x @ floor) * root)[0] / scale
        miss = x @ solution / seconds - 1.0
        # Of each phase its own spread: a decode step is far steadier than a prefill one.
        spread = np.array([np.median(np.abs(miss[index == i])) for i in range(len(names))])
        u = miss / (4.7 * 1.4826 * np.maximum(spread, 0.01))[index]
        weight = np.where(np.abs(u) < 1.0, (1.0 - u**2) ** 2, 0.0)
    return solution


def to_step_time(solution: Floats) -> StepTime:
    """Coefficients as a step-time."""
    points, seconds = [(KNOTS[0], 0.0)], 0.0
    for low, high, slope in zip(KNOTS[:-1], KNOTS[1:], solution[len(TERMS) :], strict=True):
        seconds += float(slope) * (high - low)
        points.append((high, seconds))
    terms = {name: float(value) for name, value in zip(TERMS, solution, strict=False)}
    return StepTime(**terms, linear=tuple(points), overhead_s=PRIOR.overhead_s)


def held_out_errors(x: Floats, seconds: Floats, solution: Floats, steps: pd.DataFrame) -> dict[str, float]:
    """Median absolute error of a step by phase, and of the total time of the real segment."""
    simulated = x @ solution
    ape = np.abs(simulated / seconds - 1.0)
    phase, real = steps["phase"].to_numpy(), (steps["segment"] == "real").to_numpy()
    errors = {f"step_{name}_median_ape": float(np.median(ape[phase == name])) for name in np.unique(phase)}
    errors["step_median_ape"] = float(np.median(ape))
    errors["real_total_time_error"] = float(abs(simulated[real].sum() / seconds[real].sum() - 1.0))
    return {metric: round(share, 4) for metric, share in errors.items()}


def learn_efficiency(architecture: str, card: str, tp: int, x: Floats, seconds: Floats) -> Efficiency:
    """The roofline's efficiencies that match fitted step times, so that estimates learn from this profile too."""
    names = [
        entry.name for entry in fields(Efficiency) if entry.name not in {"overhead_s", "routing_spread", "eager_s"}
    ]
    tokens = 1.0 + x[:, len(TERMS) :].sum(axis=1)

    def efficiency(logs: Floats) -> Efficiency:
        changed = {name: getattr(PRIOR, name) * float(np.exp(log)) for name, log in zip(names, logs, strict=True)}
        return Efficiency(**{**PRIOR.as_dict(), **changed, "eager_s": 1e-3})

    def residuals(logs: Floats) -> Floats:
        law = roofline(model(architecture), gpu(card), tp, "bf16", efficiency(logs))
        at, table = np.array(law.linear).T
        other = x[:, : len(TERMS)] @ np.array([getattr(law, name) for name in TERMS])
        return np.concatenate([np.log((other + np.interp(tokens, at, table)) / seconds) / 0.05, logs / 0.4])

    shares = [name for name in names if not name.endswith("_s")]
    ceiling = np.array([-np.log(getattr(PRIOR, name)) if name in shares else np.inf for name in names])
    found = least_squares(residuals, np.full(len(names), -1e-3), bounds=(-np.inf, ceiling), loss="soft_l1")
    return Efficiency(**{**efficiency(found.x).as_dict(), "eager_s": PRIOR.eager_s})


def uncertainty(x: Floats, seconds: Floats, solution: Floats, steps: pd.DataFrame) -> Uncertainty:
    """Covariance of log factors on terms with one observation a block, since neighbouring steps err alike."""
    groups = np.stack(
        [x[:, i] * solution[i] for i in range(len(TERMS))] + [x[:, len(TERMS) :] @ solution[len(TERMS) :]]
    )
    names = (*TERMS, "linear")
    used = [i for i in range(len(names)) if groups[i].any()]
    share = (groups[used] / seconds).T
    miss = np.log(x @ solution / seconds)
    noise = 1.4826 * float(np.median(np.abs(miss))) + 0.01
    block = np.arange(len(steps)) // BLOCK
    jacobian = np.stack([share[block == b].mean(axis=0) for b in np.unique(block)]) / noise
    inverse = np.linalg.inv(jacobian.T @ jacobian + np.eye(len(used)) / 0.5**2)
    symmetric = np.round((inverse + inverse.T) / 2.0, 10)
    rows = tuple(tuple(float(v) for v in row) for row in symmetric)
    return Uncertainty(tuple(names[i] for i in used), rows)


def fit(data: pd.DataFrame, config: str) -> StepFit:
    """The profile of one configuration: errors from a fit on half of the blocks, coefficients from all steps."""
    architecture, tp = CONFIGS[config]
    steps = data[data["config_id"] == config].reset_index(drop=True)
    x, seconds = design(steps), steps["latency_ms"].to_numpy(float) / 1e3
    phase = steps["phase"].to_numpy()
    test = ((np.arange(len(steps)) // BLOCK) % 2 == 1) & (steps["segment"] == "real").to_numpy()
    card = "b300-sxm"
    floor = physical_floor(architecture, card, tp)
    half = robust_fit(x[~test], seconds[~test], phase[~test], floor)
    errors = held_out_errors(x[test], seconds[test], half, steps[test])
    solution = robust_fit(x, seconds, phase, floor)
    ape = np.abs(x @ solution / seconds - 1.0)
    profile = Profile(
        name=f"{architecture}.{card}.tp{tp}.bf16",
        model=architecture,
        gpu=card,
        tp=tp,
        precision="bf16",
        kind="measured",
        step_time=to_step_time(solution),
        uncertainty=uncertainty(x, seconds, solution, steps),
        fitted_on=(f"vllm_step_times: {config}",),
        error={**errors, "step_all_median_ape": round(float(np.median(ape)), 4)},
        validity=Validity(
            max_decode_seqs=int(steps["decode_requests"].max()),
            max_step_tokens=int((steps["prefill_tokens"] + steps["decode_requests"]).max()),
            max_context_tokens=20480,
        ),
        efficiency=learn_efficiency(architecture, card, tp, x[ape < 0.2], (x @ solution)[ape < 0.2]),
        max_num_batched_tokens=8192,
        max_num_seqs=128,
        engine="vLLM 0.20.1",
        date="2026-06-13",
        notes="Fitted on step times; overhead_s (HTTP) is not measured by them and is the default.",
    )
    return StepFit(profile, errors, len(steps))
