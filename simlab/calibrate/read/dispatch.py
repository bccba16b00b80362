"""Which file is of which kind, known by its content; folders with all that is in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simlab.calibrate.read.bench_serve import is_bench_serve, read_bench_serve
from simlab.calibrate.read.context import Context
from simlab.calibrate.read.files import Document, is_text, json_documents, read_text
from simlab.calibrate.read.guidellm import is_guidellm, read_guidellm
from simlab.calibrate.read.hints import ServerHints
from simlab.calibrate.read.offline import is_latency, is_throughput, read_latency, read_throughput
from simlab.calibrate.read.request_log import is_request_log, read_request_log
from simlab.calibrate.read.run_table import is_run_table, read_run_table
from simlab.calibrate.read.scrape import is_scrape, read_scrape
from simlab.calibrate.read.sidecar import Sidecar, is_sidecar, sidecar_of
from simlab.calibrate.read.step_log import is_step_log, read_step_log
from simlab.calibrate.read.table import column_names, parse_csv
from simlab.calibrate.read.together import put_together
from simlab.calibrate.run import Run

ENDINGS = (".json", ".jsonl", ".csv", ".txt", ".prom")
"""Files of a folder that are looked into, with ``.gz`` after it or not."""

KINDS = (
    "results of vllm bench serve, latency and throughput, GuideLLM reports, step and request logs, tables of runs and "
    "/metrics scrapes"
)


@dataclass(frozen=True)
class Reading:
    """What was read.

    Attributes:
        runs: in the order of the paths, and of names within a folder.
        skipped: files that hold no run, each with the reason.
    """

    runs: tuple[Run, ...]
    skipped: tuple[str, ...] = ()


def read_runs(paths: Sequence[Path | str], *, server: ServerHints | None = None) -> list[Run]:
    """All runs of files and folders; `read_measurements` also says what was skipped.

    Args:
        paths: files of any kind that ``docs/measurements.md`` names, packed or not, and folders of them.
        server: what the files do not say of the server.

    Raises:
        InputError: everything wrong in all of the files.
    """
    return list(read_measurements(paths, server=server).runs)


def read_measurements(paths: Sequence[Path | str], *, server: ServerHints | None = None) -> Reading:
    """As `read_runs`, with what was skipped.

    Raises:
        InputError: everything wrong in all of the files.
    """
    context = Context(server or ServerHints())
    runs: list[Run] = []
    read: set[Path] = set()
    for path in map(Path, paths):
        files = _files(path) if path.is_dir() else [path]
        if path.is_dir() and not files:
            context.problems.add(str(path), "", f"holds no file of measurements; known are {KINDS}")
        for file in files:
            if file.resolve() in read:
                continue
            read.add(file.resolve())
            found = None if file != path and not is_text(file) else _read_file(file, context)
            if found is not None:
                runs += found
            elif file == path:
                context.problems.add(str(path), "", f"holds no measurements; known are {KINDS}")
            else:
                context.skip(str(file), "no measurements")
    context.problems.raise_if_any()
    whole = put_together(runs, context)
    if not whole and not len(context.problems):
        for where, reason in context.skipped or [(", ".join(map(str, paths)) or "no path", "nothing to read")]:
            context.problems.add(where, "", reason)
    context.problems.raise_if_any()
    return Reading(tuple(whole), tuple(f"{where}: {reason}" for where, reason in context.skipped))


def _files(folder: Path) -> list[Path]:
    """The files of a folder and those within it that may hold measurements, in their order."""
    return sorted(
        file for file in folder.rglob("*")
        if file.name.removesuffix(".gz").endswith(ENDINGS)
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
        and not is_sidecar(file)
        and file.is_file()
    )  # fmt: skip


def _read_file(path: Path, context: Context) -> list[Run] | None:
    """Runs of a file; None where it is of no kind that is known."""
    before = len(context.problems)
    text = read_text(path, context.problems)
    if text is None:
        return []
    if not text.strip():
        context.problems.add(str(path), "", "is empty; copy it again, or run the benchmark again")
        return []
    if text.lstrip()[0] in "{[":
        return _read_json(text, path, context, before)
    if is_scrape(text):
        run = read_scrape(text, path, context)
        return [] if run is None else [run]
    columns = column_names(text.split("\n", 1)[0])
    for is_kind, reader in (
        (is_step_log, read_step_log),
        (is_request_log, read_request_log),
        (is_run_table, read_run_table),
    ):
        if is_kind(columns):
            table = parse_csv(text, path, context.problems)
            return [] if table is None else reader(table, context)
    return None


def _read_json(text: str, path: Path, context: Context, before: int) -> list[Run] | None:
    """Runs of a file of JSON values; None where none of them is known."""
    documents = _flat(json_documents(text, path, context.problems))
    side: Sidecar | None = None
    runs: list[Run] = []
    known = False
    for document in documents:
        data = document.data
        kinds = (is_bench_serve(data), is_guidellm(data), is_latency(data), is_throughput(data))
        if not any(kinds):
            continue
        known = True
        side = side or sidecar_of(path, context)
        if kinds[1]:
            runs += read_guidellm(document, path, side, context)
            continue
        reader = read_bench_serve if kinds[0] else read_latency if kinds[2] else read_throughput
        run = reader(document, path, side, context)
        runs += [] if run is None else [run]
    return runs if known or len(context.problems) > before else None


def _flat(documents: Sequence[Document]) -> list[Document]:
    """Documents with lists of objects, as a sweep's ``summary.json``, taken apart."""
    flat: list[Document] = []
    for document in documents:
        items: Any = document.data
        if isinstance(items, list):
            flat += [
                Document(item, f"{document.where}[{i}]", i + 1)
                for i, item in enumerate(items)
                if isinstance(item, dict)
            ]
        else:
            flat.append(document)
    return flat
