"""The same questions asked of each backend, feature, class and tenant: rows of sums, ratios and latencies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simlab.results.facts import BackendFacts
from simlab.results.interval import Draws, halves
from simlab.results.ledger import HOURS_PER_MONTH, MONEY, NOBODY, leases_billed_s
from simlab.results.measurements import HIST_METRICS, Measurements
from simlab.results.metrics import after_warmup, latency_values, resolution, window_values

KEYS = ("backend", "feature", "class", "tenant")
"""What a result can be broken down by; a tenant is named ``class/t0``."""

UNUSED = "(unused)"
"""Feature, class and tenant of money that was spent on a pool which served nobody."""

WITH_INTERVAL = ("cost_usd", "cost_per_success_usd", "slo_ratio", "ttft_s_p95", "itl_s_p95", "e2e_s_p95")
"""Columns that have a ``_low`` and a ``_high`` column beside them."""

Columns = dict[str, NDArray[np.float64]]

Floats = NDArray[np.float64]


def labels(measured: Measurements, key: str) -> list[str]:
    """The names a key takes, in order, `UNUSED` last where money can be nobody's.

    Raises:
        ValueError: for a key not in `KEYS`.
    """
    if key == "backend":
        return list(measured.backend_names)
    if key == "feature":
        return [*dict.fromkeys(measured.class_features), UNUSED]
    if key == "class":
        return [*measured.class_names, UNUSED]
    if key == "tenant":
        pairs = zip(measured.class_names, measured.tenants_of_class, strict=True)
        return [*(f"{name}/t{tenant}" for name, count in pairs for tenant in range(count)), UNUSED]
    raise ValueError(f"a result is broken down by one of {', '.join(KEYS)}, not by {key!r}")


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
        key: one of `KEYS`.
        drawn: the replications with drawn step times, each with its ledger; none: intervals hold luck alone.
        one_sided: which of these count on one side only, see `simlab.results.interval.halves`.

    Returns:
        Rows without traffic and cost are left out. Columns of `WITH_INTERVAL` have a 95 % interval beside them, NaN
        for one replication. `cost_share` is the share of the bill.
    """
    names = labels(measurements[0], key)
    replications = [_columns(m, rows, backends, key, names) for m, rows in zip(measurements, ledgers, strict=True)]
    again = [_columns(m, rows, backends, key, names) for m, rows in drawn]
    table: dict[str, Any] = {key: names}
    if key == "backend":
        table["kind"] = [facts.kind for facts in backends]
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
    measured: Measurements, ledger: NDArray[Any], backends: Sequence[BackendFacts], key: str, names: list[str]
) -> Columns:
    """The columns of one replication, float64 [len(names)] each."""
    place = _places(measured, ledger, key, len(names))

    def total(name: str) -> Floats:
        return np.bincount(place, weights=ledger[name], minlength=len(names)).astype(np.float64)

    cost = np.sum([total(name) for name in MONEY], axis=0)
    columns: Columns = {}
    if key != "backend":
        columns |= _task_columns(measured, key, names)
    errors = total("failed") + total("rate_limited") + total("timed_out") + total("rejected")
    columns |= {
        "attempts": total("attempts"),
        "error_ratio": divided(errors, total("attempts")),
        "prompt_tokens": total("prompt_tokens"),
        "cached_tokens": total("cached_tokens"),
        "output_tokens": total("output_tokens"),
        "prefix_hit_ratio": divided(total("cached_tokens"), total("prompt_tokens")),
        "cost_usd": cost,
        "cost_share": cost / cost.sum() if cost.sum() else np.zeros(len(names)),
        "cost_usd_per_month": cost * HOURS_PER_MONTH * 3600.0 / measured.horizon_s,
        **{name: total(name) for name in (*MONEY, "idle_usd")},
        "cost_per_success_usd": divided(cost, total("succeeded")),
        "usd_per_mtok": divided(cost * 1e6, total("prompt_tokens") + total("output_tokens")),
    }
    if key == "tenant":
        return columns
    columns |= _latency_columns(measured, key, names)
    return columns | (_pool_columns(measured, backends) if key == "backend" else {})


def _places(measured: Measurements, ledger: NDArray[Any], key: str, count: int) -> NDArray[np.int64]:
    """The index among the key's names of each ledger row."""
    if key == "backend":
        return ledger["backend"].astype(np.int64)
    nobody = ledger["cls"] == NOBODY
    if key == "tenant":
        first = np.concatenate(([0], np.cumsum(measured.tenants_of_class)))
        return np.where(nobody, count - 1, first[ledger["cls"]] + ledger["tenant"]).astype(np.int64)
    return np.where(nobody, count - 1, _of_class(measured, key)[ledger["cls"]]).astype(np.int64)


def _of_class(measured: Measurements, key: str) -> NDArray[np.int64]:
    """The index among the key's names (features or classes) of each class."""
    if key == "class":
        return np.arange(len(measured.class_names))
    features = list(dict.fromkeys(measured.class_features))
    return np.array([features.index(feature) for feature in measured.class_features])


def _task_columns(measured: Measurements, key: str, names: list[str]) -> Columns:
    """Tasks by outcome after warm-up, of each feature, class or tenant."""
    table = measured.tenant_tasks if key == "tenant" else measured.tasks
    place = (
        _places(measured, measured.tenant_tasks, "tenant", len(names)) if key == "tenant" else _of_class(measured, key)
    )

    def total(name: str) -> Floats:
        return np.bincount(place, weights=table[name], minlength=len(names)).astype(np.float64)

    finished = total("succeeded") + total("failed")
    columns = {
        "tasks": total("arrived"),
        "success_ratio": divided(total("succeeded"), finished),
        "slo_ratio": divided(total("good"), finished),
        "goodput_rps": total("good") / measured.measured_s,
    }
    if key == "tenant":
        columns["ttft_s_mean"] = divided(total("ttft_sum_s"), total("succeeded"))
        columns["e2e_s_mean"] = divided(total("e2e_sum_s"), total("succeeded"))
    return columns


def _latency_columns(measured: Measurements, key: str, names: list[str]) -> Columns:
    """Latency quantiles and means of each backend, feature or class."""
    select: Callable[[int], tuple[Any, ...]]
    if key == "backend":
        select = lambda i: (slice(None), slice(None), i)  # noqa: E731
    else:
        of_class = _of_class(measured, key)
        select = lambda i: (slice(None), np.flatnonzero(of_class == i))  # noqa: E731
    n = len(HIST_METRICS)
    values = []
    for index in range(len(names)):
        hist = measured.hist[select(index)].reshape(n, -1, measured.hist.shape[-1]).sum(axis=1)
        sums = measured.hist_sum[select(index)].reshape(n, -1).sum(axis=1)
        counts = measured.hist_count[select(index)].reshape(n, -1).sum(axis=1)
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
