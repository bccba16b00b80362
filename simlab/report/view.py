"""What a report shows, as plain tables of text; terminal, Markdown and HTML render the same ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from simlab.report import spending
from simlab.report.page import Page, Table
from simlab.results import Estimate, Result, words
from simlab.results.metrics import COSTS
from simlab.results.parts import PARTS

LATENCY_NAMES = {"ttft": "TTFT", "itl": "ITL", "tpot": "TPOT", "e2e": "E2E"}
"""Latencies by the field's own names."""

PART_NAMES = {
    "network": "Network",
    "app": "Application",
    "retrieval": "Retrieval",
    "rerank": "Reranking",
    "gateway": "Gateway",
    "helpers": "Helpers asked",
    "limits": "Waiting at limits",
    "retries": "Failed attempts, backoff",
    "tools": "Tools",
    "queue": "Waiting at the backend",
    "model": "Model, to its first token",
    "output": "Model, the rest",
    "smoothing": "Smoothing",
}
"""Parts of a latency as a table names them."""

MOST_TENANTS = 12
"""Tenants shown in a table, the dearest first; all of them are in the JSON."""


_ROWS: tuple[tuple[str, str], ...] = (
    ("tasks", "Tasks that arrived"),
    ("success_ratio", "Succeeded"),
    ("wrong", "Answered wrongly"),
    ("slo_ratio", "Met the SLO"),
    ("deadline_ratio", "Done by their deadline"),
    ("goodput_rps", "Goodput (met the SLO)"),
    ("throughput_rps", "Throughput"),
    ("in_flight", "Unfinished at the horizon"),
    ("error_ratio", "Attempts with an error"),
    ("retries", "Attempts after the first"),
    ("cancelled", "Attempts cancelled"),
    ("cache_answer_ratio", "Tasks answered by a cache"),
    ("escalation_ratio", "Tasks that were escalated"),
    ("fallback_ratio", "Tasks that ended on a fallback"),
    ("tool_steps_per_task", "Tool steps of an agent's task"),
    ("tool_calls", "Calls of tools"),
    ("tool_failure_ratio", "  of them failed"),
    ("stopped_ratio", "Agents' tasks stopped by a cap"),
    ("prompt_tokens", "Prompt tokens"),
    ("output_tokens", "Output tokens"),
    ("output_tokens_per_s", "Output rate"),
    ("prefix_hit_ratio", "Prompt tokens from cache"),
    ("gpu_hours", "GPU hours billed"),
    ("gpu_utilization", "Time GPUs are running"),
    ("kv_utilization", "KV cache in use"),
    ("preemptions", "Preemptions"),
    ("cost_usd", "Cost of the run"),
    ("idle_usd", "  of it for idle GPUs"),
    ("retry_usd", "  of it for retries"),
    ("hedge_usd", "  of it for hedges"),
    ("escalation_usd", "  of it for escalations"),
    ("fallback_usd", "  of it for fallbacks"),
    ("shadow_usd", "  of it for shadow traffic"),
    ("duplicate_usd", "  of it for duplicates"),
    ("helper_usd", "  of it for helpers"),
    ("waste_usd", "  of it in vain"),
    ("cache_saved_usd", "Saved by caches"),
    ("cost_usd_per_month", "Cost a month"),
    ("cost_per_success_usd", "Cost per successful task"),
    ("usd_per_mtok", "Cost per million tokens"),
)

_ONLY_IF_ANY = frozenset(
    {
        *("in_flight", "wrong", "error_ratio", "retries", "cancelled", "prefix_hit_ratio", "gpu_hours", "preemptions"),
        *("cache_answer_ratio", "escalation_ratio", "fallback_ratio"),
        *("tool_steps_per_task", "tool_calls", "tool_failure_ratio", "stopped_ratio"),
        *("idle_usd", "retry_usd", "hedge_usd", "escalation_usd", "fallback_usd", "shadow_usd", "duplicate_usd"),
        *("helper_usd", "waste_usd", "cache_saved_usd"),
    }
)
"""Rows that are left out when they are zero: they do not concern this scenario."""

