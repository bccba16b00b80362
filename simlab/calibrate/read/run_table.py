"""Tables with a run in each row: GPU, model, lengths, concurrency or rate, and what was measured."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from simlab.calibrate.read.bench_serve import iso_date
from simlab.calibrate.read.client import spread_of
from simlab.calibrate.read.columns import choose
from simlab.calibrate.read.context import Context
from simlab.calibrate.read.files import plain_name
from simlab.calibrate.read.metrics import positive
from simlab.calibrate.read.plausible import Frame, check_together
from simlab.calibrate.read.row_servers import Servers
from simlab.calibrate.read.rules import Rules, rules_of
from simlab.calibrate.read.table import UNITS, Floats, Table
from simlab.calibrate.run import METRICS, Load, Run, Server

_UNITLESS = re.compile(r"(?:(?:mean|median|p\d+|avg)_)?(?:ttft|itl|tpot|e2el?|latency)(?:_(?:mean|median|p\d+|avg))?")


FROM_ZERO = {"prompt_tokens", "shared_tokens", "shared_kinds", "range_ratio"}
"""Numbers of a load that may be 0."""


def is_run_table(columns: Sequence[str]) -> bool:
    """Whether a table with these columns has runs in its rows: lengths, how it was driven, and something measured."""
    load, totals = choose("load", columns), choose("totals", columns)
    measured = bool(choose("metrics", columns)) or any(_UNITLESS.fullmatch(name) for name in columns)
    lengths = {"prompt_tokens", "output_tokens"} <= load.keys()
    offline = lengths and {"requests"} <= load.keys() and "duration_s" in totals
    lengths = lengths or {"input", "output", "completed"} <= totals.keys()
    return (measured and lengths and bool({"concurrency", "rate_rps"} & load.keys())) or offline


def read_run_table(table: Table, context: Context) -> list[Run]:
    """The runs of a table: those of the set-up that hints name, where they name one."""
    rules = rules_of(table)
    table, left_out = rules.kept(table)
    rows = _Rows(table, rules, context)
    servers = Servers.of(table, rules, context)
    left_out.update(servers.left_out)
    runs = []
    for row, made in enumerate(servers.rows):
        if made is None:
            continue
        run = rows.run(row, made[0], made[1])
        if isinstance(run, Run):
            runs.append(run)
        else:
            left_out[run] = left_out.get(run, 0) + 1
    said = "; ".join(f"{count} rows are left out: {why}" for why, count in left_out.items())
    if said and runs:
        runs[0] = replace(runs[0], notes=(*runs[0].notes, f"of {table.path.name}, {said}"))
    elif not runs and servers.usable:
        context.skip(str(table.path), said or "no rows")
    return runs


class _Rows:
    """Numbers of a table by row."""

    def __init__(self, table: Table, rules: Rules, context: Context) -> None:
        self.table, self.rules, self.problems = table, rules, context.problems
        self.shared = context.hints.shared_prefix()
        names = table.columns
        self.load_columns, self.metric_columns = choose("load", names), choose("metrics", names)
        self.load = {what: self._load_column(what, name) for what, name in self.load_columns.items()}
        rules.fill_concurrency(table, self.load)
        rules.fill_requests(table, self.load)
        self.totals = {
            what: table.seconds(name) if what == "duration_s" else table.numbers(name)
            for what, name in choose("totals", names).items()
        }
        self.measured = {
            metric: table.numbers(name) if metric == "output_tokens_per_s" else table.seconds(name)
            for metric, name in self.metric_columns.items()
        }
        for name in names:
            if _UNITLESS.fullmatch(name):
                written = table.written(name)
                endings = " or ".join(f"{written}{ending}" for ending in UNITS)
                self.problems.add(f"{table.path}:1", written, f"the column is in no unit; name it {endings}")
        other = choose("other", names)
        self.names = self._names(rules.name_columns or ([other["name"]] if "name" in other else []))
        self.dates = table.texts(other["date"]) if "date" in other else [None] * len(table)
        self.shares, self.at_once = rules.lengths(table), rules.all_at_once(table)

    def _load_column(self, what: str, name: str) -> Floats:
        if what in {"rate_rps", "burstiness"}:
            return self.table.numbers(name, above=True, infinite=True)
        return self.table.numbers(name, least=0.0 if what in FROM_ZERO else 1.0)

    def _names(self, columns: Sequence[str]) -> list[str]:
        stem, lines = plain_name(self.table.path), [str(line) for line in self.table.frame.index]
        parts = [self.table.texts(column) for column in columns if column in self.table.columns]
        joined = ["-".join(word for word in words if word) for words in zip(*parts, strict=True)] if parts else []
        if not joined:
            return [f"{stem}#{line}" for line in lines]
        twice = {name for name in joined if joined.count(name) > 1 or not name}
        return [f"{name or stem}#{line}" if name in twice else name for name, line in zip(joined, lines, strict=True)]

    def _value(self, columns: Mapping[str, Floats], what: str, row: int) -> float | None:
        column = columns.get(what)
        return None if column is None or math.isnan(column[row]) else float(column[row])

    def _length(self, what: str, total: str, row: int) -> float | None:
        tokens, whole = self._value(self.load, what, row), self._value(self.totals, total, row)
        completed = self._value(self.totals, "completed", row)
        if tokens is None and whole is not None and completed:
            return whole / completed
        return tokens

    def _shared(self, row: int) -> tuple[int, int]:
        """Shared tokens of each prompt and kinds of them."""
        tokens, kinds = self._value(self.load, "shared_tokens", row), self._value(self.load, "shared_kinds", row)
        return self.shared or (int(tokens or 0), int(kinds or 1))

    def _whole_prompt(self, nominal: float, shared: int, row: int) -> float:
        """Tokens of a prompt with its shared beginning, which some clients count by itself."""
        total, completed = self._value(self.totals, "input", row), self._value(self.totals, "completed", row)
        mean = total / completed if total is not None and completed else None
        apart = mean is not None and abs(mean - nominal - shared) < abs(mean - nominal)
        return nominal + shared if apart or shared >= nominal else nominal

    def _spread(self, nominal: float, row: int) -> tuple[float, float]:
        """Shares of the nominal length between which lengths are uniform."""
        ratio = self._value(self.load, "range_ratio", row)
        if ratio is None:
            low, high = self.shares[row]
            return float(low), float(high)
        total, completed = self._value(self.totals, "output", row), self._value(self.totals, "completed", row)
        return spread_of(str(ratio), int(nominal), total / completed if total and completed else nominal)

    def run(self, row: int, server: Server, assumed: Sequence[str]) -> Run | str:
        """The run of a row, or why it is left out."""
        where = self.table.where(row)
        concurrency, rate = self._value(self.load, "concurrency", row), self._value(self.load, "rate_rps", row)
        prompt, output = self._length("prompt_tokens", "input", row), self._length("output_tokens", "output", row)
        requests = self._value(self.load, "requests", row)
        if self.at_once[row]:
            concurrency, rate = None, math.inf
        elif concurrency is None and rate is None:
            return "neither concurrency nor rate"
        if prompt is None or output is None:
            return "lengths are not given"
        shared = self._shared(row)
        prompt = self._whole_prompt(prompt, shared[0], row)
        low, high = self._spread(output, row)
        burstiness = self._value(self.load, "burstiness", row) or 1.0
        load = Load(
            concurrency=None if concurrency is None else int(concurrency),
            rate_rps=math.inf if rate is None else rate,
            burstiness=math.inf if self.rules.even and rate is not None else burstiness,
            requests=None if requests is None else int(requests),
            prompt_tokens=prompt,
            output_tokens=output,
            low=low,
            high=high,
            shared_tokens=shared[0],
            shared_kinds=shared[1],
        )
        measured = self._measured(row, load)
        completed = self._value(self.totals, "completed", row)
        if completed == 0.0:
            self.problems.add(where, "completed", "no request completed; delete the row, or run the benchmark again")
        if not measured:
            return "nothing measured"
        frame = Frame(
            duration_s=self._value(self.totals, "duration_s", row),
            completed=completed,
            concurrency=load.concurrency,
            closed=math.isinf(load.rate_rps),
            output_tokens=output,
        )
        fields = {metric: self.table.written(name) for metric, name in self.metric_columns.items()}
        check_together(measured, frame, where, fields, self.problems)
        return Run(
            name=self.names[row],
            where=where,
            server=server,
            load=load,
            measured=measured,
            date=iso_date(self.dates[row]),
            source=f"{self.rules.name or plain_name(self.table.path)}: {self.names[row]}",
            failed=int(self._value(self.totals, "failed", row) or 0),
            notes=(*assumed, *self.rules.notes, *self.rules.spread_notes(load.low, load.high)),
        )

    def _measured(self, row: int, load: Load) -> dict[str, float]:
        """Metrics of a row, with the rate of tokens where it follows from others."""
        found = {metric: float(self.measured[metric][row]) for metric in METRICS if metric in self.measured}
        duration = self._value(self.totals, "duration_s", row)
        tokens = self._value(self.totals, "output", row)
        if tokens is None and load.requests is not None and not self._value(self.totals, "failed", row):
            tokens = load.requests * load.output_tokens
        if duration and tokens and not found.get("output_tokens_per_s", math.nan) > 0.0:
            found["output_tokens_per_s"] = tokens / duration
        return positive(found)
