"""How tables of known sources are read beyond the names of their columns: entries of ``data/sources.json``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simlab.calibrate.read.columns import choose, sources
from simlab.calibrate.read.table import Floats, Table


@dataclass(frozen=True)
class Rules:
    """One source's rules; none for a table of the user's own.

    Fields of ``data``, all optional: ``name``; ``requires`` (columns that only this source has); ``note``;
    ``leave_out`` (rows that no simulation is like: by a column that is not one of ``unless``, is ``above`` a number or
    has a ``pattern``, and ``why``); ``expert_parallel`` (column and the number ``above`` which it is on);
    ``lengths`` (they are uniform between two ``shares`` of the nominal one where a column ``begins`` with a text, and
    between the shares ``otherwise`` in other rows, and ``why``);
    ``concurrency_of_rank`` (column with the concurrency of one data-parallel rank, for rows without the whole one);
    ``requests_from_tokens`` (column with the tokens of all requests, where their number is that of one replica);
    ``all_at_once`` (requests are sent at once where a column is ``from`` a number up); ``even`` (requests are evenly
    spaced); ``engine``, ``engine_column``, ``version`` (what the engine is called; a column; a column of container
    images with the version); ``name_column``, ``name_columns`` (what runs are called).
    """

    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the source is called; empty for a table of the user's own."""
        return str(self.data.get("name", ""))

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of its runs should know."""
        return (str(self.data["note"]),) if "note" in self.data else ()

    def spread_notes(self, low: float, high: float) -> tuple[str, ...]:
        """What a reader of a run should know of its lengths, which spread between these shares."""
        rule = self.data.get("lengths", {})
        return (str(rule["why"]),) if "why" in rule and [low, high] == rule["otherwise"] else ()

    @property
    def even(self) -> bool:
        """Whether requests of a rate are evenly spaced."""
        return bool(self.data.get("even", False))

    @property
    def name_columns(self) -> list[str]:
        """Columns that together name a run."""
        return list(self.data.get("name_columns", [self.data["name_column"]] if "name_column" in self.data else []))

    def kept(self, table: Table) -> tuple[Table, dict[str, int]]:
        """The rows that a simulation can be like, and how many are left out for what reason."""
        why: dict[str, int] = {}
        for rule in self.data.get("leave_out", ()):
            if not table.has(rule["column"]):
                continue
            if "above" in rule:
                keep = ~(table.numbers(rule["column"]) > rule["above"])
            elif "pattern" in rule:
                texts = table.texts(rule["column"])
                keep = np.array([re.search(rule["pattern"], text or "") is None for text in texts], dtype=bool)
            else:
                texts = table.texts(rule["column"])
                keep = np.array([text is None or text in rule["unless"] for text in texts], dtype=bool)
            if not keep.all():
                why[rule["why"]] = int((~keep).sum())
                table = table.rows(keep)
        return table, why

    def fill_concurrency(self, table: Table, load: dict[str, Floats]) -> None:
        """Puts concurrency of the deployment where only that of a rank is given."""
        column = str(self.data.get("concurrency_of_rank", ""))
        if column and table.has(column):
            ranks = table.numbers(choose("server", table.columns)["dp"], least=1.0)
            given = load.get("concurrency", np.full(len(table), math.nan))
            load["concurrency"] = np.where(np.isnan(given), table.numbers(column, least=1.0) * ranks, given)

    def fill_requests(self, table: Table, load: dict[str, Floats]) -> None:
        """Puts requests of the deployment where only those of a replica are given, but all their tokens are."""
        column = str(self.data.get("requests_from_tokens", ""))
        if column and table.has(column):
            load["requests"] = np.rint(table.numbers(column) / (load["prompt_tokens"] + load["output_tokens"]))

    def lengths(self, table: Table) -> Floats:
        """The smallest and the largest length as shares of the nominal one, of shape (rows, 2)."""
        shares, rule = np.ones((len(table), 2)), self.data.get("lengths")
        if rule and table.has(rule["column"]):
            shares[:] = rule["otherwise"]
            shares[[(text or "").startswith(rule["begins"]) for text in table.texts(rule["column"])]] = rule["shares"]
        return shares

    def all_at_once(self, table: Table) -> NDArray[np.bool_]:
        """Whether all requests of a row were sent at once."""
        rule = self.data.get("all_at_once")
        if not rule or not table.has(rule["column"]):
            return np.zeros(len(table), dtype=bool)
        return np.asarray(table.numbers(rule["column"], infinite=True) >= rule["from"], dtype=bool)


def rules_of(table: Table) -> Rules:
    """The rules of the source that a table is from."""
    columns = set(table.columns)
    return Rules(next((source for source in sources() if set(source["requires"]) <= columns), {}))
