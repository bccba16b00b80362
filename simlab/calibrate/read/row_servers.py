"""The server of each row of a table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from simlab.calibrate.read.columns import choose
from simlab.calibrate.read.context import Context
from simlab.calibrate.read.rules import Rules
from simlab.calibrate.read.servers import IDENTITY, Facts, agrees, server_of, told, usual_names
from simlab.calibrate.read.table import Table
from simlab.calibrate.run import Server

Made = tuple[Server, tuple[str, ...]]
"""A server, and what had to be assumed of it."""

LISTED = 6
"""Set-ups of a table that a message names."""

_PARALLEL = re.compile(r"(TP|DP|EP)(\d*)", re.IGNORECASE)
_COUNTED_GPU = re.compile(r"(\d+)x\s*([A-Za-z]+\d+\w*)(?:\s+(\d+)FP8.*)?")
_TAG = re.compile(r":v?(\d+\.\d+\.\d+)")


@dataclass
class Servers:
    """Servers of a table's rows.

    Attributes:
        rows: of each row; None where it is left out or wrong.
        left_out: rows that are left out, by reason.
        usable: nothing is wrong with the table as a whole.
    """

    rows: list[Made | None]
    left_out: dict[str, int] = field(default_factory=dict)
    usable: bool = True

    @classmethod
    def of(cls, table: Table, rules: Rules, context: Context) -> Servers:
        """The servers of a table; of one with several set-ups those that the user's hints agree with."""
        facts, said = row_facts(table, rules), told(context.hints)
        several = len({identity(entry) for entry in facts}) > 1
        chosen = [agrees(entry, said) for entry in facts] if several else [True] * len(facts)
        if facts and not any(chosen):
            _none_agrees(table, facts, said, context)
            return cls([None] * len(facts), usable=False)
        made: dict[tuple[Any, ...], Made | None] = {}
        found = cls([])
        for row, entry in enumerate(facts):
            why = "of other set-ups" if not chosen[row] else ""
            if several and "gpu" not in entry.values and "gpu" not in said:
                why = "GPU not stated"
            if why:
                found.left_out[why] = found.left_out.get(why, 0) + 1
                found.rows.append(None)
                continue
            key = tuple(sorted((name, str(value)) for name, value in {**entry.values, **entry.wrong}.items()))
            if key not in made:
                made[key] = server_of(entry, context, table.where(row))
            found.rows.append(made[key])
        return found


def _none_agrees(table: Table, facts: Sequence[Facts], said: Mapping[str, Any], context: Context) -> None:
    asked = ", ".join(f"{name} {said[name]}" for name in IDENTITY if name in said)
    have = sorted({", ".join(str(part) for part in identity(one) if part not in {None, False}) for one in facts})
    more = f" and {len(have) - LISTED} more" if len(have) > LISTED else ""
    message = f"no row is of {asked}; the table has {'; '.join(have[:LISTED])}{more}"
    context.problems.add(str(table.path), "", message)


def identity(facts: Facts) -> tuple[Any, ...]:
    """What tells the set-up of one row from that of another."""
    values = usual_names(facts).values
    return tuple(values.get(name) for name in IDENTITY)


def row_facts(table: Table, rules: Rules) -> list[Facts]:
    """What each row says of its server."""
    columns = choose("server", table.columns)
    engine_column = rules.data.get("engine_column")
    if engine_column:
        columns["engine"] = engine_column
    texts = {what: table.texts(name) for what, name in columns.items() if table.has(name)}
    extra = {name: table.texts(name) for name in ("parallelism", rules.data.get("version", "")) if table.has(name)}
    expert = rules.data.get("expert_parallel")
    if expert and table.has(expert["column"]):
        spread = table.numbers(expert["column"]) > expert["above"]
        extra["expert"] = ["true" if on else "false" for on in spread]
    written = {what: table.written(name) for what, name in columns.items()}
    made: dict[tuple[str | None, ...], Facts] = {}
    result = []
    for row in range(len(table)):
        cells = {what: column[row] for what, column in texts.items()}
        more = {what: column[row] for what, column in extra.items()}
        key = (*cells.values(), *more.values())
        if key not in made:
            made[key] = _facts(cells, written, more, rules)
        result.append(made[key])
    return result


def _facts(
    cells: Mapping[str, str | None], columns: Mapping[str, str], more: Mapping[str, str | None], rules: Rules
) -> Facts:
    facts = Facts()
    for what, text in cells.items():
        if what == "gpu" and text is not None:
            _say_gpu(text, columns[what], facts)
        elif columns[what] == "ep" and text is not None and text.isdigit():
            facts.say(what, int(text) > 1, columns[what])
        else:
            facts.say(what, text, columns[what])
    for kind, size in _PARALLEL.findall(more.get("parallelism") or ""):
        if kind.upper() == "EP":
            facts.say("expert_parallel", True, "parallelism")
        else:
            facts.say(kind.lower(), size, "parallelism")
    facts.say("expert_parallel", more.get("expert"), str(rules.data.get("expert_parallel", {}).get("column")))
    if "engine" in rules.data:
        found = _TAG.search(more.get(str(rules.data.get("version"))) or "")
        version = facts.values.get("engine") or (found[1] if found else "")
        facts.say("engine", f"{rules.data['engine']} {version}".strip(), columns.get("engine", "engine"))
    return facts


def _say_gpu(text: str, column: str, facts: Facts) -> None:
    """A GPU's name; out of ``8xH100 1FP8`` also how many of them there are, and of how many replicas."""
    if text.lower().startswith(("unstated", "unknown")):
        return
    found = _COUNTED_GPU.match(text)
    if found is not None:
        replicas = int(found[3] or 1)
        facts.say("tp", int(found[1]) // replicas, column)
        facts.say("replicas", replicas, column)
    facts.say("gpu", found[2] if found else text, column)
