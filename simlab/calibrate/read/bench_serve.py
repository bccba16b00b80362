"""Results of ``vllm bench serve``: with every request (``--save-detailed``), or their summary alone."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from simlab.calibrate.read.client import shape_of
from simlab.calibrate.read.context import Context
from simlab.calibrate.read.detailed import STATISTIC, Detail, check_summary, is_detailed, read_detail
from simlab.calibrate.read.fields import Fields, shown
from simlab.calibrate.read.files import Document, plain_name
from simlab.calibrate.read.metrics import metrics_of, positive
from simlab.calibrate.read.plausible import Frame, check_together, close
from simlab.calibrate.read.servers import Facts, server_of
from simlab.calibrate.read.sidecar import SERVER_FIELDS, Sidecar
from simlab.calibrate.run import Load, Run

SUMMARY = {
    "ttft_s_mean": (("mean_ttft_ms", 1e-3),),
    "ttft_s_p50": (("median_ttft_ms", 1e-3), ("p50_ttft_ms", 1e-3)),
    "ttft_s_p99": (("p99_ttft_ms", 1e-3),),
    "itl_s_mean": (("mean_itl_ms", 1e-3),),
    "tpot_s_mean": (("mean_tpot_ms", 1e-3),),
    "e2e_s_mean": (("mean_e2el_ms", 1e-3),),
    "output_tokens_per_s": (("output_throughput", 1.0),),
}
"""Fields of the summary by metric, with the factor that makes them s; several that say one thing must agree."""

SERVER = {
    **{name: (name, name.replace("_", "-")) for name in SERVER_FIELDS},
    "model": ("model_id", "model"),
    "tp": ("tp", "tensor_parallel_size", "tensor-parallel-size"),
    "dp": ("dp", "data_parallel_size", "data-parallel-size"),
    "expert_parallel": ("expert_parallel", "enable_expert_parallel", "enable-expert-parallel"),
    "engine": ("engine", "vllm_version", "version"),
}
"""Fields that say something of the server: the model, and what ``--metadata`` or a sweep added."""

CLIENT = ("random", "prefix_repetition", "dataset")
"""Beginnings of fields that a sweep adds and that are flags of the client."""

_DATE = re.compile(r"(\d{4})-?(\d\d)-?(\d\d)")


def is_bench_serve(data: Any) -> bool:
    """Whether a JSON value is a result of ``vllm bench serve``."""
    return isinstance(data, dict) and {"duration", "completed"} <= data.keys() and any(map(STATISTIC.fullmatch, data))


def read_bench_serve(document: Document, path: Path, side: Sidecar, context: Context) -> Run | None:
    """The run of one result; None where something is wrong, which problems then says."""
    problems, before = context.problems, len(context.problems)
    entry = Fields(document.data, document.where, problems)
    if entry.data.get("run_number") == -1:
        context.skip(document.where, "the warm-up of a sweep")
        return None
    facts = _server_facts(entry, side, context)
    server = server_of(facts, context, document.where, served_name="model_id" in facts.fields.values())
    completed, failed, duration = entry.whole("completed"), entry.whole("failed") or 0, entry.number("duration")
    if completed == 0:
        entry.wrong("completed", _nothing(entry))
        return None
    if duration == 0.0:
        entry.wrong("duration", "read 0; allowed: seconds above 0")
    detail = read_detail(entry) if is_detailed(entry) else None
    if detail is not None:
        check_summary(entry, detail)
    measured = _summary(entry) if detail is None else metrics_of(detail.requests, duration)
    failed = failed if detail is None else detail.failed
    load = _load(entry, detail, side, context)
    if len(problems) > before or server is None or load is None:
        return None
    if detail is None:
        measured = _derived(entry, measured)
    frame = Frame(
        duration_s=duration,
        completed=completed,
        concurrency=load.concurrency,
        closed=math.isinf(load.rate_rps),
        output_tokens=load.output_tokens,
    )
    names = {metric: next((name for name, _ in said if entry.has(name)), metric) for metric, said in SUMMARY.items()}
    check_together(measured, frame, document.where, names, problems)
    notes = [*server[1], *(() if detail is None else detail.notes)]
    if failed:
        notes.append(f"{failed} of {failed + (completed or 0)} requests failed; nothing here is of them")
    notes += [f"with {found.name}" for found in side.found]
    name = plain_name(path) + (f"#{document.number}" if document.number else "")
    return Run(
        name=name,
        where=document.where,
        server=server[0],
        load=load,
        measured=measured,
        requests=None if detail is None else detail.requests,
        date=iso_date(entry.text("date")),
        source=f"vllm bench serve: {name}",
        failed=failed,
        notes=tuple(notes),
    )


def iso_date(text: str | None) -> str:
    """The day of a time stamp, as ISO; empty where there is none.

    >>> iso_date("20261121-070335"), iso_date("2026-02-14T10:41:26Z"), iso_date(None)
    ('2026-11-21', '2026-02-14', '')
    """
    found = _DATE.match(text or "")
    return "-".join(found.groups()) if found else ""


def _nothing(entry: Fields) -> str:
    errors = entry.data.get("errors")
    first = next((str(error) for error in errors if error), "") if isinstance(errors, list) else ""
    why = f" (the first error: {shown(first.strip().splitlines()[-1])})" if first.strip() else ""
    return f"no request completed{why}; look at the server's log and run the benchmark again"


def _server_facts(entry: Fields, side: Sidecar, context: Context) -> Facts:
    """What a result and what lies beside it say of the server; a contradiction is a problem."""
    facts = Facts()
    for attribute, value in side.facts.values.items():
        facts.say(attribute, value, side.facts.fields[attribute])
    for attribute, names in SERVER.items():
        name = next((name for name in names if entry.has(name)), None)
        if name is None:
            continue
        if attribute not in facts.values:
            facts.say(attribute, entry.data[name], name)
        elif attribute in {"tp", "dp", "max_num_seqs", "max_num_batched_tokens"}:
            said, other = entry.data[name], facts.values[attribute]
            if said != other:
                entry.wrong(name, f"read {shown(said)}, but {facts.fields[attribute]} is {other}; correct one of them")
    if "model_id" in entry.data:
        context.serves(str(entry.data["model_id"]), entry.where)
    return facts


def _summary(entry: Fields) -> dict[str, float]:
    """Metrics as the summary states them; fields that say one thing twice must agree."""
    measured: dict[str, float] = {}
    for metric, sources in SUMMARY.items():
        said = {name: entry.number(name) for name, _ in sources}
        for name, factor in sources:
            value = said[name]
            if value is None:
                continue
            if metric not in measured:
                measured[metric] = value * factor
            elif not close(measured[metric], value * factor, slack=6e-6):
                other = next(iter(said))
                message = f"read {value:g}, but {other} is {said[other]:g}; both are the same statistic"
                entry.wrong(name, f"{message}; give the file as the benchmark wrote it")
    duration, tokens = entry.number("duration"), entry.number("total_output_tokens")
    rate = measured.get("output_tokens_per_s")
    if duration and tokens and rate is not None and not close(rate, tokens / duration, slack=6e-3):
        message = f"read {rate:g} tokens/s, but {tokens:g} tokens in {duration:g} s are {tokens / duration:g}"
        entry.wrong("output_throughput", f"{message}; correct the one that is wrong")
    return positive(measured)


def _derived(entry: Fields, measured: dict[str, float]) -> dict[str, float]:
    """A summary with what follows from it."""
    completed, duration = entry.number("completed"), entry.number("duration")
    tokens = entry.number("total_output_tokens")
    if completed and tokens is not None:
        if duration:
            measured.setdefault("output_tokens_per_s", tokens / duration)
        if {"ttft_s_mean", "itl_s_mean"} <= measured.keys():
            # All gaps together are the mean one times their number: one after each token but a request's last.
            after = measured["itl_s_mean"] * (tokens - completed) / completed
            measured.setdefault("e2e_s_mean", measured["ttft_s_mean"] + after)
    return positive(measured)


def _load(entry: Fields, detail: Detail | None, side: Sidecar, context: Context) -> Load | None:
    """How the benchmark drove the server: from the result, the command line beside it, and the user's prefix."""
    rate = entry.number("request_rate", infinite=True) if entry.has("request_rate") else math.inf
    limit = entry.whole("max_concurrency", least=1)
    burstiness, sent = entry.number("burstiness"), entry.whole("num_prompts", least=1)
    completed = entry.whole("completed")
    if rate == 0.0:
        entry.wrong("request_rate", 'read 0; allowed: requests a second above 0, or "inf"')
    if burstiness == 0.0:
        entry.wrong("burstiness", "read 0; allowed: a number above 0")
    requests = None if detail is None else detail.requests
    if completed is None or rate is None:
        return None
    means = []
    for name in ("total_input_tokens", "total_output_tokens"):
        total = entry.number(name)
        if requests is not None and len(requests.start_s):
            tokens = requests.prompt_tokens if name == "total_input_tokens" else requests.output_tokens
            means.append(float(tokens.mean()))
        elif total is None:
            entry.wrong(name, "is absent, and no list says how long the requests were; run the benchmark again")
            return None
        else:
            means.append(total / completed)
    swept = {name.replace("_", "-"): str(value) for name, value in entry.data.items() if name.startswith(CLIENT)}
    where = str(side.found[0]) if side.flags else entry.where
    shape = shape_of({**side.flags, **swept}, (means[0], means[1]), requests, where, context)
    return Load(
        concurrency=limit,
        rate_rps=rate,
        burstiness=1.0 if burstiness is None else burstiness,
        requests=completed + (entry.whole("failed") or 0) if sent is None else sent,
        **vars(shape),
    )
