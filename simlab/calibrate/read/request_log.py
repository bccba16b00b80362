"""Logs of requests: when each was sent, how long it was, and when its tokens came."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from simlab.calibrate.read.files import plain_name
from simlab.calibrate.read.hints import ServerHints
from simlab.calibrate.read.metrics import check_together, metrics_of, unit_hint
from simlab.calibrate.read.problems import Problems
from simlab.calibrate.read.servers import Facts, server_of
from simlab.calibrate.read.step_log import config_servers
from simlab.calibrate.read.table import Floats, Table, first_present
from simlab.calibrate.run import Load, Requests, Run, Server

REQUEST_COLUMNS = {
    "start_s": ("t_launch_s", "t_arrival_s", "start_s", "arrival_s", "start_ms", "arrival_ms"),
    "prompt_tokens": ("prompt_tokens", "input_tokens", "input_len"),
    "output_tokens": ("generation_tokens", "output_tokens", "output_len"),
    "ttft_s": ("ttft_s", "ttft_ms"),
    "generation_s": ("generation_time_s", "generation_time_ms"),
    "e2e_s": ("e2e_s", "e2e_ms", "latency_s", "latency_ms"),
    "queue_s": ("queue_s", "queue_ms"),
}
"""Columns of a request log by what they say."""

RUN_COLUMNS = ("config_id", "workload", "qps", "run")
"""Columns that part a log into runs."""

CLOCK_S = 0.02
"""How far sums of logged times may be off: logs are rounded."""


def is_request_log(columns: Sequence[str]) -> bool:
    """Whether a table with these columns has a request in each row."""
    there = set(columns)
    needed = ("start_s", "prompt_tokens", "output_tokens", "ttft_s")
    last = there & {*REQUEST_COLUMNS["e2e_s"], *REQUEST_COLUMNS["generation_s"]}
    return bool(last) and all(there & set(REQUEST_COLUMNS[what]) for what in needed)


def read_request_log(table: Table, hints: ServerHints, problems: Problems) -> list[Run]:
    """The runs of a request log: one for each configuration, workload and rate that it holds."""
    if table.has("config_id"):
        servers = config_servers(table, hints, problems)
    else:
        made = server_of(Facts(), hints, str(table.path), problems)
        servers = {} if made is None else {"": made}
    parts = [name for name in RUN_COLUMNS if table.has(name)]
    runs: list[Run] = []
    columns = {what: first_present(names, table.frame.columns) or "" for what, names in REQUEST_COLUMNS.items()}
    before = len(problems)
    values = {
        what: table.seconds(name, required=True, above=what in {"ttft_s", "e2e_s"})
        if what.endswith("_s")
        else table.numbers(name, required=True, least=1.0)
        for what, name in columns.items()
        if name
    }
    if len(problems) > before:
        return []
    rates = table.numbers("qps", above=True) if "qps" in parts else None
    if parts:
        groups = table.frame.reset_index(drop=True).groupby(parts, sort=False).indices
    else:
        groups = {"": np.arange(len(table))}
    for key, indices in groups.items():
        rows = np.asarray(indices, dtype=np.int64)
        words = [str(word) for word in (key if isinstance(key, tuple) else (key,))]
        config = words[0] if "config_id" in parts else ""
        if config not in servers:
            continue
        name = "-".join(word for word in words if word) or plain_name(table.path)
        part = {what: column[rows] for what, column in values.items()}
        rate = None if rates is None else float(rates[rows[0]])
        run = _run(name, table, rows, part, columns, servers[config], rate, hints, problems)
        if run is not None:
            runs.append(run)
    return runs


def _run(
    name: str,
    table: Table,
    rows: NDArray[np.int64],
    part: dict[str, Floats],
    columns: dict[str, str],
    made: tuple[Server, tuple[str, ...]],
    rate: float | None,
    hints: ServerHints,
    problems: Problems,
) -> Run | None:
    before = len(problems)
    order = np.argsort(part["start_s"], kind="stable")
    part = {what: column[order] for what, column in part.items()}
    e2e = part["e2e_s"] if "e2e_s" in part else part["ttft_s"] + part["generation_s"]
    late = np.flatnonzero(part["ttft_s"] > e2e + 1e-9)
    if len(late):
        i = int(late[0])
        message = f"read a first token after {part['ttft_s'][i]:g} s of a request that took {e2e[i]:g} s"
        hint = unit_hint(float(part["ttft_s"][i]), float(e2e[i]))
        problems.add(table.where(int(rows[order[i]])), columns["ttft_s"], f"{message}{hint}; correct the column")
        return None
    start = part["start_s"] - part["start_s"][0]
    requests = Requests(
        start_s=start,
        prompt_tokens=part["prompt_tokens"].astype(np.int64),
        output_tokens=part["output_tokens"].astype(np.int64),
        ttft_s=part["ttft_s"],
        e2e_s=e2e,
        queue_s=part.get("queue_s"),
    )
    measured = metrics_of(requests)
    where = table.where(int(rows[0]))
    check_together(measured, where, problems, fields=columns)
    shared = hints.shared_prefix() or (0, 1)
    notes = list(made[1])
    n, span = len(start), float(start[-1])
    if rate is None:
        rate = (n - 1) / span if span > 0.0 else math.inf
    load = Load(
        rate_rps=rate,
        requests=n,
        prompt_tokens=float(np.mean(requests.prompt_tokens)),
        output_tokens=float(np.mean(requests.output_tokens)),
        shared_tokens=shared[0],
        shared_kinds=shared[1],
    )
    if len(problems) > before:
        return None
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
