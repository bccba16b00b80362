"""Looking a name up in a table: aliases, any case, and the nearest names when it is not there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher, get_close_matches
from typing import TypeVar

from simlab.errors import InputError, Problem

T = TypeVar("T")


def nearest(name: str, known: Iterable[str], *, count: int = 3) -> list[str]:
    """The known names most like a misspelt one, best first; at most ``count`` of them, none when nothing is alike.

    >>> nearest("lama-3.1-8b", ["llama-3.1-8b", "h100-sxm"])
    ['llama-3.1-8b']
    """
    return get_close_matches(name.strip().lower(), list(known), n=count, cutoff=0.5)


def likeness(name: str, known: str) -> float:
    """How alike two names are, from 0 to 1, as `nearest` judges it."""
    return SequenceMatcher(None, known, name.strip().lower()).ratio()


def unknown(kind: str, name: str, known: Iterable[str], *, repair: str = "") -> InputError:
    """The error for a name no table knows: what was read, the nearest names, how to repair it."""
    names = sorted(known)
    near = nearest(name, names)
    hint = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(names[:12])}{', …' * (len(names) > 12)}"
    return InputError([Problem("", "", f"unknown {kind} {name!r}; {hint}{'; ' + repair if repair else ''}")])


def lookup(kind: str, name: str, table: Mapping[str, T], aliases: Mapping[str, str], *, repair: str = "") -> T:
    """The entry of a table by name or alias, in any case.

    Args:
        kind: what the table holds, for the error (``"GPU"``).
        name: what was asked for.
        table: entries by canonical name (lower case).
        aliases: other lower-case spellings to canonical names.
        repair: what to do when the thing really is not in the table.

    Raises:
        InputError: the name is not known; the message gives the nearest ones.
    """
    key = name.strip().lower().replace("_", "-").replace(" ", "-")
    key = aliases.get(key, key)
    if key not in table:
        raise unknown(kind, name, table, repair=repair)
    return table[key]
