"""Versions of prompts, models and corpora by number, and when they change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from simlab.scenario import Scenario
    from simlab.scenario.tasks import Task

_KINDS = ("prompt_version", "model_version", "corpus_version")


class VersionChange(NamedTuple):
    """From ``at_s`` on class ``cls`` runs under these versions, numbered in the order in which they are first named."""

    at_s: float
    cls: int
    prompt: int
    model: int
    corpus: int


def prompt_versions(task: Task) -> list[str]:
    """The names of a task's prompt versions, by number."""
    return _named(task, "prompt_version")


def changes(scenario: Scenario) -> list[VersionChange]:
    """All changes of versions, in order of time."""
    found = [change for c, cls in enumerate(scenario.workload.values()) for change in _of_task(c, cls.task)]
    return sorted(found)


def _of_task(c: int, task: Task) -> Iterator[VersionChange]:
    now = {kind: getattr(task, kind) for kind in _KINDS}
    names = {kind: _named(task, kind) for kind in _KINDS}
    for change in task.changes:
        now |= {kind: getattr(change, kind) for kind in _KINDS if getattr(change, kind) is not None}
        yield VersionChange(change.at, c, *(names[kind].index(now[kind]) for kind in _KINDS))


def _named(task: Task, kind: str) -> list[str]:
    later = (getattr(change, kind) for change in task.changes)
    return list(dict.fromkeys(name for name in (getattr(task, kind), *later) if name is not None))
