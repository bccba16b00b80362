"""Which file is of which kind, known by its content; folders with all that is in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from simlab.calibrate.read.bench_serve import is_bench_serve, read_bench_serve
from simlab.calibrate.read.files import json_documents, read_text
from simlab.calibrate.read.hints import ServerHints
from simlab.calibrate.read.problems import Problems
from simlab.calibrate.read.request_log import is_request_log, read_request_log
from simlab.calibrate.read.run_table import is_run_table, read_run_table
from simlab.calibrate.read.sidecar import sidecar_of
from simlab.calibrate.read.step_log import is_step_log, read_step_log
from simlab.calibrate.read.table import parse_csv
from simlab.calibrate.run import Run

ENDINGS = (".json", ".jsonl", ".csv", ".json.gz", ".jsonl.gz", ".csv.gz", ".txt", ".prom")
"""Files of a folder that are looked into."""


@dataclass(frozen=True)
class Reading:
    """What was read.

    Attributes:
        runs: in the order of the paths, and of names within a folder.
        skipped: files of folders that hold no run, each with the reason.
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
    """As `read_runs`, with the files of folders that were skipped."""
    hints, problems = server or ServerHints(), Problems()
    runs: list[Run] = []
    skipped: list[str] = []
    for path in map(Path, paths):
        if path.is_dir():
            for file in sorted(entry for entry in path.rglob("*") if entry.is_file()):
                if not file.name.endswith(ENDINGS):
                    continue
                found = _read_file(file, hints, problems)
                if found is None:
                    skipped.append(f"{file}: not a result")
                else:
                    runs += found
        else:
            found = _read_file(path, hints, problems)
            if found is None:
                problems.add(str(path), "", "not a result that simlab reads; docs/measurements.md has the list")
            else:
                runs += found
    problems.raise_if_any()
    return Reading(tuple(_named_apart(runs)), tuple(skipped))


def _read_file(path: Path, hints: ServerHints, problems: Problems) -> list[Run] | None:
    """Runs of a file, None where it is of no kind that is known."""
    text = read_text(path, problems)
    if text is None:
        return []
    if text.lstrip()[:1] in {"{", "["}:
        runs = []
        documents = json_documents(text, path, problems)
        known = [document for document in documents if is_bench_serve(document.data)]
        if not known:
            return None
        side = sidecar_of(path, problems)
        for document in known:
            runs += read_bench_serve(document, path, side, hints, problems)
        return runs
    head = text.split("\n", 1)[0]
    columns = [name.strip() for name in head.split(",")]
    if is_step_log(columns) or is_request_log(columns) or is_run_table(columns):
        table = parse_csv(text, path, problems)
        if table is None:
            return []
        if is_step_log(columns):
            return read_step_log(table, hints, problems)
        if is_request_log(columns):
            return read_request_log(table, hints, problems)
        return read_run_table(table, hints, problems)
    return None


def _named_apart(runs: Sequence[Run]) -> list[Run]:
    """The runs with names that tell them apart: folders are put before a name that occurs twice."""
    count: dict[str, int] = {}
    for run in runs:
        count[run.name] = count.get(run.name, 0) + 1
    seen: dict[str, int] = {}
    named = []
    for run in runs:
        name = run.name
        if count[name] > 1:
            name = f"{Path(run.where.split(':')[0]).parent.name}/{name}"
            seen[name] = seen.get(name, 0) + 1
            name = name if seen[name] == 1 else f"{name}#{seen[name]}"
        named.append(run if name == run.name else replace(run, name=name))
    return named
