"""A page on the terminal: one sentence, the tables, the verdict, and what was taken for granted."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from simlab.report.page import Page, Table
from simlab.report.view import page
from simlab.results import Result

if TYPE_CHECKING:
    from rich.table import Table as RichTable

WIDTH = 110
"""Columns of a table that is not written to a terminal."""

_GAP = 2
"""Columns between two columns of a table."""

_MARKS = {"met": "✓", "missed": "✗", "undecided": "?", "warning": "!"}
_COLOURS = {"met": "green", "missed": "bold red", "undecided": "yellow", "warning": "yellow"}


def text(result: Result, *, width: int | None = None, colour: bool = False) -> str:
    """A result as text; arguments as for `page_text`."""
    return page_text(page(result), width=width, colour=colour)


def page_text(shown: Page, *, width: int | None = None, colour: bool = False) -> str:
    """A page as text.

    Args:
        shown: the page.
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
    console.print(Text(shown.headline, style="bold"))
    for kind, sentence in shown.remarks:
        console.print(Text(f"{_MARKS[kind]} {sentence}", style=_COLOURS[kind]))
    for table in shown.tables:
        for part in fitting(table, console.width):
            console.print()
            console.print(_rich(part))
    console.print()
    console.print(Text("Taken for granted", style="bold"))
    for sentence in shown.assumptions:
        for index, line in enumerate(Text(sentence).wrap(console, console.width - 2)):
            console.print(Text("- " if index == 0 else "  ").append(line))
    console.print(Text(f"\n{shown.footer}", style="dim"))
    lines = out.getvalue().splitlines()
    return "\n".join(line if colour else line.rstrip() for line in lines) + "\n"


def fitting(table: Table, width: int) -> list[Table]:
    """A table as one or more that fit a width, each beginning with the first column: a cut number is a wrong number.

    Columns of words are left to fold; a column that does not even fit alone stands alone.
    """
    widths = [max(map(len, column)) for column in zip(table.columns, *table.rows, strict=True)]
    if table.left or sum(widths) + _GAP * (len(widths) - 1) <= width:
        return [table]
    groups: list[list[int]] = []
    room = 0
    for index in range(1, len(widths)):
        if not groups or room < _GAP + widths[index]:
            groups.append([0])
            room = width - widths[0]
        groups[-1].append(index)
        room -= _GAP + widths[index]
    return [
        Table(
            table.title if part == 0 else "… continued",
            tuple(table.columns[i] for i in group),
            tuple(tuple(row[i] for i in group) for row in table.rows),
        )
        for part, group in enumerate(groups)
    ]


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
