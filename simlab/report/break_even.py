"""A break-even as a page, as CSV and as a figure."""

from __future__ import annotations

import csv
import io
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from simlab.decide.answer import BreakEven, Crossing
from simlab.report.figures import PALETTE, figure_of, inked, tidy
from simlab.report.page import Page, Table
from simlab.report.view import made_of
from simlab.results import words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_API, _OWN = PALETTE[1], PALETTE[0]


def page(found: BreakEven) -> Page:
    """The answer as a page."""
    remarks = [("warning", text) for text in found.warnings]
    remarks += [found.api_check] if found.api_check is not None else []
    tables = [table for table in (_crossings(found), _volumes(found), _steps(found)) if table.rows]
    footer = made_of(found.replications, found.seed)
    return Page(found.name, found.headline, tuple(remarks), tuple(tables), tuple(found.assumptions), footer)


def _crossings(found: BreakEven) -> Table:
    """First and durable crossing."""
    rows = []
    for label, item in (("first cheaper", found.first), ("cheaper for good", found.durable)):
        if item is not None:
            rows.append(
                (
                    label,
                    words.number(item.tokens_per_month.value, "tokens"),
                    words.interval(item.tokens_per_month) or ("no spread" if found.replications > 1 else words.UNKNOWN),
                    f"{words.digits(item.tasks_per_s)}/s",
                    str(item.replicas),
                    words.usd(item.usd_per_month),
                    f"{item.found} of {found.replications}",
                )
            )
    heads = ("", "tokens/month", "95% interval", "tasks", "replicas", "cost/month", "replications")
    return Table(f"From where {found.sides.selfhost_label} costs less", heads, tuple(rows))


def _volumes(found: BreakEven) -> Table:
    """Both sides over volume."""
    names = {"api": found.sides.api_label, "selfhost": found.sides.selfhost_label, None: "SLO missed"}
    rows = []
    for row in found.points() if found.feasible else []:
        low, high = row["replicas_low"], row["replicas_high"]
        spread = "" if low == high else f" ({low or '–'}–{high or f'>{found.max_replicas}'})"
        rows.append(
            (
                words.number(row["tokens_per_month"], "tokens"),
                f"{words.digits(row['tasks_per_s'])}/s",
                f">{found.max_replicas}" if row["replicas"] is None else f"{row['replicas']}{spread}",
                words.usd(row["selfhost_usd_per_month"]),
                words.usd(row["api_usd_per_month"]),
                names[row["cheaper"]],
            )
        )
    own, api = found.sides.selfhost_label, found.sides.api_label
    heads = ("tokens/month", "tasks", "replicas", f"{own}/month", f"{api}/month", "cheaper")
    return Table("Cost over volume, with the fewest replicas that meet the SLO", heads, tuple(rows), left=(5,))


def _steps(found: BreakEven) -> Table:
    """What each number of replicas carries and costs."""
    rows = []
    for replicas, capacity, usd in found.steps if found.feasible else []:
        full = usd / capacity.value * 1e6 if capacity.value else None
        rows.append(
            (
                str(replicas),
                words.number(capacity.value, "tokens"),
                words.interval(capacity),
                words.usd(usd),
                words.usd(full),
            )
        )
    heads = ("replicas", "carry tokens/month", "95% interval", "cost/month", "per Mtok when full")
    return Table("What replicas carry within the SLO", heads, tuple(rows))


def points_csv(found: BreakEven) -> str:
    """The rows of `BreakEven.points` as CSV; full precision, empty where unknown."""
    out = io.StringIO()
    rows = found.points()
    writer = csv.DictWriter(out, list(rows[0]) if rows else ["tokens_per_month"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: repr(v) if isinstance(v, float) else v for key, v in row.items()} for row in rows)
    return out.getvalue()


def figures(found: BreakEven) -> dict[str, tuple[str, Figure]]:
    """Every figure of the page: name → (caption, figure); none when no number of replicas meets the SLO."""
    if not found.feasible:
        return {}
    return {"break_even": ("Cost of a month over traffic volume", cost_over_volume(found))}


