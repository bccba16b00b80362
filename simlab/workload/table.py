"""Rows of a CSV, JSON-lines or Parquet file, plain or gzipped, in batches that know their line numbers."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from simlab.errors import TraceError
from simlab.workload.faults import trace_error

_GZIP = b"\x1f\x8b"
_PARQUET = b"PAR1"
_TYPES = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
}


@dataclass(frozen=True)
class Batch:
    """Some rows of a file, by column.

    Args:
        lines: line (Parquet: row) number of each row, from 1.
        columns: for each wanted column its values, as text (CSV), JSON values or Parquet's arrays.
    """

    lines: Sequence[int]
    columns: Sequence[Sequence[Any]]


class Table:
    """A file of rows with named columns.

    Args:
        path: the file.
        file_type: ``csv``, ``jsonl`` or ``parquet``; None: told from its name, else its first bytes.

    Raises:
        TraceError: it cannot be opened, is empty, or has no readable header.
    """

    def __init__(self, path: Path, file_type: str | None = None) -> None:
        self.path = path
        with _reading(path, lambda: 1):
            head = _head(path)
        if not head.strip():
            raise trace_error(str(path), "the file is empty; it must hold at least one request")
        self.file_type = file_type or _file_type(path, head)
        self.columns, self._header_line, self._delimiter = self._header()

    def where(self, line: int) -> str:
        """``file:line`` for errors."""
        return f"{self.path}:{line}"

    @property
    def header_where(self) -> str:
        """``file:line`` of the line that names the columns."""
        return self.where(self._header_line)

    def batches(self, wanted: Sequence[str], rows: int) -> Iterator[Batch]:
        """The wanted columns, at most ``rows`` rows at a time; blank lines are skipped.

        Raises:
            TraceError: a row that cannot be read, at its line.
        """
        if self.file_type == "parquet":
            return self._parquet(wanted, rows)
        return self._csv(wanted, rows) if self.file_type == "csv" else self._jsonl(wanted, rows)

    def _header(self) -> tuple[list[str], int, str]:
        if self.file_type == "parquet":
            with _reading(self.path, lambda: 1), _parquet_errors(self.path):
                from pyarrow import parquet

                return list(parquet.ParquetFile(self.path).schema_arrow.names), 1, ""
        lines = _Lines(self.path)
        for text in lines:
            if not text.strip():
                continue
            if self.file_type == "jsonl":
                return list(self._object(text, lines.number)), lines.number, ""
            delimiter = max(",\t;|", key=text.count)
            return [name.strip() for name in next(csv.reader([text], delimiter=delimiter))], lines.number, delimiter
        raise trace_error(str(self.path), "the file is empty; it must hold at least one request")

    def _csv(self, wanted: Sequence[str], rows: int) -> Iterator[Batch]:
        lines = _Lines(self.path)
        reader = csv.reader(lines, delimiter=self._delimiter)
        places = [self.columns.index(name) for name in wanted]
        width = len(self.columns)
        for _ in range(self._header_line):
            next(reader)
        while True:
            first = lines.number + 1
            try:
                block = list(islice(reader, rows))
            except csv.Error as error:
                raise trace_error(self.where(lines.number), f"not readable as CSV: {error}") from None
            if not block:
                return
            numbers: Sequence[int] = range(first, first + len(block))
            if any(len(row) != width for row in block):
                kept = [(number, row) for number, row in zip(numbers, block, strict=True) if any(row)]
                for number, row in kept:
                    if len(row) != width:
                        raise trace_error(
                            self.where(number),
                            f"read {len(row)} fields, but the header names {width}; give every "
                            "row as many (a file that was cut off ends like this: fetch it again)",
                        )
                if not kept:
                    continue
                numbers, block = [number for number, _ in kept], [row for _, row in kept]
            turned = list(zip(*block, strict=True))
            yield Batch(numbers, [turned[place] for place in places])

    def _jsonl(self, wanted: Sequence[str], rows: int) -> Iterator[Batch]:
        lines = _Lines(self.path)
        filled = ((lines.number, text) for text in lines if text.strip())
        while block := list(islice(filled, rows)):
            columns: list[list[Any]] = [[] for _ in wanted]
            for number, text in block:
                row = self._object(text, number)
                for name, column in zip(wanted, columns, strict=True):
                    if name not in row:
                        raise trace_error(
                            self.where(number),
                            f"this row has no {name!r}, only {', '.join(map(repr, row))}; every row must have it",
                        )
                    column.append(row[name])
            yield Batch([number for number, _ in block], columns)

    def _object(self, text: str, number: int) -> dict[str, Any]:
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            detail = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
            raise trace_error(
                self.where(number),
                f"read {text[:40].strip()!r}, which is not JSON ({detail}); each line must hold one JSON object",
            ) from None
        if not isinstance(row, dict):
            raise trace_error(
                self.where(number),
                f"read {text[:40].strip()!r}; each line must hold one JSON object with the columns as keys",
            )
        return row

    def _parquet(self, wanted: Sequence[str], rows: int) -> Iterator[Batch]:
        at = 1
        with _reading(self.path, lambda: at), _parquet_errors(self.path):
            from pyarrow import parquet

            for batch in parquet.ParquetFile(self.path).iter_batches(batch_size=rows, columns=list(wanted)):
                count = batch.num_rows
                if count:
                    yield Batch(range(at, at + count), [batch.column(name).to_pylist() for name in wanted])
                at += count


class _Lines:
    """The lines of a text file, decoded one by one so that an error knows its line; ``number`` is the last one read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        with _reading(self._path, lambda: self.number + 1), _open(self._path) as file:
            for raw in file:
                text = raw.decode("utf-8-sig" if self.number == 0 else "utf-8")
                self.number += 1
                yield text


@contextmanager
def _reading(path: Path, line: Callable[[], int]) -> Iterator[None]:
    """Turns what the file system, gzip, the decoder or pyarrow complain about into a `TraceError`."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise trace_error(
            f"{path}:{line()}", f"byte 0x{error.object[error.start]:02x} is not UTF-8 text; save the file as UTF-8"
        ) from None
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise trace_error(
            f"{path}:{line()}", "the gzip data ends early or is damaged here; fetch the file again"
        ) from None
    except PermissionError:
        raise trace_error(str(path), "may not be read; give yourself read permission") from None
    except TraceError:
        raise
    except OSError as error:
        raise trace_error(f"{path}:{line()}", f"cannot be read: {error.strerror or error}; fetch it again") from None


@contextmanager
def _parquet_errors(path: Path) -> Iterator[None]:
    """Turns pyarrow's complaints, whose words change between its versions, into one of ours."""
    import pyarrow

    try:
        yield
    except pyarrow.ArrowException:
        raise trace_error(str(path), "is no whole Parquet file; fetch it again, or correct its name or type") from None


def _open(path: Path) -> IO[bytes] | gzip.GzipFile:
    with path.open("rb") as file:
        zipped = file.read(2) == _GZIP
    return gzip.open(path, "rb") if zipped else path.open("rb")


def _head(path: Path) -> bytes:
    with _open(path) as file:
        return file.read(512)


def _file_type(path: Path, head: bytes) -> str:
    if head.startswith(_PARQUET):
        return "parquet"
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    if suffixes and suffixes[-1] in _TYPES:
        return _TYPES[suffixes[-1]]
    return "jsonl" if head.lstrip().startswith(b"{") else "csv"
