"""The names a scenario defines, and whether everything that refers to one refers to one that is there.

The outline is taken from a parsed scenario, or from the parts of a broken one that can be read, so that a wrong route
is reported beside a wrong rate and not after it is repaired.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simlab.names import nearest
from simlab.scenario.base import Fault
from simlab.scenario.caches import Caches
from simlab.scenario.limit_checks import limit_names
from simlab.scenario.limits import Limit
from simlab.scenario.offline import BATCH
from simlab.scenario.operations import Operation
from simlab.scenario.reliability import fallback_faults
from simlab.scenario.routing import Route


@dataclass(frozen=True)
class Outline:
    """What cross-references need to know.

    Attributes:
        classes, pools, apis: names, in file order.
        routes: the gateway's routes; None for one that could not be read.
        aliases: other names of backends.
        tiers: of all classes; empty when they could not be read.
        fallback: who stands in for whom.
        answers: names of canned answers.
        hedge_to: backend of hedges; None: by the route.
        operations: likewise.
        horizon_s, warmup_s, window_s: None when they could not be read.
        caches: likewise.
        limits: the gateway's; None for one that could not be read.
        batches: names of batch endpoints.
    """

    classes: Sequence[str]
    pools: Sequence[str]
    apis: Sequence[str]
    routes: Sequence[Route | None]
    aliases: Mapping[str, str]
    tiers: Sequence[str]
    fallback: Mapping[str, str]
    answers: Sequence[str]
    hedge_to: str | None
    operations: Sequence[Operation | None]
    horizon_s: float | None
    warmup_s: float | None
    window_s: float | None
    caches: Caches | None = None
    limits: Sequence[Limit | None] = ()
    batches: Sequence[str] = ()

    @property
    def backends(self) -> list[str]:
        """Pools, then APIs, then batch endpoints."""
        return [*self.pools, *self.apis, *self.batches]


def faults(outline: Outline) -> Iterator[Fault]:
    """Yields every reference that leads nowhere and every time outside the horizon."""
    yield from _names(outline)
    yield from _routes(outline)
    yield from _aliases(outline)
    yield from fallback_faults(dict(outline.fallback), outline.backends, list(outline.answers))
    if outline.hedge_to is not None and outline.hedge_to not in outline.backends:
        message = f"read {outline.hedge_to!r}, which is no backend; {suggest(outline.hedge_to, outline.backends)}"
        yield Fault(("gateway", "hedge", "to"), message)
    for name in outline.answers:
        if name in outline.backends:
            yield Fault(("gateway", "answers", name), f"{name!r} is a backend, too; name the answer otherwise")
    yield from _caches(outline)
    yield from limit_names(outline.limits, outline.classes, [*outline.backends, *outline.aliases], outline.apis)
    yield from _times(outline)


def suggest(name: str, known: Sequence[str]) -> str:
    """The second half of an "unknown name" message: the nearest names, or all that there are."""
    if not known:
        return "none is defined"
    near = nearest(name, known, count=1)
    listed = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")
    return f"did you mean {near[0]!r}? There are: {listed}" if near else f"there are: {listed}"


def _names(outline: Outline) -> Iterator[Fault]:
    if not outline.classes:
        yield Fault(("workload",), "no workload class is defined; give at least one, e.g. workload: {chat: {…}}")
    if not outline.backends:
        yield Fault((), "no backend is defined; give at least one entry in pools or apis")
    for name in outline.apis:
        if name in outline.pools:
            yield Fault(("apis", name), f"{name!r} is also the name of a pool; backends need different names")
    for section in ("pools", "apis"):
        for name in getattr(outline, section):
            if name in outline.batches:
                yield Fault((section, name), f"{name!r} is the name of an API's batch endpoint, too; choose another")


def _routes(outline: Outline) -> Iterator[Fault]:
    if not outline.routes and len(outline.backends) > 1:
        yield Fault(
            ("gateway", "routes"),
            f"there are {len(outline.backends)} backends and no route; say where requests go, e.g. "
            f"routes: [{{to: {{{outline.backends[0]}: 1}}}}]",
        )
    taken: set[str] = set()
    for i, route in enumerate(outline.routes):
        if route is None:
            taken.update(outline.classes)  # it may have taken any
            continue
        for j, name in enumerate(route.classes):
            if name not in outline.classes:
                message = f"read {name!r}, which is no workload class; {suggest(name, outline.classes)}"
                yield Fault(("gateway", "routes", i, "classes", j), message)
        known = [*outline.backends, *outline.aliases]
        for path, backend in route.targets:
            if backend not in known:
                message = f"read {backend!r}, which is no backend; {suggest(backend, known)}"
                api = backend.removesuffix(BATCH)
                if api in outline.apis:
                    message = f"API {api!r} has no batch endpoint; give it one, e.g. apis: {{{api}: {{batch: {{}}}}}}"
                yield Fault(("gateway", "routes", i, *path), message)
        for j, level in enumerate(route.cascade or ()):
            sampled = level.confidence is not None and level.confidence.kind == "agreement"
            if sampled and outline.aliases.get(level.to, level.to) in outline.pools:
                message = (
                    f"read agreement, but {level.to!r} is a pool: samples that share its batch are not simulated; give "
                    "the level's roc or auc, or a verifier"
                )
                yield Fault(("gateway", "routes", i, "cascade", j, "confidence"), message)
        for j, tier in enumerate(route.tiers):
            if outline.tiers and tier not in outline.tiers:
                message = f"read {tier!r}, which is no class's tier; {suggest(tier, outline.tiers)}"
                yield Fault(("gateway", "routes", i, "tiers", j), message)
        if not route.tiers and not route.tenants:
            taken.update(route.classes or outline.classes)
    for name in outline.classes:
        if outline.routes and name not in taken:
            yield Fault(
                ("gateway", "routes"),
                f"no route takes all of class {name!r}; name it in a route without tiers and tenants, or end with one "
                "without classes",
            )


def _aliases(outline: Outline) -> Iterator[Fault]:
    for alias, backend in outline.aliases.items():
        if alias in outline.backends:
            yield Fault(("gateway", "aliases", alias), f"{alias!r} is a backend itself; name the alias otherwise")
        if backend not in outline.backends:
            message = f"read {backend!r}, which is no backend; {suggest(backend, outline.backends)}"
            yield Fault(("gateway", "aliases", alias), message)


def _caches(outline: Outline) -> Iterator[Fault]:
    for layer, cache in outline.caches.layers.items() if outline.caches is not None else ():
        for i, name in enumerate(cache.classes):
            if name not in outline.classes:
                message = f"read {name!r}, which is no workload class; {suggest(name, outline.classes)}"
                yield Fault(("gateway", "caches", layer, "classes", i), message)


def _times(outline: Outline) -> Iterator[Fault]:
    horizon = outline.horizon_s
    for name, value in (("warmup", outline.warmup_s), ("window", outline.window_s)):
        if horizon is None or value is None:
            continue
        if value > horizon or (name == "warmup" and value == horizon):
            yield Fault((name,), f"read {value:g} s, but horizon is {horizon:g} s; {name} must be shorter")
    for i, operation in enumerate(outline.operations):
        if operation is None:
            continue
        if operation.api is not None and operation.api not in outline.apis:
            message = f"read {operation.api!r}, which is no API; {suggest(operation.api, outline.apis)}"
            yield Fault(("operations", i, "api"), message)
        if operation.pool is not None and operation.pool not in outline.pools:
            message = f"read {operation.pool!r}, which is no pool; {suggest(operation.pool, outline.pools)}"
            yield Fault(("operations", i, "pool"), message)
        if horizon is not None and operation.at > horizon:
            message = f"read {operation.at:g} s, after the horizon ({horizon:g} s); it would never happen"
            yield Fault(("operations", i, "at"), message)


def keys(data: Mapping[str, Any], section: str) -> list[str]:
    """The names defined in one section of raw data; none when it is not a mapping."""
    value = data.get(section)
    return [str(key) for key in value] if isinstance(value, Mapping) else []
