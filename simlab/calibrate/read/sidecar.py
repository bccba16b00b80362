"""What lies beside a result and tells how it was driven: the command line, the server's flags, a scrape."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simlab.calibrate.read.command import flags, server_facts
from simlab.calibrate.read.files import plain_name, read_text
from simlab.calibrate.read.problems import Problems
from simlab.calibrate.read.scrape import is_scrape, scrape_facts
from simlab.calibrate.read.servers import Facts

FOLDERS = (".", "../server_side")
"""Where a sidecar is looked for, from the result's folder."""

SERVER_FIELDS = (
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


@dataclass
class Sidecar:
    """What lies beside a result.

    Attributes:
        flags: of the client's command line.
        facts: of the server.
        found: files that were read.
    """

    flags: Mapping[str, str] = field(default_factory=dict)
    facts: Facts = field(default_factory=Facts)
    found: list[Path] = field(default_factory=list)


def sidecar_of(path: Path, problems: Problems) -> Sidecar:
    """Reads NAME.metrics.json and NAME.metrics.txt beside NAME.json, or in ../server_side."""
    side, name = Sidecar(), plain_name(path)
    for folder in FOLDERS:
        beside = path.parent / folder / f"{name}.metrics.json"
        if beside.is_file():
            side.found.append(beside)
            _take_json(beside, side, problems)
        scraped = path.parent / folder / f"{name}.metrics.txt"
        if scraped.is_file():
            text = read_text(scraped, problems)
            if text is not None and is_scrape(text):
                side.found.append(scraped)
                scrape_facts(text, scraped.name, side.facts)
    return side


def _take_json(path: Path, side: Sidecar, problems: Problems) -> None:
    text = read_text(path, problems)
    if text is None:
        return
    try:
        data: Any = json.loads(text)
    except json.JSONDecodeError as error:
        problems.add(f"{path}:{error.lineno}", "", f"not JSON ({error.msg}); give the file as it was written")
        return
    if not isinstance(data, dict):
        return
    if isinstance(data.get("command"), str):
        side.flags = flags(data["command"])
    if isinstance(data.get("server_command"), str):
        server_facts(data["server_command"], f"{path.name}: server_command", side.facts)
    server = data.get("server")
    if isinstance(server, dict):
        for attribute in SERVER_FIELDS:
            side.facts.say(attribute, server.get(attribute), f"{path.name}: server.{attribute}")
