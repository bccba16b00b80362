"""Profiles from closed-loop benchmark tables: the efficiencies whose simulated benchmark matches the measured one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
from closed_loop import closed_loop
from numpy.typing import NDArray
from scipy.optimize import least_squares

from simlab.profiles import Efficiency, Profile, StepTime, Uncertainty, Validity, gpu, kv_blocks, model, roofline

Floats = NDArray[np.float64]

# How far an efficiency may be from the prior before the data must insist: standard deviation of its logarithm.
PRIOR_SD = {
    "bandwidth": 0.25,
    "flops": 0.4,
    "kv_bandwidth": 0.4,
    "attention_flops": 0.5,
    "routing_spread": 0.3,
    "host_s": 0.7,
    "eager_s": 0.7,
    "per_seq_s": 1.0,
    "overhead_s": 0.7,
}
SHARES = ("bandwidth", "flops", "kv_bandwidth", "attention_flops", "routing_spread")
NAMES = [entry.name for entry in fields(Efficiency) if entry.name in PRIOR_SD]
PRIOR = Efficiency()
# What the simulated benchmark is trusted to: standard deviation of log(simulated / measured).
TPOT_SD, TTFT_SD = 0.04, 0.10
# Terms whose joint covariance a profile carries, and how unsure each is before a row is seen.
TERM_SD = {
    "base_s": 0.5, "linear": 0.3, "per_seq_s": 0.7, "per_kv_token_s": 0.4, "attn_s": 0.5, "overhead_s": 0.5,
}  # fmt: skip
# Both benchmarks ran with vLLM's default step budget on these GPUs.
MAX_NUM_BATCHED_TOKENS = 8192
# How much better (in log likelihood) an FP8 KV cache must explain the runs than vLLM's default to be believed.
FP8_KV_COST = 3.0
# More host time a step than this means kernels launched one by one: nothing for other set-ups to learn from.
EAGER_HOST_S = 12e-3
# Rows above this share of the KV cache queue for blocks, which the simple benchmark model does not simulate.
KV_LIMIT = 0.85
MIN_ROWS = 8


@dataclass(frozen=True)
class Row:
    """One measured run: nominal lengths (tokens), concurrency, seconds."""

    prompt: int
    output: int
    concurrency: int
    low: float
    ttft_s: float
    tpot_s: float


@dataclass(frozen=True)
class Setup:
    """All runs of one model on one GPU set-up."""

    model: str
    gpu: str
    tp: int
    precision: str
    rows: tuple[Row, ...]
    saturated: int
    sources: tuple[str, ...]
    versions: tuple[str, ...]
    newest: str

    @property
    def name(self) -> str:
        return f"{self.model}.{self.gpu}.tp{self.tp}.{self.precision}"


@dataclass(frozen=True)
class Fit:
    """A fitted set-up and its profile."""

    setup: Setup
    profile: Profile


def read_setups(data: Path) -> list[Setup]:
    """Set-ups with enough rows, of models and GPUs that simlab knows, one replica, no expert parallelism."""
    table = pd.read_csv(data / "vllm_infx_silicon" / "vllm_agg.csv")
    table = table[(table["attention_dp"] == 1) & (table["moe_ep"] == 1) & (table["pp"] == 1)]
    # Experts split another way than the rest is another set-up (1 is written where upstream does not say).
    table = table[(table["moe_tp"] == table["tp"]) | (table["moe_tp"] == 1)]
    table = table.dropna(subset=["concurrency", "ttft_ms", "tpot_ms"])
    setups = []
    for (label, precision, system, tp), group in table.groupby(["model", "precision", "system", "tp"]):
        name = {"Qwen/Qwen3-235B-A22B-FP8": "qwen3-235b-a22b"}.get(label, label)
        if "Kimi" in name:  # a vision model whose configuration is not in the table
            continue
        architecture, card = model(name), gpu(system)
        if architecture.weight_bytes(precision) / tp > 0.9 * card.memory_bytes:
            continue
        room = 16 * kv_blocks(architecture.name, card.name, int(tp), precision)
        usual = 0.95 * (group["isl"] + group["osl"]) * group["concurrency"]
        kept = group[usual <= KV_LIMIT * room]
        if len(kept) < MIN_ROWS:
            continue
        rows = tuple(
            Row(
                prompt=int(entry.isl),
                output=int(entry.osl),
                concurrency=int(entry.concurrency),
                low=0.8 if str(entry.source).startswith("infx") else 1.0,
                ttft_s=entry.ttft_ms / 1e3,
                tpot_s=entry.tpot_ms / 1e3,
            )
            for entry in kept.itertuples()
        )
        setups.append(
            Setup(
                model=architecture.name,
                gpu=card.name,
                tp=int(tp),
                precision=str(precision),
                rows=rows,
                saturated=len(group) - len(kept),
                sources=tuple(sorted(kept["source"].unique())),
                versions=tuple(sorted(kept["backend_version"].dropna().astype(str).unique())),
                newest=str(kept["measured_date"].dropna().max() if kept["measured_date"].notna().any() else ""),
            )
        )
    return setups


def as_assumed(setup: Setup, profile: Profile) -> Setup:
    """The set-up with the spread of lengths that its profile was fitted with."""
    stated = re.search(r"lengths uniform in ([\d.]+)-1 of nominal", profile.notes)
    if stated is None:
        return setup
    return replace(setup, rows=tuple(replace(row, low=float(stated[1])) for row in setup.rows))


def misses(step_time: StepTime, rows: Sequence[Row]) -> tuple[Floats, Floats]:
    """log(simulated / measured) of mean TTFT and mean TPOT, row by row."""
    ttft, tpot = np.empty(len(rows)), np.empty(len(rows))
    for i, row in enumerate(rows):
        simulated = closed_loop(
            step_time,
            row.prompt,
            row.output,
            row.concurrency,
            low=row.low,
            max_num_batched_tokens=MAX_NUM_BATCHED_TOKENS,
        )
        ttft[i] = np.log(simulated.ttft_mean_s / row.ttft_s)
        tpot[i] = np.log(simulated.tpot_mean_s / row.tpot_s)
    return ttft, tpot


def efficiency_of(logs: Floats) -> Efficiency:
    """Efficiencies from logarithms of factors on the prior's."""
    return Efficiency(**{name: getattr(PRIOR, name) * float(np.exp(x)) for name, x in zip(NAMES, logs, strict=True)})


