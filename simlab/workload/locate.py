"""Finding a trace or table that a scenario names, and saying where it can be had when it is not there."""

from __future__ import annotations

import os
from pathlib import Path

from simlab.workload.faults import trace_error
from simlab.workload.formats import formats

DATA_VARIABLE = "SIMLAB_DATA"
"""Environment variable with the folders of traces, separated as in PATH."""


def data_folders() -> list[Path]:
    """The folders of `$SIMLAB_DATA`, in order."""
    return [Path(part) for part in os.environ.get(DATA_VARIABLE, "").split(os.pathsep) if part]


def find_file(name: str, base_dir: Path | None, *, known_format: str = "auto") -> Path:
    """The file a scenario means by ``name``: beside the scenario, else in a folder of `$SIMLAB_DATA`.

    Args:
        name: path as written; an absolute one is taken as it is.
        base_dir: folder of the scenario; None: the current folder.
        known_format: format of the trace as written, to say where it can be had.

    Raises:
        TraceError: not found, or not a file; says where it was looked for and where to get it.
    """
    folders = [] if Path(name).is_absolute() else [base_dir or Path(), *data_folders()]
    tried = [folder / name for folder in folders] or [Path(name)]
    for path in tried:
        if path.is_file():
            return path
    for path in tried:
        if path.is_dir():
            raise trace_error(str(path), "is a folder; name the file in it")
    looked = ", ".join(str(path) for path in tried)
    unset = "" if data_folders() or Path(name).is_absolute() else f" (${DATA_VARIABLE} is not set)"
    raise trace_error(
        name,
        f"no such file; looked for {looked}{unset}; put it there or name its folder in "
        f"${DATA_VARIABLE}{_source(name, known_format)}",
    )


def _source(name: str, known_format: str) -> str:
    for known in formats().values():
        if known.url and (known.name == known_format or any(part in name for part in known.files)):
            return f"; it can be had from {known.url} ({known.licence})"
    listed = ", ".join(f"{known.name} {known.url}" for known in formats().values() if known.url)
    return f"; public traces: {listed}"
