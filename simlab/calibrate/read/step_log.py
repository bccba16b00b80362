"""Logs of scheduler steps: what was in each batch, and how long it took."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from simlab.calibrate.attention_work import attention_work
from simlab.calibrate.read.files import plain_name, read_text
from simlab.calibrate.read.hints import ServerHints
from simlab.calibrate.read.problems import Problems
from simlab.calibrate.read.run_table import Rules, row_facts
from simlab.calibrate.read.servers import Facts, agrees, server_of, told
from simlab.calibrate.read.table import Floats, Table, first_present, parse_csv
from simlab.calibrate.run import Run, Server, Steps

STEP_COLUMNS = {
    "seconds": ("latency_ms", "elapsed_ms", "step_ms", "step_s", "latency_s", "seconds_s"),
    "prefill_tokens": ("prefill_tokens", "context_tokens"),
    "prefill_requests": ("prefill_requests", "context_requests"),
    "prefill_start_tokens": ("prefill_kv_tokens", "prefill_start_tokens"),
    "prefill_variance": ("prefill_len_var",),
    "decode_requests": ("decode_requests", "generation_requests"),
    "decode_context_tokens": ("decode_kv_tokens", "decode_context_tokens"),
}
"""Columns of a step log by field of `Steps`; ``prefill_variance`` of the prompts' lengths goes into ``work``."""


def is_step_log(columns: list[str]) -> bool:
    """Whether a table with these columns is a log of steps."""
    there = set(columns)
    return all(there & set(STEP_COLUMNS[what]) for what in ("seconds", "prefill_tokens", "decode_requests"))


def read_step_log(table: Table, hints: ServerHints, problems: Problems) -> list[Run]:
    """The runs of a step log: one for each configuration, which ``configs.csv`` beside it describes."""
    if not table.has("config_id"):
        made = server_of(Facts(), hints, str(table.path), problems)
        steps = _steps(table, problems)
        return [] if made is None or steps is None else [_run(plain_name(table.path), table, made, steps)]
    servers = config_servers(table, hints, problems)
    runs = []
    ids = table.frame["config_id"].astype(str).to_numpy()
    for config, made in servers.items():
        part = table.rows(ids == config)
        steps = _steps(part, problems)
        if steps is not None:
            runs.append(_run(config, part, made, steps))
    return runs


def config_servers(table: Table, hints: ServerHints, problems: Problems) -> dict[str, tuple[Server, tuple[str, ...]]]:
    """The servers of a log by configuration, in the order of the log; those that hints name where they name one."""
    ids = list(dict.fromkeys(table.frame["config_id"].astype(str)))
    described = _configs(table.path.parent, problems)
    missing = [config for config in ids if config not in described]
    said = told(hints)
    facts = {config: described.get(config, Facts()) for config in ids}
    chosen = [config for config in ids if agrees(facts[config], said)] if len(ids) > 1 else ids
    if not chosen:
        message = f"no configuration is of {', '.join(f'{name} {value}' for name, value in said.items())}"
        problems.add(str(table.path), "config_id", f"{message}; it has {', '.join(ids[:6])}")
    found = {}
    for config in chosen:
        before = len(problems)
        made = server_of(facts[config], hints, f"{table.path}: {config}", problems)
        if made is not None:
            found[config] = made
        elif config in missing and len(problems) > before:
            problems.add(str(table.path), "config_id", f"{config} is not in configs.csv beside it; put it there")
    return found


