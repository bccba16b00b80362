"""What lies beside a result and tells how it was driven: the command line, the server's flags, a scrape."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simlab.calibrate.read.command import flags, server_facts
from simlab.calibrate.read.context import Context
from simlab.calibrate.read.files import plain_name, read_text
from simlab.calibrate.read.scrape import is_scrape, scrape_facts
from simlab.calibrate.read.servers import Facts

SIDE_FOLDER = "server_side"
"""Besides the result's own folder, a folder of this name next to it may hold sidecars."""

ENDINGS = (".metrics.json", ".metrics.txt")
"""What a sidecar's name has after that of the result."""

SERVER_FIELDS = (
    "model",
    "gpu",
    "tp",
    "precision",
    "dp",
    "expert_parallel",
    "replicas",
    "engine",
    "kv_precision",
    "max_num_seqs",
    "max_num_batched_tokens",
    "kv_blocks",
    "block_size",
    "prefix_caching",
    "max_model_len",
)
"""Fields that a sidecar's ``server`` object may have; all are attributes of `Server`."""

_OFFLINE = re.compile(r"\bbench\s+(?:latency|throughput)\b")


@dataclass
class Sidecar:
    """What lies beside a result.

    Attributes:
        flags: of the client's command line.
        facts: of the server.
        found: files that were read, that with the command line first.
    """

    flags: Mapping[str, str] = field(default_factory=dict)
    facts: Facts = field(default_factory=Facts)
    found: list[Path] = field(default_factory=list)


def is_sidecar(path: Path) -> bool:
    """Whether a file is read together with a result, not by itself."""
    return path.name.endswith(ENDINGS)


def sidecar_of(path: Path, context: Context) -> Sidecar:
    """What ``NAME.metrics.json`` and ``NAME.metrics.txt`` beside NAME.json, or in ``../server_side``, say."""
    side, name = Sidecar(), plain_name(path).removesuffix(".iterations")
    for folder in dict.fromkeys((path.parent, path.parent.parent / SIDE_FOLDER)):
        beside = folder / f"{name}.metrics.json"
        if beside.is_file():
            side.found.append(beside)
            _take_json(beside, side, context)
        scraped = folder / f"{name}.metrics.txt"
        text = read_text(scraped, context.problems) if scraped.is_file() else None
        if text is not None and is_scrape(text):
            side.found.append(scraped)
            scrape_facts(text, scraped.name, side.facts)
    return side


def _take_json(path: Path, side: Sidecar, context: Context) -> None:
    text = read_text(path, context.problems)
    if text is None:
        return
    try:
        data: Any = json.loads(text)
    except json.JSONDecodeError as error:
        message = f"not JSON ({error.msg.lower()}); give the file as it was written, or remove it"
        context.problems.add(f"{path}:{error.lineno}", "", message)
        return
    if not isinstance(data, dict):
        return
    command, server = data.get("command"), data.get("server")
    if isinstance(command, str):
        side.flags = flags(command)
        if _OFFLINE.search(command):
            server_facts(command, f"{path.name}: command", side.facts)
    if isinstance(data.get("server_command"), str):
        server_facts(data["server_command"], f"{path.name}: server_command", side.facts)
    if isinstance(server, dict):
        for attribute in SERVER_FIELDS:
            side.facts.say(attribute, server.get(attribute), f"{path.name}: server.{attribute}")
