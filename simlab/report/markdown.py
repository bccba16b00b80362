"""A page as Markdown, for a pull request or a wiki, and a result's metrics and breakdowns as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from simlab.report.page import Page, Table
from simlab.results import Result


def page_markdown(shown: Page) -> str:
    """A page as GitHub-flavoured Markdown: headline, remarks, tables, assumptions."""
    parts = [f"**{_escaped(shown.headline)}**"]
    if shown.remarks:
        parts.append("\n".join(f"- {_escaped(sentence)}" for _, sentence in shown.remarks))
    parts += [_table(table) for table in shown.tables]
    parts.append("### Taken for granted\n\n" + "\n".join(f"- {_escaped(line)}" for line in shown.assumptions))
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> str:
    """One table, with its title as a heading."""
    rule = ["---" if i == 0 or i in table.left else "---:" for i in range(len(table.columns))]
    lines = [table.columns, rule, *table.rows]
    body = "\n".join("| " + " | ".join(_escaped(cell.strip()) for cell in line) + " |" for line in lines)
    return f"### {table.title}\n\n{body}"


def _escaped(text: str) -> str:
    """Text with Markdown's own signs made harmless; dollars too, which some viewers take for mathematics."""
    for sign in "\\`*_|<$":
        text = text.replace(sign, f"\\{sign}" if sign != "<" else "&lt;")
    return text


def metrics_csv(result: Result) -> str:
    """The metrics as CSV: metric, value, low, high, unit; full precision, empty where unknown."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["metric", "value", "low", "high", "unit"])
    for name, found in result.estimates.items():
        numbers = ("" if number is None else repr(number) for number in (found.value, found.low, found.high))
        writer.writerow([name, *numbers, found.unit])
    return out.getvalue()


def breakdown_csv(result: Result, keys: Sequence[str]) -> str:
    """Breakdowns as CSV: key, name, then every column that any of them has; full precision, empty where undefined."""
    found = [(key, row) for key in keys for row in result.rows(key)]
    columns = [name for name in dict.fromkeys(name for _, row in found for name in row) if name not in keys]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["key", "name", *columns])
    for key, row in found:
        cells = (row.get(name, "") for name in columns)
        writer.writerow([key, row[key], *("" if isinstance(c, float) and math.isnan(c) else c for c in cells)])
    return out.getvalue()
