"""Caches of answers, and the backends they answer through."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from simlab.draws import Distribution
from simlab.engine import AnswerCacheSpec, ApiSpec, TokenPrice
from simlab.engine import arrays as codes
from simlab.policies.extras import Extras
from simlab.results import BackendFacts
from simlab.results.facts import TokenPrices

if TYPE_CHECKING:
    from simlab.scenario import Scenario
    from simlab.scenario.caches import AnswerCache, Embedding, SemanticCache

LAYERS = {"results": codes.RESULTS, "exact": codes.EXACT, "semantic": codes.SEMANTIC}
"""Numbers of the layers by their names in a scenario."""

NAMES = {"results": "result cache", "exact": "exact cache", "semantic": "semantic cache"}
"""Names of the backends that answer their hits."""

_SCOPE = {
    "tenant": codes.SAME_TENANT,
    "user": codes.SAME_USER,
    "prompt_version": codes.SAME_PROMPT,
    "model_version": codes.SAME_MODEL,
    "corpus_version": codes.SAME_CORPUS,
}
_AT_ONCE = Distribution.fixed(0.0)
_FREE = TokenPrices(0.0, 0.0)


def caches(scenario: Scenario, extras: Extras) -> list[AnswerCacheSpec]:
    """The answer caches of a scenario; adds what answers their hits, and what they ask."""
    found = []
    for layer, cache in scenario.gateway.caches.layers.items():
        facts = BackendFacts(
            name=NAMES[layer], kind="cache", model=NAMES[layer], token_prices=_FREE, assumptions=_words(layer, cache),
            price_source="answers of a cache cost nothing",
        )  # fmt: skip
        backend = extras.add(ApiSpec(cache.hit_latency.distribution(), _AT_ONCE), facts)
        helper, hit, false_hit, stated = -1, 1.0, 0.0, False
        if layer == "semantic":
            semantic = scenario.gateway.caches.semantic
            assert semantic is not None
            hit, false_hit = semantic.matching.hit, semantic.matching.false_hit
            stated = semantic.hit_ratio is not None
            helper = -1 if semantic.embedding is None else _embedder(semantic.embedding, extras)
        found.append(
            AnswerCacheSpec(
                layer=LAYERS[layer],
                backend=backend,
                scope=sum(_SCOPE[part] for part in set(cache.scope)),
                capacity=cache.capacity or 0,
                ttl_s=[_ttl_s(scenario, name, cache) for name in scenario.workload],
                refresh=cache.refresh,
                miss_s=cache.miss_latency,
                helper=helper,
                hit=hit,
                false_hit=false_hit,
                stated=stated,
            )
        )
    return found


def layers_of(scenario: Scenario, name: str) -> list[int]:
    """The layers that requests of a class ask."""
    asked = []
    for layer, cache in scenario.gateway.caches.layers.items():
        named = not cache.classes or name in cache.classes
        if named and (layer != "results" or scenario.workload[name].task.deterministic):
            asked.append(LAYERS[layer])
    return asked


def _ttl_s(scenario: Scenario, name: str, cache: AnswerCache) -> float:
    """How long answers to a class keep: as said for the class, for its feature, or for all."""
    feature = scenario.workload[name].feature
    ttl = cache.ttl_by.get(name, cache.ttl_by.get(feature, cache.ttl))
    return math.inf if ttl is None else ttl


def _embedder(embedding: Embedding, extras: Extras) -> int:
    usd = embedding.usd_per_mtok
    spec = ApiSpec(
        embedding.latency.distribution(), _AT_ONCE, price=TokenPrice(prompt=usd / 1e6), usd_call=embedding.usd_per_call
    )
    facts = BackendFacts(
        name=embedding.model,
        kind="service",
        model=embedding.model,
        token_prices=TokenPrices(usd, 0.0),
        usd_per_call=embedding.usd_per_call,
        price_source="stated in the scenario",
    )
    return extras.add(spec, facts)


def _words(layer: str, cache: AnswerCache) -> tuple[str, ...]:
    """What a reader must know of a cache."""
    if layer != "semantic":
        return ("questions hit when they were answered before and the answer still keeps, right or wrong",)
    semantic: SemanticCache = cache  # type: ignore[assignment]
    chances = semantic.matching
    if semantic.hit_ratio is not None:
        return (
            f"hits are a stated share: {chances.hit:.1%} of lookups, {chances.false_hit:.1%} with a wrong answer, "
            "whatever was asked before",
        )
    return (
        f"hits follow from what was asked before: such a question is found with chance {chances.hit:.1%}, one that is "
        f"not found gets the answer to another with chance {chances.false_hit:.1%}",
    )
