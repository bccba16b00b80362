"""Tables with a run in each row: GPU, model, lengths, concurrency or rate, and what was measured."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from simlab.calibrate.read.bench_serve import iso_date
from simlab.calibrate.read.columns import choose, sources
from simlab.calibrate.read.files import plain_name
from simlab.calibrate.read.hints import ServerHints
from simlab.calibrate.read.metrics import check_together
from simlab.calibrate.read.problems import Problems
from simlab.calibrate.read.servers import IDENTITY, Facts, agrees, server_of, told, usual_names
from simlab.calibrate.read.table import UNITS, Floats, Table
from simlab.calibrate.run import METRICS, Load, Run, Server

WHOLE = ("tp", "dp", "replicas", "max_num_seqs", "max_num_batched_tokens", "kv_blocks", "block_size", "max_model_len")
SWITCHES = ("expert_parallel", "prefix_caching")
_PARALLEL = re.compile(r"(TP|DP|EP)(\d*)", re.IGNORECASE)
_COUNTED_GPU = re.compile(r"(\d+)x\s*([A-Za-z]+\d+\w*)(?:\s+(\d+)FP8.*)?")
_UNITLESS = re.compile(r"(?:mean_|median_|p\d+_)?(?:ttft|itl|tpot|e2e|e2el|latency)(?:_mean|_median|_p\d+)?")


@dataclass(frozen=True)
class Rules:
    """How a table is read beyond its columns' names: an entry of ``data/sources.json``."""

    data: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What the source is called; empty for a table of the user's own."""
        return str(self.data.get("name", ""))


def rules_of(table: Table) -> Rules:
    """The rules of the source that a table is from."""
    columns = set(table.frame.columns)
    return Rules(next((source for source in sources() if set(source["requires"]) <= columns), {}))


def is_run_table(columns: Sequence[str]) -> bool:
    """Whether a table with these columns has runs in its rows: lengths or totals, and something measured."""
    load = choose("load", columns)
    measured = bool(choose("metrics", columns)) or any(_UNITLESS.fullmatch(name) for name in columns)
    totals = {"input", "output"} <= choose("totals", columns).keys()
    lengths = {"prompt_tokens", "output_tokens"} <= load.keys() or totals
    return measured and lengths and bool({"concurrency", "rate_rps"} & load.keys())


def read_run_table(table: Table, hints: ServerHints, problems: Problems) -> list[Run]:
    """The runs of a table: those of the set-up that hints name, where they name one."""
    rules, notes = rules_of(table), list[str]()
    table, left_out = _leave_out(table, rules)
    if not len(table):
        said = "; ".join(f"{count} {why}" for why, count in left_out.items())
        problems.add(str(table.path), "", f"no row is left to read: {said or 'the table is empty'}")
        return []
    if rules.data.get("note"):
        notes.append(str(rules.data["note"]))
    servers = _servers(table, rules, hints, problems, left_out)
    reader = _Rows(table, rules, hints, problems)
    runs = [reader.run(row, *server, notes) for row, server in enumerate(servers) if server is not None]
    if left_out and runs:
        said = "; ".join(f"{count} rows are left out: {why}" for why, count in left_out.items())
        first = runs[0]
        runs[0] = Run(**{**vars(first), "notes": (*first.notes, f"of {table.path.name}, {said}")})
    return [run for run in runs if run.measured]


def _leave_out(table: Table, rules: Rules) -> tuple[Table, dict[str, int]]:
    """The rows that can be simulated, and how many are left out for what reason."""
    why: dict[str, int] = {}
    for rule in rules.data.get("leave_out", ()):
        if not table.has(rule["column"]):
            continue
        if "above" in rule:
            values = table.numbers(rule["column"])
            keep = ~(values > rule["above"])
        else:
            texts = table.texts(rule["column"])
            keep = np.array([text is None or text in rule["unless"] for text in texts], dtype=bool)
        if not keep.all():
            why[rule["why"]] = int((~keep).sum())
            table = table.rows(keep)
    return table, why


