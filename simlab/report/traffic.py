"""What is in a trace, as text for the terminal and as a figure."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING

import numpy as np

from simlab.report.figures import PALETTE, figure_of, inked, tidy
from simlab.workload import WorkloadSummary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

WIDTH = 100
"""Columns of text that is not written to a terminal."""

_SPARKS = "▁▂▃▄▅▆▇█"
_UNITS = ((600.0, 1.0, "s"), (4 * 3600.0, 60.0, "min"), (4 * 86_400.0, 3600.0, "h"), (math.inf, 86_400.0, "days"))


def summary_text(summary: WorkloadSummary, *, width: int | None = None, colour: bool = False) -> str:
    """The summary as one sentence, a sketch of the rate, two tables and its source."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    out = io.StringIO()
    console = Console(
        file=out, width=width or WIDTH, force_terminal=colour, no_color=not colour, highlight=False, markup=False,
        color_system="standard" if colour else None, emoji=False,
    )  # fmt: skip
    console.print(Text(_headline(summary), style="bold"))
    if summary.rate is not None:
        console.print()
        console.print(Text(f"{_spark(summary, min(72, (width or WIDTH) - 2))}", style="cyan"))
        console.print(Text(f"rate over time, steps of {_duration(summary.rate.bin_s)}, "
                           f"0 to {_number(summary.peak_rps or 0.0)} requests/s", style="dim"))  # fmt: skip
    console.print()
    facts = Table(box=None, show_header=False, pad_edge=False)
    for name, value in _facts(summary):
        facts.add_row(Text(name, style="dim"), value)
    console.print(facts)
    console.print()
    lengths = Table(box=None, pad_edge=False, header_style="bold")
    shown = [p for p in ("0.05", "0.25", "0.5", "0.75", "0.95", "0.99") if p in summary.prompt_tokens.quantiles]
    for column in ("tokens", "mean", *(f"p{float(p) * 100:g}" for p in shown), "max"):
        lengths.add_column(column, justify="left" if column == "tokens" else "right")
    for name, row in (("prompt", summary.prompt_tokens), ("output", summary.output_tokens)):
        values = [row.mean, *(row.quantiles[p] for p in shown), float(row.maximum)]
        lengths.add_row(name, *(f"{value:,.0f}" for value in values))
    console.print(lengths)
    source = summary.source
    if source.title:
        console.print()
        parts = [part for part in (source.title, source.licence, source.url, source.cite) if part]
        console.print(Text("source: " + "; ".join(parts), style="dim"))
    for note in summary.notes:
        console.print(Text(f"- {note}", style="dim"))
    return "\n".join(line if colour else line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def summary_figure(summary: WorkloadSummary) -> Figure:
    """Rate over time, how lengths are distributed, and how prompt and output lengths go together."""
    timed = summary.rate is not None
    figure = figure_of(5.6 if timed else 3.0)
    grid = figure.add_gridspec(2 if timed else 1, 2, height_ratios=(1.0, 1.15) if timed else (1.0,))
    if timed:
        _rate(figure.add_subplot(grid[0, :]), summary)
    _distributions(figure.add_subplot(grid[-1, 0]), summary)
    _together(figure.add_subplot(grid[-1, 1]), summary)
    figure.suptitle(summary.name, x=0.01, ha="left", fontsize=11, fontweight="bold")
    return inked(figure)


def _rate(axis: Axes, summary: WorkloadSummary) -> None:
    assert summary.rate is not None
    assert summary.duration_s is not None
    rps = np.array(summary.rate.rps)
    divisor, unit = next((divisor, unit) for limit, divisor, unit in _UNITS if summary.duration_s <= limit)
    edges = np.minimum(np.arange(len(rps) + 1) * summary.rate.bin_s, summary.duration_s) / divisor
    tidy(axis)
    axis.stairs(rps, edges, fill=True, color=PALETTE[0], alpha=0.25)
    axis.stairs(rps, edges, baseline=None, color=PALETTE[0], linewidth=1.2)
    if summary.mean_rps is not None:
        axis.axhline(summary.mean_rps, color=PALETTE[5], linewidth=1.0, linestyle="--")
        axis.set_title(f"mean {_number(summary.mean_rps)}", loc="right", fontsize=9, color=PALETTE[5], pad=3)
    axis.set_title("Rate over time", loc="left", fontsize=10)
    axis.set(xlim=(0.0, edges[-1]), ylim=(0.0, None), xlabel=f"time, {unit}", ylabel="requests per second")


def _distributions(axis: Axes, summary: WorkloadSummary) -> None:
    tidy(axis)
    share = (np.arange(len(summary.pairs.prompt)) + 1.0) / len(summary.pairs.prompt)
    for name, values, colour in (("prompt", summary.pairs.prompt, PALETTE[0]),
                                 ("output", summary.pairs.output, PALETTE[1])):  # fmt: skip
        axis.step(np.sort(values), share, where="post", color=colour, linewidth=1.5, label=name)
    axis.set(xscale="log", ylim=(0.0, 1.0), xlabel="tokens", ylabel="share of requests at or below")
    axis.set_title("Lengths", loc="left", fontsize=10)
    _plain(axis.xaxis)
    axis.legend(frameon=False, fontsize=9, loc="upper left")


def _together(axis: Axes, summary: WorkloadSummary) -> None:
    tidy(axis)
    axis.scatter(summary.pairs.prompt, summary.pairs.output, s=7, color=PALETTE[2], alpha=0.45, linewidths=0)
    axis.set(xscale="log", yscale="log", xlabel="prompt tokens", ylabel="output tokens")
    axis.set_title("Lengths of the same request", loc="left", fontsize=10)
    _plain(axis.xaxis)
    _plain(axis.yaxis)


def _plain(axis: Axis) -> None:
    """Ticks at powers of ten, written as people write counts."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value < 1e6 else f"{value / 1e6:g}M"))
    axis.set_minor_formatter(NullFormatter())


def _headline(summary: WorkloadSummary) -> str:
    if summary.mean_rps is None or summary.duration_s is None:
        return f"{summary.name}: {summary.requests:,} pairs of lengths, without times"
    mean, peak = _number(summary.mean_rps), _number(summary.peak_rps or 0.0)
    length = _duration(summary.duration_s)
    return f"{summary.name}: {summary.requests:,} requests in {length}, {mean} a second on average, {peak} at the peak"


def _facts(summary: WorkloadSummary) -> list[tuple[str, str]]:
    rows = [("format", summary.format)]
    if summary.start is not None:
        rows.append(("first request", summary.start))
    if summary.gap_cv is not None:
        rows.append(("cv of times between arrivals", f"{summary.gap_cv:.2f}"))
    if summary.residual_cv is not None:
        rows.append(("… beyond the rate over time", f"{summary.residual_cv:.2f}"))
    if summary.prefix is not None:
        rows.append(("prompt tokens an unlimited prefix cache would serve", f"{summary.prefix.ideal_hit_ratio:.1%}"))
    rows.append(("requests without output", f"{summary.failed:,}"))
    return rows


def _spark(summary: WorkloadSummary, columns: int) -> str:
    """The rate as a line of blocks, each as high as the mean of its stretch."""
    assert summary.rate is not None
    rps = np.array(summary.rate.rps)
    columns = min(columns, len(rps))
    cuts = np.linspace(0.0, len(rps), columns + 1)
    means = np.diff(np.interp(cuts, np.arange(len(rps) + 1), np.concatenate(([0.0], np.cumsum(rps))))) / np.diff(cuts)
    levels = np.clip(np.ceil(means / rps.max() * len(_SPARKS)) - 1, 0, len(_SPARKS) - 1).astype(int)
    return "".join(_SPARKS[level] for level in levels)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100.0 else f"{value:.3g}"


def _duration(seconds: float) -> str:
    for limit, divisor, unit in ((120.0, 1.0, "s"), (7200.0, 60.0, "min"), (2 * 86_400.0, 3600.0, "h")):
        if seconds < limit:
            return f"{seconds / divisor:.3g} {unit}"
    return f"{seconds / 86_400.0:.3g} days"
