"""New versions of prompts, models and corpora, each class's from a planned time on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import simpy

from simlab.control.handle import Handle
from simlab.control.operations import Process


class VersionChange(Protocol):
    """From ``at_s`` (s) on class ``cls`` runs under these versions, by number."""

    @property
    def at_s(self) -> float: ...  # noqa: D102
    @property
    def cls(self) -> int: ...  # noqa: D102
    @property
    def prompt(self) -> int: ...  # noqa: D102
    @property
    def model(self) -> int: ...  # noqa: D102
    @property
    def corpus(self) -> int: ...  # noqa: D102


def change_versions(env: simpy.Environment, engine: Handle, changes: Sequence[VersionChange]) -> Process:
    """Puts the changes into force, in order of time, each at its time."""
    for change in changes:
        yield env.timeout(change.at_s - env.now)
        engine.set_versions(change.cls, change.prompt, change.model, change.corpus)