_LEAST = {"in_flight": (0.002, "tasks"), "idle_usd": (0.001, "cost_usd")}
"""Rows that are left out below a share of another metric."""


def estimate(value: Estimate) -> str:
    """A number with its interval: '784 ms (754–814)'."""
    ends = words.interval(value)
    text = words.number(value.value, value.unit)
    return f"{text} ({ends})" if ends else text


def summary(result: Result) -> Table:
    """What matters, each with its interval."""
    rows = []
    for name, label in _ROWS:
        found = result.estimates[name]
        least = _LEAST[name][0] * (result[_LEAST[name][1]].value or 0.0) if name in _LEAST else 0.0
        # A cost that is not known is shown as such: to leave it out reads as if there were none.
        absent = found.value is None and not (name in COSTS and result.unpriced)
        if absent or (name in _ONLY_IF_ANY and (found.value or 0.0) <= least):
            continue
        ends = words.interval(found)
        share = "" if found.calibration_share is None or not ends else f"{found.calibration_share:.0%}"
        rows.append((label, words.number(found.value, found.unit), ends, share))
    if result.drawn:
        return Table("What matters", ("", "value", "95% interval", "of it calibration"), tuple(rows))
    return Table("What matters", ("", "value", "95% interval"), tuple(row[:3] for row in rows))


def latencies(result: Result) -> Table:
    """The four latencies by quantile and mean."""
    kinds = ("p50", "p95", "p99", "mean")
    rows = tuple(
        (label, *(estimate(result.estimates[f"{name}_s_{kind}"]) for kind in kinds))
        for name, label in LATENCY_NAMES.items()
        if result.estimates[f"{name}_s_mean"].value is not None
    )
    return Table("Latency of successful tasks", ("", *kinds), rows)


def where_time_goes(result: Result) -> list[Table]:
    """A table for each class that meters it: the parts of a P50 and of a P95 task, to the first token and to the last.

    Parts below a thousandth of every column are left out, and what is left is the sum of all parts.
    """
    found = []
    rows = result.latency_parts
    heads = [(metric, quantile) for metric in ("ttft", "e2e") for quantile in ("p50", "p95")]
    for name in dict.fromkeys(row["class"] for row in rows):
        mine = {(row["metric"], row["quantile"], row["part"]): row["value"] for row in rows if row["class"] == name}
        parts = [part for part in PARTS if (*heads[0], part) in mine]
        table = {part: [mine[(*head, part)] or 0.0 for head in heads] for part in parts}
        sums = [sum(column) for column in zip(*table.values(), strict=True)]
        if not any(sums):
            continue
        texts = [
            (PART_NAMES[part], *(_part(value, whole) for value, whole in zip(values, sums, strict=True)))
            for part, values in table.items()
            if any(value > 1e-3 * whole for value, whole in zip(values, sums, strict=True))
        ]
        total = ("together", *(words.number(whole, "s") for whole in sums))
        columns = ("", *(f"{LATENCY_NAMES[metric]} {quantile}" for metric, quantile in heads))
        of = f" of {name}" if len(result.measurements[0].class_names) > 1 else ""
        found.append(Table(f"Where the time{of} goes", columns, (*texts, total)))
    return found


def _part(value: float, whole: float) -> str:
    """A part's time and its share: '120 ms 34%'; nothing where it takes none."""
    return f"{words.number(value, 's')} {value / whole:4.0%}" if value > 0.0 else words.UNKNOWN


Columns = tuple[tuple[str, str, str], ...]
"""Columns of a breakdown: (head, column of the row, unit)."""

_BACKEND_COLUMNS: Columns = (
    ("attempts", "attempts", "tasks"),
    ("errors", "error_ratio", "ratio"),
    ("TTFT p95", "ttft_s_p95", "s"),
    ("ITL p95", "itl_s_p95", "s"),
    ("E2E p95", "e2e_s_p95", "s"),
    ("replicas", "replicas_mean", "requests"),
    ("in batches", "running_mean", "requests"),
    ("waiting", "waiting_mean", "requests"),
    ("running", "gpu_utilization", "ratio"),
    ("KV used", "kv_utilization", "ratio"),
)

