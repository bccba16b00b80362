"""The same questions asked of each backend, feature, tenant, tier, reason …: rows of sums, ratios and latencies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simlab.results.facts import BackendFacts
from simlab.results.interval import Draws, halves
from simlab.results.keys import OF_BACKEND, OF_CLASS, UNUSED, check, numbered, of_backends, of_classes, places
from simlab.results.ledger import HOURS_PER_MONTH, MONEY, NOBODY, WASTE, leases_billed_s
from simlab.results.measurements import HIST_METRICS, Measurements
from simlab.results.metrics import after_warmup, latency_values, resolution, window_values
from simlab.results.requestlog import OUTCOMES

WITH_INTERVAL = ("cost_usd", "cost_per_success_usd", "slo_ratio", "ttft_s_p95", "itl_s_p95", "e2e_s_p95")
"""Columns that have a ``_low`` and a ``_high`` column beside them."""

Columns = dict[str, NDArray[np.float64]]

Floats = NDArray[np.float64]


def divided(part: Floats, whole: Floats) -> Floats:
    """Part / whole for each element, NaN where there is no whole."""
    safe = np.where(whole == 0, 1.0, whole)
    return np.asarray(np.where(whole == 0, np.nan, part / safe))


def rows_of(
    measurements: Sequence[Measurements],
    ledgers: Sequence[NDArray[Any]],
    backends: Sequence[BackendFacts],
    key: str,
    *,
    drawn: Sequence[tuple[Measurements, NDArray[Any]]] = (),
    one_sided: NDArray[np.bool_] | None = None,
) -> list[dict[str, Any]]:
    """One row for each name of a key: means over replications, NaN where undefined.

    Args:
        measurements: the replications.
        ledgers: the ledger of each.
        backends: the backends, in order.
        key: one of `simlab.results.keys.KEYS`.
        drawn: the replications with drawn step times, each with its ledger; none: intervals hold luck alone.
        one_sided: which of these count on one side only, see `simlab.results.interval.halves`.

    Returns:
        Rows without traffic and cost are left out. Columns of `WITH_INTERVAL` have a 95 % interval beside them, NaN
        for one replication. `cost_share` is the share of the bill.

    Raises:
        ValueError: for another key.
    """
    check(key)
    columns_of = _outcome_columns if key == "outcome" else _columns
    found = [columns_of(m, rows, backends, key) for m, rows in zip(measurements, ledgers, strict=True)]
    names, replications = found[0][0], [columns for _, columns in found]
    again = [columns_of(m, rows, backends, key)[1] for m, rows in drawn]
    table: dict[str, Any] = {key: names}
    if key == "backend":
        table["kind"] = [facts.kind for facts in backends]
        table["provider"] = of_backends(backends, "provider")
        table["model"] = [facts.model for facts in backends]
    for column in replications[0]:
        values = np.array([columns[column] for columns in replications])
        known = np.maximum((~np.isnan(values)).sum(axis=0), 1)
        mean = np.where(np.isnan(values).all(axis=0), np.nan, np.nansum(values, axis=0) / known)
        table[column] = mean.tolist()
        if column in WITH_INTERVAL:
            draws = None
            if one_sided is not None and again:
                draws = Draws(np.array([columns[column] for columns in again]), one_sided)
            half = halves(values, draws, resolution=resolution(column), positive=column != "slo_ratio")
            low, high = np.maximum(mean - half.below, 0.0), mean + half.above
            table[f"{column}_low"] = low.tolist()
            table[f"{column}_high"] = (np.minimum(high, 1.0) if column == "slo_ratio" else high).tolist()
    rows = [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
    return [row for row in rows if row["attempts"] or row["cost_usd"] or row.get("tasks")]


def _columns(
    measured: Measurements, ledger: NDArray[Any], backends: Sequence[BackendFacts], key: str
) -> tuple[list[str], Columns]:
    """The names of a key, and the columns of one replication, float64 [names] each."""
    names, place = places(measured, ledger, backends, key)

    def total(name: str) -> Floats:
        return np.bincount(place, weights=ledger[name], minlength=len(names)).astype(np.float64)

    cost = np.sum([total(name) for name in MONEY], axis=0)
    columns: Columns = {}
    if key in (*OF_CLASS, "tenant"):
        columns |= _task_columns(measured, backends, key, names)
    ends = {outcome: total(outcome) for outcome in OUTCOMES[1:]}
    errors = ends["failed"] + ends["rate_limited"] + ends["timed_out"] + ends["rejected"]
    columns |= {
        "attempts": total("attempts"),
        **ends,
        "error_ratio": divided(errors, total("attempts")),
        "prompt_tokens": total("prompt_tokens"),
        "cached_tokens": total("cached_tokens"),
        "written_tokens": total("written_tokens"),
        "output_tokens": total("output_tokens"),
        "prefix_hit_ratio": divided(total("cached_tokens"), total("prompt_tokens")),
        **_cost_columns(cost, measured),
        **{name: total(name) for name in (*MONEY, "idle_usd")},
        "waste_usd": np.sum([total(f"waste_{kind}_usd") for kind in WASTE], axis=0),
        **{name: total(name) for name in ("tasks_right", "tasks_wrong", "tasks_failed")},
        "cost_per_success_usd": divided(cost, total("tasks_right")),
        "usd_per_mtok": divided(cost * 1e6, total("prompt_tokens") + total("output_tokens")),
    }
    if key in (*OF_BACKEND, *OF_CLASS):
        columns |= _latency_columns(measured, backends, key, names)
    return names, columns | (_pool_columns(measured, backends) if key == "backend" else {})


def _cost_columns(cost: Floats, measured: Measurements) -> Columns:
    return {
        "cost_usd": cost,
        "cost_share": cost / cost.sum() if cost.sum() else np.zeros(len(cost)),
        "cost_usd_per_month": cost * HOURS_PER_MONTH * 3600.0 / measured.horizon_s,
    }


def _outcome_columns(
    measured: Measurements, ledger: NDArray[Any], backends: Sequence[BackendFacts], key: str
) -> tuple[list[str], Columns]:
    """Attempts and money by how attempts ended; idle replicas are paid by all that did work, `UNUSED` if none did."""
    del backends, key
    names = [*OUTCOMES, "unfinished", UNUSED]
    nobody = ledger["cls"] == NOBODY
    work_s = np.where(ledger["work_s"] > 0, ledger["work_s"], 1.0)
    shared_usd = ledger["gpu_usd"] + ledger["operations_usd"]
    vain = {
        kind: float((ledger[f"{kind}_usd"] + shared_usd * ledger[f"{kind}_work_s"] / work_s).sum())
        for kind in ("lost", "timed_out", "cancelled", "discarded")
    }
    failed = vain["lost"] - vain["timed_out"] - vain["cancelled"] - vain["discarded"]
    usd = {"failed": max(0.0, failed), "timed_out": vain["timed_out"], "cancelled": vain["cancelled"]}
    every = {name: float(sum(ledger[name][chosen].sum() for name in MONEY)) for name, chosen in
             (("all", slice(None)), (UNUSED, nobody))}  # fmt: skip
    usd |= {"succeeded": every["all"] - every[UNUSED] - sum(usd.values()), UNUSED: every[UNUSED]}
    attempts = {outcome: float(ledger[outcome].sum()) for outcome in OUTCOMES}
    attempts["unfinished"] = float(ledger["attempts"].sum()) - sum(attempts.values())
    cost = np.array([usd.get(name, 0.0) for name in names])
    return names, {"attempts": np.array([attempts.get(name, 0.0) for name in names]), **_cost_columns(cost, measured)}


def _task_columns(measured: Measurements, backends: Sequence[BackendFacts], key: str, names: list[str]) -> Columns:
    """Tasks by outcome after warm-up, of each feature, class or tenant."""
    if key == "tenant":
        table = measured.tenant_tasks
        place = places(measured, table, backends, key)[1]
    else:
        table, place = measured.tasks, numbered(of_classes(measured, key))[1]

    def total(name: str) -> Floats:
        return np.bincount(place, weights=table[name], minlength=len(names)).astype(np.float64)

    finished = total("succeeded") + total("failed")
    columns = {
        "tasks": total("arrived"),
        "success_ratio": divided(total("succeeded"), finished),
        "slo_ratio": divided(total("good"), finished),
        "goodput_rps": total("good") / measured.measured_s,
    }
    if key in OF_CLASS and len(measured.counters):
        in_time, missed = (
            np.bincount(place, weights=measured.counters[name], minlength=len(names)).astype(np.float64)
            for name in ("in_time", "missed")
        )
        columns["deadline_ratio"] = divided(in_time, in_time + missed)
    if key == "tenant":
        columns["ttft_s_mean"] = divided(total("ttft_sum_s"), total("succeeded") + total("wrong"))
        columns["e2e_s_mean"] = divided(total("e2e_sum_s"), total("succeeded") + total("wrong"))
    return columns


def _latency_columns(measured: Measurements, backends: Sequence[BackendFacts], key: str, names: list[str]) -> Columns:
    """Latency quantiles and means of each name of a key of backends or classes."""
    axis = 2 if key in OF_BACKEND else 1
    of_each = numbered(of_backends(backends, key) if key in OF_BACKEND else of_classes(measured, key))[1]
    n = len(HIST_METRICS)
    values = []
    for index in range(len(names)):
        mine = np.flatnonzero(of_each == index)
        hist = measured.hist.take(mine, axis=axis).sum(axis=(1, 2))
        sums = measured.hist_sum.take(mine, axis=axis).reshape(n, -1).sum(axis=1)
        counts = measured.hist_count.take(mine, axis=axis).reshape(n, -1).sum(axis=1)
        values.append(latency_values(hist, sums, counts))
    return {name: np.array([row[name] for row in values]) for name in values[0]}


def _pool_columns(measured: Measurements, backends: Sequence[BackendFacts]) -> Columns:
    """What only a backend has: rate, queue, replicas, utilisation."""
    chosen, lengths = after_warmup(measured)
    length_s = float(lengths[chosen].sum())
    values = []
    for index, facts in enumerate(backends):
        windows = measured.windows[chosen][:, index : index + 1]
        mine = measured.replicas[measured.replicas["backend"] == index]
        values.append(
            {
                "arrival_rate_rps": float(windows["arrived"].sum()) / length_s,
                **window_values(windows, length_s, np.array([facts.gpus_per_replica])),
                "replicas_mean": float(windows["up_s"].sum()) / length_s,
                "gpu_hours": leases_billed_s(measured, facts, index) * facts.gpus_per_replica / 3600.0,
                "preemptions": float(mine["preemptions"].sum()),
            }
        )
    return {name: np.array([row[name] for row in values]) for name in values[0]}
