"""A made-up run for tests of results and reports: requests drawn with numpy, counted the slow obvious way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from simlab.results import (
    CELL_DTYPE,
    COARSE_BUCKETS,
    HIST_BUCKETS,
    HIST_GAMMA,
    HIST_LOW_S,
    REPLICA_DTYPE,
    TASK_DTYPE,
    TENANT_TASK_DTYPE,
    WINDOW_DTYPE,
    BackendFacts,
    Measurements,
    ProfileFacts,
    Result,
    TokenPrices,
)
from simlab.results.facts import FIXED, SAMPLED, Outside


@dataclass(frozen=True)
class Slo:
    ttft: float | None = 0.6
    itl: float | None = None
    e2e: float | None = 20.0
    target: float = 0.95


@dataclass(frozen=True)
class Budget:
    usd_per_month: float | None = None
    usd_per_success: float | None = None


@dataclass(frozen=True)
class Alerts:
    least_calls: int = 50
    tenant_spend: float | None = None
    call_cost: float | None = None
    period: float = 604_800.0
    cache_drop: float | None = None
    errors: float | None = None
    refusals: float | None = None
    baseline: float = 86_400.0
    spend_sd: float | None = None


@dataclass(frozen=True)
class WorkloadClass:
    slo: Slo | None = None


@dataclass(frozen=True)
class Scenario:
    name: str = "made-up chat"
    variant: str | None = None
    seed: int = 7
    slo: Slo | None = field(default_factory=Slo)
    budget: Budget | None = None
    alerts: Alerts | None = None
    workload: dict[str, WorkloadClass] = field(
        default_factory=lambda: {"chat": WorkloadClass(), "summaries": WorkloadClass()}
    )

    def model_dump(self, *, mode: str, by_alias: bool) -> dict[str, Any]:
        assert mode == "json"
        assert by_alias
        return {"name": self.name, "seed": self.seed}


FACTS = (
    BackendFacts(
        name="h100",
        kind="pool",
        model="llama-3.1-70b",
        gpu="H100-SXM",
        gpus_per_replica=4,
        usd_per_gpu_hour=2.49,
        billing_granularity_s=60.0,
        operations_usd_per_month=4000.0,
        profile=ProfileFacts(
            "llama-3.1-70b/h100-sxm/tp4/fp8", "measured", "step time 3.1 % (median, held out)", "a bench", "2025-11-03"
        ),
        price_source="a price list",
        price_as_of="2026-01-05",
        assumptions=("KV blocks are estimated from GPU memory: 38,000.",),
    ),
    BackendFacts(
        name="frontier-api",
        kind="api",
        model="frontier-large",
        token_prices=TokenPrices(3.0, 15.0, 0.3, 200_000, 6.0, None, 22.5),
        profile=ProfileFacts("stated latency", "stated"),
        price_source="genai-prices",
        price_as_of="2026-01-02",
    ),
)


def measurements(
    seed: int = 0,
    *,
    horizon_s: float = 86_400.0,
    warmup_s: float = 0.0,
    rate_rps: float = 0.6,
    windows: int = 96,
    empty: bool = False,
    slower: float = 1.0,
) -> Measurements:
    """Two classes (three and two tenants), one pool of two replicas and one API, over a day with its tide."""
    rng = np.random.default_rng(seed)
    n = 0 if empty else int(rng.poisson(rate_rps * horizon_s))
    at = np.sort(rng.uniform(0, horizon_s, n))
    tide = 0.55 + 0.45 * np.sin(2 * np.pi * (at / horizon_s - 0.3))
    keep = rng.uniform(size=n) < tide
    at, tide = at[keep], tide[keep]
    n = len(at)
    cls = (rng.uniform(size=n) < 0.2).astype(int)
    tenant = np.where(cls == 0, rng.choice(3, n, p=[0.7, 0.2, 0.1]), rng.choice(2, n, p=[0.8, 0.2]))
    backend = (rng.uniform(size=n) < np.where(cls == 0, 0.15, 0.6)).astype(int)
    ok = rng.uniform(size=n) > 0.004
    prompt = rng.lognormal(np.where(cls == 0, 6.3, 8.5), 0.6).astype(int) + 1
    cached = np.where(backend == 0, (prompt * rng.uniform(0, 0.5, n)).astype(int) // 16 * 16, 0)
    output = rng.geometric(1 / np.where(cls == 0, 220, 400)) + 1
    slow = np.where(backend == 0, 1 + 3 * np.maximum(tide - 0.75, 0) ** 1.5, 1.0)
    ttft = (np.where(backend == 0, 0.06, 0.35) + prompt * 6e-5) * slow * rng.lognormal(0, 0.25, n)
    gap = np.where(backend == 0, 0.024, 0.013) * slow * rng.lognormal(0, 0.08, n)
    ttft, gap = (np.where(backend == 0, slower, 1.0) * values for values in (ttft, gap))
    e2e = ttft + gap * (output - 1)
    done = ok & (at + e2e <= horizon_s)
    good = done & (ttft <= 0.6) & (e2e <= 20.0)
    late = at >= warmup_s
    tenants = (3, 2)
    first = np.array([0, 3])

    cells = np.zeros(10, CELL_DTYPE)
    cells["cls"] = np.repeat([0, 0, 0, 1, 1], 2)
    cells["tenant"] = np.repeat([0, 1, 2, 0, 1], 2)
    cells["backend"] = np.tile([0, 1], 5)
    place = (first[cls] + tenant) * 2 + backend
    work = np.where(backend == 0, output * 0.0012 + prompt * 1e-5, 0.0)
    long = (backend == 1) & (prompt > 20_000)
    for name, amount in {
        "attempts": np.ones(n),
        "succeeded": done,
        "failed": ~ok,
        "prompt_tokens": prompt,
        "cached_tokens": cached,
        "output_tokens": np.where(ok, output, 0),
        "long_prompt_tokens": prompt * long,
        "long_cached_tokens": cached * long,
        "long_output_tokens": np.where(ok, output, 0) * long,
        "tasks_right": done,
        "tasks_failed": ~ok,
        "work_s": work,
    }.items():
        np.add.at(cells[name], place, np.asarray(amount, CELL_DTYPE[name]))

    def tasks(mask: np.ndarray) -> np.ndarray:
        table = np.zeros(2, TASK_DTYPE)
        for name, what in {"arrived": mask, "succeeded": done, "failed": ~ok, "good": good}.items():
            np.add.at(table[name], cls, (what & mask).astype(int))
        table["in_flight"] = table["arrived"] - table["succeeded"] - table["failed"]
        return table

    tenant_tasks = np.zeros(5, TENANT_TASK_DTYPE)
    tenant_tasks["cls"] = [0, 0, 0, 1, 1]
    tenant_tasks["tenant"] = [0, 1, 2, 0, 1]
    hist = np.zeros((4, 2, 2, HIST_BUCKETS), np.int64)
    hist_sum = np.zeros((4, 2, 2))
    hist_count = np.zeros((4, 2, 2), np.int64)
    who = first[cls] + tenant
    for name, what in {"arrived": late, "succeeded": done & late, "failed": ~ok & late, "good": good & late}.items():
        np.add.at(tenant_tasks[name], who, what.astype(int))
    for name, what in {"ttft_sum_s": ttft, "e2e_sum_s": e2e}.items():
        np.add.at(tenant_tasks[name], who, what * (done & late))
    for metric, (values, weight) in enumerate(((ttft, 1), (gap, output - 1), (gap, 1), (e2e, 1))):
        weights = np.broadcast_to(weight, n) * (done & late)
        bucket = np.ceil(np.log(np.maximum(values, HIST_LOW_S) / HIST_LOW_S) / np.log(HIST_GAMMA)).astype(int)
        np.add.at(hist[metric], (cls, backend, bucket), weights)
        np.add.at(hist_sum[metric], (cls, backend), values * weights)
        np.add.at(hist_count[metric], (cls, backend), weights)

    window_s = horizon_s / windows
    table = np.zeros((windows, 2), WINDOW_DTYPE)
    window_hist = np.zeros((windows, 2, COARSE_BUCKETS), np.int64)
    begun = np.minimum((at / window_s).astype(int), windows - 1)
    ended = np.minimum(((at + e2e) / window_s).astype(int), windows - 1)
    np.add.at(table["arrived"], (begun, backend), 1)
    np.add.at(table["finished"], (ended, backend), done.astype(int))
    np.add.at(table["failed"], (ended, backend), (~ok).astype(int))
    np.add.at(table["prompt_tokens"], (begun, backend), prompt)
    np.add.at(table["output_tokens"], (ended, backend), np.where(done, output, 0))
    np.add.at(table["ttft_sum_s"], (ended, backend), ttft * done)
    np.add.at(table["e2e_sum_s"], (ended, backend), e2e * done)
    np.add.at(table["running_s"], (begun, backend), e2e)
    np.add.at(table["waiting_s"], (begun, backend), np.where(backend == 0, ttft * (slow - 1) * 4, 0))
    np.add.at(table["kv_block_s"], (begun, backend), np.where(backend == 0, e2e * (prompt + output) / 16, 0))
    table["up_s"][:, 0] = 2 * window_s
    table["kv_total_block_s"][:, 0] = 2 * window_s * 900
    table["busy_s"][:, 0] = np.minimum(1.9, table["running_s"][:, 0] / window_s / 4) * window_s
    for metric, values in enumerate((ttft, e2e)):
        bucket = np.ceil(np.log(np.maximum(values, HIST_LOW_S) / HIST_LOW_S) / np.log(HIST_GAMMA)).astype(int) // 10
        np.add.at(window_hist, (ended, metric, bucket), done.astype(int))

    replicas = np.zeros(2, REPLICA_DTYPE)
    replicas["ready_s"] = 300.0
    replicas["stop_s"] = np.inf
    replicas["busy_s"] = table["busy_s"].sum() / 2
    replicas["preemptions"] = 0 if empty else [3, 1]
    return Measurements(
        horizon_s=horizon_s,
        warmup_s=warmup_s,
        window_s=window_s,
        seed=seed,
        class_names=("chat", "summaries"),
        class_features=("assistant", "reports"),
        backend_names=("h100", "frontier-api"),
        tenants_of_class=tenants,
        cells=cells,
        tasks=tasks(late),
        tasks_total=tasks(np.ones(n, bool)),
        tenant_tasks=tenant_tasks,
        hist=hist,
        hist_sum=hist_sum,
        hist_count=hist_count,
        windows=table,
        window_hist=window_hist,
        replicas=replicas,
        peak_in_flight=0 if empty else 31,
    )


SLOWER = (1.1, 0.95, 1.02, 0.9, 1.06)
"""What drawn step times of the pool are to those of the fit."""

OUTSIDE = Outside(
    "max_decode_seqs", 64, 90, 0.21, 0.046, "up to 90 sequences decoding at once, measured up to 64 (beyond for 21%)"
)


def result(replications: int = 3, *, scenario: Scenario | None = None, drawn: bool = False, **how: Any) -> Result:
    """The result of some made-up replications, and (``drawn``) of the same with the pool slower or faster."""
    again = [measurements(seed, slower=SLOWER[seed], **how) for seed in range(replications)] if drawn else []
    return Result(
        scenario or Scenario(),
        [measurements(seed, **how) for seed in range(replications)],
        FACTS,
        seed=7,
        drawn=again,
        calibration=SAMPLED if drawn else FIXED,
        outside={"h100": [OUTSIDE]} if drawn else {},
    )
