"""Trace formats as data: which column of a file means what, read from ``formats.json``, and how one is recognised."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from simlab.names import nearest
from simlab.workload.faults import trace_error

if TYPE_CHECKING:
    from simlab.scenario.workload import TraceFormat

TIME_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
"""Seconds in each unit of a numeric arrival column."""


@dataclass(frozen=True)
class RequestLayout:
    """Columns of a trace with a row for each request.

    Args:
        arrival: column of the arrival time.
        time_unit: a key of `TIME_UNITS`, or ``datetime`` for ISO 8601 text.
        prompt_tokens, output_tokens: columns of the lengths.
        hash_ids: column with the ids of the prompt's blocks, or None.
        hash_block_tokens: tokens in such a block.
        query: column that names the question, or None.
    """

    arrival: str
    time_unit: str
    prompt_tokens: str
    output_tokens: str
    hash_ids: str | None = None
    hash_block_tokens: int = 512
    query: str | None = None

    @property
    def columns(self) -> list[str]:
        """The columns it needs."""
        optional = [name for name in (self.hash_ids, self.query) if name is not None]
        return [self.arrival, self.prompt_tokens, self.output_tokens, *optional]


@dataclass(frozen=True)
class WindowLayout:
    """Columns of a table with a row for each client and time window.

    Args:
        client: column of the client's name.
        window_start: column of the window's start, s.
        rate: column of its arrival rate, 1/s.
        cv: column of the coefficient of variation of the times between its arrivals.
        window_s: length of a window, s.
        lengths_from: how the name of the file of lengths follows from this file's: (text, replacement).
        prompt, output: what that file's columns of prompt and output lengths begin with: ``in`` for in_mean, in_p10, …
    """

    client: str
    window_start: str
    rate: str
    cv: str
    window_s: float
    lengths_from: tuple[str, str]
    prompt: str
    output: str

    @property
    def columns(self) -> list[str]:
        """The columns it needs."""
        return [self.client, self.window_start, self.rate, self.cv]


Layout = RequestLayout | WindowLayout


@dataclass(frozen=True)
class Format:
    """A known kind of trace: where it can be had, under which licence, and its layouts, best first."""

    name: str
    title: str
    url: str
    licence: str
    cite: str
    files: tuple[str, ...]
    layouts: tuple[Layout, ...]


def _layout(row: dict[str, Any]) -> Layout:
    if "window_start" in row:
        return WindowLayout(**{**row, "lengths_from": tuple(row["lengths_from"])})
    return RequestLayout(**row)


@cache
def formats() -> dict[str, Format]:
    """All known formats by name, in the order in which they are tried."""
    table = json.loads(files("simlab.workload").joinpath("formats.json").read_text("utf-8"))
    return {
        name: Format(
            name,
            row["title"],
            row["url"],
            row["licence"],
            row["cite"],
            tuple(row["files"]),
            tuple(_layout(layout) for layout in row["layouts"]),
        )
        for name, row in table.items()
    }


def all_layouts() -> list[Layout]:
    """The layouts of all formats."""
    return [layout for known in formats().values() for layout in known.layouts]


def named(name: str) -> Format:
    """The format of a name.

    Raises:
        TraceError: no such format; the message gives the nearest.
    """
    known = formats()
    if name not in known:
        near = nearest(name, known)
        hint = f"did you mean {near[0]}?" if near else "nothing is like it;"
        raise trace_error(
            "format",
            f"read {name!r}; {hint} allowed are auto, {', '.join(known)}, or a map "
            "of columns {arrival, prompt_tokens, output_tokens}",
        )
    return known[name]


def from_scenario(written: TraceFormat) -> RequestLayout:
    """The layout of a column map in a scenario."""
    return RequestLayout(
        written.arrival,
        written.time_unit,
        written.prompt_tokens,
        written.output_tokens,
        written.hash_ids,
        written.hash_block_tokens,
        written.query,
    )


def choose(written: str | TraceFormat, columns: Sequence[str], where: str, file_name: str) -> tuple[str, Layout]:
    """The layout to read a file by, and the name of its format (``map`` for a column map).

    Args:
        written: ``auto``, a format's name or a column map.
        columns: the columns the file has.
        where: file and line of the header, for errors.
        file_name: tells apart formats with the same columns (Azure 2023 and 2024).

    Raises:
        TraceError: columns are missing, with the nearest ones there are.
    """
    have = set(columns)
    if not isinstance(written, str):
        mapped = from_scenario(written)
        _need(mapped, columns, where, "the column map")
        return "map", mapped
    tried = list(formats().values()) if written == "auto" else [named(written)]
    by_name = [f for f in tried if any(part in file_name for part in f.files)]
    for candidate in [*by_name, *tried]:
        for layout in candidate.layouts:
            if have.issuperset(layout.columns):
                return candidate.name, layout
    if written != "auto":
        fullest = max(tried[0].layouts, key=lambda layout: len(have.intersection(layout.columns)))
        _need(fullest, columns, where, f"format {written}")
    shown = "; ".join(f"{f.name} ({', '.join(f.layouts[0].columns)})" for f in tried)
    raise trace_error(
        where,
        f"read columns {_shown(columns)}, which is no known format; known are {shown}; "
        "name your columns in the scenario: format: {arrival: …, prompt_tokens: …, "
        "output_tokens: …}",
    )


def _need(layout: Layout, columns: Sequence[str], where: str, whose: str) -> None:
    missing = [name for name in layout.columns if name not in columns]
    if not missing:
        return
    hints = []
    by_lower = {name.lower(): name for name in columns}
    for name in missing:
        near = nearest(name, by_lower, count=1)
        hints.append(f"{name!r}" + (f" (nearest: {by_lower[near[0]]!r})" if near else ""))
    raise trace_error(
        where,
        f"{whose} needs column {', '.join(hints)}, but the file has {_shown(columns)}; "
        "the first line must name the columns; correct the map, or choose another format",
    )


def _shown(columns: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:40]) for name in columns[:12])
    return (shown or "none") + (f" and {len(columns) - 12} more" if len(columns) > 12 else "")
