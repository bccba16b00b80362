"""Figures of a result: traffic and latency over time, latency distribution, queue and KV cache, cost.

Each function returns a `matplotlib.figure.Figure` that notebooks show and `savefig` writes. Colours are those of Okabe
and Ito, which people with any colour vision can tell apart, in an order that stays distinct in print.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simlab.results import HIST_METRICS, Result, words
from simlab.results.measurements import histogram_cdf, pooled_hist
from simlab.results.windows import ALL, window_columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999933")
"""Blue, orange, green, purple, sky, vermilion, olive."""

WIDTH_IN = 8.0
"""Width of every figure, inches."""

COST_PARTS = {
    "api_usd": ("API tokens", "#E69F00"),
    "busy_usd": ("GPUs running", "#0072B2"),
    "idle_usd": ("GPUs idle", "#9CC9E5"),
    "operations_usd": ("operations", "#999999"),
}
"""The parts of a bill, with name and colour."""

_TIMES = ((600.0, 1.0, "s"), (4 * 3600.0, 60.0, "min"), (4 * 86_400.0, 3600.0, "h"), (np.inf, 86_400.0, "days"))


def over_time(result: Result) -> Figure:
    """Arrivals, finishes and failures per second, and TTFT and E2E quantiles, over the run's time windows."""
    columns = window_columns(result.measurements)
    mine = columns["backend"] == ALL
    edges, label = _time(result)
    figure = figure_of(6.6)
    rate, ttft, e2e = figure.subplots(3, 1, sharex=True)
    for axis in (rate, ttft, e2e):
        tidy(axis)
    for name, text, colour in (
        ("arrival_rate_rps", "arrivals", PALETTE[0]),
        ("finish_rate_rps", "finished", PALETTE[2]),
        ("failure_rate_rps", "failed attempts", PALETTE[5]),
    ):
        values = columns[name][mine]
        if name != "failure_rate_rps" or values.any():
            # What arrives is mostly what finishes: the arrivals are the broad band behind the line.
            broad = {"linewidth": 3.2, "alpha": 0.45} if text == "arrivals" else {"linewidth": 1.3}
            rate.stairs(values, edges, baseline=None, color=colour, label=text, **broad)
    rate.set_ylabel("requests per second")
    rate.set_ylim(bottom=0)
    for axis, metric, name in ((ttft, "ttft", "TTFT"), (e2e, "e2e", "E2E")):
        for index, kind in enumerate(("p50", "p95", "p99")):
            values = columns[f"{metric}_s_{kind}"][mine]
            axis.stairs(values, edges, baseline=None, color=PALETTE[(0, 1, 5)[index]], label=kind, linewidth=1.3)
        _seconds(axis, np.concatenate([columns[f"{metric}_s_{kind}"][mine] for kind in ("p50", "p99")]), name)
        _limit(axis, getattr(result.scenario.slo, metric, None), horizontal=True)
    _warmup(result, (rate, ttft, e2e))
    for axis in (rate, ttft, e2e):
        _legend(axis)
    figure.align_ylabels()
    e2e.set_xlabel(label)
    e2e.set_xlim(edges[0], edges[-1])
    return inked(figure)


def latency_distribution(result: Result) -> Figure:
    """The share of successful tasks (tokens for ITL) at or below each TTFT, ITL and E2E, by backend."""
    hist = pooled_hist(result.measurements)
    figure = figure_of(3.1)
    axes = figure.subplots(1, 3, sharey=True)
    served = [b for b in range(len(result.backends)) if hist[0, :, b].any()]
    for axis, metric, name in zip(axes, ("ttft", "itl", "e2e"), ("TTFT", "ITL", "E2E"), strict=True):
        tidy(axis)
        counts = hist[HIST_METRICS.index(metric)]
        if len(served) > 1:
            x, share = histogram_cdf(counts.sum(axis=(0, 1)))
            axis.step(x, share * 100, where="post", color="#888888", linewidth=1.1, linestyle=(0, (4, 2)), label="all")
        for place, backend in enumerate(served):
            x, share = histogram_cdf(counts[:, backend].sum(axis=0))
            name_of = result.backends[backend].name
            axis.step(x, share * 100, where="post", color=PALETTE[place % len(PALETTE)], linewidth=1.5, label=name_of)
        axis.set_xscale("log")
        axis.set_xlabel(name)
        _second_ticks(axis.xaxis)
        # The SLO limits a request's mean time per token, not each gap.
        if metric != "itl":
            _limit(axis, getattr(result.scenario.slo, metric, None), horizontal=False)
    axes[0].set_ylabel("at or below, %")
    axes[0].set_ylim(0, 101)
    axes[0].set_yticks([0, 25, 50, 75, 95, 100])
    handles, labels = axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper left", ncols=4, frameon=False)
    return inked(figure)


