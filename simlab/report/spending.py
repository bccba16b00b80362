"""Tables of where every dollar went: by any key, why, in vain; what caches saved, what limits did, what alerts said."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from simlab.report.page import Table
from simlab.results import Result, words
from simlab.results.alerts import Alert
from simlab.results.keys import KEYS, UNUSED

MOST_ROWS = 12
"""Rows of a breakdown that are shown, the dearest first; all of them are in the JSON."""

Columns = tuple[tuple[str, str, str], ...]
"""Columns of a table: (head, column of the row, unit)."""

_TITLES = {
    "class": "By workload class",
    "prompt_version": "By prompt version",
    "reason": "Why attempts were made",
    "outcome": "How attempts ended",
}

_COLUMNS: Columns = (
    ("attempts", "attempts", "attempts"),
    ("errors", "error_ratio", "ratio"),
    ("prompt tok", "prompt_tokens", "tokens"),
    ("output tok", "output_tokens", "tokens"),
    ("TTFT p95", "ttft_s_p95", "s"),
    ("E2E p95", "e2e_s_p95", "s"),
    ("tasks ended", "tasks_ended", "tasks"),
    ("cost/month", "cost_usd_per_month", "USD"),
    ("share", "cost_share", "ratio"),
    ("in vain", "waste_share", "ratio"),
    ("per success", "cost_per_success_usd", "USD/task"),
)

_ERROR_COLUMNS: Columns = (
    ("attempts", "attempts", "attempts"),
    ("errors", "error_ratio", "ratio"),
    ("failed", "failed", "attempts"),
    ("429", "rate_limited", "attempts"),
    ("timed out", "timed_out", "attempts"),
    ("rejected", "rejected", "attempts"),
    ("cancelled", "cancelled", "attempts"),
)

_CACHE_COLUMNS: Columns = (
    ("lookups", "lookups", "requests"),
    ("hits", "hit_ratio", "ratio"),
    ("wrong hits", "wrong", "requests"),
    ("prompt tok", "prompt_tokens", "tokens"),
    ("output tok", "output_tokens", "tokens"),
    ("saved/month", "saved_usd", "USD"),
)

_LIMIT_COLUMNS: Columns = (
    ("refused", "refused", "requests"),
    ("made to wait", "queued", "requests"),
    ("sent elsewhere", "degraded", "requests"),
)

_VIOLATION_COLUMNS: Columns = (("times", "count", "requests"), ("of its tasks", "per_task", "ratio"))

_WAIT_COLUMNS: Columns = (
    ("waits", "waits", "requests"),
    ("mean", "wait_s_mean", "s"),
    ("p50", "wait_s_p50", "s"),
    ("p95", "wait_s_p95", "s"),
)

_WASTE_IN_WORDS = {
    "failed": "failed after a part of the answer",
    "timed_out": "timed out",
    "cancelled": "cancelled: a hedge that lost, a client who hung up",
    "discarded": "answers that did not pass in a cascade",
    "duplicate": "requests sent again",
    "shadow": "shadow traffic",
}


def breakdown(result: Result, key: str) -> Table:
    """One row for each name of any key, the dearest first."""
    rows = sorted(result.rows(key), key=lambda row: -(row["cost_usd"] if row["cost_usd"] > 0 else 0.0))
    for row in rows:
        row["waste_share"] = row.get("waste_usd", 0.0) / row["cost_usd"] if row["cost_usd"] > 0 else math.nan
        row["tasks_ended"] = sum(row.get(f"tasks_{how}", math.nan) for how in ("right", "wrong", "failed"))
    title = _TITLES.get(key, f"By {key}")
    if len(rows) > MOST_ROWS:
        title += f" (the {MOST_ROWS} dearest of {len(rows)})"
    return _table(title, key.replace("_", " "), key, rows[:MOST_ROWS], _COLUMNS)


def several(result: Result, key: str) -> bool:
    """Whether there is more than one of what a key names."""
    return len([row for row in result.rows(key) if row[key] != UNUSED]) > 1


def waste(result: Result) -> Table:
    """Money for attempts whose answer nobody used, by kind."""
    to_month = _to_month(result)
    rows = tuple(
        (_WASTE_IN_WORDS[item["what"]], words.number(item["usd"] * to_month, "USD"), words.percent(item["share"]))
        for item in sorted(result.waste, key=lambda item: -item["usd"])
        if item["usd"] > 0
    )
    return Table("Paid in vain", ("", "cost/month", "share"), rows)


def caches(result: Result) -> Table:
    """What caches did and saved; none where there is no cache that saves money."""
    found = [dict(row) for row in result.caches]
    if all(math.isnan(row["saved_usd"]) for row in found):
        return Table("Caches", (), ())
    for row in found:
        row["saved_usd"] *= _to_month(result)
    return _table("Caches, against a run without them", "cache", "cache", found, _CACHE_COLUMNS)


def limits(result: Result) -> Table:
    """What each limit did, where any did something."""
    rows = result.limits if any(any(list(row.values())[1:]) for row in result.limits) else []
    return _table("What limits did", "limit", "limit", rows, _LIMIT_COLUMNS)


def violations(result: Result) -> Table:
    """How often a class came to a limit, a cap or a part of its context budget."""
    classes = len({row["class"] for row in result.violations})
    rows = [dict(row) for row in result.violations]
    for row in rows:
        row["at"] = f"{row['class']}: {row['meaning']}" if classes > 1 else row["meaning"]
    return _table("Limits, caps and budgets that were reached", "", "at", rows, _VIOLATION_COLUMNS)


def waits(result: Result) -> Table:
    """How long tasks waited at limits."""
    return _table("Waiting at limits", "class", "class", result.waits, _WAIT_COLUMNS)


def errors(result: Result) -> Table:
    """How attempts at each backend failed; none where they all fail in one way, which other tables tell."""
    rows = [row for row in result.rows("backend") if row["attempts"]]
    ways = [name for _, name, _ in _ERROR_COLUMNS[2:] if any(row[name] for row in rows)]
    columns = tuple(column for column in _ERROR_COLUMNS if column[1] in ("attempts", "error_ratio", *ways))
    for row in rows:
        row["at"] = f"{row['provider'] or 'unknown'} · {row['model'] or row['backend']}"
    alike = len({row["at"] for row in rows}) < len(rows)
    shown = [row for row in rows if any(row[name] for name in ways)] if len(ways) > 1 else []
    return _table("Errors by provider and model", "provider · model", "backend" if alike else "at", shown, columns)


def alerts(result: Result) -> Table:
    """What each alert rule said first about each subject."""
    rows = []
    for (rule, subject), found in _by_subject(result).items():
        first = min(found, key=lambda alert: (alert.replication, alert.detected_s))
        runs = len({alert.replication for alert in found})
        rows.append(
            (
                rule.replace("_", " "),
                subject,
                words.duration(round(first.onset_s)),
                words.duration(round(first.detected_s)),
                words.number(first.value, first.unit),
                words.number(first.limit, first.unit),
                f"{runs} of {result.replications}",
            )
        )
    heads = ("rule", "about", "onset", "detected", "value", "threshold", "runs")
    return Table("Alerts, the first about each", heads, tuple(rows))


def remarks(result: Result) -> list[tuple[str, str]]:
    """A sentence for the first alert, which counts the others."""
    found = sorted(result.alerts, key=lambda alert: (alert.replication, alert.detected_s))
    if not found:
        return []
    more = len(_by_subject(result)) - 1
    others = f"; {more} more below" if more else ""
    return [("warning", f"alert after {words.duration(round(found[0].detected_s))}: {found[0].sentence}{others}")]


def tables(result: Result, *, full: bool = False, told: Sequence[str] = ()) -> list[Table]:
    """The tables above that have something to say about this scenario; some may be empty.

    Args:
        result: what to show.
        full: by provider and model too.
        told: breakdowns that are shown already.
    """
    shown = [breakdown(result, "reason")] if several(result, "reason") and "reason" not in told else []
    shown.append(waste(result))
    keys = ("route", "tier", "prompt_version", *(("provider", "model") if full else ()))
    backends = len(result.rows("backend"))
    # Where each backend is a provider or a model of its own, its table says it all.
    same = [key for key in ("provider", "model") if len(result.rows(key)) == backends]
    shown += [breakdown(result, key) for key in keys if several(result, key) and key not in (*same, *told)]
    held = [limits(result), violations(result), waits(result)]
    return [*shown, caches(result), *held, errors(result), alerts(result)]


def chosen(result: Result, keys: Sequence[str]) -> list[Table]:
    """The breakdowns somebody asked for, in that order.

    Raises:
        ValueError: for a name that is no key.
    """
    for key in keys:
        if key not in KEYS:
            raise ValueError(f"{key!r} is not one of {', '.join(KEYS)}")
    return [breakdown(result, key) for key in dict.fromkeys(keys)]


def _by_subject(result: Result) -> dict[tuple[str, str], list[Alert]]:
    found: dict[tuple[str, str], list[Alert]] = {}
    for alert in result.alerts:
        found.setdefault((alert.rule, alert.subject), []).append(alert)
    return found


def _to_month(result: Result) -> float:
    return 730.0 * 3600.0 / result.horizon_s


def _table(title: str, head: str, key: str, rows: Sequence[dict[str, Any]], columns: Columns) -> Table:
    """Rows as a table, without the columns that say nothing anywhere."""
    say: Callable[[dict[str, Any], str, str], str] = lambda row, name, unit: words.number(row.get(name), unit)  # noqa: E731
    texts = {column[0]: [say(row, column[1], column[2]) for row in rows] for column in columns}
    told = {label: cells for label, cells in texts.items() if any(cell != words.UNKNOWN for cell in cells)}
    names = [str(row[key]) for row in rows]
    return Table(title, (head, *told), tuple(zip(names, *told.values(), strict=True)))
