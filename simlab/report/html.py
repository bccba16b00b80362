"""A page as one HTML file with its figures inside: nothing to fetch, fit for dark screens and for paper."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING

import simlab
from simlab.report.figures import figures, svg
from simlab.report.page import Page, Table
from simlab.report.view import page
from simlab.results import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def html(result: Result) -> str:
    """The report page of a result."""
    shown = page(result, full=True, sources=True)
    drawn = figures(result)
    tables = shown.tables
    body: list[Table | str] = [
        *tables[:2], "over_time", "latency", *tables[2:-2], *(["load"] if "load" in drawn else []), "cost", *tables[-2:]
    ]  # fmt: skip
    return page_html(shown, drawn, body)


def page_html(shown: Page, figures: dict[str, tuple[str, Figure]], body: Sequence[Table | str] = ()) -> str:
    """A page as HTML.

    Args:
        shown: the page.
        figures: name → (caption, figure).
        body: tables and names of figures in their order; empty: the figures, then the page's tables.
    """
    from jinja2 import Environment

    source = files("simlab.report").joinpath("report.html.j2").read_text(encoding="utf-8")
    template = Environment(autoescape=True, trim_blocks=False).from_string(source)
    sentence = shown.headline.removeprefix(f"{shown.name}: ")
    return template.render(
        page=shown,
        sentence=re.sub(r"(?<=\d) (?=(µs|ms|s|min|h)\b)", "\N{NO-BREAK SPACE}", sentence[:1].upper() + sentence[1:]),
        body=list(body) or [*figures, *shown.tables],
        figures={name: (caption, svg(figure, name)) for name, (caption, figure) in figures.items()},
        version=simlab.__version__,
    )
