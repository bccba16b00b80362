"""Runs that were read together: copies left out, names that tell them apart, assumptions that others settle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from simlab.calibrate.read.context import Context
from simlab.calibrate.read.plausible import close
from simlab.calibrate.read.servers import ASSUMED_PRECISION, model_name
from simlab.calibrate.run import Run

SAME = 3
"""Metrics that must agree for two runs to be one."""

ROUNDING = 2e-3
"""Share by which a copy may differ: tables round."""


def put_together(runs: Sequence[Run], context: Context) -> list[Run]:
    """The runs as they are handed on; adds a problem where they are of several models but the user names one."""
    _check_models(context)
    return _named_apart(_settled(_without_copies(runs, context)))


def _check_models(context: Context) -> None:
    names: dict[str, list[str]] = {}
    for written, places in context.served.items():
        names.setdefault(model_name(written)[0], []).extend(places)
    if context.hints.model is None or len(names) < 2:
        return
    listed = "; ".join(f"{name}: {_some(places)}" for name, places in sorted(names.items()))
    message = f"--model names one model, but the files are of {len(names)} ({listed}); give the files of one at a time"
    first = next(iter(names.values()))[0]
    context.problems.add(first, "model_id", message)


def _some(places: Sequence[str]) -> str:
    names = [Path(place).name for place in places]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _without_copies(runs: Sequence[Run], context: Context) -> list[Run]:
    """The runs, without those of a list or table that say again what a file of its own, or a list, says."""
    kept: dict[tuple[object, ...], list[tuple[int, Run]]] = {}
    copies: set[int] = set()
    for i, run in sorted(enumerate(runs), key=lambda entry: _remove(entry[1])):
        alike = kept.setdefault(_point(run), [])
        twin = next((other for rank, other in alike if rank < _remove(run) and _same(run, other)), None)
        if twin is None:
            alike.append((_remove(run), run))
        else:
            copies.add(i)
            context.skip(run.where, f"the same run as {twin.name}")
    return [run for i, run in enumerate(runs) if i not in copies]


def _remove(run: Run) -> int:
    """How far a run is from its measurement: 0 in a file of its own, 1 in a list of results, 2 in a table."""
    if run.requests is not None or run.load is None:
        return 0
    return 2 if ".csv" in run.where else int(run.where.endswith("]"))


def _point(run: Run) -> tuple[object, ...]:
    load = run.load
    return () if load is None else (run.server.model, run.server.gpu, load.concurrency, load.rate_rps)


def _same(a: Run, b: Run) -> bool:
    common = a.measured.keys() & b.measured.keys()
    if len(common) < min(SAME, len(a.measured), len(b.measured)) or a.load is None or b.load is None:
        return False
    if a.load.requests is not None and b.load.requests is not None and a.load.requests != b.load.requests:
        return False
    return all(close(a.measured[metric], b.measured[metric], share=ROUNDING) for metric in common)


def _settled(runs: Sequence[Run]) -> list[Run]:
    """The runs with a precision that was assumed taken from others of the same server, where these agree on one."""
    stated: dict[tuple[object, ...], set[str]] = {}
    for run in runs:
        if not any(note.startswith("precision ") and note.endswith("is assumed") for note in run.notes):
            stated.setdefault(_place(run), set()).add(run.server.precision)
    settled = []
    for run in runs:
        known = stated.get(_place(run), set())
        if ASSUMED_PRECISION in run.notes and len(known) == 1:
            notes = tuple(note for note in run.notes if note != ASSUMED_PRECISION)
            run = replace(run, server=replace(run.server, precision=next(iter(known))), notes=notes)
        settled.append(run)
    return settled


def _place(run: Run) -> tuple[object, ...]:
    server = run.server
    return (server.model, server.gpu, server.tp, server.dp, server.expert_parallel)


def _named_apart(runs: Sequence[Run]) -> list[Run]:
    """The runs with different names: folders are put before those that occur twice, then numbers behind."""
    named = list(runs)
    for depth in (1, 2):
        twice = _twice(named)
        for i, run in enumerate(named):
            if run.name in twice:
                folders = Path(run.where.split(": ")[0].split(".json")[0]).parent.parts[-depth:]
                named[i] = replace(run, name="/".join([*folders[:1], run.name]))
    seen: dict[str, int] = {}
    twice = _twice(named)
    for i, run in enumerate(named):
        if run.name in twice:
            seen[run.name] = seen.get(run.name, 0) + 1
            if seen[run.name] > 1:
                named[i] = replace(run, name=f"{run.name}#{seen[run.name]}")
    return named


def _twice(runs: Sequence[Run]) -> set[str]:
    count: dict[str, int] = {}
    for run in runs:
        count[run.name] = count.get(run.name, 0) + 1
    return {name for name, times in count.items() if times > 1}
