"""`simlab run`: simulate a scenario, say what it costs and how fast it is, and whether that is good enough."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from simlab.cli.options import ScenarioArgument, SetOption, VariantOption

if TYPE_CHECKING:
    from simlab.results import Result


class Format(StrEnum):
    """How a result is printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MD = "md"


class ProgressCall(Protocol):
    """What a simulation calls while it runs: how much is done of how much, and what it is busy with."""

    def __call__(self, done: float, total: float, note: str = "") -> None:  # noqa: D102
        ...


def run_command(
    path: ScenarioArgument,
    variant: VariantOption = None,
    sets: SetOption = None,
    replications: Annotated[
        int, typer.Option("--replications", "-r", min=1, help="Independent runs; their spread gives the intervals.")
    ] = 5,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of all random draws; default: the scenario's.")] = None,
    format_: Annotated[Format, typer.Option("--format", "-f", help="What to print.")] = Format.TABLE,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write JSON, Parquet tables and an HTML report there.")
    ] = None,
    log_requests: Annotated[
        bool, typer.Option("--log-requests", help="Also write every attempt to DIR/requests.parquet.")
    ] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes to use; default: one for each core.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Simulate a scenario: latency, goodput, utilisation and cost, each with a 95% interval.

    Exit code 0: the plan holds its SLO and budget; 1: it misses one; 2: the scenario or the command is wrong.
    """
    if log_requests and out is None:
        raise typer.BadParameter("needs a folder to write to: add --out DIR", param_hint="--log-requests")
    from simlab.scenario import load

    scenario = load(path, variant=variant, sets=tuple(sets or ()))
    from simlab.report.folder import REQUEST_LOG, write_folder
    from simlab.results.files import output_folder
    from simlab.simulate import simulate

    # The folder is made first: that it cannot be written to should be known before a long run, not after it.
    with nullcontext() if out is None else output_folder(out) as staging:
        with progress_bar(quiet) as progress:
            result = simulate(
                scenario,
                replications=replications,
                seed=seed,
                workers=workers,
                progress=progress,
                log=staging / REQUEST_LOG if staging is not None and log_requests else None,
            )
        if staging is not None:
            write_folder(result, staging)
    show(result, format_)
    raise typer.Exit(result.verdict.exit_code)


def show(result: Result, format_: Format) -> None:
    """Prints a result to stdout.

    Raises:
        OutputError: when it cannot be written, because the disk behind it is full.
    """
    from simlab.results.files import output_error

    try:
        sys.stdout.write(rendered(result, format_))
        sys.stdout.flush()
    except BrokenPipeError:
        raise  # Whoever reads has seen enough, as with `| head`: the command line's business.
    except OSError as error:
        raise output_error(Path("standard output"), error) from error


def rendered(result: Result, format_: Format) -> str:
    """A result in one of the formats; the table is coloured on a terminal unless `NO_COLOR` is set."""
    if format_ is Format.JSON:
        return result.to_json()
    if format_ in (Format.CSV, Format.MD):
        from simlab.report.markdown import markdown, metrics_csv

        return metrics_csv(result) if format_ is Format.CSV else markdown(result)
    from simlab.report.text import text

    if not sys.stdout.isatty():
        return text(result)
    colour = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return text(result, width=shutil.get_terminal_size().columns, colour=colour)


@contextmanager
def progress_bar(quiet: bool) -> Iterator[ProgressCall]:
    """What to call while working: a bar on a terminal; elsewhere one line to stderr for each new note."""
    if quiet:
        yield lambda done, total, note="": None
        return
    if not sys.stderr.isatty():
        said: set[str] = set()

        def say(done: float, total: float, note: str = "") -> None:
            if note and note not in said:
                said.add(note)
                print(note, file=sys.stderr, flush=True)

        yield say
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("simulating", total=None)

        def move(done: float, total: float, note: str = "") -> None:
            bar.update(task, completed=done, total=total, description=note or "simulating")

        yield move