@dataclass(frozen=True)
class Solution:
    """Best efficiencies for a set-up: logarithms of factors on the prior's, and what had to be assumed with them."""

    logs: Floats
    cost: float
    kv_precision: str
    low: float

    def step_time(self, setup: Setup) -> StepTime:
        """The step-time at these efficiencies."""
        efficiency = efficiency_of(self.logs)
        return roofline(
            model(setup.model), gpu(setup.gpu), setup.tp, setup.precision, efficiency, kv_precision=self.kv_precision
        )


def descend(
    setup: Setup, rows: Sequence[Row], start: Floats, kv_precision: str, low: float, *, evaluations: int = 60
) -> Solution:
    """Efficiencies that match the rows best from a start (robust least squares with the prior)."""
    architecture, card = model(setup.model), gpu(setup.gpu)
    spread = np.array([PRIOR_SD[name] for name in NAMES])
    spaced = [replace(row, low=low) for row in rows]

    def residuals(logs: Floats) -> Floats:
        efficiency = efficiency_of(logs)
        step_time = roofline(architecture, card, setup.tp, setup.precision, efficiency, kv_precision=kv_precision)
        ttft, tpot = misses(step_time, spaced)
        return np.concatenate([ttft / TTFT_SD, tpot / TPOT_SD, logs / spread])

    # A share of the data sheet cannot pass 1; the other figures are only held by the prior.
    ceiling = np.array([-np.log(getattr(PRIOR, name)) if name in SHARES else np.inf for name in NAMES])
    inside = np.minimum(start, ceiling - 1e-3)
    found = least_squares(
        residuals,
        inside,
        bounds=(-np.inf, ceiling),
        loss="soft_l1",
        diff_step=0.02,
        x_scale=spread,
        max_nfev=evaluations,
    )
    return Solution(np.asarray(found.x, dtype=np.float64), float(found.cost), kv_precision, low)


def solve(setup: Setup) -> Solution:
    """The best solution over starts and over what the table does not state (KV precision, spread of lengths)."""
    stated = setup.rows[0].low < 1.0
    # InferenceX states its lengths and tunes the server by set-up; the laboratory runs are of vLLM's defaults.
    kv_precisions = ("bf16", "fp8") if stated else ("bf16",)
    lows = (setup.rows[0].low,) if stated else (1.0, 0.95, 0.9, 0.8, 0.6)
    launch = np.array([1.2 if name == "eager_s" else 0.0 for name in NAMES])
    starts = (np.zeros(len(NAMES)), launch)
    tries = [descend(setup, setup.rows, start, kv, low) for kv in kv_precisions for low in lows for start in starts]
    return min(tries, key=lambda one: one.cost + (FP8_KV_COST if one.kv_precision == "fp8" else 0.0))