_MONEY_COLUMNS: Columns = (
    ("GPU hours", "gpu_hours", "GPU h"),
    ("API", "api_usd", "USD"),
    ("GPUs", "gpu_usd", "USD"),
    ("of it idle", "idle_usd", "USD"),
    ("operations", "operations_usd", "USD"),
    ("cost/month", "cost_usd_per_month", "USD"),
    ("per success", "cost_per_success_usd", "USD/task"),
    ("per Mtok", "usd_per_mtok", "USD/Mtok"),
)

_ONLY_POOLS = frozenset({"gpu_hours", "gpu_usd", "idle_usd", "operations_usd", "replicas_mean"})
"""Columns in which an API has nothing: a zero there would be a claim."""

_GROUP_COLUMNS: Columns = (
    ("tasks", "tasks", "tasks"),
    ("succeeded", "success_ratio", "ratio"),
    ("SLO met", "slo_ratio", "ratio"),
    ("in time", "deadline_ratio", "ratio"),
    ("TTFT p95", "ttft_s_p95", "s"),
    ("E2E p95", "e2e_s_p95", "s"),
    ("cost/month", "cost_usd_per_month", "USD"),
    ("share", "cost_share", "ratio"),
    ("per success", "cost_per_success_usd", "USD/task"),
    ("per Mtok", "usd_per_mtok", "USD/Mtok"),
)

_TENANT_COLUMNS = tuple(
    (label.replace("p95", "mean"), name.replace("p95", "mean"), unit) for label, name, unit in _GROUP_COLUMNS
)


def backends(result: Result) -> Table:
    """How each backend fared."""
    return _rows(result, "backend", "Backends", _BACKEND_COLUMNS, _backend_cell)


def money(result: Result) -> Table:
    """What each backend cost in the run, a month and for what it delivered."""
    unpriced = {item["backend"] for item in result.unpriced}

    def cell(row: dict[str, Any], name: str, unit: str) -> str:
        lacking = name in ("api_usd", "gpu_usd", "idle_usd") and row["backend"] in unpriced
        return words.UNKNOWN if lacking else _backend_cell(row, name, unit)

    return _rows(result, "backend", "Where the money goes", _MONEY_COLUMNS, cell)


def _backend_cell(row: dict[str, Any], name: str, unit: str) -> str:
    """One cell of a backend's row."""
    absent = _ONLY_POOLS if row["kind"] != "pool" else frozenset({"api_usd"})
    if not row["running_mean"] and row["kind"] != "pool":
        # An API that answers has requests under way: nothing means that they are not counted.
        absent |= {"running_mean", "waiting_mean"}
    return words.UNKNOWN if name in absent else words.number(row[name], unit)


def groups(result: Result, key: str) -> Table:
    """One row for each feature, class or tenant; of many tenants the dearest."""
    columns = _TENANT_COLUMNS if key == "tenant" else _GROUP_COLUMNS
    titles = {"feature": "Features", "class": "Workload classes", "tenant": "Tenants"}
    table = _rows(result, key, titles[key], columns, lambda row, name, unit: words.number(row.get(name), unit))
    if key == "tenant" and len(table.rows) > MOST_TENANTS:
        title = f"Tenants (the {MOST_TENANTS} dearest of {len(table.rows)})"
        return Table(title, table.columns, table.rows[:MOST_TENANTS])
    return table


def _rows(
    result: Result,
    key: str,
    title: str,
    columns: Columns,
    cell: Callable[[dict[str, Any], str, str], str],
) -> Table:
    """A breakdown as a table, without the columns that say nothing anywhere."""
    found = result.rows(key)
    if key == "tenant":
        found.sort(key=lambda row: -float(row["cost_usd"]))
    heads, columns_of_text = [key], [[str(row[key]) for row in found]]
    for label, name, unit in columns:
        texts = [cell(row, name, unit) for row in found]
        if any(text != words.UNKNOWN for text in texts):
            heads.append(label)
            columns_of_text.append(texts)
    return Table(title, tuple(heads), tuple(zip(*columns_of_text, strict=True)))


