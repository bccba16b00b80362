"""Traces that give rates by client and time window instead of requests: ServeGen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simlab.workload.faults import trace_error
from simlab.workload.formats import WindowLayout
from simlab.workload.lengths import JointTable
from simlab.workload.reader import BLOCK_ROWS, TraceReader, numbers
from simlab.workload.table import Batch, Table

_PROBABILITIES = (0.10, 0.25, 0.50, 0.75, 0.90, 0.99)
_SAMPLES = 200_000


@dataclass(frozen=True, eq=False)
class Windows:
    """Rates by client and window, a row for each.

    Args:
        client: f8[n], the client's number.
        start_s: f8[n], start of the window, s.
        rate_rps: f8[n], >= 0.
        cv: f8[n], coefficient of variation of the times between arrivals of this client in this window.
        window_s: length of a window, s.
    """

    client: NDArray[np.float64]
    start_s: NDArray[np.float64]
    rate_rps: NDArray[np.float64]
    cv: NDArray[np.float64]
    window_s: float

    def total_rps(self) -> NDArray[np.float64]:
        """The rate of all clients by window, from time zero to the last window, f8[w]; windows not named have none."""
        place = np.round(self.start_s / self.window_s).astype(np.int64)
        return np.bincount(place, weights=self.rate_rps).astype(np.float64)

    def pooled_cv(self) -> float:
        """The cv a single renewal process needs for the same variance of counts over long times.

        Counts of a renewal process have variance ``cv² λ t`` over long t (D. R. Cox, "Renewal Theory", section 4.2);
        counts of independent clients add up: ``cv² = Σ λ_i cv_i² / Σ λ_i``. Over short times the superposition of many
        clients is closer to Poisson, so this overstates bursts shorter than a client's own gaps.
        """
        return math.sqrt(float((self.rate_rps * self.cv**2).sum() / self.rate_rps.sum()))


def read_windows(reader: TraceReader) -> Windows:
    """All rows of a file of windows.

    Raises:
        TraceError: a value that is no number, a negative rate or time, no rows.
    """
    layout = reader.layout
    assert isinstance(layout, WindowLayout)
    parts = []
    for batch in reader.table.batches(layout.columns, BLOCK_ROWS):
        columns = [numbers(reader.table, batch, place, name) for place, name in enumerate(layout.columns)]
        for place in (1, 2, 3):
            if (columns[place] < 0.0).any():
                i = int(np.argmax(columns[place] < 0.0))
                raise trace_error(
                    reader.table.where(batch.lines[i]),
                    f"read {batch.columns[place][i]!r}: {layout.columns[place]} is negative; it must be 0 or more",
                )
        parts.append(np.stack(columns))
    if not parts:
        raise trace_error(str(reader.path), "has column names but no windows; it must hold at least one")
    client, start_s, rate_rps, cv = np.concatenate(parts, axis=1)
    if rate_rps.sum() <= 0.0:
        raise trace_error(str(reader.path), "all rates are 0, so nothing would ever arrive")
    return Windows(client, start_s, rate_rps, cv, layout.window_s)


def lengths_path(reader: TraceReader) -> Path:
    """The file of lengths that belongs to a file of windows, by its name."""
    assert isinstance(reader.layout, WindowLayout)
    return reader.path.with_name(reader.path.name.replace(*reader.layout.lengths_from))


def read_lengths(reader: TraceReader, windows: Windows) -> tuple[JointTable, float]:
    """Pairs of lengths from the clients' quantiles, each client and period weighted by its requests.

    Within a client and period, the quantile function is log-linear between the given quantiles, its upper end chosen so
    that the mean comes out (where it cannot, all is scaled by the few percent that are left), and prompt and output are
    taken as independent: the data do not say more.

    Returns:
        The pairs, and the share of all requests that come from clients and periods with known lengths.

    Raises:
        TraceError: the file of lengths is missing or bad, or shares no client with the windows.
    """
    layout = reader.layout
    assert isinstance(layout, WindowLayout)
    path = lengths_path(reader)
    if path == reader.path or not path.is_file():
        raise trace_error(
            str(reader.path),
            f"holds rates only, and the file of lengths beside it, {path.name}, is not there; put it there (it "
            "comes with the data set)",
        )
    table = Table(path)
    names = [f"{side}_{what}" for side in (layout.prompt, layout.output)
             for what in ("mean", *(f"p{round(p * 100)}" for p in _PROBABILITIES))]  # fmt: skip
    wanted = [layout.client, layout.window_start, *names]
    missing = [name for name in wanted if name not in table.columns]
    if missing:
        raise trace_error(table.header_where, f"needs columns {', '.join(missing)}, which are not there")
    rows = [row for batch in table.batches(wanted, BLOCK_ROWS) for row in _filled(table, batch, wanted)]
    every = {key: i for i, key in enumerate(sorted({float(row[1]) for row in rows}))}
    starts = np.array(list(every))
    period = np.searchsorted(starts, windows.start_s, side="right") - 1
    weights = [
        float(windows.rate_rps[(windows.client == row[0]) & (period == every[float(row[1])])].sum()) for row in rows
    ]
    if not rows or sum(weights) <= 0.0:
        raise trace_error(str(path), "shares no client and period with the windows, so it says nothing about them")
    return _mixture(np.array(rows), np.array(weights)), sum(weights) / float(windows.rate_rps.sum())


def _filled(table: Table, batch: Batch, wanted: list[str]) -> list[NDArray[np.float64]]:
    """The rows of a batch that have lengths (periods without requests have none)."""
    keep = [i for i, row in enumerate(zip(*batch.columns, strict=True)) if all(str(value).strip() for value in row)]
    if not keep:
        return []
    kept = Batch([batch.lines[i] for i in keep], [[column[i] for i in keep] for column in batch.columns])
    return list(np.stack([numbers(table, kept, place, name) for place, name in enumerate(wanted)]).T)


def _mixture(rows: NDArray[np.float64], weights: NDArray[np.float64]) -> JointTable:
    """Samples of the mixture, evenly spread over rows by weight; the generator is seeded, so they never change."""
    generator = np.random.default_rng(0)
    edges = np.round(np.concatenate(([0.0], np.cumsum(weights) / weights.sum())) * _SAMPLES).astype(np.int64)
    prompts: list[NDArray[np.float64]] = []
    outputs: list[NDArray[np.float64]] = []
    width = 1 + len(_PROBABILITIES)
    for row, count in zip(rows, np.diff(edges), strict=True):
        for start, side in ((2, prompts), (2 + width, outputs)):
            even = (np.arange(count, dtype=np.float64) + 0.5) / max(1, int(count))
            side.append(generator.permutation(_quantile(row[start : start + width], even)))
    return JointTable.from_pairs(np.rint(np.concatenate(prompts)), np.rint(np.concatenate(outputs)))


def _quantile(facts: NDArray[np.float64], p: NDArray[np.float64]) -> NDArray[np.float64]:
    """The log-linear quantile function of (mean, p10, p25, p50, p75, p90, p99) at ``p``, scaled to the mean."""
    mean, logs = float(facts[0]), np.log(np.maximum(facts[1:], 1.0))
    grid = (np.arange(2000, dtype=np.float64) + 0.5) / 2000.0
    low = max(0.0, 2.0 * logs[0] - logs[1])  # below p10 as steep as from p25 to p10

    def table(top: float, at: NDArray[np.float64]) -> NDArray[np.float64]:
        logarithms = np.interp(at, (0.0, *_PROBABILITIES, 1.0), (low, *logs, logs[-1] + top))
        return np.asarray(np.exp(logarithms), dtype=np.float64)

    bottom, top = 0.0, math.log(20.0)
    for _ in range(40):
        middle = 0.5 * (bottom + top)
        if table(middle, grid).mean() < mean:
            bottom = middle
        else:
            top = middle
    values = table(0.5 * (bottom + top), p)
    return values * (mean / values.mean()) if len(values) and mean > 0.0 else values
