"""`simlab trace`: what is in a recorded trace, and a summary of it that a scenario can use without the trace."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from simlab.workload import WorkloadSummary

app = typer.Typer(help="Look into recorded traces.", no_args_is_help=True, rich_markup_mode=None)

_FIGURES = (".png", ".svg", ".pdf")


@app.callback()
def _group() -> None:
    """Look into recorded traces."""


@app.command("summarize")
def summarize_command(
    file: Annotated[
        str,
        typer.Argument(metavar="FILE", help="CSV, JSON lines or Parquet, also gzipped; also found in $SIMLAB_DATA."),
    ],
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            help="auto (told from the columns), azure-2023, azure-2024, burstgpt, mooncake, servegen or generic.",
        ),
    ] = "auto",
    name: Annotated[str | None, typer.Option(help="Name of the summary; default: from the file's.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR|FILE.json", help="Write the summary there; into a folder with a figure beside it."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the figure there (.png, .svg or .pdf).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Say what is in a trace, and write a summary of it for scenarios (arrivals: {kind: summary, file: …}).

    Requests, rate over time, burstiness, lengths and how prompt and output go together; for traces with block ids also
    how much an unlimited prefix cache would serve. Exit code 2 when the trace cannot be read.
    """  # fmt: skip
    if plot is not None and plot.suffix.lower() not in _FIGURES:
        raise typer.BadParameter(f"read {plot.name!r}; its name must end in {', '.join(_FIGURES)}", param_hint="--plot")
    from simlab.workload import summarize
    from simlab.workload.locate import find_file

    summary = summarize(find_file(file, None, known_format=format_), format_, name=name)
    if out is not None and out.suffix.lower() == ".json":
        _write(out, summary)
    elif out is not None:
        _write(out / f"{summary.name}.json", summary)
        _draw(out / f"{summary.name}.svg", summary)
    if plot is not None:
        _draw(plot, summary)
    sys.stdout.write(summary.to_json() if as_json else _text(summary))
    sys.stdout.flush()
    if out is None:
        typer.echo("add --out DIR to keep this as a summary that scenarios can use", err=True)


def _text(summary: WorkloadSummary) -> str:
    from simlab.report.traffic import summary_text

    if not sys.stdout.isatty():
        return summary_text(summary)
    colour = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return summary_text(summary, width=shutil.get_terminal_size().columns, colour=colour)


def _write(path: Path, summary: WorkloadSummary) -> None:
    from simlab.results.files import output_folder

    with output_folder(path.parent) as staging:
        (staging / path.name).write_text(summary.to_json(), "utf-8")


def _draw(path: Path, summary: WorkloadSummary) -> None:
    import matplotlib as mpl

    from simlab.report.traffic import summary_figure
    from simlab.results.files import output_folder

    figure = summary_figure(summary)
    figure.patch.set_facecolor("white")
    plain = {"Date": None} if path.suffix.lower() == ".svg" else None  # no date, so that equal traces give equal bytes
    with output_folder(path.parent) as staging, mpl.rc_context({"svg.hashsalt": summary.name}):
        figure.savefig(staging / path.name, dpi=144, metadata=plain)
