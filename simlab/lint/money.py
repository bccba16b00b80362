"""Pre-flight checks of the budget: the least the plan can cost, and what has no price."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

from simlab.errors import InputError
from simlab.lint.finding import Finding
from simlab.scenario.units import HOUR_S, MONTH_H

if TYPE_CHECKING:
    from simlab.lint.offered import Offered
    from simlab.scenario import Scenario


def check_money(scenario: Scenario, load: Offered) -> Iterator[Finding]:
    """Yields unpriced GPUs, and a budget below what the plan costs at least (or, with a part unpriced, that part)."""
    hourly = 0.0
    for name, pool in scenario.pools.items():
        price = yield from _gpu_hour(scenario, name)
        hourly += pool.replicas * pool.tp * price + pool.operations_usd_per_month / MONTH_H
    hourly += sum(_api_hour(scenario, name, load) for name in scenario.apis)
    budget = scenario.budget
    if budget is None:
        return
    if budget.usd_per_month is not None and hourly * MONTH_H > budget.usd_per_month:
        yield Finding(
            "warning",
            "budget.usd_per_month",
            f"${budget.usd_per_month:,.0f} cannot hold: the plan costs at least ${hourly * MONTH_H:,.0f} a month",
        )
    arrivals = sum(cls.mean_rps for cls in load.classes.values()) * HOUR_S
    complete = len(load.classes) == len(scenario.workload) and 0 < arrivals < math.inf
    if budget.usd_per_success is not None and complete and hourly / arrivals > budget.usd_per_success:
        yield Finding(
            "warning",
            "budget.usd_per_success",
            f"${budget.usd_per_success:.3g} cannot hold: even if every request succeeds, one costs at least "
            f"${hourly / arrivals:.3g}",
        )


def _gpu_hour(scenario: Scenario, name: str) -> Generator[Finding, None, float]:
    """The price of one GPU for an hour; 0 with a finding when there is none."""
    from simlab.prices import gpu_price
    from simlab.profiles import gpu

    pool = scenario.pools[name]
    if pool.price.usd_per_gpu_hour is not None:
        return pool.price.usd_per_gpu_hour
    try:
        gpu(pool.gpu)
    except InputError:
        return 0.0  # reported with the pool
    try:
        return gpu_price(pool.gpu, pool.price.provider, pool.price.market).usd_per_gpu_hour
    except InputError as error:
        yield Finding("warning", f"pools.{name}.price", f"{error}; its GPU hours are unpriced: give usd_per_gpu_hour")
        return 0.0


def _api_hour(scenario: Scenario, name: str, load: Offered) -> float:
    """What the tokens of an hour cost at an API if every cached token is the cheapest; 0 when it has no price."""
    from simlab.prices import api_price

    api = scenario.apis[name]
    price = api.price or api_price(api.provider, api.model, None, missing_ok=True)
    if price is None:
        return 0.0
    cached_price = price.cached_input_usd_per_mtok
    total = 0.0
    for cls, share in load.on(name):
        if math.isinf(cls.mean_rps):
            continue
        cached = (cls.prompt_tokens - cls.new_tokens) * (api.cached_input_ratio if cached_price is not None else 0.0)
        dollars = (
            (cls.prompt_tokens - cached) * price.input_usd_per_mtok
            + cached * (cached_price or 0.0)
            + cls.output_tokens * price.output_usd_per_mtok
        )
        total += cls.mean_rps * share * dollars / 1e6
    return total * HOUR_S
