"""Pre-flight checks of routes: those by price to what has none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from simlab.errors import InputError
from simlab.lint.finding import Finding

if TYPE_CHECKING:
    from simlab.scenario import Pool, Scenario


def check_routes(scenario: Scenario) -> Iterator[Finding]:
    """Yields backends that a route by price cannot compare."""
    from simlab.policies import incomparable
    from simlab.prices import api_price

    if all(route.by != "cheapest" for route in scenario.gateway.routes):
        return
    priced = {name: _priced(pool) for name, pool in scenario.pools.items()}
    for name, api in scenario.apis.items():
        priced[name] = (api.price or api_price(api.provider, api.model, missing_ok=True)) is not None
    for problem in incomparable(scenario, priced):
        yield Finding("error", problem.path, problem.message)


def _priced(pool: Pool) -> bool:
    from simlab.prices import gpu_price

    if pool.price.usd_per_gpu_hour is not None:
        return True
    try:
        gpu_price(pool.gpu, pool.price.provider, pool.price.market)
    except InputError:
        return False
    return True
