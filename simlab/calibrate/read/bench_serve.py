"""Results of ``vllm bench serve``: with every request (``--save-detailed``), or their summary alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from simlab.calibrate.read.command import whole_flag
from simlab.calibrate.read.fields import Fields, Floats, shown
from simlab.calibrate.read.files import Document, plain_name
from simlab.calibrate.read.hints import ServerHints
from simlab.calibrate.read.metrics import check_together, close, metrics_of, quantities, statistic, unit_hint
from simlab.calibrate.read.problems import Problems
from simlab.calibrate.read.servers import Facts, server_of
from simlab.calibrate.read.sidecar import SERVER_FIELDS, Sidecar
from simlab.calibrate.run import Load, Requests, Run

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
    **{name: (name,) for name in SERVER_FIELDS},
    "model": ("model_id", "model"),
    "tp": ("tp", "tensor_parallel_size"),
    "dp": ("dp", "data_parallel_size"),
    "engine": ("engine", "vllm_version", "version"),
}
"""Fields that say something of the server: the model, and what ``--metadata`` or a sweep added."""

_STATISTIC = re.compile(r"(mean|median|std|p\d+(?:\.\d+)?)_(ttft|tpot|itl|e2el)_ms")
_DATE = re.compile(r"(\d{4})-?(\d\d)-?(\d\d)")
LISTS = ("input_lens", "output_lens", "ttfts")


def is_bench_serve(data: Any) -> bool:
    """Whether a JSON value is a result of ``vllm bench serve``."""
    keys = {"duration", "completed"}
    return isinstance(data, dict) and keys <= data.keys() and any(_STATISTIC.fullmatch(key) for key in data)


def read_bench_serve(
    document: Document, path: Path, side: Sidecar, hints: ServerHints, problems: Problems
) -> list[Run]:
    """The run of one result; none where something is wrong, which problems then says."""
    before = len(problems)
    data: Mapping[str, Any] = document.data
    entry = Fields(data, document.where, problems)
    facts = server_facts_of(entry, side)
    server = server_of(facts, hints, document.where, problems, served_name=True)
    completed, failed = entry.whole("completed"), entry.whole("failed") or 0
    duration = entry.number("duration")
    detailed = all(entry.has(name) for name in LISTS)
    if completed == 0:
        reason = next((str(error).strip().splitlines()[-1] for error in data.get("errors") or () if error), "")
        why = f" (first error: {shown(reason)})" if reason else ""
        entry.wrong("completed", f"no request completed{why}; look at the server's log and run the benchmark again")
        return []
    if duration is not None and duration <= 0.0:
        entry.wrong("duration", f"read {duration:g}; allowed: seconds above 0")
    requests, dropped = _requests(entry) if detailed else (None, 0)
    measured = _summary(entry)
    notes: list[str] = []
    if requests is not None and len(problems) == before:
        _check_summary(entry, requests, dropped)
        measured = metrics_of(requests, duration)
    failed = max(failed, dropped)
    load = _load(entry, requests, side, hints)
    if len(problems) > before or server is None or load is None:
        return []
    if requests is None:
        _derive(entry, measured)
    _check_plausible(entry, measured, load, duration)
    if failed:
        notes.append(f"{failed} of {failed + (completed or 0)} requests failed; nothing here is of them")
    if requests is not None and np.isnan(requests.start_s).any():
        notes.append("when requests were sent is not in the file")
    notes += [f"with {found.name}" for found in side.found]
    name = plain_name(path) + (f"#{document.number}" if document.number else "")
    return [
        Run(
            name=name,
            where=document.where,
            server=server[0],
            load=load,
            measured=measured,
            requests=requests,
            date=iso_date(entry.text("date")),
            source=f"vllm bench serve: {name}",
            failed=failed,
            notes=(*server[1], *notes),
        )
    ]


def iso_date(text: str | None) -> str:
    """The day of a time stamp, as ISO; empty where there is none.

    >>> iso_date("20261121-070335"), iso_date("2026-02-14T10:41:26Z"), iso_date(None)
    ('2026-11-21', '2026-02-14', '')
    """
    found = _DATE.match(text or "")
    return "-".join(found.groups()) if found else ""


def server_facts_of(entry: Fields, side: Sidecar) -> Facts:
    """What a result and what lies beside it say of the server."""
    facts = Facts()
    for attribute, value in side.facts.values.items():
        facts.say(attribute, value, side.facts.fields[attribute])
    for attribute, names in SERVER.items():
        for name in names:
            if entry.has(name) and attribute not in facts.values:
                facts.say(attribute, entry.data[name], name)
    return facts


def _requests(entry: Fields) -> tuple[Requests | None, int]:
    """Requests that completed, in the order of sending, and how many did not."""
    inputs = entry.numbers("input_lens")
    if inputs is None:
        return None, 0
    n = len(inputs)
    outputs, ttft = entry.numbers("output_lens", count=n), entry.numbers("ttfts", count=n)
    itls = _gap_lists(entry, n)
    errors = entry.data.get("errors")
    latencies = entry.numbers("latencies", count=n)
    starts = entry.numbers("start_times", count=n, least=-np.inf)
    if outputs is None or ttft is None or (entry.has("itls") and itls is None):
        return None, 0
    if (entry.has("latencies") and latencies is None) or (entry.has("start_times") and starts is None):
        return None, 0
    good = outputs > 0 if not isinstance(errors, list) or len(errors) != n else np.array([not e for e in errors])
    if latencies is None:
        if itls is None:
            entry.wrong("itls", "neither itls nor latencies are there; with --save-detailed at least one is")
            return None, 0
        latencies = ttft + np.array([gap.sum() for gap in itls])
    elif itls is not None:
        summed = ttft + np.array([gap.sum() for gap in itls])
        off = np.flatnonzero(good & ~np.isclose(summed, latencies, rtol=2e-3, atol=1e-3))
        if len(off):
            i = int(off[0])
            message = f"read {latencies[i]:.6g} s, but ttfts[{i}] and itls[{i}] add up to {summed[i]:.6g} s"
            hint = unit_hint(latencies[i], summed[i])
            entry.wrong(f"latencies[{i}]", f"{message}{hint}; give the file as the benchmark wrote it")
            return None, 0
    early = np.flatnonzero(good & (latencies < ttft * (1.0 - 1e-6)))
    if len(early):
        i = int(early[0])
        message = f"the first token came after {ttft[i]:.6g} s, but the whole request took {latencies[i]:.6g} s"
        entry.wrong(f"ttfts[{i}]", f"{message}{unit_hint(ttft[i], latencies[i])}; all lists are in s")
        return None, 0
    start = np.full(n, np.nan) if starts is None else starts
    kept = np.flatnonzero(good)
    kept = kept[np.argsort(start[kept], kind="stable")] if starts is not None else kept
    first = start[kept].min() if len(kept) else 0.0
    requests = Requests(
        start_s=start[kept] - first,
        prompt_tokens=inputs[kept].astype(np.int64),
        output_tokens=outputs[kept].astype(np.int64),
        ttft_s=ttft[kept],
        e2e_s=latencies[kept],
        itl_s=None if itls is None else tuple(itls[i] for i in kept),
    )
    return requests, n - len(kept)


def _gap_lists(entry: Fields, n: int) -> list[Floats] | None:
    lists = entry.data.get("itls")
    if lists is None:
        return None
    if not isinstance(lists, list) or len(lists) != n:
        entry.wrong("itls", f"read {shown(lists)}; allowed: {n} lists of seconds, one a request")
        return None
    try:
        arrays = [np.array(one, dtype=np.float64) for one in lists]
        flat = np.concatenate([*arrays, np.zeros(0)])
        wrong = ~(flat >= 0.0) | ~np.isfinite(flat)
    except (TypeError, ValueError):
        entry.wrong("itls", "holds something else than lists of numbers; give the file as the benchmark wrote it")
        return None
    if wrong.any():
        ends = np.cumsum([len(one) for one in arrays])
        i = int(np.searchsorted(ends, np.flatnonzero(wrong)[0], side="right"))
        value = float(flat[wrong][0])
        entry.wrong(f"itls[{i}]", f"read {value}; allowed: seconds of 0 or more; correct it, or measure again")
        return None
    return arrays


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
    # vLLM writes 0 for a statistic of nothing: one token a request has no time between tokens.
    return {metric: value for metric, value in measured.items() if value > 0.0}


def _check_summary(entry: Fields, requests: Requests, dropped: int) -> None:
    """Adds problems where the file's own summary is not that of its requests."""
    n = len(requests.start_s)
    counts = {
        "completed": n,
        "failed": dropped,
        "total_input_tokens": int(requests.prompt_tokens.sum()),
        "total_output_tokens": int(requests.output_tokens.sum()),
    }
    for name, count in counts.items():
        said = entry.whole(name)
        if said is not None and said != count:
            entry.wrong(name, f"read {said}, but the lists of requests give {count}; the file was changed or merged")
    known = quantities(requests)
    for name in entry.data:
        parts = _STATISTIC.fullmatch(name)
        said_ms = entry.number(name) if parts else None
        if parts is None or said_ms is None or parts[2] not in known:
            continue
        own = statistic(known[parts[2]], parts[1]) * 1e3
        if not close(said_ms, own, slack=6e-3):
            hint = unit_hint(said_ms, own)
            entry.wrong(name, f"read {said_ms:g} ms, but the requests give {own:g} ms{hint}; the file was changed")
    duration, rate = entry.number("duration"), entry.number("output_throughput")
    if duration and rate is not None:
        own = float(requests.output_tokens.sum()) / duration
        if not close(rate, own, slack=6e-3):
            message = f"read {rate:g} tokens/s, but {requests.output_tokens.sum()} tokens in {duration:g} s are {own:g}"
            entry.wrong("output_throughput", f"{message}; the file was changed")


