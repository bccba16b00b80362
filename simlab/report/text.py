"""A result on the terminal: one sentence, the tables, the verdict, and what was taken for granted."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from simlab.report.view import Table, tables
from simlab.results import Result

if TYPE_CHECKING:
    from rich.table import Table as RichTable

WIDTH = 110
"""Columns of a table that is not written to a terminal."""

_MARKS = {"met": "✓", "missed": "✗", "undecided": "?"}
_COLOURS = {"met": "green", "missed": "bold red", "undecided": "yellow"}


def text(result: Result, *, width: int | None = None, colour: bool = False) -> str:
    """The result as text.

    Args:
        result: what to show.
        width: columns; None: `WIDTH`.
        colour: with ANSI colours.
    """
    from rich.console import Console
    from rich.text import Text

    out = io.StringIO()
    console = Console(
        file=out,
        width=width or WIDTH,
        force_terminal=colour,
        no_color=not colour,
        color_system="standard" if colour else None,
        highlight=False,
        markup=False,
        emoji=False,
    )
    console.print(Text(result.headline, style="bold"))
    for check in result.verdict.checks:
        console.print(Text(f"{_MARKS[check.outcome]} {check.sentence}", style=_COLOURS[check.outcome]))
    for table in tables(result):
        console.print()
        console.print(_rich(table))
    console.print()
    console.print(Text("Taken for granted", style="bold"))
    for sentence in result.assumptions:
        console.print(Text(f"- {sentence}"))
    count = f"{result.replications} replication{'s' if result.replications > 1 else ''}"
    console.print(Text(f"\n{count}, seed {result.seed}; intervals are 95%.", style="dim"))
    lines = out.getvalue().splitlines()
    return "\n".join(line if colour else line.rstrip() for line in lines) + "\n"


def _rich(table: Table) -> RichTable:
    """A table for the terminal."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(
        title=Text(table.title, style="bold"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        show_edge=False,
        header_style="",
    )
    for index, column in enumerate(table.columns):
        words = index == 0 or index in table.left
        shown.add_column(column, justify="left" if words else "right", no_wrap=not words, overflow="fold")
    for row in table.rows:
        shown.add_row(*(Text(cell) for cell in row))
    return shown
