"""Everything wrong with the files that are read together, collected to be shown at once."""

from __future__ import annotations

from collections.abc import Iterable

from simlab.errors import InputError, Problem

MOST = 50
"""Problems shown; more of them are counted."""


class Problems:
    """A growing list of problems; readers add to it and go on."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def add(self, where: str, field: str, message: str) -> None:
        """Adds one: file and line, field, and what was read, what is allowed, how to repair it."""
        problem = Problem(where, field, message)
        if problem not in self.found:
            self.found.append(problem)

    def extend(self, problems: Iterable[Problem]) -> None:
        """Adds those of a caught error."""
        for problem in problems:
            self.add(problem.where, problem.path, problem.message)

    def __len__(self) -> int:
        return len(self.found)

    def raise_if_any(self) -> None:
        """Raises them all.

        Raises:
            InputError: there is at least one.
        """
        if not self.found:
            return
        more = len(self.found) - MOST
        shown = self.found[:MOST]
        if more > 0:
            shown.append(Problem("", "", f"and {more} more problems like these; repair the first ones and read again"))
        raise InputError(shown)