def profiles(result: Result, *, full: bool = False) -> Table:
    """How fast each backend was taken to be, and how well that is known; what it was measured on only when `full`."""
    heads = ("backend", "profile", "kind", "known error, date", "from")
    rows = [
        (
            item["backend"],
            item["name"],
            item["kind"],
            "; ".join(part for part in (item["error"] or "unknown", item["date"]) if part),
            item["source"] or words.UNKNOWN,
        )
        for item in result.profiles
    ]
    n = len(heads) if full else len(heads) - 1
    return Table("Speed profiles", heads[:n], tuple(row[:n] for row in rows), left=tuple(range(1, n)))


def prices(result: Result, *, full: bool = False) -> Table:
    """Each price that was used, with source and date; where exactly a source was found only when `full`."""
    rows = [
        (
            item["backend"],
            _price(item),
            item["source"] if full else item["source"].partition(" (")[0],
            item["as_of"] or words.UNKNOWN,
        )
        for item in result.prices
    ]
    rows += [(item["backend"], f"no price known for {item['what']}", "", "") for item in result.unpriced]
    return Table("Prices", ("backend", "price", "source", "as of"), tuple(rows), left=(1, 2, 3))


def _price(item: dict[str, Any]) -> str:
    """One price in words."""
    if "usd_per_call" in item:
        return f"{words.usd(item['usd_per_call'])} per call"
    if "usd_per_gpu_hour" in item:
        return f"${item['usd_per_gpu_hour']:,.2f} per {item['gpu'] or 'GPU'} hour"
    parts = {"in": item["input_usd_per_mtok"], "cached in": item["cached_input_usd_per_mtok"]}
    if parts["cached in"] == parts["in"]:
        del parts["cached in"]
    parts["out"] = item["output_usd_per_mtok"]
    texts = [f"${usd:,.2f} {what}" if round(usd, 2) == usd else f"${usd:g} {what}" for what, usd in parts.items()]
    return " · ".join(texts) + " per million tokens"


def tables(
    result: Result, *, full: bool = False, sources: bool = False, by: Sequence[str] = ()
) -> list[Table]:
    """The tables of a report in their order.

    Args:
        result: what to show.
        by: breakdowns that were asked for, behind the summary.
        full: tenants too, where there are several.
        sources: with the places in which each price was found.
    """
    shown = [summary(result), *spending.chosen(result, by), latencies(result)]
    shown += [*where_time_goes(result), backends(result), money(result)]
    for key in ("feature", "class", "tenant"):
        if key in by or (key == "tenant" and not full):
            continue
        # A feature a class is the usual case: one of the two tables says all.
        doubled = key == "feature" and len(result.rows("class")) == len(result.rows("feature"))
        if len(result.rows(key)) > 1 and not doubled:
            shown.append(groups(result, key))
    shown += [*spending.tables(result, full=full, told=by), profiles(result, full=full), prices(result, full=sources)]
    return [table for table in shown if table.rows]


def page(result: Result, *, full: bool = False, sources: bool = False, by: Sequence[str] = ()) -> Page:
    """A result as a page; `full`, `sources` and `by` as for `tables`."""
    return Page(
        result.name,
        result.headline,
        (
            *((check.outcome, check.sentence) for check in result.verdict.checks),
            *(("warning", sentence) for sentence in result.warnings),
            *spending.remarks(result),
        ),
        tuple(tables(result, full=full, sources=sources, by=by)),
        tuple(result.assumptions),
        made_of(result.replications, result.seed),
    )


def made_of(replications: int, seed: int) -> str:
    """The footer of a page, such as '5 replications, seed 0; intervals are 95%'."""
    return f"{replications} replication{'s' if replications > 1 else ''}, seed {seed}; intervals are 95%."
