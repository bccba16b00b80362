"""Names of columns: which column of a table says what, as ``data/columns.json`` has it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def _data(name: str) -> Any:
    return json.loads((files("simlab.calibrate") / "data" / name).read_text(encoding="utf-8"))


def spellings(part: str) -> Mapping[str, Sequence[str]]:
    """Accepted columns by what they say; part is server, load, metrics, totals or other."""
    return dict(_data("columns.json")[part])


def sources() -> Sequence[Mapping[str, Any]]:
    """Tables with rules of their own, each known by columns that only it has."""
    return list(_data("sources.json"))


def choose(part: str, present: Sequence[str]) -> dict[str, str]:
    """The column of a table for everything that it says."""
    there = set(present)
    found = {what: next((name for name in names if name in there), None) for what, names in spellings(part).items()}
    return {what: name for what, name in found.items() if name is not None}
