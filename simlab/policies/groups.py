"""Which tasks of a class the ledger keeps apart, and what they are called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simlab.policies.versions import prompt_versions
from simlab.results.groups import TaskGroups

if TYPE_CHECKING:
    from simlab.scenario import Route, Scenario

ALL = "all"
"""The route where there are no routes: the only backend gets everything."""


def task_groups(scenario: Scenario) -> tuple[TaskGroups, ...]:
    """The groups of each class, tier by tier and version by version, as the engine numbers them."""
    names = {id(route): route.name or f"route {i}" for i, route in enumerate(scenario.gateway.routes, start=1)}

    def called(route: Route | None) -> str:
        return ALL if route is None else names[id(route)]

    found = []
    for name, cls in scenario.workload.items():
        tiers = tuple(cls.task.shares)
        routes = [
            tuple(called(scenario.route_for(name, tier, tenant)) for tier in tiers)
            for tenant in range(cls.tenants.count)
        ]
        alike = len(set(routes)) == 1
        found.append(TaskGroups(tiers, tuple(prompt_versions(cls.task)), tuple(routes[:1] if alike else routes)))
    return tuple(found)
