"""What commands print: a page or JSON to stdout, progress to stderr."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from simlab.report.page import Page
    from simlab.simulation import Progress as Report


class Format(StrEnum):
    """How a result is printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MD = "md"


FormatOption = Annotated[Format, typer.Option("--format", "-f", help="What to print.")]
WorkersOption = Annotated[int | None, typer.Option(min=1, help="Processes to use; default: one for each core.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
CalibrationOption = Annotated[
    Literal["sampled", "fixed"],
    typer.Option(help="Step times: each replication also with one drawn from its profile's uncertainty, or as fitted."),
]
SeedOption = Annotated[int | None, typer.Option(min=0, help="Seed of all random draws; default: the scenario's.")]


def show(text: str) -> None:
    """Prints a result to stdout.

    Raises:
        OutputError: when it cannot be written, because the disk behind it is full.
    """
    from simlab.results.files import output_error

    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise  # Whoever reads has seen enough, as with `| head`: the command line's business.
    except OSError as error:
        raise output_error(Path("standard output"), error) from error


def rendered(format_: Format, page: Callable[[bool], Page], json: Callable[[], str], csv: Callable[[], str]) -> str:
    """A result in one of the formats; the table is coloured on a terminal unless `NO_COLOR` is set.

    Args:
        format_: which.
        page: its page, in full or not.
        json: its JSON text.
        csv: its CSV text.
    """
    if format_ is Format.JSON:
        return json()
    if format_ is Format.CSV:
        return csv()
    if format_ is Format.MD:
        from simlab.report.markdown import page_markdown

        return page_markdown(page(True))
    from simlab.report.text import page_text

    if not sys.stdout.isatty():
        return page_text(page(False))
    colour = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return page_text(page(False), width=shutil.get_terminal_size().columns, colour=colour)


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Report]:
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
