"""GuideLLM's report: benchmarks of several rates or concurrencies in one JSON file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from simlab.calibrate.read.client import shape_of
from simlab.calibrate.read.context import Context
from simlab.calibrate.read.fields import Fields
from simlab.calibrate.read.files import Document, plain_name
from simlab.calibrate.read.metrics import metrics_of, positive
from simlab.calibrate.read.plausible import Frame, check_together, close, unit_hint
from simlab.calibrate.read.servers import server_of
from simlab.calibrate.read.sidecar import Sidecar
from simlab.calibrate.run import Load, Requests, Run

SUMMARY = {
    "ttft_s_mean": ("time_to_first_token_ms", "mean", 1e-3),
    "ttft_s_p50": ("time_to_first_token_ms", "p50", 1e-3),
    "ttft_s_p99": ("time_to_first_token_ms", "p99", 1e-3),
    "itl_s_mean": ("inter_token_latency_ms", "mean", 1e-3),
    "e2e_s_mean": ("request_latency", "mean", 1.0),
    "output_tokens_per_s": ("output_tokens_per_second", "mean", 1.0),
}
"""Distribution, statistic and factor to s of each metric. GuideLLM's inter-token latency is weighted by tokens, so it
is the mean over all gaps; its time per output token counts the first token too, which no metric here does."""

EQUAL = ("ttft_s_mean", "itl_s_mean", "e2e_s_mean")
"""Metrics that the requests of a report must give too."""


def is_guidellm(data: Any) -> bool:
    """Whether a JSON value is a report of GuideLLM."""
    if not isinstance(data, dict) or not isinstance(data.get("benchmarks"), list):
        return False
    return all(isinstance(one, dict) and "metrics" in one for one in data["benchmarks"])


def read_guidellm(document: Document, path: Path, side: Sidecar, context: Context) -> list[Run]:
    """The runs of a report, one for each of its benchmarks."""
    benchmarks = document.data["benchmarks"]
    if not benchmarks:
        context.problems.add(document.where, "benchmarks", "is empty: no benchmark completed; run GuideLLM again")
    runs = [_run(one, i, document.data, path, side, context) for i, one in enumerate(benchmarks)]
    return [run for run in runs if run is not None]


def _inner(data: Any, *names: str) -> Any:
    """A field within fields; None where one of them is absent."""
    for name in names:
        data = data.get(name) if isinstance(data, Mapping) else None
    return data


def _run(
    data: Mapping[str, Any], index: int, report: Mapping[str, Any], path: Path, side: Sidecar, context: Context
) -> Run | None:
    problems, before = context.problems, len(context.problems)
    where = f"{path}: benchmarks[{index}]"
    made, done = _counts(data)
    if made == 0:
        problems.add(where, "metrics.request_totals", "no request completed; look at the server's log and run again")
        return None
    facts = side.facts.copy()
    model = _inner(data, "config", "backend", "model") or _inner(data, "worker", "backend_model")
    model = model or _inner(report, "config", "spec", "backend", "model") or _inner(report, "args", "model")
    facts.say("model", model, "backend.model")
    if model:
        context.serves(str(model), where)
    server = server_of(facts, context, where, served_name=True)
    measured, lengths = _summary(data, where, context)
    requests = _requests(data, made)
    load = None if lengths is None else _load(data, lengths, requests, where, context)
    if len(problems) > before or server is None or load is None:
        return None
    window = data.get("duration")
    if requests is not None:
        own = metrics_of(requests)
        for metric in EQUAL:
            if metric in measured and metric in own and not close(own[metric], measured[metric], share=0.02):
                field = f"metrics.{SUMMARY[metric][0]}"
                message = f"read {measured[metric]:.6g} s, but its requests give {own[metric]:.6g} s"
                problems.add(where, field, f"{message}{unit_hint(own[metric], measured[metric])}; the file was changed")
        measured = positive({**own, "output_tokens_per_s": measured.get("output_tokens_per_s", 0.0)})
    frame = Frame(
        duration_s=float(window) if isinstance(window, (int, float)) else None,
        completed=float(made),
        concurrency=load.concurrency,
        closed=math.isinf(load.rate_rps),
        output_tokens=load.output_tokens,
    )
    check_together(measured, frame, where, {metric: f"metrics.{SUMMARY[metric][0]}" for metric in SUMMARY}, problems)
    name = f"{plain_name(path)}#{index + 1}"
    notes = [*server[1], *([f"{done - made} of {done} requests failed or were cut off"] if done > made else [])]
    return Run(
        name=name,
        where=where,
        server=server[0],
        load=load,
        measured=measured,
        requests=requests,
        date=_day(data.get("start_time")),
        source=f"GuideLLM: {name}",
        failed=done - made,
        notes=tuple(notes),
    )


def _day(seconds: Any) -> str:
    """The day (UTC) of a time stamp in s; empty where there is none."""
    if not isinstance(seconds, (int, float)) or not 0.0 < seconds < 1e11:
        return ""
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


def _counts(data: Mapping[str, Any]) -> tuple[int, int]:
    """Requests that succeeded, and all."""
    for place in (
        ("metrics", "request_totals"),
        ("run_stats", "requests_made"),
        ("scheduler_metrics", "requests_made"),
    ):
        totals = _inner(data, *place)
        if isinstance(totals, Mapping) and isinstance(totals.get("successful"), int):
            made = int(totals["successful"])
            return made, made + int(totals.get("errored") or 0) + int(totals.get("incomplete") or 0)
    count = _inner(data, "metrics", "request_latency", "successful", "count")
    return int(count or 0), int(count or 0)


def _summary(
    data: Mapping[str, Any], where: str, context: Context
) -> tuple[dict[str, float], tuple[float, float] | None]:
    """Metrics of the successful requests, and the mean lengths of their prompts and answers."""
    found: dict[str, float] = {}
    for metric, (distribution, statistic, factor) in SUMMARY.items():
        summary = _inner(data, "metrics", distribution, "successful")
        if not isinstance(summary, Mapping):
            continue
        values = {"mean": summary.get("mean"), **(_inner(summary, "percentiles") or {})}
        entry = Fields({f"metrics.{distribution}.{statistic}": values.get(statistic)}, where, context.problems)
        value = entry.number(f"metrics.{distribution}.{statistic}")
        if value is not None:
            found[metric] = value * factor
    lengths = []
    for what in ("prompt_token_count", "output_token_count"):
        mean = _inner(data, "metrics", what, "successful", "mean")
        if not isinstance(mean, (int, float)) or not mean > 0.0:
            message = "says nothing of the requests' lengths; run GuideLLM with a tokenizer"
            context.problems.add(where, f"metrics.{what}", message)
            return found, None
        lengths.append(float(mean))
    return positive(found), (lengths[0], lengths[1])


def _requests(data: Mapping[str, Any], made: int) -> Requests | None:
    """The successful requests, where all of them are kept."""
    kept = _inner(data, "requests", "successful")
    if not isinstance(kept, Sequence) or len(kept) != made or made == 0:
        return None
    rows = []
    for one in kept:
        start = _inner(one, "request_start_time")
        row = (
            _inner(one, "start_time") if start is None else start,
            _inner(one, "prompt_tokens"),
            _inner(one, "output_tokens"),
            _inner(one, "time_to_first_token_ms"),
            _inner(one, "inter_token_latency_ms") or 0.0,
        )
        if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in row):
            return None
        rows.append(row)
    table = np.array(rows, dtype=np.float64)
    table = table[np.argsort(table[:, 0], kind="stable")]
    sent, prompt, output, first_ms, token_ms = table.T
    if (output < 1).any() or (first_ms <= 0.0).any() or (token_ms < 0.0).any():
        return None
    lengths = prompt.astype(np.int64), output.astype(np.int64)
    # To the last token; GuideLLM's request latency is to the end of the response, a little later.
    return Requests(sent - sent[0], *lengths, first_ms / 1e3, (first_ms + token_ms * (output - 1.0)) / 1e3)


def _load(
    data: Mapping[str, Any], lengths: tuple[float, float], requests: Requests | None, where: str, context: Context
) -> Load | None:
    """How GuideLLM drove the server: its strategy."""
    strategy = _inner(data, "config", "strategy") or _inner(data, "args", "strategy") or {}
    kind = str(strategy.get("type_", strategy.get("kind", "")))
    entry = Fields(strategy, f"{where}.strategy", context.problems)
    concurrency: int | None = None
    rate, burstiness = math.inf, 1.0
    if kind == "synchronous":
        concurrency = 1
    elif kind == "concurrent":
        concurrency = entry.whole("streams", least=1)
    elif kind == "throughput":
        concurrency = entry.whole("max_concurrency", least=1)
    elif kind in {"constant", "poisson"}:
        rate = entry.number("rate") or math.nan
        burstiness = math.inf if kind == "constant" else 1.0
    if (kind == "concurrent" and concurrency is None) or not rate > 0.0 or not kind:
        allowed = "synchronous, concurrent with streams, throughput, constant or poisson with a rate"
        context.problems.add(where, "strategy", f"read {kind or 'nothing'}; allowed: {allowed}")
        return None
    shape = shape_of({}, lengths, requests, where, context)
    made, done = _counts(data)
    return Load(concurrency=concurrency, rate_rps=rate, burstiness=burstiness, requests=max(made, done), **vars(shape))
