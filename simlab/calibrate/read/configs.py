"""Servers of a log of many configurations: ``configs.csv`` or ``summary.csv`` beside it describes them."""

from __future__ import annotations

import math
from pathlib import Path

from simlab.calibrate.read.context import Context
from simlab.calibrate.read.files import plain_name, read_text
from simlab.calibrate.read.row_servers import LISTED, Made, row_facts
from simlab.calibrate.read.rules import Rules
from simlab.calibrate.read.servers import Facts, agrees, server_of, told
from simlab.calibrate.read.sidecar import sidecar_of
from simlab.calibrate.read.table import Table, parse_csv

DESCRIPTIONS = ("configs.csv", "summary.csv")
"""Tables that describe configurations, first come first believed."""

DEFAULT_BLOCK = 16
"""Tokens of a KV block where nobody says: vLLM's default on a GPU."""


def config_servers(table: Table, context: Context) -> dict[str, Made]:
    """The servers of a log by configuration, in the log's order; those that hints agree with, where there are several.

    A log of one server, without ``config_id``, has the key "".
    """
    if not table.has("config_id"):
        made = server_of(_beside(table.path, context), context, str(table.path), served_name=True)
        return {} if made is None else {"": made}
    ids = list(dict.fromkeys(str(name) for name in table.frame["config_id"]))
    described = _described(table.path.parent, context)
    facts, said = {config: described.get(config, Facts()) for config in ids}, told(context.hints)
    chosen = [config for config in ids if agrees(facts[config], said)] if len(ids) > 1 else ids
    if not chosen:
        asked = ", ".join(f"{name} {value}" for name, value in said.items())
        more = f" and {len(ids) - LISTED} more" if len(ids) > LISTED else ""
        message = f"no configuration is of {asked}; there are {', '.join(ids[:LISTED])}{more}"
        context.problems.add(str(table.path), "config_id", message)
    found = {}
    for config in chosen:
        if config not in described:
            message = f"{config} is not described: put configs.csv, with its gpu, model and tp, beside the file"
            if context.hints.gpu is None or context.hints.model is None:
                context.problems.add(str(table.path), "config_id", f"{message}, or give --gpu and --model")
                continue
        made = server_of(facts[config], context, f"{table.path}: {config}")
        if made is not None:
            found[config] = made
    return found


def _beside(path: Path, context: Context) -> Facts:
    """What the files of the same run beside a log say of its server."""
    facts = sidecar_of(path, context).facts
    name = plain_name(path).removesuffix(".iterations")
    for folder in (path.parent, path.parent.parent / "results"):
        result = folder / f"{name}.json"
        if "model" not in facts.values and result.is_file():
            text = read_text(result, context.problems) or ""
            at = text.find('"model_id": "')
            if at >= 0:
                facts.say("model", text[at + 13 : text.index('"', at + 13)], f"{result.name}: model_id")
    return facts


def _described(folder: Path, context: Context) -> dict[str, Facts]:
    """What the tables of a folder say of each configuration."""
    found: dict[str, Facts] = {}
    for name in DESCRIPTIONS:
        path = folder / name
        text = read_text(path, context.problems) if path.is_file() else None
        table = None if text is None else parse_csv(text, path, context.problems)
        if table is None or not table.has("config_id"):
            continue
        facts = row_facts(table, Rules({"engine": "vLLM"} if table.has("vllm_version") else {}))
        columns = {
            column: table.numbers(column)
            for column in ("observed_max_prefill_tokens", "kv_cache_tokens")
            if table.has(column)
        }
        for row, config in enumerate(table.texts("config_id")):
            if config is None or config in found:
                continue
            found[config] = facts[row].copy()
            values = {column: numbers[row] for column, numbers in columns.items() if not math.isnan(numbers[row])}
            if "observed_max_prefill_tokens" in values:
                _observed(found[config], int(values["observed_max_prefill_tokens"]))
            if "kv_cache_tokens" in values:
                _blocks(found[config], int(values["kv_cache_tokens"]))
    return found


def _observed(facts: Facts, most: int) -> None:
    """Takes the largest step that was seen for the budget where a smaller one is stated."""
    stated = facts.values.get("max_num_batched_tokens")
    if stated is None or most > stated:
        budget = 1 << (most - 1).bit_length()
        facts.values.pop("max_num_batched_tokens", None)
        why = f"steps of up to {most} tokens occur: max_num_batched_tokens is taken as {budget}"
        facts.assume("max_num_batched_tokens", budget, why)


def _blocks(facts: Facts, tokens: int) -> None:
    """Takes the size of a KV cache in tokens as blocks."""
    if "block_size" not in facts.values:
        facts.assume("block_size", DEFAULT_BLOCK, f"KV blocks of {DEFAULT_BLOCK} tokens are assumed")
    facts.say("kv_blocks", tokens // int(facts.values["block_size"]), "kv_cache_tokens")
