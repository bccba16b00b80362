"""Logs of requests: when each was sent, how long it was, and when its tokens came."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from simlab.calibrate.read.client import shape_of
from simlab.calibrate.read.configs import config_servers
from simlab.calibrate.read.context import Context
from simlab.calibrate.read.files import plain_name
from simlab.calibrate.read.metrics import metrics_of
from simlab.calibrate.read.plausible import Frame, check_together, unit_hint
from simlab.calibrate.read.row_servers import Made
from simlab.calibrate.read.table import Floats, Table, first_present
from simlab.calibrate.run import Load, Requests, Run

REQUEST_COLUMNS = {
    "start_s": ("t_launch_s", "t_arrival_s", "start_s", "arrival_s", "start_ms", "arrival_ms"),
    "prompt_tokens": ("prompt_tokens", "input_tokens", "input_len"),
    "output_tokens": ("generation_tokens", "output_tokens", "output_len"),
    "ttft_s": ("ttft_s", "ttft_ms"),
    "generation_s": ("generation_time_s", "generation_time_ms"),
    "e2e_s": ("e2e_s", "e2e_ms", "latency_s", "latency_ms"),
    "queue_s": ("queue_s", "queue_ms"),
}
"""Columns of a request log by what they say; generation is from the first token to the last."""

RUN_COLUMNS = ("config_id", "workload", "qps", "run")
"""Columns that part a log into runs."""

WORKLOADS = {
    "sharegpt": "chats with shared history: how much of a prompt was in the server's cache is not in the log",
    "short_input": "prompts share a beginning; how long it is is not in the log",
}
"""What to know of workloads of LMBenchmark."""

EVEN_GAPS = 0.1
"""Sendings whose gaps vary by less than this share of their mean are evenly spaced."""

LOST = 0.05
"""Where more than this share of the offered requests is not in a log, the run's notes say so."""


def is_request_log(columns: Sequence[str]) -> bool:
    """Whether a table with these columns has a request in each row."""
    there = set(columns)
    last = there & {*REQUEST_COLUMNS["e2e_s"], *REQUEST_COLUMNS["generation_s"]}
    needed = ("start_s", "prompt_tokens", "output_tokens", "ttft_s")
    return bool(last) and all(there & set(REQUEST_COLUMNS[what]) for what in needed)


def read_request_log(table: Table, context: Context) -> list[Run]:
    """The runs of a request log: one for each configuration, workload and rate that it holds."""
    if len(table) == 0:
        context.problems.add(str(table.path), "", "has column names but no requests; it must hold at least one")
        return []
    before = len(context.problems)
    servers = config_servers(table, context)
    columns = {what: first_present(names, table.columns) or "" for what, names in REQUEST_COLUMNS.items()}
    values = {what: _column(table, what, name) for what, name in columns.items() if name}
    parts = [name for name in RUN_COLUMNS if table.has(name)]
    rates = table.numbers("qps", above=True, required=True) if "qps" in parts else None
    if len(context.problems) > before:
        return []
    _check_rows(table, values, columns, context)
    groups: Mapping[object, object] = {"": np.arange(len(table))}
    if parts:
        groups = dict(table.frame.reset_index(drop=True).groupby(parts, sort=False).indices)
    runs: list[Run] = []
    for key, indices in groups.items():
        rows = np.asarray(indices, dtype=np.int64)
        words = [str(word) for word in (key if isinstance(key, tuple) else (key,))]
        made = servers.get(words[0] if "config_id" in parts else "")
        if made is not None and len(context.problems) == before:
            name = "-".join(word for word in words if word) or plain_name(table.path)
            rate = None if rates is None else float(rates[rows[0]])
            runs.append(_run(name, table, rows, values, columns, made, rate, context))
    return runs


def _column(table: Table, what: str, name: str) -> Floats:
    if what.endswith("_s"):
        return table.seconds(name, required=True, above=what in {"ttft_s", "e2e_s"})
    return table.numbers(name, required=True, least=1.0)


def _check_rows(table: Table, values: Mapping[str, Floats], columns: Mapping[str, str], context: Context) -> None:
    """Adds a problem for a request that ends before its first token."""
    if "e2e_s" not in values:
        return
    late = np.flatnonzero(values["ttft_s"] > values["e2e_s"] * (1.0 + 1e-6))
    if len(late):
        i = int(late[0])
        first, whole = float(values["ttft_s"][i]), float(values["e2e_s"][i])
        message = f"the first token came after {first:g} s, but the whole request took {whole:g} s"
        repair = f"correct {columns['ttft_s']} or {columns['e2e_s']}"
        more = f" ({len(late)} such rows)" if len(late) > 1 else ""
        context.problems.add(table.where(i), columns["ttft_s"], f"{message}{unit_hint(first, whole)}; {repair}{more}")


def _run(
    name: str,
    table: Table,
    rows: NDArray[np.int64],
    values: Mapping[str, Floats],
    columns: Mapping[str, str],
    made: Made,
    rate: float | None,
    context: Context,
) -> Run:
    order = rows[np.argsort(values["start_s"][rows], kind="stable")]
    part = {what: column[order] for what, column in values.items()}
    start = part["start_s"] - part["start_s"][0]
    requests = Requests(
        start_s=start,
        prompt_tokens=part["prompt_tokens"].astype(np.int64),
        output_tokens=part["output_tokens"].astype(np.int64),
        ttft_s=part["ttft_s"],
        e2e_s=part["e2e_s"] if "e2e_s" in part else part["ttft_s"] + part["generation_s"],
        queue_s=part.get("queue_s"),
    )
    n, notes = len(start), list(made[1])
    gaps = np.diff(start)
    even = n > 2 and float(np.percentile(np.abs(gaps - np.median(gaps)), 75)) < EVEN_GAPS * float(np.median(gaps))
    seen = (n - 1) / float(start[-1]) if start[-1] > 0.0 else math.inf
    offered = seen if rate is None else rate
    if math.isfinite(offered) and n < (1.0 - LOST) * offered * float(start[-1]):
        expected = round(offered * float(start[-1])) + 1
        notes.append(f"{n} requests are in the log, about {expected} were offered: the others failed or were not kept")
    measured = metrics_of(requests)
    where = table.where(int(rows[0]))
    frame = Frame(output_tokens=float(np.mean(requests.output_tokens)))
    check_together(measured, frame, where, columns, context.problems)
    if "workload" in table.columns:
        notes += [WORKLOADS[word] for word in (str(table.frame["workload"].iloc[rows[0]]),) if word in WORKLOADS]
    means = (float(np.mean(requests.prompt_tokens)), float(np.mean(requests.output_tokens)))
    shape = shape_of({}, means, requests, where, context)
    burstiness = math.inf if even else 1.0
    load = Load(rate_rps=offered, burstiness=burstiness, requests=n, **vars(shape))
    return Run(
        name=name,
        where=where,
        server=made[0],
        load=load,
        measured=measured,
        requests=requests,
        source=f"{table.path.parent.name}: {name}",
        notes=tuple(notes),
    )
