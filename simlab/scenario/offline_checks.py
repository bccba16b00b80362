"""Work that may wait: who may, where it goes, and whether that can be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from simlab.scenario.base import Fault

if TYPE_CHECKING:
    from simlab.scenario.routing import Route
    from simlab.scenario.scenario import Scenario


def faults(scenario: Scenario) -> Iterator[Fault]:
    """Yields troughs that nothing could fill, and classes that are made to wait though somebody waits for them."""
    batches = scenario.batch_endpoints
    for i, route in enumerate(scenario.gateway.routes):
        path = ("gateway", "routes", i)
        if route.trough is not None:
            yield from _trough(scenario, path, route)
        waits = route.by == "trough" or any(scenario.backend_called(name) in batches for _, name in route.targets)
        for name in _classes(scenario, i) if waits else ():
            task = scenario.workload[name].task
            if task.deadline is None:
                where = "is sent to a batch endpoint" if route.by != "trough" else "waits for room in a pool"
                message = f"class {name!r} {where}, but somebody waits for its answers; give task.deadline, e.g. 24h"
                yield Fault((*path, "by" if route.by == "trough" else "to"), message)
            elif route.trough is not None and (route.trough.lead or 0.0) >= task.deadline:
                yield Fault(
                    (*path, "trough", "lead"),
                    f"read {route.trough.lead:g} s, but class {name!r} has {task.deadline:g} s in all, so it would "
                    "never wait; lower it",
                )
    hurried = next((name for name, cls in scenario.workload.items() if cls.task.deadline is None), None)
    stand_ins: list[tuple[tuple[str | int, ...], str | None]] = [
        (("gateway", "fallback", failed), there) for failed, there in scenario.gateway.fallback.items()
    ]
    stand_ins += [
        (("gateway", "limits", i, "degrade_to"), limit.degrade_to) for i, limit in enumerate(scenario.gateway.limits)
    ]
    for named, there in stand_ins if hurried is not None else ():
        if there is not None and scenario.backend_called(there) in batches:
            message = f"{there!r} answers some time today, and somebody waits for class {hurried!r}; name another"
            yield Fault(named, message)
    hedge = scenario.gateway.hedge
    if hedge is not None and hedge.to is not None and scenario.backend_called(hedge.to) in batches:
        yield Fault(("gateway", "hedge", "to"), f"{hedge.to!r} answers some time today; name a quicker backend")


def _trough(scenario: Scenario, path: tuple[str | int, ...], route: Route) -> Iterator[Fault]:
    first = next(iter(route.to), "")
    pool = scenario.pools.get(scenario.backend_called(first))
    if pool is None:
        message = f"{first!r} is no pool, and nobody sees when another backend has room; name a pool first"
        yield Fault((*path, "to", first), message)
    elif route.trough is not None and route.trough.fill_to * pool.max_num_seqs < 1.0 - 1e-9:
        yield Fault(
            (*path, "trough", "fill_to"),
            f"read {route.trough.fill_to:g}, not even one of the {pool.max_num_seqs} that a replica takes; raise it",
        )


def _classes(scenario: Scenario, i: int) -> list[str]:
    """The classes of which some task takes the i-th route."""
    route = scenario.gateway.routes[i]
    return [
        name
        for name, cls in scenario.workload.items()
        if any(
            scenario.route_for(name, tier, tenant) is route
            for tier in cls.task.shares
            for tenant in range(cls.tenants.count)
        )
    ]
