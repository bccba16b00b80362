"""Scheduler steps from a server's log: vLLM writes a line for each under ``--enable-logging-iteration-details``."""

from __future__ import annotations

import csv
import gzip
import io
import re
from pathlib import Path

FLAG = "--enable-logging-iteration-details"

COLUMNS = (
    "iteration",
    "second_of_day",
    "context_requests",
    "context_tokens",
    "generation_requests",
    "generation_tokens",
    "elapsed_ms",
    "kv_usage_pct",
)

_LINE = re.compile(
    r"(?P<h>\d\d):(?P<m>\d\d):(?P<s>\d\d) \[.*?Iteration\((\d+)\): (\d+) context requests, (\d+) context tokens, "
    r"(\d+) generation requests, (\d+) generation tokens, iteration elapsed time: ([\d.]+) ms, .*?"
    r"KV cache usage: ([\d.]+)%"
)


def steps(log: str) -> list[tuple[str, ...]]:
    """Rows of `COLUMNS` from a part of a log; ``second_of_day`` is the log's own clock.

    >>> line = (
    ...     "INFO 11-21 06:24:25 [loggers.py:199] Iteration(7): 1 context requests, 128 context tokens, "
    ...     "0 generation requests, 0 generation tokens, iteration elapsed time: 79.85 ms, CPU KV cache usage: 0.1%"
    ... )
    >>> steps(line)
    [('7', '23065', '1', '128', '0', '0', '79.85', '0.1')]
    """
    rows = []
    for found in _LINE.finditer(log):
        number, *rest = found.groups()[3:]
        second = int(found["h"]) * 3600 + int(found["m"]) * 60 + int(found["s"])
        rows.append((number, str(second), *rest))
    return rows


def write_steps(rows: list[tuple[str, ...]], path: Path) -> None:
    """Writes rows as gzipped CSV; the same rows give the same bytes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    path.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))
