"""Files as text, packed or not; what cannot be read is a problem."""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simlab.calibrate.read.problems import Problems

_MAGIC = b"\x1f\x8b"


def read_bytes(path: Path, problems: Problems) -> bytes | None:
    """The content of a file, unpacked; None where it cannot be read, which problems then say."""
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if data.startswith(_MAGIC) else data
    except FileNotFoundError:
        problems.add(str(path), "", "no such file or folder; give a path that exists")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        problems.add(str(path), "", f"the packed file is cut off or damaged ({error}); copy the whole file again")
    except OSError as error:
        problems.add(str(path), "", f"cannot be read: {error.strerror}; make it readable")
    return None


def is_text(path: Path) -> bool:
    """Whether a file begins as text, or as packed text."""
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except OSError:
        return True  # What is wrong with it is said when it is read.
    return start.startswith(_MAGIC) or b"\0" not in start


def read_text(path: Path, problems: Problems) -> str | None:
    """The text of a file; None where it is none, which problems then say."""
    data = read_bytes(path, problems)
    if data is None:
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"byte {error.start} is not UTF-8 text; give the file as the benchmark wrote it"
        problems.add(str(path), "", message)
        return None


def plain_name(path: Path) -> str:
    """A file's name without the endings that say how it is written.

    >>> plain_name(Path("runs/A-r0.5.iterations.csv.gz")), plain_name(Path("A-r0.5.json"))
    ('A-r0.5.iterations', 'A-r0.5')
    """
    name = path.name.removesuffix(".gz")
    for ending in (".json", ".jsonl", ".csv", ".txt", ".prom"):
        if name.endswith(ending):
            return name.removesuffix(ending)
    return name


@dataclass(frozen=True)
class Document:
    """One JSON value of a file, which may hold several (JSON lines, appended results).

    Attributes:
        data: the value.
        where: the file, with the line where there are several.
        number: which of the file, from 1; 0 where it is the only one.
    """

    data: Any
    where: str
    number: int = 0


def json_documents(text: str, path: Path, problems: Problems) -> list[Document]:
    """The JSON values of a file one after another: those before a broken one, which is a problem, are given too."""
    decoder, found, at = json.JSONDecoder(), list[tuple[Any, int]](), 0
    end = len(text)
    while True:
        while at < end and text[at] in " \t\r\n,":
            at += 1
        if at >= end:
            break
        line = text.count("\n", 0, at) + 1
        try:
            value, after = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            problems.add(f"{path}:{error.lineno}", "", broken_json(text, error))
            break
        found.append((value, line))
        at = after
    if len(found) == 1:
        return [Document(found[0][0], str(path))]
    return [Document(value, f"{path}:{line}", i + 1) for i, (value, line) in enumerate(found)]


def broken_json(text: str, error: json.JSONDecodeError) -> str:
    """Says where JSON ends too early or goes wrong, and what to do."""
    byte, size = len(text[: error.pos].encode()), len(text.encode())
    rest = text[error.pos :].strip()
    if not rest:
        place = f"the JSON ends in the middle of a value, at byte {size} (line {error.lineno}, column {error.colno})"
        return f"{place}: the file is cut off; copy it whole, or run the benchmark again"
    if error.msg.startswith("Unterminated string"):
        place = f"the JSON ends within a text that begins at byte {byte} of {size}"
        return f"{place} (line {error.lineno}, column {error.colno}): the file is cut off; copy it whole, or run again"
    place = f"not JSON at byte {byte} of {size} (line {error.lineno}, column {error.colno}): {error.msg.lower()}"
    return f"{place}; give the file as the benchmark wrote it"
