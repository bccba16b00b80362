"""The errors a person can cause, each saying where, what was read, what is allowed and how to repair it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class SimlabError(Exception):
    """Base of every error that is the input's fault, not ours; the command line exits with 2 on it."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with an input.

    Args:
        where: ``file:line:column`` (as much of it as is known).
        path: dotted path of the field, e.g. ``workload.chat.arrivals.rate``; may be empty.
        message: what was read, what is allowed and how to repair it, in one line.
    """

    where: str
    path: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.path, self.message) if part)


class InputError(SimlabError):
    """All the problems of one input at once; ``str()`` is one problem a line."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ScenarioError(InputError):
    """A scenario file that cannot be run as written."""


class TraceError(InputError):
    """A trace or table file that cannot be read as declared."""


class OutputError(SimlabError):
    """A result that could not be written where it was asked for."""
