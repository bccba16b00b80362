"""Backends that no scenario names by itself: the gateway's caches, and helpers such as a classifier."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from simlab.engine import ApiSpec
from simlab.results import BackendFacts


@dataclass
class Extras:
    """Such backends, in the order in which policies asked for them.

    Args:
        first: index of the first of them, behind the scenario's pools and APIs.
    """

    first: int
    specs: list[ApiSpec] = field(default_factory=list)
    facts: list[BackendFacts] = field(default_factory=list)

    def add(self, spec: ApiSpec, facts: BackendFacts) -> int:
        """Adds one, or finds the very same one; returns its index among all backends. Names are made unique."""
        for i, known in enumerate(self.specs):
            if known == spec and self.facts[i].kind == facts.kind and self.facts[i].model == facts.model:
                return self.first + i
        names = {known.name for known in self.facts}
        name, number = facts.name, 2
        while name in names:
            name, number = f"{facts.name} {number}", number + 1
        self.specs.append(spec)
        self.facts.append(replace(facts, name=name, provider=facts.provider or "gateway"))
        return self.first + len(self.specs) - 1
