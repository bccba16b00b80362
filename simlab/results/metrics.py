"""The metrics of a run: their names, units and meaning, and their value in one replication."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simlab.results.counts import LOOP_COUNTERS
from simlab.results.facts import BackendFacts
from simlab.results.ledger import HOURS_PER_MONTH, MONEY, WASTE, leases_billed_s
from simlab.results.measurements import (
    CELL_KEYS,
    HIST_GAMMA,
    HIST_METRICS,
    REASONS,
    WINDOW_DTYPE,
    Measurements,
    histogram_quantile,
)
from simlab.results.savings import layer_savings, prompt_cache_usd

NAN = float("nan")

QUANTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
"""The quantiles that are reported of each latency."""


COSTS = ("cost_usd", "cost_usd_per_month", "cost_per_success_usd", "usd_per_mtok", "usd_per_output_mtok")
"""The whole bill, in every measure: undefined when nothing that was used has a price."""


@dataclass(frozen=True)
class Metric:
    """One metric: its name, its unit and what it means."""

    name: str
    unit: str
    meaning: str


_LATENCIES = {
    "ttft": "time from arrival at the gateway to the first token",
    "itl": "gap between two output tokens, over all tokens",
    "tpot": "mean gap between output tokens of a request, over requests",
    "e2e": "time from arrival at the gateway to the last token",
}

_REASONS_IN_WORDS = {
    "retry": "retries",
    "hedge": "hedges, the second of two parallel attempts",
    "escalation": "answers of a cascade's higher levels",
    "fallback": "attempts at a fallback",
    "shadow": "shadow traffic",
    "duplicate": "requests that a client sent again",
    "helper": "helpers: classifiers, verifiers, embeddings, agents' tools, samples to compare",
}
"""Why attempts after the first are made, each a part of the bill."""

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("tasks", "tasks", "tasks that arrived after warm-up"),
        Metric("succeeded", "tasks", "of these, the ones that succeeded"),
        Metric("failed", "tasks", "of these, the ones that failed for good, rejections included"),
        Metric("wrong", "tasks", "of the failed ones, those that got an answer, but not a right one"),
        Metric("in_flight", "tasks", "of these, the ones not finished at the horizon"),
        Metric("success_ratio", "ratio", "succeeded / (succeeded + failed)"),
        Metric("answered_ratio", "ratio", "tasks with an answer, right or wrong / (succeeded + failed)"),
        Metric("slo_ratio", "ratio", "tasks that met every limit of their SLO / (succeeded + failed)"),
        Metric(
            "deadline_ratio",
            "ratio",
            "tasks with a deadline that were answered by then / those of them that ended or are past it, whole run",
        ),
        Metric("goodput_rps", "1/s", "tasks that met every limit of their SLO, per second after warm-up"),
        Metric("throughput_rps", "1/s", "succeeded tasks per second after warm-up"),
        Metric("arrival_rate_rps", "1/s", "arriving tasks per second after warm-up"),
        Metric(
            "error_ratio", "ratio", "attempts that failed, were limited, timed out or rejected / attempts, whole run"
        ),
        Metric("attempts", "attempts", "calls to a backend, whole run"),
        Metric("retries", "attempts", "attempts after a task's first, after warm-up"),
        Metric("rate_limited", "attempts", "attempts answered 429, whole run"),
        Metric("timed_out", "attempts", "attempts the gateway gave up, whole run"),
        Metric("rejected", "attempts", "attempts turned away as longer than a pool's context or KV cache, whole run"),
        Metric("cancelled", "attempts", "attempts that nobody waited for any more, whole run"),
        Metric("fallback_ratio", "ratio", "tasks that ended on a fallback / tasks that ended"),
        Metric("escalation_ratio", "ratio", "tasks that ended above a cascade's first level / tasks that ended"),
        Metric("cache_answer_ratio", "ratio", "tasks that the gateway's caches answered / tasks that ended"),
        Metric("tool_steps_per_task", "steps/task", "times that an agent's task called tools, whole run"),
        Metric("tool_calls", "attempts", "calls of agents' tools, whole run"),
        Metric("tool_failure_ratio", "ratio", "of these, the ones that failed"),
        Metric("stopped_ratio", "ratio", "agents' tasks stopped by a cap / those that ended"),
        Metric("cost_usd", "USD", "the bill of the whole run, warm-up included"),
        Metric("cost_usd_per_month", "USD/month", "the bill, stretched to a month of 730 h"),
        Metric("cost_per_success_usd", "USD/task", "the bill / tasks that succeeded in the whole run"),
        Metric("usd_per_mtok", "USD/Mtok", "the bill / million billable tokens, prompt and output"),
        Metric("usd_per_output_mtok", "USD/Mtok", "the bill / million output tokens"),
        Metric("api_usd", "USD", "the part of the bill for API tokens"),
        Metric("gpu_usd", "USD", "the part of the bill for leased GPUs"),
        Metric("idle_usd", "USD", "the part of gpu_usd paid while replicas did nothing, cold start included"),
        Metric("operations_usd", "USD", "the part of the bill for stated operations cost"),
        *(
            Metric(f"{reason}_usd", "USD", f"the part of the bill for {what}")
            for reason, what in _REASONS_IN_WORDS.items()
        ),
        Metric(
            "waste_usd",
            "USD",
            "the part of the bill, idle GPUs aside, for attempts whose answer nobody used: failed, timed out, "
            "cancelled, not passed by a cascade, duplicate or shadow",
        ),
        Metric(
            "cache_saved_usd",
            "USD",
            "what the gateway's caches and prompt caches saved of API prices, and of GPU time at the price of its work",
        ),
        *(
            Metric(
                f"{name}_s_{kind}", "s", f"{'mean' if kind == 'mean' else f'{kind[1:]} % quantile'} of the {meaning}"
            )
            for name, meaning in _LATENCIES.items()
            for kind in (*QUANTILES, "mean")
        ),
        Metric("prompt_tokens", "tokens", "billable prompt tokens, cached ones included, whole run"),
        Metric("cached_tokens", "tokens", "of these, read from a prefix or prompt cache"),
        Metric("output_tokens", "tokens", "billable output tokens, whole run"),
        Metric("written_tokens", "tokens", "of the prompt tokens, written to a provider's prompt cache"),
        Metric("prompt_tokens_per_call", "tokens/call", "billable prompt tokens / attempts at pools and APIs"),
        Metric("output_tokens_per_call", "tokens/call", "billable output tokens / attempts at pools and APIs"),
        Metric("prompt_tokens_per_s", "tokens/s", "prompt tokens per second after warm-up"),
        Metric("output_tokens_per_s", "tokens/s", "output tokens per second after warm-up"),
        Metric("prefix_hit_ratio", "ratio", "cached_tokens / prompt_tokens"),
        Metric("gpu_hours", "GPU h", "GPU-hours billed"),
        Metric(
            "gpu_utilization",
            "ratio",
            "replica-seconds with a step running / replica-seconds up, by GPUs, after warm-up",
        ),
        Metric("kv_utilization", "ratio", "KV block-seconds in use / available, after warm-up"),
        Metric("preemptions", "preemptions", "requests thrown out of a running batch for want of KV blocks, whole run"),
        Metric("waiting_mean", "requests", "mean number of requests waiting at backends, after warm-up"),
        Metric("running_mean", "requests", "mean number of requests being served, after warm-up"),
        Metric("peak_in_flight", "tasks", "most tasks in the system at once"),
    )
}
"""Every metric by name, in the order they are reported."""


def resolution(name: str) -> float:
    """The relative width of the histogram bucket that a metric was read from; 0 for one that is exact."""
    return HIST_GAMMA - 1.0 if name.rpartition("_s_")[2] in QUANTILES else 0.0


def ratio(part: float, whole: float) -> float:
    """Part / whole; NaN when there is no whole."""
    return float(part) / float(whole) if whole else NAN


def after_warmup(measured: Measurements) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which windows begin after warm-up (all of them if none does), bool [W], and the length of each, s [W]."""
    starts = np.arange(len(measured.windows)) * measured.window_s
    lengths = np.clip(measured.horizon_s - starts, 0.0, measured.window_s)
    chosen = starts >= measured.warmup_s * (1.0 - 1e-9)
    return (chosen if lengths[chosen].sum() > 0.0 else np.ones(len(starts), bool)), lengths


