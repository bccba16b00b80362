"""A result as one HTML file with its figures inside: nothing to fetch, fit for dark screens and for paper."""

from __future__ import annotations

from importlib.resources import files

import simlab
from simlab.report.figures import figures, svg
from simlab.report.view import tables
from simlab.results import Result


def html(result: Result) -> str:
    """The report page."""
    from jinja2 import Environment

    source = files("simlab.report").joinpath("report.html.j2").read_text(encoding="utf-8")
    page = Environment(autoescape=True, trim_blocks=False).from_string(source)
    drawn = {name: (caption, svg(figure, name)) for name, (caption, figure) in figures(result).items()}
    sentence = result.headline.removeprefix(f"{result.name}: ")
    return page.render(
        result=result,
        sentence=sentence[:1].upper() + sentence[1:],
        tables=tables(result, full=True),
        figures=drawn,
        version=simlab.__version__,
    )
