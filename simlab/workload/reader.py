"""Requests of a trace file in blocks of arrays, every value checked, every error with its line."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from simlab.workload.faults import trace_error
from simlab.workload.formats import TIME_UNITS, RequestLayout, WindowLayout, choose
from simlab.workload.table import Batch, Table

if TYPE_CHECKING:
    from simlab.scenario.workload import TraceFormat

BLOCK_ROWS = 32768
"""Rows read at a time."""

MAX_TOKENS = 100_000_000
"""More tokens than this in one request is taken for a mistake."""

MAX_SPAN_S = 100.0 * 365.25 * 86400.0
"""A trace longer than a hundred years is taken for a wrong time unit."""

_OFFSET = re.compile(r"[+-]\d\d:?\d\d$")


@dataclass(frozen=True, eq=False)
class Block:
    """Consecutive requests of a trace.

    Args:
        first_row: number of the first of them, from 0.
        arrival_s: f8[n], s since the first request of the file, ascending.
        prompt_tokens: i8[n], >= 0.
        output_tokens: i8[n], >= 0; 0 is a request that got no answer.
        segment_ptr: i8[n + 1] or None: as in `simlab.workload.Chunk`, likewise the next two.
        segment_id: i8[m] or None.
        segment_tokens: i8[m] or None.
        query: i8[n] or None: which question is asked.
    """

    first_row: int
    arrival_s: NDArray[np.float64]
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    segment_ptr: NDArray[np.int64] | None = None
    segment_id: NDArray[np.int64] | None = None
    segment_tokens: NDArray[np.int64] | None = None
    query: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.arrival_s)


class TraceReader:
    """A trace file and how to read it.

    Args:
        path: the file.
        written: ``auto``, a format's name or a column map.

    Attributes:
        format: name of the format (``map`` for a column map).
        layout: its columns.
        start: when the first request arrived (UTC), where the file says so; known after the first block.

    Raises:
        TraceError: the file cannot be opened or lacks columns.
    """

    def __init__(self, path: Path, written: str | TraceFormat = "auto") -> None:
        self.path = path
        file_type = None if isinstance(written, str) else written.file_type
        self.table = Table(path, file_type)
        self.format, self.layout = choose(written, self.table.columns, self.table.header_where, path.name)
        self.start: datetime | None = None

    @property
    def is_windows(self) -> bool:
        """Whether the file holds rates by window instead of requests."""
        return isinstance(self.layout, WindowLayout)

    @property
    def has_chains(self) -> bool:
        """Whether requests name the blocks of their prompts."""
        return isinstance(self.layout, RequestLayout) and self.layout.hash_ids is not None

    def blocks(self, rows: int = BLOCK_ROWS) -> Iterator[Block]:
        """All requests in order, at most ``rows`` at a time.

        Raises:
            TraceError: a bad value, with its line; rows out of order; no rows.
        """
        layout = self.layout
        if not isinstance(layout, RequestLayout):
            raise trace_error(str(self.path), "holds rates by window, not requests")
        clock = _Clock(self.table, layout)
        first_row = 0
        for batch in self.table.batches(layout.columns, rows):
            arrival_s = clock.seconds(batch)
            self.start = clock.start
            prompt = whole_numbers(self.table, batch, 1, layout.prompt_tokens)
            output = whole_numbers(self.table, batch, 2, layout.output_tokens)
            segments = None if layout.hash_ids is None else _segments(self.table, batch, prompt, layout)
            query = None if layout.query is None else _questions(self.table, batch, layout)
            ptr, ids, tokens = segments or (None, None, None)
            yield Block(first_row, arrival_s, prompt, output, ptr, ids, tokens, query)
            first_row += len(arrival_s)
        if first_row == 0:
            raise trace_error(str(self.path), "has column names but no requests; it must hold at least one")


class _Clock:
    """Turns an arrival column into seconds since the first request."""

    def __init__(self, table: Table, layout: RequestLayout) -> None:
        self._table = table
        self._name = layout.arrival
        self._unit = layout.time_unit
        self._origin: Any = None
        self._last = 0.0
        self.start: datetime | None = None

    def seconds(self, batch: Batch) -> NDArray[np.float64]:
        if self._unit == "datetime":
            ticks = _datetimes(self._table, batch, self._name)
            if self._origin is None:
                self._origin = ticks[0]
                self.start = datetime.fromtimestamp(int(ticks[0]) / 1e9, tz=UTC)
            arrival_s: NDArray[np.float64] = (ticks - self._origin).astype(np.float64) * 1e-9
        else:
            raw = numbers(self._table, batch, 0, self._name)
            _check(self._table, batch, 0, raw < 0.0, f"{self._name} is negative; times must be 0 or more")
            if self._origin is None:
                self._origin = raw[0]
            arrival_s = (raw - self._origin) * TIME_UNITS[self._unit]
        _check(
            self._table,
            batch,
            0,
            arrival_s > MAX_SPAN_S,
            f"{self._name} lies more than 100 years after the first request; check its unit ({self._unit})",
        )
        before = np.concatenate(([self._last], arrival_s[:-1]))
        _check(
            self._table,
            batch,
            0,
            arrival_s < before,
            f"{self._name} goes back: requests must be in order of arrival; sort the rows by it, e.g. with pandas: "
            f"read, .sort_values({self._name!r}), write",
        )
        self._last = float(arrival_s[-1])
        return arrival_s


def numbers(table: Table, batch: Batch, place: int, name: str) -> NDArray[np.float64]:
    """A column as finite numbers, f8[n].

    Raises:
        TraceError: a value is no number, NaN or infinite; at its line.
    """
    values = batch.columns[place]
    try:
        array = np.array(values, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        for line, value in zip(batch.lines, values, strict=True):
            try:
                float(value)
            except (ValueError, TypeError, OverflowError):
                _fail(table, line, value, f"{name} must be a number")
        raise
    if array.ndim != 1:
        _fail(table, batch.lines[0], values[0], f"{name} must be a number")
    _check(table, batch, place, ~np.isfinite(array), f"{name} must be a finite number")
    return array


def whole_numbers(table: Table, batch: Batch, place: int, name: str) -> NDArray[np.int64]:
    """A column of tokens, i8[n].

    Raises:
        TraceError: a value is no whole number of tokens from 0 to `MAX_TOKENS`; at its line.
    """
    array = numbers(table, batch, place, name)
    _check(table, batch, place, array < 0.0, f"{name} is negative; tokens must be 0 or more")
    _check(table, batch, place, array > MAX_TOKENS, f"{name} is above {MAX_TOKENS}; check the column")
    _check(table, batch, place, array != np.floor(array), f"{name} must be a whole number of tokens")
    return array.astype(np.int64)


def _datetimes(table: Table, batch: Batch, name: str) -> NDArray[np.int64]:
    """An ISO 8601 column as ns since 1970 (UTC where no offset is given)."""
    values = batch.columns[0]
    plain: list[Any] = []
    for line, value in zip(batch.lines, values, strict=True):
        if isinstance(value, datetime):
            plain.append(_utc(value))
        elif not isinstance(value, str):
            _fail(table, line, value, f"{name} must be a date and time such as 2024-05-10 00:00:00.5")
        elif value.endswith("Z"):
            plain.append(value[:-1])
        elif value.endswith("+00:00"):
            plain.append(value[:-6])
        else:
            plain.append(_utc(_datetime(table, line, value, name)) if _OFFSET.search(value[10:]) else value)
    try:
        ticks = np.array(plain, dtype="datetime64[ns]")
    except (ValueError, TypeError, OverflowError):
        for line, value, text in zip(batch.lines, values, plain, strict=True):
            try:
                np.datetime64(text, "ns")
            except (ValueError, TypeError, OverflowError):
                _fail(table, line, value, f"{name} must be a date and time such as 2024-05-10 00:00:00.5")
    _check(table, batch, 0, np.isnat(ticks), f"{name} must be a date and time such as 2024-05-10 00:00:00.5")
    return ticks.astype(np.int64)


def _datetime(table: Table, line: int, value: str, name: str) -> datetime:
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        _fail(table, line, value, f"{name} must be a date and time such as 2024-05-10 00:00:00.5")


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)


def _segments(
    table: Table, batch: Batch, prompt: NDArray[np.int64], layout: RequestLayout
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The prompt's blocks as a chain of segments: whole blocks, the last one cut to the prompt."""
    size = layout.hash_block_tokens
    chains = [_chain(table, line, value, layout) for line, value in zip(batch.lines, batch.columns[3], strict=True)]
    counts = np.array([len(chain) for chain in chains], dtype=np.int64)
    over = (counts > 0) & (prompt <= (counts - 1) * size)
    if over.any():
        i = int(np.argmax(over))
        raise trace_error(
            table.where(batch.lines[i]),
            f"{layout.hash_ids} names {counts[i]} blocks of {size} tokens, more than the "
            f"{prompt[i]} tokens of {layout.prompt_tokens} fill; check hash_block_tokens",
        )
    ptr = np.concatenate(([0], np.cumsum(counts)))
    ids = np.array([block for chain in chains for block in chain], dtype=np.int64)
    tokens = np.full(len(ids), size, dtype=np.int64)
    some = counts > 0
    tokens[ptr[1:][some] - 1] = np.minimum(size, prompt[some] - (counts[some] - 1) * size)
    return ptr, ids, tokens


