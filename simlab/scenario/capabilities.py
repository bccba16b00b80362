"""What a backend can do and what a class asks for: tools, vision, length of context, where data may be processed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from simlab.scenario.base import Fault, Model
from simlab.scenario.units import Tokens

if TYPE_CHECKING:
    from simlab.scenario.routing import Route
    from simlab.scenario.scenario import Scenario


class Offers(Model):
    """A row of the capability matrix: what a backend can do."""

    can: list[str] = Field([], description="what it can do besides text: tools, vision, … any names that classes use")
    regions: list[str] = Field(
        [], description="where it may process a request, e.g. [eu]; empty: unknown, which no residency rule accepts"
    )
    context: Annotated[Tokens, Field(ge=1)] | None = Field(
        None, description="longest prompt plus output, tokens; none: a pool's max_model_len, and no limit of an API"
    )


class Needs(Model):
    """What a backend must offer to a class."""

    can: list[str] = Field([], description="what it must be able to do, e.g. [tools, vision]")
    regions: list[str] = Field([], description="regions in which requests may be processed; empty: anywhere")
    context: Annotated[Tokens, Field(ge=1)] | None = Field(
        None, description="longest prompt plus output it must take, tokens; none: whatever comes"
    )


ADAPTIVE = ("cheapest", "least_latency")
"""Routes that choose among those that fit; of the others each backend they name must fit."""


def lacking(scenario: Scenario, cls: str, backend: str) -> list[str]:
    """What a backend lacks of what a class needs, in words; empty: it fits."""
    needs = scenario.workload[cls].needs
    pool = scenario.pools.get(backend)
    apis = scenario.apis | scenario.batch_endpoints
    offers = apis[backend].offers if pool is None else pool.offers
    found = [f"{what!r}" for what in needs.can if what not in offers.can]
    if needs.regions and not offers.regions:
        found.append("a stated region")
    elif needs.regions:
        abroad = [region for region in offers.regions if region not in needs.regions]
        found += [f"the guarantee that nothing goes to {region!r}" for region in abroad]
    longest = offers.context if pool is None else offers.context or pool.max_model_len
    if needs.context is not None and longest is not None and longest < needs.context:
        found.append(f"a context of {needs.context:,} tokens (it has {longest:,})")
    return found


def fitting(scenario: Scenario, cls: str, route: Route) -> list[str]:
    """The targets of an adaptive route that a class may go to, as the route calls them."""
    return [target for target in route.to if not lacking(scenario, cls, scenario.backend_called(target))]


def faults(scenario: Scenario) -> Iterator[Fault]:
    """Yields ways of a class to a backend that cannot serve it."""
    for name, cls in scenario.workload.items():
        if not (cls.needs.can or cls.needs.regions or cls.needs.context):
            continue
        reached: list[str] = [] if scenario.gateway.routes else list(scenario.backends)
        for i, route in enumerate(_routes_of(scenario, name)):
            if route is None:
                continue
            if route.by in ADAPTIVE:
                fits = fitting(scenario, name, route)
                if not fits:
                    message = f"none of {', '.join(route.to)} has what class {name!r} needs; {_repair(name)}"
                    yield Fault(("gateway", "routes", i, "to"), message)
                reached += [scenario.backend_called(target) for target in fits]
                continue
            for path, target in route.targets:
                backend = scenario.backend_called(target)
                reached.append(backend)
                yield from _fault(scenario, name, backend, ("gateway", "routes", i, *path))
        yield from _elsewhere(scenario, name, reached)


def _routes_of(scenario: Scenario, cls: str) -> Iterator[Route | None]:
    """The gateway's routes, None in place of those that no task of the class takes."""
    tiers, tenants = scenario.workload[cls].task.shares, scenario.workload[cls].tenants.count
    taken = {id(scenario.route_for(cls, tier, tenant)) for tier in tiers for tenant in range(tenants)}
    for route in scenario.gateway.routes:
        yield route if id(route) in taken else None


def _elsewhere(scenario: Scenario, cls: str, reached: Sequence[str]) -> Iterator[Fault]:
    """Backends that a class comes to without its route naming them: fallbacks, hedges, above a limit."""
    gateway = scenario.gateway
    if not gateway.routes:
        for backend in reached:
            yield from _fault(scenario, cls, backend, ("workload", cls, "needs"))
    seen, todo = set(reached), list(reached)
    while todo:
        failed = todo.pop()
        stands_in = gateway.fallback.get(failed)
        if stands_in is None or stands_in in gateway.answers or stands_in in seen:
            continue
        seen.add(stands_in)
        todo.append(stands_in)
        yield from _fault(scenario, cls, stands_in, ("gateway", "fallback", failed))
    if gateway.hedge is not None and gateway.hedge.to is not None:
        yield from _fault(scenario, cls, scenario.backend_called(gateway.hedge.to), ("gateway", "hedge", "to"))
    for i, limit in enumerate(gateway.limits):
        if limit.degrade_to is not None and (not limit.classes or cls in limit.classes):
            there = scenario.backend_called(limit.degrade_to)
            yield from _fault(scenario, cls, there, ("gateway", "limits", i, "degrade_to"))


def _fault(scenario: Scenario, cls: str, backend: str, path: tuple[str | int, ...]) -> Iterator[Fault]:
    lacks = lacking(scenario, cls, backend)
    if lacks:
        yield Fault(path, f"{backend!r} lacks {' and '.join(lacks)}, which class {cls!r} needs; {_repair(cls)}")


def _repair(cls: str) -> str:
    return f"send it elsewhere, say what the backend offers (offers), or drop it from workload.{cls}.needs"
