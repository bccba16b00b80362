"""Everything wrong with the files that are read together, collected to be shown at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from simlab.errors import InputError, Problem

MOST = 50
"""Problems shown; more of them are counted."""

NAMED = 2
"""Other places of the same problem that are named."""


def _one(alike: Sequence[Problem]) -> Problem:
    """The first of problems that say the same, with how many more places it is wrong in."""
    first = alike[0]
    return first if len(alike) == 1 else Problem(first.where, first.path, f"{first.message}{_also(alike)}")


def _also(alike: Sequence[Problem]) -> str:
    names = [Path(problem.where).name for problem in alike[1 : 1 + NAMED]]
    rest = len(alike) - 1 - len(names)
    return f" (so also {', '.join(names)}{f' and {rest} more' if rest else ''})"


class Problems:
    """A growing list of problems; readers add to it and go on."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def add(self, where: str, field: str, message: str) -> None:
        """Adds one: file and line, field, and what was read, what is allowed, how to repair it."""
        problem = Problem(where, field, message)
        if problem not in self.found:
            self.found.append(problem)

    def __len__(self) -> int:
        return len(self.found)

    def raise_if_any(self) -> None:
        """Raises them all.

        Raises:
            InputError: there is at least one.
        """
        if not self.found:
            return
        grouped: dict[tuple[str, str], list[Problem]] = {}
        for problem in self.found:
            grouped.setdefault((problem.path, problem.message), []).append(problem)
        shown = [_one(alike) for alike in grouped.values()]
        more = len(shown) - MOST
        shown = shown[:MOST]
        if more > 0:
            shown.append(Problem("", "", f"and {more} more problems like these; repair the first ones and read again"))
        raise InputError(shown)