def _configs(folder: Path, problems: Problems) -> dict[str, Facts]:
    """What ``configs.csv`` or ``summary.csv`` of a folder says of each configuration."""
    found: dict[str, Facts] = {}
    for name in ("configs.csv", "summary.csv"):
        path = folder / name
        if not path.is_file():
            continue
        text = read_text(path, problems)
        table = None if text is None else parse_csv(text, path, problems)
        if table is None or not table.has("config_id"):
            continue
        facts = row_facts(table, Rules({"engine": "vLLM"} if table.has("vllm_version") else {}), problems)
        seen = table.numbers("observed_max_prefill_tokens") if table.has("observed_max_prefill_tokens") else None
        kv_tokens = table.numbers("kv_cache_tokens") if table.has("kv_cache_tokens") else None
        for row, config in enumerate(table.texts("config_id")):
            if config is None or config in found:
                continue
            one = facts[row]
            found[config] = Facts(dict(one.values), dict(one.fields), set(one.assumed), list(one.notes))
            if seen is not None and not math.isnan(seen[row]):
                _observed(found[config], int(seen[row]))
            if kv_tokens is not None and not math.isnan(kv_tokens[row]):
                size = int(found[config].values.get("block_size", 16))
                found[config].assume("block_size", size, f"blocks of {size} tokens are assumed")
                found[config].say("kv_blocks", int(kv_tokens[row]) // size, "kv_cache_tokens")
    return found


def _observed(facts: Facts, most: int) -> None:
    """Trusts the largest step that was seen over a stated budget below it."""
    stated = facts.values.get("max_num_batched_tokens")
    if stated is None or most > stated:
        budget = 1 << (most - 1).bit_length()
        facts.values.pop("max_num_batched_tokens", None)
        why = f"steps of up to {most} tokens occur: max_num_batched_tokens is taken as {budget}"
        facts.assume("max_num_batched_tokens", budget, why)


def _steps(table: Table, problems: Problems) -> Steps | None:
    """The steps of a table, or None where something is wrong."""
    before = len(problems)
    names = {what: first_present(spelt, table.frame.columns) for what, spelt in STEP_COLUMNS.items()}

    def column(what: str, absent: float) -> Floats:
        name = names[what]
        return np.full(len(table), absent) if name is None else table.numbers(name, required=True)

    seconds_name = names["seconds"] or ""
    seconds = table.seconds(seconds_name, required=True, above=True)
    prefill = column("prefill_tokens", 0.0)
    requests = column("prefill_requests", math.nan)
    if names["prefill_requests"] is None:
        requests = np.where(prefill > 0.0, 1.0, 0.0)
    start, decode = column("prefill_start_tokens", math.nan), column("decode_requests", 0.0)
    context = column("decode_context_tokens", math.nan)
    if len(problems) > before:
        return None
    if names["prefill_start_tokens"] is None:
        start = np.where(prefill > 0.0, math.nan, 0.0)
    if names["decode_context_tokens"] is not None:
        # Logged is what is in the cache before the step; a sequence's new token attends to itself too.
        context = context + decode
    elif names["decode_context_tokens"] is None:
        context = np.where(decode > 0.0, math.nan, 0.0)
    # Chunks are known where a single request prefills; of several, the variance of their lengths tells enough.
    work = np.where(requests == 1.0, prefill * (start + (prefill + 1.0) / 2.0), math.nan)
    if names["prefill_variance"] is not None:
        by_variance = attention_work(prefill, requests, start, column("prefill_variance", 0.0))
        work = np.where(requests > 1.0, by_variance, work)
    work = np.where(prefill == 0.0, 0.0, work)
    real = np.ones(len(table), dtype=bool)
    if "segment" in table.frame.columns:
        real = (table.frame["segment"] == "real").to_numpy(dtype=bool)
    return Steps(seconds, prefill, requests, start, decode, context, work, real)


def _run(name: str, table: Table, made: tuple[Server, tuple[str, ...]], steps: Steps) -> Run:
    seconds = steps.seconds[steps.real] if steps.real.any() else steps.seconds
    measured = {"step_s": float(np.mean(seconds))}
    source = f"{table.path.parent.name}: {name}"
    where = f"{table.path}:{table.frame.index[0]}"
    return Run(name, where, made[0], None, measured, None, steps, source=source, notes=made[1])
