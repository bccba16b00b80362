"""Pre-flight checks of limits and budgets: those that not one request fits into."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from simlab.lint.finding import Finding

if TYPE_CHECKING:
    from simlab.lint.offered import ClassLoad, Offered
    from simlab.scenario import Scenario


def check_limits(scenario: Scenario, load: Offered) -> Iterator[Finding]:
    """Yields budgets that are below the price of one mean request of a class."""
    for i, limit in enumerate(scenario.gateway.limits):
        if limit.usd_per_day is None:
            continue
        for name in limit.classes or scenario.workload:
            least = _least_usd(scenario, load, name)
            if least is not None and least > limit.usd_per_day:
                yield _below(f"gateway.limits.{i}.usd_per_day", limit.usd_per_day, name, least)
    for name, cls in scenario.workload.items():
        caps = scenario.gateway.caps if cls.caps is None else cls.caps.over(scenario.gateway.caps)
        for field in ("usd", "conversation_usd"):
            most, least = getattr(caps, field), _least_usd(scenario, load, name)
            if most is not None and least is not None and least > most:
                own = cls.caps is not None and getattr(cls.caps, field) is not None
                yield _below(f"workload.{name}.caps.{field}" if own else f"gateway.caps.{field}", most, name, least)


def _below(path: str, budget: float, name: str, least: float) -> Finding:
    message = f"${budget:.3g} is below the price of one mean request of class {name!r} (${least:.3g}); raise it"
    return Finding("error", path, message)


def _least_usd(scenario: Scenario, load: Offered, name: str) -> float | None:
    """What a mean request of the class costs at the cheapest API it may go to; None: a pool takes some, or no price."""
    from simlab.prices import api_price

    cls = load.classes.get(name)
    shares = load.shares.get(name, {})
    if cls is None or not shares or any(backend not in scenario.apis for backend in shares):
        return None
    found = []
    for backend in shares:
        api = scenario.apis[backend]
        price = api.price or api_price(api.provider, api.model, missing_ok=True)
        if price is None:
            return None
        cached = price.cached_input_usd_per_mtok
        cheapest = price.input_usd_per_mtok if cached is None else min(price.input_usd_per_mtok, cached)
        found.append(_usd(cls, price.input_usd_per_mtok, cheapest, price.output_usd_per_mtok))
    return min(found)


def _usd(cls: ClassLoad, prompt: float, cached: float, output: float) -> float:
    known = cls.prompt_tokens - cls.new_tokens
    return (cls.new_tokens * prompt + known * cached + cls.output_tokens * output) / 1e6
