"""Routes, as rules that the engine follows."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from simlab.draws import Distribution
from simlab.engine import QUALITY_POINTS, ApiSpec, ChoiceSpec, RuleSpec
from simlab.engine import arrays as codes
from simlab.errors import Problem
from simlab.policies.extras import Extras
from simlab.policies.offline import lead_s
from simlab.results import BackendFacts
from simlab.scenario.capabilities import ADAPTIVE, fitting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from simlab.scenario import Route, Scenario
    from simlab.scenario.dist import SecondsDist
    from simlab.scenario.routing import Level

_MODES = {
    "weights": codes.BY_WEIGHTS,
    "cheapest": codes.BY_PRICE,
    "least_latency": codes.BY_LATENCY,
    "classifier": codes.BY_CLASSIFIER,
    "learned": codes.BY_LEARNED,
    "cascade": codes.BY_CASCADE,
    "overflow": codes.BY_OVERFLOW,
    "trough": codes.BY_TROUGH,
}


def rules_of(scenario: Scenario, name: str, rules: list[RuleSpec], extras: Extras) -> list[list[int]]:
    """For each tenant and tier of a class the number of its rule; appends the rules that are not there yet.

    Empty when the class's tasks all go by the weights of one route, which needs no rule.
    """
    cls = scenario.workload[name]
    tiers = list(cls.task.shares)
    found = [[scenario.route_for(name, tier, tenant) for tier in tiers] for tenant in range(cls.tenants.count)]
    distinct = {id(route): route for row in found for route in row}
    if len(distinct) == 1 and next(iter(distinct.values())) in _plain(scenario):
        return []
    numbers: dict[int, int] = {}
    for key, route in distinct.items():
        if route is None:
            raise ValueError(f"no route takes all of class {name!r}")  # the scenario's own checks say it first
        numbers[key] = len(rules)
        rules.append(_rule(scenario, name, route, extras))
    return [[numbers[id(route)] for route in row] for row in found]


def incomparable(scenario: Scenario, priced: Mapping[str, bool]) -> Iterator[Problem]:
    """Yields backends that a route by price cannot compare, for want of a price.

    Args:
        scenario: whose routes.
        priced: whether a price is known, by backend.
    """
    for i, route in enumerate(scenario.gateway.routes):
        for target in route.to if route.by == "cheapest" else ():
            backend = scenario.backend_called(target)
            if not priced.get(backend, True):
                where = f"{'pools' if backend in scenario.pools else 'apis'}.{backend}.price"
                message = f"no price of {backend!r} is known, so `by: cheapest` cannot compare it; give {where}"
                yield Problem("", f"gateway.routes.{i}.to.{target}", message)


def _plain(scenario: Scenario) -> list[Route | None]:
    return [None, *(route for route in scenario.gateway.routes if route.by == "weights")]


def _rule(scenario: Scenario, name: str, route: Route, extras: Extras) -> RuleSpec:
    mode, tiers = _MODES[route.by], list(scenario.workload[name].task.shares)
    if route.classifier is not None:
        asked = route.classifier
        labels = list(asked.to)
        return RuleSpec(
            mode,
            [ChoiceSpec(_index(scenario, asked.to[label])) for label in labels],
            helper=_helper(extras, "classifier", asked.latency, asked.usd_per_call),
            guesses=[[asked.guesses(tier).get(label, 0.0) for label in labels] for tier in tiers],
        )
    if route.learned is not None:
        learned = route.learned
        weak_chance, top = weak_chances(learned.curve)
        return RuleSpec(
            mode,
            [ChoiceSpec(_index(scenario, learned.weak)), ChoiceSpec(_index(scenario, learned.strong))],
            helper=_helper(extras, "learned router", learned.latency, learned.usd_per_call),
            weak_chance=weak_chance,
            top=top,
            strong_share=learned.strong_share,
        )
    if route.cascade is not None:
        return RuleSpec(mode, [_level(scenario, level, extras) for level in route.cascade])
    fits = fitting(scenario, name, route) if route.by in ADAPTIVE else route.to
    choices = [
        ChoiceSpec(_index(scenario, target), weight=weight, context=_context(scenario, target))
        for target, weight in route.to.items()
        if target in fits and (weight > 0 or route.by != "weights")
    ]
    if route.trough is not None:
        gate = next(i for i, other in enumerate(scenario.gateway.routes) if other is route)
        return RuleSpec(mode, choices, gate=gate, lead_s=lead_s(route))
    full = route.overflow
    if full is None:
        return RuleSpec(mode, choices, explore=route.explore)
    return RuleSpec(
        mode,
        choices,
        queue_per_replica=np.inf if full.queue_per_replica is None else full.queue_per_replica,
        ttft_s=np.inf if full.ttft is None else full.ttft,
        resume=full.resume,
    )


def _level(scenario: Scenario, level: Level, extras: Extras) -> ChoiceSpec:
    sure = level.confidence
    if sure is None:
        return ChoiceSpec(_index(scenario, level.to))
    right, wrong = sure.accepted()
    verifier = -1
    if sure.kind == "verifier":
        verifier = _helper(extras, "verifier", sure.latency, sure.usd_per_call)
    return ChoiceSpec(
        _index(scenario, level.to),
        accept_right=right,
        accept_wrong=wrong,
        samples=sure.samples if sure.kind == "agreement" else 1,
        verifier=verifier,
    )


def weak_chances(curve: dict[float, float]) -> tuple[list[float], float]:
    """What a learned router's curve says of single tasks.

    The router ranks tasks by what the strong model gains; sending a share x to it gives q(x) right answers. With a
    strong model that is right with chance q(1) at any rank, a task of rank u is answered rightly by the weak one with
    chance q(1) − q′(u), and the mean over all tasks is q(x) at every x.

    Returns:
        That chance at `QUALITY_POINTS` ranks (means over the interval around each), and q(1).
    """
    points = sorted(curve.items())
    shares, right = [x for x, _ in points], [y for _, y in points]
    top = right[-1]
    step = 1.0 / (QUALITY_POINTS - 1)
    edges = np.clip((np.arange(QUALITY_POINTS + 1) - 0.5) * step, 0.0, 1.0)
    values = np.interp(edges, shares, right)
    slopes = [(high - low) / (b - a) for (a, b), (low, high) in zip(pairwise(edges), pairwise(values), strict=True)]
    return [float(min(max(top - slope, 0.0), 1.0)) for slope in slopes], top


def _index(scenario: Scenario, target: str) -> int:
    return scenario.backends.index(scenario.backend_called(target))


def _context(scenario: Scenario, target: str) -> int:
    backend = scenario.backend_called(target)
    pool = scenario.pools.get(backend)
    if pool is None:
        return (scenario.apis | scenario.batch_endpoints)[backend].offers.context or 0
    return pool.offers.context or pool.max_model_len or 0


def _helper(extras: Extras, name: str, latency: SecondsDist | None, usd_per_call: float) -> int:
    """The service that is asked; none where it takes neither time nor money."""
    if latency is None and not usd_per_call:
        return -1
    law = Distribution.fixed(0.0) if latency is None else latency.distribution()
    spec = ApiSpec(law, Distribution.fixed(0.0), usd_call=usd_per_call)
    facts = BackendFacts(
        name=name, kind="service", model=name, usd_per_call=usd_per_call, price_source="stated in the scenario"
    )
    return extras.add(spec, facts)