def _servers(
    table: Table, rules: Rules, hints: ServerHints, problems: Problems, left_out: dict[str, int]
) -> list[tuple[Server, tuple[str, ...]] | None]:
    """The server of each row; None where hints name another one or the row does not say enough."""
    facts = row_facts(table, rules, problems)
    distinct = {identity(entry) for entry in facts}
    said = told(hints)
    chosen = [agrees(entry, said) for entry in facts]
    if len(distinct) > 1:
        if not any(chosen):
            asked = ", ".join(f"{name} {said[name]}" for name in IDENTITY if name in said)
            have = sorted({", ".join(str(part) for part in one if part is not None) for one in distinct})
            more = f", … {len(have) - 6} more" if len(have) > 6 else ""
            message = f"no row is of {asked}; the table has {'; '.join(have[:6])}{more}"
            problems.add(str(table.path), "", message)
            return [None] * len(table)
    else:
        chosen = [True] * len(table)
    made: dict[tuple[Any, ...], tuple[Server, tuple[str, ...]] | None] = {}
    result: list[tuple[Server, tuple[str, ...]] | None] = []
    several = len(distinct) > 1
    for row, entry in enumerate(facts):
        key = tuple(sorted(entry.values.items()))
        if not chosen[row]:
            left_out["of other set-ups"] = left_out.get("of other set-ups", 0) + 1
            result.append(None)
            continue
        if several and "gpu" not in entry.values and hints.gpu is None:
            left_out["GPU not stated"] = left_out.get("GPU not stated", 0) + 1
            result.append(None)
            continue
        if key not in made:
            made[key] = server_of(entry, hints, table.where(row), problems)
        result.append(made[key])
    return result


def identity(facts: Facts) -> tuple[Any, ...]:
    """What tells the set-up of one row from that of another."""
    values = usual_names(facts).values
    return tuple(values.get(name) for name in IDENTITY)


def row_facts(table: Table, rules: Rules, problems: Problems) -> list[Facts]:
    """What each row says of its server."""
    columns = choose("server", list(table.frame.columns))
    texts = {what: table.texts(name) for what, name in columns.items() if table.has(name)}
    parallel = table.texts("parallelism") if table.has("parallelism") else None
    expert = rules.data.get("expert_parallel")
    spread = table.numbers(expert["column"]) > expert["above"] if expert and table.has(expert["column"]) else None
    images = table.texts("image") if table.has("image") else None
    made: dict[tuple[Any, ...], Facts] = {}
    result = []
    for row in range(len(table)):
        cells = {what: column[row] for what, column in texts.items()}
        extra = (
            None if parallel is None else parallel[row],
            None if spread is None else bool(spread[row]),
            None if images is None else images[row],
        )
        key = (*cells.values(), *extra)
        if key not in made:
            made[key] = _facts(cells, columns, extra, rules, table.where(row), problems)
        result.append(made[key])
    return result


def _facts(
    cells: Mapping[str, str | None],
    columns: Mapping[str, str],
    extra: tuple[str | None, bool | None, str | None],
    rules: Rules,
    where: str,
    problems: Problems,
) -> Facts:
    facts = Facts()
    parallel, spread, image = extra
    for what, text in cells.items():
        if text is None:
            continue
        value: Any = text
        if what in WHOLE:
            value = _whole(text)
            if value is None and text.lower() not in {"default", "auto", "none"}:
                problems.add(where, columns[what], f"read {text!r}; allowed: a whole number of 1 or more")
        elif what in SWITCHES:
            value = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(text.lower())
        elif what == "gpu":
            value = None if text.lower().startswith(("unstated", "unknown")) else _counted(text, facts, columns[what])
        facts.say(what, value, columns[what])
    for kind, size in _PARALLEL.findall(parallel or ""):
        if kind.upper() == "EP":
            facts.say("expert_parallel", True, "parallelism")
        else:
            facts.say(kind.lower(), int(size), "parallelism")
    if spread:
        facts.say("expert_parallel", True, rules.data["expert_parallel"]["column"])
    if rules.data.get("engine"):
        version = facts.values.get("engine") or _tag(image)
        facts.say("engine", f"{rules.data['engine']} {version}".strip(), "engine")
    return facts


def _tag(image: str | None) -> str:
    """The version in the name of a container."""
    found = re.search(r":v?(\d+\.\d+\.\d+)", image or "")
    return found[1] if found else ""


def _whole(text: str) -> int | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number >= 1.0 and number == int(number) else None


