"""Pages and tables of text: what every rendering of a report is made of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A titled table of text; the first column is left-aligned, the others right-aligned unless `left` says so.

    Args:
        title: what it shows.
        columns: column heads.
        rows: one text for each column.
        left: indices of further columns of words.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: tuple[int, ...] = ()


@dataclass(frozen=True)
class Page:
    """What any report says, in the order it says it; terminal, Markdown and HTML render the same one.

    Args:
        name: what it is about.
        headline: all of it in one sentence.
        remarks: sentences below it, each with its kind: ``met``, ``missed``, ``undecided`` or ``warning``.
        tables: in order.
        assumptions: what was taken for granted, in sentences.
        footer: how it was made.
    """

    name: str
    headline: str
    remarks: tuple[tuple[str, str], ...]
    tables: tuple[Table, ...]
    assumptions: tuple[str, ...]
    footer: str