def load(result: Result) -> Figure:
    """Requests in batches and waiting, GPUs running and KV blocks in use of each pool, over time."""
    columns = window_columns(result.measurements)
    edges, label = _time(result)
    figure = figure_of(6.6)
    axes = figure.subplots(3, 1, sharex=True)
    for place, facts in enumerate(result.backends):
        mine = columns["backend"] == facts.name
        if facts.kind != "pool" and not columns["running"][mine].any():
            continue
        colour = PALETTE[place % len(PALETTE)]
        axes[0].stairs(columns["running"][mine], edges, baseline=None, color=colour, label=facts.name, linewidth=1.3)
        axes[1].stairs(columns["waiting"][mine], edges, baseline=None, color=colour, label=facts.name, linewidth=1.3)
        if facts.kind == "pool":
            for name, text, style in (
                ("utilization", "GPUs running", "-"),
                ("kv_utilization", "KV in use", (0, (3, 1.5))),
            ):
                values = columns[name][mine] * 100
                line = {"color": colour, "linestyle": style, "linewidth": 1.3}
                axes[2].stairs(values, edges, baseline=None, label=f"{facts.name}: {text}", **line)
    for axis, text in zip(axes, ("requests in batches", "requests waiting", "share of pool, %"), strict=True):
        tidy(axis)
        axis.set_ylabel(text)
        axis.set_ylim(bottom=0)
        _legend(axis)
    axes[2].set_ylim(0, 102)
    if not columns["waiting"].any():
        axes[1].set_ylim(0, 1)
    _warmup(result, tuple(axes))
    figure.align_ylabels()
    axes[-1].set_xlabel(label)
    axes[-1].set_xlim(edges[0], edges[-1])
    return inked(figure)


def cost(result: Result) -> Figure:
    """The bill of a month by backend, by workload class and, if there are several reasons, by why, in its parts."""
    groups = [(key, _cost_rows(result, key)) for key in ("backend", "class", "reason")]
    groups = groups[:2] if len(groups[2][1]) < 2 else groups
    bars = [len(rows) for _, rows in groups]
    figure = figure_of(1.5 + 0.36 * sum(bars))
    axes = figure.subplots(len(groups), 1, sharex=True, height_ratios=[max(1, n) for n in bars])
    largest = max((sum(row[part] for part in COST_PARTS) for _, rows in groups for row in rows), default=0.0)
    for axis, (key, rows) in zip(axes, groups, strict=True):
        tidy(axis)
        axis.grid(visible=False, axis="y")
        left = np.zeros(len(rows))
        names = [str(row[key]) for row in rows]
        for part, (text, colour) in COST_PARTS.items():
            width = np.array([row[part] for row in rows])
            if any(row[part] > 0.001 * largest for _, every in groups for row in every):
                axis.barh(names, width, left=left, color=colour, label=text, height=0.62)
            left += width
        for place, total in enumerate(left):
            axis.annotate(words.usd(total), (total, place), (4, 0), textcoords="offset points", va="center", fontsize=9)
        axis.invert_yaxis()
        axis.set_ylabel(key)
    axes[-1].set_xlim(0, largest * 1.14 or 1.0)
    axes[-1].set_xlabel("USD a month")
    axes[-1].xaxis.set_major_formatter(lambda value, _: words.usd(value).replace(".00M", "M"))
    handles, labels = axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper left", ncols=4, frameon=False)
    return inked(figure)


def _cost_rows(result: Result, key: str) -> list[dict[str, Any]]:
    """The parts of a month's bill of each name of a key, those that cost nothing left out."""
    rows = []
    for row in result.rows(key):
        # Not a number where nothing has a price.
        if not row["cost_usd"] > 0:
            continue
        to_month = row["cost_usd_per_month"] / row["cost_usd"]
        parts = {**row, "busy_usd": row["gpu_usd"] - row["idle_usd"]}
        rows.append({key: row[key], **{part: parts[part] * to_month for part in COST_PARTS}})
    return rows


def figures(result: Result) -> dict[str, tuple[str, Figure]]:
    """Every figure of a report: name → (caption, figure); none of pools where there are none."""
    found = {
        "over_time": ("Traffic and latency over time (quantiles within 5%)", over_time(result)),
        "latency": ("Latency distribution: the share of tasks, for ITL of tokens", latency_distribution(result)),
    }
    if any(facts.kind == "pool" for facts in result.backends):
        found["load"] = ("Batches, queue and KV cache of the pools over time", load(result))
    return {**found, "cost": ("Where a month's money goes", cost(result))}