def _counted(text: str, facts: Facts, column: str) -> str:
    """A GPU's name out of ``8xH100 1FP8``: eight of them, one replica."""
    found = _COUNTED_GPU.match(text)
    if found is None:
        return text
    replicas = int(found[3] or 1)
    facts.say("tp", int(found[1]) // replicas, column)
    facts.say("replicas", replicas, column)
    return found[2]


class _Rows:
    """Numbers of a table by row."""

    def __init__(self, table: Table, rules: Rules, hints: ServerHints, problems: Problems) -> None:
        self.table, self.rules, self.problems = table, rules, problems
        self.shared = hints.shared_prefix()
        names = list(table.frame.columns)
        self.load_columns, self.metric_columns = choose("load", names), choose("metrics", names)
        self.load = {what: self._load_column(what, name) for what, name in self.load_columns.items()}
        self._fill_concurrency()
        self.totals = {what: table.numbers(name) for what, name in choose("totals", names).items()}
        self.measured: dict[str, Floats] = {}
        for metric, name in self.metric_columns.items():
            # Zero is what a benchmark writes for a statistic of nothing.
            self.measured[metric] = table.seconds(name) if metric != "output_tokens_per_s" else table.numbers(name)
        for name in names:
            if _UNITLESS.fullmatch(name):
                endings = ", ".join(f"{name}{ending}" for ending in UNITS)
                problems.add(str(table.path), name, f"is in no unit; name the column {endings}")
        other = choose("other", names)
        self.names = self._names(str(rules.data.get("name_column", other.get("name", ""))))
        self.dates = table.texts(other["date"]) if "date" in other else [None] * len(table)
        self.low = self._low()

    def _load_column(self, what: str, name: str) -> Floats:
        if what == "rate_rps":
            return self.table.numbers(name, above=True, infinite=True)
        return self.table.numbers(name, least=1.0 if what in {"concurrency", "requests", "output_tokens"} else 0.0)

    def _fill_concurrency(self) -> None:
        """Concurrency of the deployment out of that of a rank, where only this is given."""
        column = str(self.rules.data.get("concurrency_of_rank", ""))
        if column and self.table.has(column):
            ranks = self.table.numbers(choose("server", list(self.table.frame.columns))["dp"], least=1.0)
            whole = self.table.numbers(column, least=1.0) * ranks
            given = self.load.get("concurrency", np.full(len(self.table), math.nan))
            self.load["concurrency"] = np.where(np.isnan(given), whole, given)

    def _names(self, column: str) -> list[str]:
        stem = plain_name(self.table.path)
        lines = [str(line) for line in self.table.frame.index]
        if not column or column not in self.table.frame.columns:
            return [f"{stem}#{line}" for line in lines]
        texts = self.table.texts(column)
        twice = {text for text in texts if text is None or texts.count(text) > 1}
        named = zip(texts, lines, strict=True)
        return [f"{text or stem}#{line}" if text in twice else str(text) for text, line in named]

    def _low(self) -> Floats:
        rule = self.rules.data.get("length_low")
        low = np.ones(len(self.table))
        if rule and self.table.has(rule["column"]):
            texts = self.table.texts(rule["column"])
            low[[(text or "").startswith(rule["begins"]) for text in texts]] = rule["low"]
        return low

    def _value(self, what: str, row: int) -> float | None:
        column = self.load.get(what)
        return None if column is None or math.isnan(column[row]) else float(column[row])

    def _length(self, what: str, total: str, row: int) -> float | None:
        tokens = self._value(what, row)
        if tokens is not None or total not in self.totals or "completed" not in self.totals:
            return tokens
        mean = self.totals[total][row] / self.totals["completed"][row]
        return None if math.isnan(mean) else float(mean)

    def run(self, row: int, server: Server, assumed: Sequence[str], notes: Sequence[str]) -> Run:
        """The run of a row; without measured values where something is wrong."""
        where, name = self.table.where(row), self.names[row]
        concurrency, rate = self._value("concurrency", row), self._value("rate_rps", row)
        prompt, output = self._length("prompt_tokens", "input", row), self._length("output_tokens", "output", row)
        for what, tokens in (("prompt_tokens", prompt), ("output_tokens", output)):
            if tokens is None and not math.isnan(self.load.get(what, np.zeros(len(self.table)))[row]):
                self.problems.add(where, what, "is not stated; give the length in tokens")
        if concurrency is None and rate is None:
            column = self.load_columns.get("concurrency", self.load_columns.get("rate_rps", "concurrency"))
            self.problems.add(where, column, "neither concurrency nor rate is given; give the one that drove the run")
        requests, kinds = self._value("requests", row), self._value("shared_kinds", row)
        shared = self.shared or (int(self._value("shared_tokens", row) or 0), int(kinds or 1))
        rate = math.inf if rate is None else rate
        load = Load(
            concurrency=None if concurrency is None else int(concurrency),
            rate_rps=rate,
            burstiness=self._value("burstiness", row) or 1.0,
            requests=None if requests is None else int(requests),
            prompt_tokens=prompt or 0.0,
            output_tokens=output or 0.0,
            low=float(self.low[row]),
            shared_tokens=shared[0],
            shared_kinds=shared[1],
        )
        values = {metric: float(self.measured[metric][row]) for metric in METRICS if metric in self.measured}
        measured = {metric: value for metric, value in values.items() if value > 0.0}
        duration = self.totals.get("duration_s")
        check_together(
            measured,
            where,
            self.problems,
            fields=self.metric_columns,
            duration_s=None if duration is None or math.isnan(duration[row]) else float(duration[row]),
            concurrency=load.concurrency,
            output_tokens=output,
        )
        source = self.rules.name or plain_name(self.table.path)
        date = iso_date(self.dates[row])
        every = (*assumed, *notes)
        failed = self.totals.get("failed")
        lost = 0 if failed is None or math.isnan(failed[row]) else int(failed[row])
        return Run(name, where, server, load, measured, None, None, date, f"{source}: {name}", lost, every)