def window_values(windows: NDArray[Any], length_s: float, gpus: NDArray[np.int64]) -> dict[str, float]:
    """The metrics that some time windows tell: rates, utilisation, queue.

    Args:
        windows: `WINDOW_DTYPE` [w, B].
        length_s: their length together, s.
        gpus: GPUs of a replica of each backend, int64 [B], 0 for an API.
    """
    total = {name: windows[name].sum(axis=0) for name in WINDOW_DTYPE.names or ()}
    return {
        "prompt_tokens_per_s": ratio(total["prompt_tokens"].sum(), length_s),
        "output_tokens_per_s": ratio(total["output_tokens"].sum(), length_s),
        "gpu_utilization": ratio(total["busy_s"] @ gpus, total["up_s"] @ gpus),
        "kv_utilization": ratio(total["kv_block_s"].sum(), total["kv_total_block_s"].sum()),
        "waiting_mean": ratio(total["waiting_s"].sum(), length_s),
        "running_mean": ratio(total["running_s"].sum(), length_s),
    }


def latency_values(hist: NDArray[np.int64], sums: NDArray[np.float64], counts: NDArray[np.int64]) -> dict[str, float]:
    """Quantiles and means of the four latencies, s; NaN where nothing was counted.

    Args:
        hist: int64 [4, HIST_BUCKETS], order `HIST_METRICS`.
        sums: float64 [4], exact sums, s.
        counts: int64 [4].
    """
    values = {}
    for index, name in enumerate(HIST_METRICS):
        for label, q in QUANTILES.items():
            values[f"{name}_s_{label}"] = histogram_quantile(hist[index], q)
        values[f"{name}_s_mean"] = ratio(sums[index], counts[index])
    return values