def _load(entry: Fields, requests: Requests | None, side: Sidecar, hints: ServerHints) -> Load | None:
    """How the benchmark drove the server: from the result, the command line beside it, and the user's prefix."""
    rate = entry.number("request_rate", infinite=True) if entry.has("request_rate") else np.inf
    limit = entry.whole("max_concurrency", least=1)
    burstiness = entry.number("burstiness")
    sent = entry.whole("num_prompts", least=1)
    if rate == 0.0:
        entry.wrong("request_rate", 'read 0; allowed: requests a second above 0, or "inf"')
    if rate is None:
        return None
    completed = entry.whole("completed") or 1
    lengths = []
    for name in ("total_input_tokens", "total_output_tokens"):
        total = entry.number(name)
        if total is None and requests is not None:
            tokens = requests.prompt_tokens if name == "total_input_tokens" else requests.output_tokens
            total = float(tokens.sum())
        if total is None:
            entry.wrong(name, "is absent, and no list of requests says how long they were; run the benchmark again")
            return None
        lengths.append(total / completed)
    low = high = 1.0
    shared, kinds = hints.shared_prefix() or (0, 1)
    prefix = _prefix_flags(side.flags)
    if prefix is not None:
        if hints.prefix is not None and prefix != (shared, kinds):
            message = f"says {prefix[0]}x{prefix[1]}, but --prefix says {hints.prefix}; leave out the flag or the file"
            entry.problems.add(str(side.found[0]), "command", message)
            return None
        shared, kinds = prefix
    nominal_in = whole_flag(side.flags, "random-input-len")
    nominal_out = whole_flag(side.flags, "random-output-len")
    ratio = side.flags.get("random-range-ratio", "0")
    if nominal_in is not None and nominal_out is not None:
        try:
            spread = float(ratio)
        except ValueError:
            spread = 0.0
        whole = float(nominal_in + shared)
        if close(whole, lengths[0], share=0.2 + spread) and close(nominal_out, lengths[1], share=0.2 + spread):
            lengths = [whole, float(nominal_out)]
            low, high = 1.0 - spread, 1.0 + spread
    elif requests is not None and np.ptp(requests.prompt_tokens) <= 2 and np.ptp(requests.output_tokens) == 0:
        # Decoded and encoded again, a random prompt can gain or lose a token.
        lengths = [float(np.median(requests.prompt_tokens)), float(requests.output_tokens[0])]
    return Load(
        concurrency=limit,
        rate_rps=rate,
        burstiness=1.0 if burstiness is None else burstiness,
        requests=sent if sent is not None else completed + (entry.whole("failed") or 0),
        prompt_tokens=lengths[0],
        output_tokens=lengths[1],
        low=low,
        high=high,
        shared_tokens=shared,
        shared_kinds=kinds,
    )


