"""Where the money went: one row for each tenant, group of tasks, backend and reason, adding up to the bill.

API tokens are priced from integer meters. A pool costs every second its replicas are leased, cold start and idle
included, rounded up as the provider bills it, plus its stated operations cost. The busy share of a pool's GPU cost
(busy seconds / billed seconds) and the idle rest are both split over its rows by work done; a pool that did no work
at all has one row of its own, so that nothing is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simlab.results.facts import BackendFacts
from simlab.results.measurements import CELL_DTYPE, CELL_KEYS, REASONS, Measurements

HOURS_PER_MONTH = 730.0
"""A twelfth of a year of 8760 h."""

NOBODY = -1
"""Class and tenant of a row that belongs to no traffic: a pool that was paid for and did nothing."""

MONEY = ("api_usd", "gpu_usd", "operations_usd")
"""The columns that add up to the bill; `idle_usd` is the part of `gpu_usd` paid for replicas that did nothing."""

WASTE = ("failed", "timed_out", "cancelled", "discarded", "duplicate", "shadow")
"""Why money was spent in vain: the attempt failed, timed out, was cancelled (a hedge that lost, a client who hung up),
brought an answer that did not pass, or was one nobody needed."""

LEDGER_DTYPE = np.dtype(
    [*CELL_DTYPE.descr, *((name, "f8") for name in (*MONEY, "idle_usd", *(f"waste_{kind}_usd" for kind in WASTE)))]
)
"""`CELL_DTYPE` with `api_usd`, `gpu_usd`, `operations_usd` and parts of these behind it: `idle_usd` of `gpu_usd`, and
`waste_…_usd` of `api_usd` and of what is not idle of `gpu_usd`."""

Array = NDArray[Any]


def billed_s(start_s: Array, stop_s: Array, *, horizon_s: float, granularity_s: float, minimum_s: float) -> Array:
    """The seconds each lease is billed for: start to stop (or the horizon), in whole granules, at least the minimum."""
    used = np.maximum(np.minimum(stop_s, horizon_s) - start_s, 0.0)
    # One part in 10⁹ below: 7200.000001 s of float dust are two hours, not three.
    granules = np.ceil(used / granularity_s * (1.0 - 1e-9)) if granularity_s > 0 else used
    billed = granules * granularity_s if granularity_s > 0 else used
    return np.where(start_s < horizon_s, np.maximum(billed, minimum_s), 0.0)


def leases_billed_s(measured: Measurements, facts: BackendFacts, backend: int) -> float:
    """Replica-seconds that one pool is billed for."""
    leases = measured.replicas[measured.replicas["backend"] == backend]
    billed = billed_s(
        leases["start_s"],
        leases["stop_s"],
        horizon_s=measured.horizon_s,
        granularity_s=facts.billing_granularity_s,
        minimum_s=facts.billing_minimum_s,
    )
    return float(billed.sum())


def token_usd(rows: Array, facts: BackendFacts) -> NDArray[np.float64]:
    """What the calls and tokens of each row (`CELL_DTYPE`) cost at an API, USD; 0 where no price is known."""
    total = rows["attempts"] * facts.usd_per_call
    if facts.token_prices is None:
        return total
    prices = facts.token_prices
    for tier, usd in (("", prices.base), ("long_", prices.long)):
        names = ("prompt", "cached", "written", "output")
        prompt, cached, written, output = (_tier(rows, tier, name) for name in names)
        parts = (prompt - cached - written, cached, written, output)
        total += sum(tokens * price for tokens, price in zip(parts, usd, strict=True)) / 1e6
    return total


def _tier(rows: Array, tier: str, name: str) -> Array:
    """Tokens of one tier, an integer column; the base tier is what the long one leaves."""
    long_part = rows[f"long_{name}_tokens"]
    return np.asarray(long_part if tier else rows[f"{name}_tokens"] - long_part)


def bill(measured: Measurements, backends: Sequence[BackendFacts]) -> list[dict[str, float]]:
    """The bill of each backend, from its totals and not from ledger rows: what I4 compares the ledger with.

    Returns:
        For each backend `api_usd`, `gpu_usd`, `operations_usd` and `usd`, their sum.
    """
    bills = []
    for index, facts in enumerate(backends):
        cells = measured.cells[measured.cells["backend"] == index]
        total = np.zeros(1, CELL_DTYPE)
        for name in CELL_DTYPE.names or ():
            if name.endswith("_tokens") or name == "attempts":
                total[name] = cells[name].sum()
        leased_s = leases_billed_s(measured, facts, index)
        parts = {
            "api_usd": float(token_usd(total, facts)[0]),
            "gpu_usd": leased_s / 3600.0 * facts.gpus_per_replica * (facts.usd_per_gpu_hour or 0.0),
            "operations_usd": facts.operations_usd_per_month * measured.horizon_s / 3600.0 / HOURS_PER_MONTH,
        }
        bills.append({**parts, "usd": sum(parts.values())})
    return bills


def ledger(measured: Measurements, backends: Sequence[BackendFacts]) -> Array:
    """The ledger of one replication.

    Returns:
        `LEDGER_DTYPE`: a row for each cell, in the order of `CELL_KEYS`, and behind them for each backend the row of
        `NOBODY`.
    """
    used = len(measured.cells)
    rows = np.zeros(used + len(backends), LEDGER_DTYPE)
    cells = measured.cells[np.lexsort([measured.cells[name] for name in reversed(CELL_KEYS)])]
    for name in CELL_DTYPE.names or ():
        rows[name][:used] = cells[name]
    rows["cls"][used:] = rows["tenant"][used:] = NOBODY
    rows["backend"][used:] = np.arange(len(backends))
    for index, (facts, owed) in enumerate(zip(backends, bill(measured, backends), strict=True)):
        mine = np.flatnonzero(rows["backend"] == index)
        rows["api_usd"][mine] = token_usd(rows[mine], facts)
        share = _shares(rows["work_s"][mine], rows["attempts"][mine])
        idle = idle_share(measured, facts, index)
        rows["gpu_usd"][mine] = owed["gpu_usd"] * share
        rows["idle_usd"][mine] = owed["gpu_usd"] * idle * share
        rows["operations_usd"][mine] = owed["operations_usd"] * share
    _name_waste(rows)
    return rows


def _name_waste(rows: Array) -> None:
    """Names the part of each row that was spent in vain."""
    running_usd = rows["gpu_usd"] - rows["idle_usd"]
    left = rows["api_usd"] + running_usd
    for reason in ("duplicate", "shadow"):
        mine = rows["reason"] == REASONS.index(reason)
        rows[f"waste_{reason}_usd"][mine] = left[mine]
        left = np.where(mine, 0.0, left)
    parts = {kind: _lost(rows, kind, running_usd) for kind in ("timed_out", "cancelled", "discarded")}
    parts["failed"] = _lost(rows, "lost", running_usd) - sum(parts.values())
    for kind, usd in parts.items():
        # What an engine's sum has too much by rounding must not make more waste than there was money.
        rows[f"waste_{kind}_usd"] = np.clip(usd, 0.0, left)
        left = left - rows[f"waste_{kind}_usd"]


def _lost(rows: Array, kind: str, running_usd: Array) -> Array:
    """What was lost of each row by one kind of waste: at an API as metered, of a replica's cost by work."""
    work_s = np.where(rows["work_s"] > 0, rows["work_s"], 1.0)
    return np.asarray(rows[f"{kind}_usd"] + running_usd * rows[f"{kind}_work_s"] / work_s)


def idle_share(measured: Measurements, facts: BackendFacts, backend: int) -> float:
    """The share of a pool's billed replica-seconds in which the replica did nothing, cold start included."""
    leased_s = leases_billed_s(measured, facts, backend)
    if leased_s <= 0.0:
        return 0.0
    busy_s = float(measured.replicas["busy_s"][measured.replicas["backend"] == backend].sum())
    return 1.0 - min(1.0, busy_s / leased_s)


def _shares(work_s: Array, attempts: Array) -> Array:
    """How a backend's fixed cost is split over its rows: by work, else by attempts, else all to the last row."""
    for measure in (work_s, attempts):
        total = measure.sum()
        if total > 0:
            return np.asarray(measure / total)
    alone = np.zeros(len(work_s))
    alone[-1] = 1.0
    return alone