def _chain(table: Table, line: int, value: Any, layout: RequestLayout) -> Sequence[int]:
    ids: Any = value
    if isinstance(value, str):  # a CSV cell: [1, 2, 3] or 1 2 3
        ids = value.strip("[]() ").replace(",", " ").split()
        ids = [int(text) if text.isdecimal() else text for text in ids]
    if not isinstance(ids, list | tuple):
        _fail(table, line, value, f"{layout.hash_ids} must be a list of block ids")
    if all(type(block) is int and 0 <= block < 2**62 for block in ids):
        return ids
    return [_identity(table, line, block, layout.hash_ids) for block in ids]


def _questions(table: Table, batch: Batch, layout: RequestLayout) -> NDArray[np.int64]:
    """What each request asks, as numbers; whole numbers are the same as they are written."""
    values = batch.columns[-1]
    ids = [int(value) if isinstance(value, str) and value.isdecimal() else value for value in values]
    pairs = zip(batch.lines, ids, strict=True)
    return np.array([_identity(table, line, value, layout.query) for line, value in pairs], np.int64)


def _identity(table: Table, line: int, block: Any, name: str | None) -> int:
    """An id as a number below 2^62: text and large numbers by their BLAKE2 digest."""
    if isinstance(block, bool) or not isinstance(block, int | str):
        _fail(table, line, block, f"{name} must hold whole numbers or texts")
    if isinstance(block, int) and 0 <= block < 2**62:
        return block
    digest = hashlib.blake2b(str(block).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 2


def _check(table: Table, batch: Batch, place: int, bad: NDArray[np.bool_], message: str) -> None:
    if bad.any():
        i = int(np.argmax(bad))
        _fail(table, batch.lines[i], batch.columns[place][i], message)


def _fail(table: Table, line: int, value: Any, message: str) -> NoReturn:
    raise trace_error(table.where(line), f"read {str(value)[:40]!r}: {message}")