def _prefix_flags(said: Mapping[str, str]) -> tuple[int, int] | None:
    """Shared tokens and kinds of them, as a client's command line has it."""
    repeated = whole_flag(said, "prefix-repetition-prefix-len")
    if said.get("dataset-name") == "prefix_repetition" or repeated is not None:
        # Defaults of `vllm bench serve`.
        return (256 if repeated is None else repeated, whole_flag(said, "prefix-repetition-num-prefixes") or 10)
    prefix = whole_flag(said, "random-prefix-len")
    return (prefix, 1) if prefix else None


def _derive(entry: Fields, measured: dict[str, float]) -> None:
    """Adds to a summary what follows from it."""
    completed, duration = entry.number("completed"), entry.number("duration")
    tokens = entry.number("total_output_tokens")
    if not completed or tokens is None:
        return
    if "output_tokens_per_s" not in measured and duration:
        measured["output_tokens_per_s"] = tokens / duration
    if "e2e_s_mean" not in measured and {"ttft_s_mean", "itl_s_mean"} <= measured.keys():
        # All gaps together are the mean one times their number: one after each token but a request's first.
        measured["e2e_s_mean"] = measured["ttft_s_mean"] + measured["itl_s_mean"] * (tokens - completed) / completed


def _check_plausible(entry: Fields, measured: Mapping[str, float], load: Load, duration: float | None) -> None:
    names = {metric: next((n for n, _ in said if entry.has(n)), metric) for metric, said in SUMMARY.items()}
    check_together(
        measured,
        entry.where,
        entry.problems,
        fields=names,
        duration_s=duration,
        concurrency=load.concurrency,
        output_tokens=load.output_tokens,
    )
    tokens, rate = entry.number("total_output_tokens"), entry.number("output_throughput")
    if duration and tokens and rate and not close(rate, tokens / duration, slack=6e-3):
        message = f"read {rate:g} tokens/s, but {tokens:g} tokens in {duration:g} s are {tokens / duration:g}"
        entry.wrong("output_throughput", f"{message}; correct the one that is wrong")