def fit(setup: Setup) -> Fit:
    """The profile of a set-up, with the errors of each row predicted from the others."""
    best = solve(setup)
    setup = replace(setup, rows=tuple(replace(row, low=best.low) for row in setup.rows))
    step_time = best.step_time(setup)
    ttft, tpot = misses(step_time, setup.rows)
    out_ttft, out_tpot = np.empty(len(setup.rows)), np.empty(len(setup.rows))
    for i, row in enumerate(setup.rows):
        others = [*setup.rows[:i], *setup.rows[i + 1 :]]
        # From the full solution a few steps are enough: one run of many moves it little.
        left = descend(setup, others, best.logs, best.kv_precision, best.low, evaluations=12)
        one_ttft, one_tpot = misses(left.step_time(setup), [row])
        out_ttft[i], out_tpot[i] = one_ttft[0], one_tpot[0]
    rows = setup.rows
    efficiency = efficiency_of(best.logs)
    profile = Profile(
        name=setup.name,
        model=setup.model,
        gpu=setup.gpu,
        tp=setup.tp,
        precision=setup.precision,
        kind="measured",
        step_time=step_time,
        uncertainty=covariance(step_time, lambda changed: misses(changed, rows), out_ttft, out_tpot),
        fitted_on=tuple(f"vllm_infx_silicon: {source}" for source in setup.sources),
        error={
            "tpot_median_ape": median_ape(tpot),
            "ttft_median_ape": median_ape(ttft),
            "tpot_left_out_median_ape": median_ape(out_tpot),
            "ttft_left_out_median_ape": median_ape(out_ttft),
            "tpot_left_out_p90_ape": p90_ape(out_tpot),
            "ttft_left_out_p90_ape": p90_ape(out_ttft),
        },
        validity=Validity(
            max_decode_seqs=max(row.concurrency for row in rows),
            max_step_tokens=MAX_NUM_BATCHED_TOKENS,
            max_context_tokens=max(row.prompt + row.output for row in rows),
        ),
        efficiency=efficiency if efficiency.host_s < EAGER_HOST_S else None,
        kv_precision=best.kv_precision,
        max_num_batched_tokens=MAX_NUM_BATCHED_TOKENS,
        engine="vLLM " + (", ".join(setup.versions) or "of 2025-10 (version not stated)"),
        date=setup.newest,
        notes=notes(setup, best),
    )
    return Fit(setup, profile)


def notes(setup: Setup, best: Solution) -> str:
    """What a reader of the profile should know."""
    text = f"Fitted on {len(setup.rows)} closed-loop runs by simulating the benchmark."
    text += f" Not stated by the source, assumed: step budget {MAX_NUM_BATCHED_TOKENS}, KV cache {best.kv_precision}"
    text += f", lengths uniform in {best.low:g}-1 of nominal." if setup.sources[0].startswith("nvidia") else "."
    if efficiency_of(best.logs).host_s >= EAGER_HOST_S:
        text += " Steps this slow were probably run without CUDA graphs; estimates do not learn from them."
    if setup.saturated:
        text += f" {setup.saturated} runs that fill the KV cache were left out."
    return text


def covariance(
    step_time: StepTime,
    simulate: Callable[[StepTime], tuple[Floats, Floats]],
    out_ttft: Floats,
    out_tpot: Floats,
) -> Uncertainty:
    """Covariance of log factors on the step-time's terms: Gauss-Newton at the fit, noise from the left-out errors."""
    noise = np.concatenate(
        [
            np.full(len(out_ttft), max(TTFT_SD, 1.4826 * float(np.median(np.abs(out_ttft))))),
            np.full(len(out_tpot), max(TPOT_SD, 1.4826 * float(np.median(np.abs(out_tpot))))),
        ]
    )
    step = 0.05
    columns = []
    for term in TERM_SD:
        up = np.concatenate(simulate(step_time.scaled({term: float(np.exp(step))})))
        down = np.concatenate(simulate(step_time.scaled({term: float(np.exp(-step))})))
        columns.append((up - down) / (2 * step) / noise)
    jacobian = np.stack(columns, axis=1)
    prior = np.diag([1.0 / spread**2 for spread in TERM_SD.values()])
    inverse = np.linalg.inv(jacobian.T @ jacobian + prior)
    symmetric = np.round((inverse + inverse.T) / 2.0, 10)
    return Uncertainty(tuple(TERM_SD), tuple(tuple(float(x) for x in row) for row in symmetric))


def median_ape(logs: Floats) -> float:
    """Median absolute percentage error, as a share, of log(simulated / measured)."""
    return round(float(np.median(np.abs(np.expm1(logs)))), 4)


def p90_ape(logs: Floats) -> float:
    """The same at the 90th percentile."""
    return round(float(np.quantile(np.abs(np.expm1(logs)), 0.9)), 4)
