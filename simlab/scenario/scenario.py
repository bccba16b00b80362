"""The scenario: what one file describes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr
from pydantic_core import PydanticCustomError

from simlab.scenario import agents, cache_checks, capabilities, limit_checks, offline_checks, tree
from simlab.scenario.alerts import Alerts
from simlab.scenario.answers import AnswerModel
from simlab.scenario.apis import Api
from simlab.scenario.base import Fault, Model, Name
from simlab.scenario.gateway import Gateway
from simlab.scenario.offline import BATCH
from simlab.scenario.operations import Operation
from simlab.scenario.outline import Outline, faults
from simlab.scenario.pools import Pool
from simlab.scenario.routing import Route
from simlab.scenario.slo import Budget, Slo
from simlab.scenario.tree import Node
from simlab.scenario.units import Seconds
from simlab.scenario.workload import WorkloadClass


def _moment(raw: Any) -> datetime:
    # pydantic would take a number as seconds since 1970, and nobody writes that.
    if isinstance(raw, datetime):
        moment = raw
    else:
        try:
            moment = datetime.fromisoformat(raw)
        except (TypeError, ValueError):
            raise PydanticCustomError("quantity", "not a date and time: write e.g. '2026-01-05T00:00:00'") from None
    if moment.tzinfo is not None:
        raise PydanticCustomError(
            "quantity", "it has a time zone: write it without, in the local time of the profiles' hours"
        )
    return moment


class Scenario(Model):
    """A deployment and its traffic, over a stretch of time."""

    schema_version: Literal[1] = Field(1, alias="schema", description="version of this format")
    name: str = Field("scenario", min_length=1, max_length=120, description="name, for tables and reports; in a file: "
                      "its file name when left out")
    description: str = Field("", description="what it is about, for people")
    horizon: Seconds = Field(3600.0, gt=0, description="how much time is simulated, s")
    warmup: Seconds = Field(0.0, ge=0, description="cut from the metrics at the start, not from the cost, s")
    seed: int = Field(0, ge=0, lt=2**63, description="seed of all random draws")
    start: Annotated[datetime, BeforeValidator(_moment)] = Field(
        datetime(2026, 1, 5), description="date and time of the start, for profiles by hour and day; a Monday"
    )
    window: Annotated[Seconds, Field(gt=0)] | None = Field(
        None, description="width of the windows of metrics over time, s; none: a sixtieth of the horizon"
    )
    workload: dict[Name, WorkloadClass] = Field(description="workload classes by name; at least one")
    pools: dict[Name, Pool] = Field({}, description="self-hosted pools by name")
    apis: dict[Name, Api] = Field({}, description="API endpoints by name")
    models: dict[Name, AnswerModel] = Field(
        {}, description="what answers are worth, by the `model` of pools and APIs; one not named is always right"
    )
    gateway: Gateway = Field(Gateway(), description="routes, timeout, retries")
    alerts: Alerts | None = Field(None, description="rules on the stream of calls and spending; none: nobody looks")
    slo: Slo | None = Field(None, description="latency objectives of every class that has none of its own")
    budget: Budget | None = Field(None, description="what may be spent; none: no limit")
    operations: list[Operation] = Field([], description="planned operations on pools, and incidents of APIs")
    variants: dict[Name, list[Annotated[dict[str, Any], Field(min_length=1, max_length=1)]]] = Field(
        {}, description="named lists of changes, each item one `dotted.path: value`; chosen with --variant"
    )

    _source: Path | None = PrivateAttr(None)
    _variant: str | None = PrivateAttr(None)
    _tree: Node | None = PrivateAttr(None)

    @property
    def source(self) -> Path | None:
        """The file it was read from; None when it was not."""
        return self._source

    @property
    def variant(self) -> str | None:
        """The variant it was read as; None for the scenario as written."""
        return self._variant

    def place(self, path: str) -> str:
        """Where a field was written, as ``file:line:column``, or the nearest thing around it when it was left out.

        Args:
            path: keys and list indices joined by dots.

        Returns:
            The place; empty when the scenario was not read from a file.
        """
        return "" if self._tree is None else tree.place(self._tree, path)

    @property
    def base_dir(self) -> Path | None:
        """Where relative files are looked for; None without a source."""
        return None if self._source is None else self._source.parent

    @property
    def backends(self) -> tuple[str, ...]:
        """Pools, then APIs, then batch endpoints of APIs, in file order."""
        return (*self.pools, *self.apis, *self.batch_endpoints)

    @property
    def batch_endpoints(self) -> dict[str, Api]:
        """The APIs that have a batch endpoint, by the name of that."""
        return {f"{name}{BATCH}": api for name, api in self.apis.items() if api.batch is not None}

    @property
    def window_s(self) -> float:
        """Width of the metrics' windows, s."""
        return self.horizon / 60.0 if self.window is None else self.window

    def slo_of(self, name: str) -> Slo | None:
        """The objectives that hold for a workload class; what may wait has none but its own."""
        cls = self.workload[name]
        return cls.slo or (self.slo if cls.task.deadline is None else None)

    def route_for(self, cls: str, tier: str, tenant: int) -> Route | None:
        """The route that a task takes; None when there are no routes, and the only backend gets everything."""
        return next((route for route in self.gateway.routes if route.matches(cls, tier, tenant)), None)

    def backend_called(self, name: str) -> str:
        """The backend of this name or alias."""
        return self.gateway.aliases.get(name, name)

    def route_of(self, name: str) -> dict[str, float]:
        """Backends and shares (summing to 1) of the first attempts of a workload class, caches and limits aside.

        Where a route decides by what happens in the run (price, latency, overflow) the shares are a first guess.
        """
        if not self.gateway.routes:
            return {self.backends[0]: 1.0}
        cls = self.workload[name]
        weights = [(k + 1.0) ** -cls.tenants.skew for k in range(cls.tenants.count)]
        special = {tenant for route in self.gateway.routes for tenant in route.tenants if tenant < len(weights)}
        groups = [(tenant, weights[tenant]) for tenant in special]
        others = next((tenant for tenant in range(len(weights)) if tenant not in special), None)
        if others is not None:
            groups.append((others, sum(weights) - sum(weight for _, weight in groups)))
        shares: dict[str, float] = {}
        for tier, tier_share in cls.task.shares.items():
            for tenant, weight in groups:
                route = self.route_for(name, tier, tenant)
                if route is None:
                    continue
                targets = route.first_shares(tier)
                if route.by in capabilities.ADAPTIVE:
                    fits = capabilities.fitting(self, name, route)
                    targets = dict.fromkeys(fits, 1.0 / max(1, len(fits)))
                for target, share in targets.items():
                    backend = self.backend_called(target)
                    shares[backend] = shares.get(backend, 0.0) + tier_share * weight / sum(weights) * share
        return shares

    def checks(self) -> Iterator[Fault]:
        """References lead somewhere, times lie inside the horizon."""
        found = list(faults(self.outline()))
        yield from found
        yield from cache_checks.faults(self, routed=not found)
        if not found:
            yield from limit_checks.faults(self)
            yield from capabilities.faults(self)
            yield from offline_checks.faults(self)
            yield from agents.faults(self)

    def outline(self) -> Outline:
        """Its names and references."""
        return Outline(
            classes=list(self.workload),
            pools=list(self.pools),
            apis=list(self.apis),
            batches=list(self.batch_endpoints),
            routes=self.gateway.routes,
            aliases=self.gateway.aliases,
            tiers=list(dict.fromkeys(tier for cls in self.workload.values() for tier in cls.task.shares)),
            fallback=self.gateway.fallback,
            answers=list(self.gateway.answers),
            hedge_to=None if self.gateway.hedge is None else self.gateway.hedge.to,
            operations=self.operations,
            horizon_s=self.horizon,
            warmup_s=self.warmup,
            window_s=self.window,
            caches=self.gateway.caches,
            limits=self.gateway.limits,
        )
