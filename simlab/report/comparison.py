"""A comparison as a page, as CSV and as a figure."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import numpy as np

from simlab.decide.compare import Comparison
from simlab.decide.difference import BETTER, WORSE, Difference
from simlab.report.figures import COST_PARTS, figure_of, inked, tidy
from simlab.report.page import Page, Table
from simlab.report.view import LATENCY_NAMES, made_of, prices, profiles
from simlab.results import Result, words
from simlab.results.metrics import COSTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROWS: tuple[tuple[str, str], ...] = (
    ("cost_usd_per_month", "Cost a month"),
    ("cost_per_success_usd", "Cost per successful task"),
    ("usd_per_mtok", "Cost per million tokens"),
    ("success_ratio", "Succeeded"),
    ("slo_ratio", "Met the SLO"),
    ("goodput_rps", "Goodput (met the SLO)"),
    *(
        (f"{name}_s_{kind}", f"{label} {kind}")
        for name, label in LATENCY_NAMES.items()
        for kind in ("p50", "p95", "p99")
    ),
    ("error_ratio", "Attempts with an error"),
    ("retries", "Attempts after the first"),
    ("in_flight", "Unfinished at the horizon"),
    ("prefix_hit_ratio", "Prompt tokens from cache"),
    ("gpu_hours", "GPU hours billed"),
    ("gpu_utilization", "Time GPUs are running"),
    ("preemptions", "Preemptions"),
)
"""Metrics of the table; all of them are in JSON and CSV."""

_MARKS = {BETTER: "✓ better", WORSE: "✗ worse"}


def page(comparison: Comparison, *, full: bool = False) -> Page:
    """The comparison as a page; `full`: with every metric."""
    remarks = [("warning", text) for text in comparison.warnings]
    for label, result in comparison.results.items():
        remarks += [(check.outcome, f"{label}: {check.sentence}") for check in result.verdict.checks]
    return Page(
        " · ".join(comparison.results),
        comparison.headline,
        tuple(remarks),
        (*(_differences(comparison, label, full) for label in comparison.differences), *_sources(comparison, full)),
        tuple(comparison.assumptions),
        made_of(comparison.replications, comparison.seed),
    )


def _differences(comparison: Comparison, label: str, full: bool) -> Table:
    """One plan against the baseline."""
    found = comparison.differences[label]
    labels = dict(_ROWS)
    chosen = [*labels, *(name for name in found if name not in labels)] if full else list(labels)
    rows = []
    for name in chosen:
        item = found[name]
        # A cost that only one of the two lacks is shown as unknown.
        absent = item.change is None and name not in COSTS
        if not full and (absent or not (item.baseline or item.value)):
            continue
        rows.append(
            (
                labels.get(name, name),
                words.number(item.baseline, item.unit),
                words.number(item.value, item.unit),
                change(item),
                _relative(item),
                _MARKS.get(item.verdict, item.verdict),
            )
        )
    heads = ("", comparison.baseline, label, "difference (95%)", "relative", "verdict")
    return Table(f"{label} against {comparison.baseline}", heads, tuple(rows), left=(5,))


def change(item: Difference) -> str:
    """A difference with its interval, in one unit: '−495 ms (−510 to −480)'."""
    if item.change is None:
        return words.UNKNOWN
    text = _signed(item.change, item.unit)
    if item.low is None or item.high is None or item.low == item.high:
        return text
    factor, _, _ = words.scale(item.change, item.unit)
    # Both ends in the unit and with the decimals of the difference itself.
    size = abs(item.change * factor)
    decimals = 0 if size == 0 else max(0, 2 - int(np.floor(np.log10(size))))
    low, high = (f"{end * factor:+,.{min(decimals, 12)}f}".replace("-", "−") for end in (item.low, item.high))
    return f"{text} ({low} to {high})"


def _signed(value: float, unit: str) -> str:
    if value == 0:
        return "0"
    size = f"{words.digits(abs(value) * 100.0)} points" if unit == "ratio" else words.number(abs(value), unit)
    return f"{'+' if value > 0 else '−'}{size}"


def _relative(item: Difference) -> str:
    if item.relative is None or item.unit == "ratio":
        return ""
    share = item.relative[0]
    return "0%" if share == 0 else f"{'+' if share > 0 else '−'}{words.percent(abs(share))}"


def _sources(comparison: Comparison, full: bool) -> list[Table]:
    """Profiles and prices of all plans, each row once."""
    found = []
    results = comparison.results.values()
    for tables in (
        [profiles(result, full=full) for result in results],
        [prices(result, full=full) for result in results],
    ):
        rows = dict.fromkeys(row for table in tables for row in table.rows)
        if rows:
            found.append(Table(tables[0].title, tables[0].columns, tuple(rows), left=tables[0].left))
    return found


def metrics_csv(comparison: Comparison) -> str:
    """Every difference as CSV: plan, metric, and the fields of `Difference.as_dict`; full precision."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    fields: list[str] = []
    for label, found in comparison.differences.items():
        for name, item in found.items():
            row = item.as_dict()
            if not fields:
                fields = list(row)
                writer.writerow(["plan", "metric", *fields])
            values = (row[field] for field in fields)
            writer.writerow(
                [label, name, *("" if v is None else repr(v) if isinstance(v, float) else v for v in values)]
            )
    return out.getvalue()


def figures(comparison: Comparison) -> dict[str, tuple[str, Figure]]:
    """Every figure of the page: name → (caption, figure)."""
    return {"cost": ("What a month costs", cost(comparison))}


def cost(comparison: Comparison) -> Figure:
    """The bill of a month of each plan, in its parts."""
    figure = figure_of(1.1 + 0.42 * len(comparison.results))
    axis = figure.subplots()
    tidy(axis)
    axis.grid(visible=False, axis="y")
    parts = {label: _parts(result) for label, result in comparison.results.items()}
    left = np.zeros(len(parts))
    for part, (text, colour) in COST_PARTS.items():
        width = np.array([usd[part] for usd in parts.values()])
        if width.any():
            axis.barh(list(parts), width, left=left, color=colour, label=text, height=0.62)
        left += width
    for place, (total, result) in enumerate(zip(left, comparison.results.values(), strict=True)):
        text = words.usd(total) if result["cost_usd"].value is not None else "unknown"
        axis.annotate(text, (total, place), (4, 0), textcoords="offset points", va="center", fontsize=9)
    axis.invert_yaxis()
    axis.set_xlim(0, float(left.max()) * 1.14 or 1.0)
    axis.set_xlabel("USD a month")
    axis.xaxis.set_major_formatter(lambda value, _: words.usd(value).replace(".00M", "M"))
    handles, labels = axis.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper left", ncols=4, frameon=False)
    return inked(figure)


def _parts(result: Result) -> dict[str, float]:
    """The parts of a month's bill, USD."""
    run = {
        name: result.values[name].mean() for name in ("api_usd", "gpu_usd", "idle_usd", "operations_usd", "cost_usd")
    }
    to_month = result.values["cost_usd_per_month"].mean() / run["cost_usd"] if run["cost_usd"] > 0 else 0.0
    return {part: float({**run, "busy_usd": run["gpu_usd"] - run["idle_usd"]}[part] * to_month) for part in COST_PARTS}
