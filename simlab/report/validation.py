"""A validation as a page, as CSV, as a figure and as a folder of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from simlab.calibrate.fitted import listed
from simlab.calibrate.judged import AT, BELOW, BETWEEN, CALIBRATED, ESTIMATED, STEP_TOTAL, Row, Summary, Validation
from simlab.calibrate.run import METRICS
from simlab.report.figures import PALETTE, figure_of, inked, tidy
from simlab.report.page import Page, Table
from simlab.results import words
from simlab.results.files import output_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = {
    "ttft_s_mean": "TTFT mean",
    "ttft_s_p50": "TTFT p50",
    "ttft_s_p99": "TTFT p99",
    "itl_s_mean": "ITL mean",
    "tpot_s_mean": "TPOT mean",
    "e2e_s_mean": "E2E mean",
    "output_tokens_per_s": "output rate",
    "step_s": "step",
    STEP_TOTAL: "all steps",
}
"""Metrics in words."""

_HEADLINE = ("ttft_s_mean", "itl_s_mean", "tpot_s_mean", "output_tokens_per_s", "step_s")
_FEW_ROWS = 60
"""Rows up to which a page that is not full shows every one; of more it shows the worst."""
_WORST = 12
_COLOURS = {CALIBRATED: PALETTE[0], BETWEEN: PALETTE[2], ESTIMATED: PALETTE[5]}


def page(found: Validation, *, full: bool = False) -> Page:
    """The validation as a page; `full`: every run and every set-up."""
    remarks = [("missed", _over(one, limit, found)) for one, limit in found.over]
    if found.limits and not found.over:
        remarks.append(("met", "every metric is within its limit"))
    remarks += [("warning", text) for text in found.warnings]
    reasons: dict[str, list[str]] = {}
    for run, reason in found.left_out:
        reasons.setdefault(reason, []).append(run)
    remarks += [("warning", f"left out: {listed(runs)}: {reason}") for reason, runs in reasons.items()]
    tables = [_summary(found, full), _knees(found), _rows(found, full)]
    return Page(
        found.name,
        headline(found),
        tuple(remarks),
        tuple(table for table in tables if table.rows),
        ASSUMPTIONS,
        _footer(found),
    )


ASSUMPTIONS = (
    "each benchmark is simulated as it was driven: its lengths, arrivals and concurrency, with vLLM's scheduler",
    "an error is |simulated / measured − 1|; of steps, each single step counts",
    "at saturation: more is sent than the profile's server can serve, so that its queue grows while the run lasts",
)


def headline(found: Validation) -> str:
    """The median errors in one sentence."""
    parts = [
        f"{NAMES[one.metric]} {words.percent(one.median_ape)}"
        for one in found.summary
        if one.group == "all" and one.metric in _HEADLINE
    ]
    if not parts:
        return f"{found.name}: nothing to compare"
    runs, setups = {(row.setup, row.run) for row in found.rows}, {row.setup for row in found.rows}
    kinds = {kind: len({(row.setup, row.run) for row in found.rows if row.kind == kind}) for kind in _COLOURS}
    told = ", ".join(f"{number} {kind}" for kind, number in kinds.items() if number)
    of = f"{len(runs)} run{'s' * (len(runs) > 1)} of {len(setups)} set-up{'s' * (len(setups) > 1)} ({told})"
    return f"Median error: {', '.join(parts)}, over {of}"


def _footer(found: Validation) -> str:
    intervals = [row for row in found.rows if row.inside is not None]
    if not intervals:
        return "No number has an interval."
    inside = sum(bool(row.inside) for row in intervals) / len(intervals)
    return f"{words.percent(inside)} of {len(intervals)} measured numbers lie within their 90% interval."


def _over(one: Summary, limit: float, found: Validation) -> str:
    """Which metric is over its limit, and the set-ups that are furthest off."""
    groups = {row.setup for row in found.rows}
    bad = [s for s in found.summary if s.metric == one.metric and s.group in groups and s.median_ape > limit]
    bad.sort(key=lambda s: -s.median_ape)
    where = ", ".join(f"{s.group} {words.percent(s.median_ape)}" for s in bad[:3]) if len(groups) > 1 else ""
    return (
        f"{NAMES[one.metric]} is off by {words.percent(one.median_ape)} (median of {one.n:,}), "
        f"allowed are {words.percent(limit)}" + (f"; most: {where}" if where else "")
    )


def _summary(found: Validation, full: bool) -> Table:
    """Median and 90th percentile by group and metric."""
    setups = list(dict.fromkeys(row.setup for row in found.rows))
    saturation = [
        name for kind in ("", *(f"{kind}, " for kind in _COLOURS)) for name in (f"{kind}{BELOW}", f"{kind}{AT}")
    ]
    groups = list(dict.fromkeys(one.group for one in found.summary))
    hidden = set() if full else {*setups, *saturation[2:]}
    metrics = [name for name in NAMES if any(one.metric == name for one in found.summary)]
    only = all(metric.startswith("step_s") for metric in metrics)
    rows = []
    told: set[tuple[str, ...]] = set()
    for group in groups:
        cells = tuple(_cell(found.of(group, metric)) for metric in metrics)
        # A group that holds all that another holds says nothing more.
        if group in hidden or (cells in told and not full):
            continue
        told.add(cells)
        most = max(one.n for one in found.summary if one.group == group and (one.metric != "step_s" or only))
        rows.append((group, f"{most:,}", *cells))
    heads = ("", "n", *(NAMES[metric] for metric in metrics))
    return Table("Error by group: median (90th percentile)", heads, tuple(rows))


def _cell(one: Summary | None) -> str:
    return "" if one is None else f"{words.percent(one.median_ape)} ({100 * one.p90_ape:.0f}%)"


def _knees(found: Validation) -> Table:
    """Where ladders of rates are full."""
    rows = tuple(
        (
            f"{one.setup} {one.workload}",
            words.number(one.measured_rps, "1/s"),
            words.number(one.simulated_rps, "1/s"),
            words.percent(one.ape),
            one.kind,
        )
        for one in found.knees
    )
    return Table(
        "The knee: requests served when more are sent", ("", "measured", "simulated", "error", "kind"), rows, (4,)
    )


def _rows(found: Validation, full: bool) -> Table:
    """Every number, or the worst ones of many."""
    chosen: Sequence[Row] = found.rows
    title = "Runs"
    if not full and len(chosen) > _FEW_ROWS:
        chosen = sorted(chosen, key=lambda row: -row.ape)[:_WORST]
        title = f"The {len(chosen)} largest errors of {len(found.rows):,} (all of them: --format csv)"
    several = len({row.setup for row in found.rows}) > 1
    # On a terminal a line has room for the set-up or for what is said of the single number.
    heads = ["run", "metric", "measured", "simulated", "error"]
    heads = ["set-up", *heads] if several else heads
    heads += ["90% interval", "kind"] if full or not several else []
    rows = []
    for row in chosen:
        unit = "tokens/s" if row.metric == "output_tokens_per_s" else "s"
        cells = {
            "set-up": row.setup,
            "run": row.run,
            "metric": NAMES[row.metric] + (f" {row.point}" if row.metric == "step_s" else ""),
            "measured": words.number(row.measured, unit),
            "simulated": words.number(row.simulated, unit),
            "error": words.percent(row.ape),
            "90% interval": "",
            "kind": row.kind,
        }
        if row.low is not None and row.high is not None:
            cells["90% interval"] = f"{words.number(row.low, unit)}–{words.number(row.high, unit)}"
        rows.append(tuple(cells[head] for head in heads))
    left = tuple(i for i, head in enumerate(heads) if head in ("run", "metric", "kind") and i)
    return Table(title, tuple(heads), tuple(rows), left)


def rows_csv(found: Validation) -> str:
    """Every row as CSV, in full precision; empty where unknown."""
    out = io.StringIO()
    names = ("run", "setup", "metric", "measured", "simulated", "ape", "kind", "point", "profile", "low", "high",
             "inside", "saturated", "step_median_ape", "steps")  # fmt: skip
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.as_dict() for row in found.rows)
    return out.getvalue()


def figure(found: Validation) -> Figure:
    """Measured against simulated on logarithmic axes, one panel a metric, with the band of 10% around equality."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    metrics = [metric for metric in METRICS if any(row.metric == metric for row in found.rows)]
    columns = min(3, max(1, len(metrics)))
    lines = -(-len(metrics) // columns) or 1
    drawn = figure_of(0.5 + 2.7 * lines)
    axes = np.atleast_1d(drawn.subplots(lines, columns, squeeze=False)).ravel()
    for axis in axes[len(metrics) :]:
        axis.set_visible(False)
    for axis, metric in zip(axes, metrics, strict=False):
        tidy(axis)
        rows = [row for row in found.rows if row.metric == metric and row.measured > 0 and row.simulated > 0]
        unit = "tokens/s" if metric == "output_tokens_per_s" else "s"
        every = [number for row in rows for number in (row.measured, row.simulated)]
        ends = np.array([min(every) / 1.25, max(every) * 1.25])
        axis.fill_between(ends, ends * 0.9, ends * 1.1, color="#888888", alpha=0.25, linewidth=0)
        axis.plot(ends, ends, color="#888888", linewidth=0.8)
        for kind, colour in _COLOURS.items():
            mine = [row for row in rows if row.kind == kind]
            x, y = [row.measured for row in mine], [row.simulated for row in mine]
            axis.plot(
                x, y, "o", color=colour, markersize=3.2, alpha=0.7, markeredgewidth=0, label=kind if mine else None
            )
        axis.set(xscale="log", yscale="log", xlim=ends, ylim=ends, aspect="equal")
        one = found.of("all", metric)
        axis.set_title(f"{NAMES[metric]}: {words.percent(one.median_ape if one else None)}", fontsize=9.5)
        for side in (axis.xaxis, axis.yaxis):
            subs = (1.0, 2.0, 5.0) if ends[1] < 30 * ends[0] else (1.0,)
            narrow = ends[1] < 5 * ends[0]
            side.set_major_locator(MaxNLocator(3) if narrow else LogLocator(subs=subs, numticks=6))
            side.set_major_formatter(lambda value, _, unit=unit: _tick(value, unit))
            side.set_minor_formatter(NullFormatter())
        axis.set_xlabel("measured")
        axis.set_ylabel("simulated")
    handles = {label: line for axis in axes for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    handles = {label: handle for label, handle in handles.items() if not label.startswith("_")}
    if handles:
        drawn.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=3, frameon=False, fontsize=9)
    return inked(drawn)


def _tick(value: float, unit: str) -> str:
    factor, _, behind = words.scale(value * (1 + 1e-9), unit)
    return f"{value * factor:,.6g}{behind.removesuffix(' tok/s')}"


def write_figure(found: Validation, path: Path) -> None:
    """Draws the figure into a file, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    with output_folder(path.parent) as staging:
        _save(figure(found), staging / path.name)


def write_folder(found: Validation, folder: Path) -> None:
    """Writes ``validation.json``, ``rows.csv``, ``validation.md`` and the figure ``validation.png``.

    Raises:
        OSError: when that fails.
    """
    from simlab.report.markdown import page_markdown

    (folder / "validation.json").write_text(found.to_json(), encoding="utf-8")
    (folder / "rows.csv").write_text(rows_csv(found), encoding="utf-8")
    (folder / "validation.md").write_text(page_markdown(page(found, full=True)), encoding="utf-8")
    _save(figure(found), folder / "validation.png")


def _save(drawn: Figure, path: Path) -> None:
    import matplotlib as mpl

    drawn.patch.set_facecolor("white")
    plain = {"Date": None} if path.suffix.lower() == ".svg" else None
    with mpl.rc_context({"svg.hashsalt": "validation"}):
        drawn.savefig(path, dpi=144, metadata=plain)