def cost_over_volume(found: BreakEven) -> Figure:
    """Cost a month against tokens a month: replicas in steps, the API's line, crossings; intervals are shaded."""
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = figure_of(4.6)
    axis = figure.subplots()
    tidy(axis)
    top = found.most_tokens_per_month
    least = found.first.tokens_per_month.value if found.first is not None else found.capacity[:, 0].mean()
    left = float(min(least or top, found.capacity[:, 0].mean(), top / 2.0)) / 4.0
    _stairs(axis, found, left)
    price = found.api_usd_per_mtok
    ends = np.array([left, top])
    axis.plot(ends, ends * (price.value or 0.0) / 1e6, color=_API, linewidth=2.0, label=found.sides.api_label)
    if price.low is not None and price.high is not None:
        axis.fill_between(ends, ends * price.low / 1e6, ends * price.high / 1e6, color=_API, alpha=0.25, linewidth=0)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlim(left, top)
    low, high = axis.get_ylim()
    first, durable = found.first, found.durable
    if durable is not None and first is not None and durable.tokens_per_month.value == first.tokens_per_month.value:
        _mark(axis, durable, "break-even", low)
    else:
        for crossing, text in ((first, "cheaper from"), (durable, "for good from")):
            if crossing is not None:
                _mark(axis, crossing, text, low)
    axis.set_ylim(low, high)
    axis.set_xlabel("tokens a month, prompt and output")
    axis.set_ylabel("USD a month")
    for each, unit in ((axis.xaxis, "tokens"), (axis.yaxis, "USD/task")):
        each.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
        each.set_major_formatter(partial(_tick, unit))
        each.set_minor_formatter(NullFormatter())
    axis.legend(loc="upper left", frameon=False, fontsize=9)
    return inked(figure)


def _tick(unit: str, value: float, _place: int | None = None) -> str:
    """A tick of an axis of tokens or money."""
    return words.number(value, unit, 1)


def _stairs(axis: Axes, found: BreakEven, left: float) -> None:
    """One step for each number of replicas; the spread of where it ends is shaded."""
    ends = [left]
    costs = []
    for replicas, capacity, usd in found.steps:
        end = max(capacity.value or 0.0, ends[-1])
        if capacity.low is not None and capacity.high is not None and replicas < found.max_replicas:
            low, high = max(capacity.low, left), max(capacity.high, left)
            axis.fill_between(
                [low, high], usd, found.selfhost_usd_per_month(replicas + 1), color=_OWN, alpha=0.25, linewidth=0
            )
        ends.append(end)
        costs.append(usd)
        if replicas <= 4 or replicas % 4 == 0:
            axis.annotate(
                f"{replicas}",
                (float(np.sqrt(ends[-2] * end)), usd),
                (0, 3),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color=_OWN,
            )
    axis.stairs(
        costs, ends, baseline=None, color=_OWN, linewidth=2.0, label=f"{found.sides.selfhost_label} (replicas in steps)"
    )


def _mark(axis: Axes, item: Crossing, text: str, floor: float) -> None:
    """A crossing: a point, its interval shaded, and its volume."""
    volume = item.tokens_per_month
    if volume.value is None:
        return
    if volume.low is not None and volume.high is not None:
        axis.axvspan(volume.low, volume.high, color=PALETTE[2], alpha=0.2, linewidth=0)
    axis.plot([volume.value] * 2, [floor, item.usd_per_month], color=PALETTE[2], linewidth=1.0, linestyle=(0, (4, 2)))
    axis.plot([volume.value], [item.usd_per_month], marker="o", color=PALETTE[2], markersize=7, linestyle="none")
    note = axis.annotate(
        f"{text} {words.number(volume.value, 'tokens')}",
        (volume.value, floor),
        (5, 8),
        textcoords="offset points",
        fontsize=9,
    )
    note.set_color(PALETTE[2])