def _money(rows: NDArray[Any]) -> float:
    """What some ledger rows add up to, USD."""
    return float(sum(rows[name].sum() for name in MONEY))


def _tasks(rows: NDArray[Any]) -> NDArray[np.int64]:
    """The tasks that ended in each of some ledger rows."""
    return np.asarray(rows["tasks_right"] + rows["tasks_wrong"] + rows["tasks_failed"])


def _ended_on(ledger: NDArray[Any], reason: str) -> float:
    """The tasks that ended with an attempt made for a reason."""
    return float(_tasks(ledger[ledger["reason"] == REASONS.index(reason)]).sum())


def replication_values(
    measured: Measurements, backends: Sequence[BackendFacts], ledger: NDArray[Any]
) -> dict[str, float]:
    """Every metric of `METRICS` in one replication; NaN where it is undefined.

    Args:
        measured: the replication.
        backends: its backends, in order.
        ledger: its rows, `LEDGER_DTYPE`.
    """
    tasks = {name: int(measured.tasks[name].sum()) for name in measured.tasks.dtype.names or ()}
    loops = {name: int(measured.counters[name].sum()) for name in LOOP_COUNTERS}
    sums = {name: float(ledger[name].sum()) for name in ledger.dtype.names or () if name not in CELL_KEYS}
    ended = sums["tasks_right"] + sums["tasks_wrong"] + sums["tasks_failed"]
    kinds = np.array([facts.kind for facts in backends])[ledger["backend"]]
    calls = float(ledger["attempts"][np.isin(kinds, ("pool", "api"))].sum())
    saved = sum(layer["usd"] for layer in layer_savings(measured).values())
    finished = tasks["succeeded"] + tasks["failed"]
    # Nothing finished of what arrived: that is no success, and no unknown either.
    hopeless = 0.0 if tasks["arrived"] else NAN
    cost = sum(sums[name] for name in MONEY)
    errors = sums["failed"] + sums["rate_limited"] + sums["timed_out"] + sums["rejected"]
    gpus = np.array([facts.gpus_per_replica for facts in backends])
    in_time, missed = (int(measured.counters[name].sum()) for name in ("in_time", "missed"))
    chosen, lengths = after_warmup(measured)
    leased = (leases_billed_s(measured, facts, i) * facts.gpus_per_replica for i, facts in enumerate(backends))
    values = {
        "tasks": tasks["arrived"],
        "succeeded": tasks["succeeded"],
        "failed": tasks["failed"],
        "wrong": tasks["wrong"],
        "in_flight": tasks["in_flight"],
        "success_ratio": tasks["succeeded"] / finished if finished else hopeless,
        "answered_ratio": (tasks["succeeded"] + tasks["wrong"]) / finished if finished else hopeless,
        "slo_ratio": tasks["good"] / finished if finished else hopeless,
        "deadline_ratio": ratio(in_time, in_time + missed),
        "goodput_rps": ratio(tasks["good"], measured.measured_s),
        "throughput_rps": ratio(tasks["succeeded"], measured.measured_s),
        "arrival_rate_rps": ratio(tasks["arrived"], measured.measured_s),
        "error_ratio": ratio(errors, sums["attempts"]),
        "attempts": sums["attempts"],
        "retries": tasks["retries"],
        "rate_limited": sums["rate_limited"],
        "timed_out": sums["timed_out"],
        "rejected": sums["rejected"],
        "cancelled": sums["cancelled"],
        "fallback_ratio": ratio(_ended_on(ledger, "fallback"), ended),
        "escalation_ratio": ratio(_ended_on(ledger, "escalation"), ended),
        "cache_answer_ratio": ratio(float(_tasks(ledger[kinds == "cache"]).sum()), ended),
        "tool_steps_per_task": loops["tool_steps"] / max(1, loops["loops"]),
        "tool_calls": loops["tool_calls"],
        "tool_failure_ratio": loops["tool_failures"] / max(1, loops["tool_calls"]),
        "stopped_ratio": loops["stopped_loops"] / max(1, loops["loops"]),
        "cost_usd": cost,
        "cost_usd_per_month": ratio(cost * HOURS_PER_MONTH * 3600.0, measured.horizon_s),
        "cost_per_success_usd": ratio(cost, int(measured.tasks_total["succeeded"].sum())),
        "usd_per_mtok": ratio(cost * 1e6, sums["prompt_tokens"] + sums["output_tokens"]),
        "usd_per_output_mtok": ratio(cost * 1e6, sums["output_tokens"]),
        **{name: sums[name] for name in (*MONEY, "idle_usd")},
        **{f"{reason}_usd": _money(ledger[ledger["reason"] == REASONS.index(reason)]) for reason in _REASONS_IN_WORDS},
        "waste_usd": sum(sums[f"waste_{kind}_usd"] for kind in WASTE),
        "cache_saved_usd": saved + float(prompt_cache_usd(measured, backends).sum()),
        **latency_values(
            *(x[:, measured.hurried].sum(axis=(1, 2)) for x in (measured.hist, measured.hist_sum, measured.hist_count))
        ),
        "prompt_tokens": sums["prompt_tokens"],
        "cached_tokens": sums["cached_tokens"],
        "output_tokens": sums["output_tokens"],
        "written_tokens": sums["written_tokens"],
        "prompt_tokens_per_call": ratio(sums["prompt_tokens"], calls),
        "output_tokens_per_call": ratio(sums["output_tokens"], calls),
        **window_values(measured.windows[chosen], float(lengths[chosen].sum()), gpus),
        "prefix_hit_ratio": ratio(sums["cached_tokens"], sums["prompt_tokens"]),
        "gpu_hours": sum(leased) / 3600.0,
        "preemptions": int(measured.replicas["preemptions"].sum()),
        "peak_in_flight": measured.peak_in_flight,
    }
    return {name: float(values[name]) for name in METRICS}
