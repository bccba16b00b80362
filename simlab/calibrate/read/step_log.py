"""Logs of scheduler steps: what was in each batch, and how long it took."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from simlab.calibrate.read.configs import config_servers
from simlab.calibrate.read.context import Context
from simlab.calibrate.read.files import plain_name
from simlab.calibrate.read.row_servers import Made
from simlab.calibrate.read.table import Floats, Table, first_present
from simlab.calibrate.run import Run, Steps

STEP_COLUMNS = {
    "seconds": ("latency_ms", "elapsed_ms", "step_ms", "step_s", "latency_s", "elapsed_s"),
    "prefill_tokens": ("prefill_tokens", "context_tokens"),
    "prefill_requests": ("prefill_requests", "context_requests"),
    "prefill_start_tokens": ("prefill_kv_tokens", "prefill_start_tokens"),
    "decode_requests": ("decode_requests", "generation_requests"),
    "decode_context_tokens": ("decode_kv_tokens", "decode_context_tokens"),
}
"""Columns of a step log by field of `Steps`."""

BEFORE_STEP = "decode_kv_tokens"
"""The column of contexts as they are in the cache, before the step has added its own token to each."""

LONGEST_STEP_S = 10.0
"""A median step above this is taken for a mistake of units."""

FASTEST_STEP_S = 2e-5
"""A median step below this is taken for a mistake of units."""


def is_step_log(columns: Sequence[str]) -> bool:
    """Whether a table with these columns is a log of steps."""
    there = set(columns)
    return all(there & set(STEP_COLUMNS[what]) for what in ("seconds", "prefill_tokens", "decode_requests"))


def read_step_log(table: Table, context: Context) -> list[Run]:
    """The runs of a step log, one for each of its configurations."""
    if len(table) == 0:
        context.problems.add(str(table.path), "", "has column names but no steps; it must hold at least one")
        return []
    servers = config_servers(table, context)
    steps_of = _steps(table, context)
    if steps_of is None or not servers:
        return []
    if "" in servers:
        return [_run(plain_name(table.path), table, np.arange(len(table)), servers[""], steps_of)]
    groups = table.frame.reset_index(drop=True).groupby("config_id", sort=False).indices
    indices = {str(name): np.asarray(rows, dtype=np.int64) for name, rows in groups.items()}
    return [_run(name, table, indices[name], made, steps_of) for name, made in servers.items()]


def _steps(table: Table, context: Context) -> Steps | None:
    """The steps of a whole table; None where something is wrong."""
    before = len(context.problems)
    names = {what: first_present(spelt, table.columns) for what, spelt in STEP_COLUMNS.items()}

    def column(what: str, absent: Floats | float) -> Floats:
        name = names[what]
        return np.zeros(len(table)) + absent if name is None else table.numbers(name, required=True)

    seconds_name = names["seconds"] or ""
    seconds = table.seconds(seconds_name, required=True, above=True)
    prefill, decode = column("prefill_tokens", 0.0), column("decode_requests", 0.0)
    requests = column("prefill_requests", np.where(prefill > 0.0, math.nan, 0.0))
    start = column("prefill_start_tokens", np.where(prefill > 0.0, math.nan, 0.0))
    context_tokens = column("decode_context_tokens", np.where(decode > 0.0, math.nan, 0.0))
    if names["decode_context_tokens"] == BEFORE_STEP:
        context_tokens = context_tokens + decode
    if len(context.problems) == before and not FASTEST_STEP_S < float(np.median(seconds)) < LONGEST_STEP_S:
        message = f"the median step takes {np.median(seconds):.3g} s, which no server does"
        repair = "name the column by its unit, _ms or _s"
        context.problems.add(f"{table.path}:1", table.written(seconds_name), f"{message}; {repair}")
    if len(context.problems) > before:
        return None
    # Chunks are known where one request prefills alone; of several, only their sum is logged.
    with np.errstate(invalid="ignore"):
        work = np.where(requests == 1.0, prefill * (start + (prefill + 1.0) / 2.0), math.nan)
    work = np.where(prefill == 0.0, 0.0, work)
    real = np.ones(len(table), dtype=bool)
    if "segment" in table.columns:
        real = (table.frame["segment"] == "real").to_numpy(dtype=bool)
    return Steps(seconds, prefill, requests, start, decode, context_tokens, work, real)


def _run(name: str, table: Table, rows: np.ndarray[tuple[int], np.dtype[np.int64]], made: Made, steps: Steps) -> Run:
    part = Steps(**{what: column[rows] for what, column in vars(steps).items()})
    counted = part.seconds[part.real] if part.real.any() else part.seconds
    return Run(
        name=name,
        where=table.where(int(rows[0])),
        server=made[0],
        measured={"step_s": float(np.mean(counted))},
        steps=part,
        source=f"{table.path.parent.name}: {name}",
        notes=made[1],
    )
