"""Work that may wait: batch endpoints, and the lines in which tasks wait for room in a pool."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from simlab.draws import Distribution
from simlab.engine import ApiSpec, BatchSpec, LimitSpec, TroughSpec
from simlab.engine import arrays as codes
from simlab.engine.offline_spec import NO_END
from simlab.results import BackendFacts
from simlab.results.words import duration

if TYPE_CHECKING:
    from simlab.scenario import Api, Route, Scenario


def batch_endpoint(name: str, api: Api, spec: ApiSpec, facts: BackendFacts) -> tuple[ApiSpec, BackendFacts]:
    """The batch endpoint of an API, from the API itself.

    Args:
        name: of the endpoint.
        api: as written.
        spec: of the API.
        facts: likewise.
    """
    batch = api.batch
    assert batch is not None
    law = Distribution.fixed(batch.window) if batch.completion is None else batch.completion.distribution()
    left = 1.0 - batch.discount
    made = ApiSpec(
        ttft=law,
        itl=Distribution.fixed(0.0),
        concurrency=batch.max_queued_requests or 0,
        rpm=batch.rpm or 0.0,
        tpm=batch.tpm or 0.0,
        error_probability=batch.error_probability,
        cached_ratio=spec.cached_ratio,
        long_tokens=spec.long_tokens,
        price=spec.price.scaled(left),
        long_price=spec.long_price.scaled(left),
        model=spec.model,
        prompt_cache=spec.prompt_cache if batch.prompt_cache else None,
        batch=BatchSpec(
            window_s=batch.window,
            collect_s=batch.collect,
            requests=batch.requests_per_batch or NO_END,
            queued_tokens=batch.max_queued_tokens or 0,
        ),
    )
    words = ["when requests of a batch are done is as stated in the scenario, each by itself"]
    if batch.completion is None:
        words = [f"every request of a batch takes its whole window, {duration(batch.window)}: nothing else is stated"]
    if made.prompt_cache is not None:
        words.append("requests of a batch use the API's prompt cache as if they ran when they are sent")
    prices = facts.token_prices
    return made, replace(
        facts,
        name=name,
        token_prices=None if prices is None else prices.scaled(left),
        price_source=f"{100.0 * batch.discount:g}% off: {facts.price_source}" if facts.price_source else "",
        assumptions=tuple(words),
    )


def troughs(scenario: Scenario) -> list[LimitSpec]:
    """A line for each route that fills a pool's troughs, kept like that of a limit on calls to the pool."""
    found = []
    for i, route in enumerate(scenario.gateway.routes):
        if route.trough is None:
            continue
        said = route.trough
        pool = scenario.backends.index(scenario.backend_called(next(iter(route.to))))
        trough = TroughSpec(
            route=i,
            pool=pool,
            fill_to=said.fill_to,
            kv=said.kv,
            waiting=said.waiting,
            lead_s=lead_s(route),
            every_s=said.every,
        )
        at = [0 if b == pool else -1 for b in range(len(scenario.backends))]
        found.append(LimitSpec(over=codes.QUEUE, of_backends=at, trough=trough))
    return found


def lead_s(route: Route) -> float:
    """How near its deadline a task must be to wait no longer, s; -inf: it always waits."""
    lead = None if route.trough is None else route.trough.lead
    return -math.inf if lead is None else lead