def svg(figure: Figure, name: str) -> str:
    """A figure as an SVG element to put into a page, its ink in the page's own text colour.

    Args:
        figure: from one of the functions above.
        name: makes its ids differ from those of the page's other figures, and the same every time.
    """
    import matplotlib as mpl

    out = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    # Matplotlib numbers its groups alike in every figure; ids must differ within a page.
    text = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", text)
    return text.replace("<svg ", '<svg role="img" ', 1)


_INK = "#1a1b1c"
"""The colour of all text, ticks and frames; the pages' own text colour takes its place in `svg`."""


def figure_of(height_in: float) -> Figure:
    """An empty figure of the reports' width."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH_IN, height_in), layout="constrained")


def inked(figure: Figure) -> Figure:
    """The figure with all text that has no colour of its own in the one ink."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        if isinstance(text, Text) and text.get_color() == "black":
            text.set_color(_INK)
    return figure


def tidy(axis: Axes) -> None:
    """The common look: a light grid, no box, one ink."""
    axis.grid(visible=True, color="#888888", alpha=0.25, linewidth=0.6)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axis.spines[side].set_color(_INK)
    axis.tick_params(colors=_INK, which="both", labelsize=9)


def _legend(axis: Axes) -> None:
    """A legend above the axis, where it hides nothing."""
    handles, _ = axis.get_legend_handles_labels()
    if len(handles) > 1:
        axis.legend(
            loc="lower right", bbox_to_anchor=(1.0, 0.98), ncols=6, frameon=False, fontsize=9, borderaxespad=0.2
        )


def _time(result: Result) -> tuple[NDArray[np.float64], str]:
    """The edges of the time windows in a unit that suits the horizon, and the axis label."""
    first = result.measurements[0]
    edges = np.minimum(np.arange(len(first.windows) + 1) * first.window_s, first.horizon_s)
    divisor, unit = next((divisor, unit) for limit, divisor, unit in _TIMES if first.horizon_s <= limit)
    return edges / divisor, f"time since start, {unit}"


def _time_divisor(result: Result) -> float:
    """Seconds in one unit of the time axis."""
    return next(divisor for limit, divisor, _ in _TIMES if result.horizon_s <= limit)


def _warmup(result: Result, axes: tuple[Axes, ...]) -> None:
    """Shades the warm-up."""
    warmup_s = result.measurements[0].warmup_s
    if warmup_s > 0:
        for axis in axes:
            axis.axvspan(0, warmup_s / _time_divisor(result), color="#888888", alpha=0.18, linewidth=0)
        axes[0].annotate(
            "warm-up", (0, 1), (0, 3), xycoords="axes fraction", textcoords="offset points", va="bottom", fontsize=8
        )


def _seconds(axis: Axes, values: NDArray[np.float64], name: str) -> None:
    """Scales and labels an axis of times: logarithmic when they differ more than twentyfold."""
    known = values[np.isfinite(values) & (values > 0)]
    if len(known) and known.max() / known.min() > 20:
        axis.set_yscale("log")
    else:
        axis.set_ylim(bottom=0)
    axis.set_ylabel(name)
    _second_ticks(axis.yaxis)


def _second_ticks(axis: Any) -> None:
    """Ticks that read '20 ms' and '3 s'."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    def text(value: float, _: int | None = None) -> str:
        if value <= 0:
            return "0"
        factor, _before, behind = words.scale(value * (1 + 1e-9), "s")
        return f"{value * factor:g}{behind}"

    if axis.get_scale() == "log":
        low, high = axis.get_view_interval()
        steps = (1.0, 2.0, 5.0) if high / low < 30 else (1.0,)
        axis.set_major_locator(LogLocator(subs=steps, numticks=8))
        axis.set_minor_formatter(NullFormatter())
    else:
        axis.set_major_locator(MaxNLocator(nbins=4))
    axis.set_major_formatter(text)


def _limit(axis: Axes, limit: float | None, *, horizontal: bool) -> None:
    """A dotted line at the SLO's limit, if it lies within the axis or near."""
    if limit is None:
        return
    low, high = axis.get_ylim() if horizontal else axis.get_xlim()
    if not low <= limit <= high * 1.5:
        return
    draw = axis.axhline if horizontal else axis.axvline
    draw(limit, color="#D55E00", linewidth=1.1, linestyle=":")
    note = axis.annotate(
        "SLO",
        (1.0, limit) if horizontal else (limit, 1.0),
        (3, 0) if horizontal else (0, 2),
        xycoords=("axes fraction", "data") if horizontal else ("data", "axes fraction"),
        textcoords="offset points",
        ha="left" if horizontal else "center",
        va="center" if horizontal else "bottom",
        fontsize=8,
    )
    note.set_color("#D55E00")
