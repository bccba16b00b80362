"""A provider's prompt cache: as stated, as the provider says, or as most do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simlab.engine import PromptCacheSpec
from simlab.prices import prompt_cache_terms

if TYPE_CHECKING:
    from simlab.scenario import Api, Scenario

_MIN_TOKENS, _BLOCK, _TTL_S = 1024, 128, 300.0


def prompt_cache(scenario: Scenario, api: Api) -> tuple[PromptCacheSpec | None, tuple[str, ...]]:
    """The prompt cache of an endpoint, and what a reader must know of it; (None, ()) where it has none.

    Endpoints with the same model at the same provider share it.
    """
    cache = api.prompt_cache
    if cache is None:
        return None, ()
    cached = [(other.provider, other.model) for other in scenario.apis.values() if other.prompt_cache is not None]
    terms = prompt_cache_terms(api.provider, api.model)
    known = (_MIN_TOKENS, _BLOCK, _TTL_S) if terms is None else (terms.min_tokens, terms.block, terms.ttl_s)
    stated = (cache.min_tokens, cache.block, cache.ttl)
    minimum, block, ttl_s = (theirs if own is None else own for own, theirs in zip(stated, known, strict=True))
    source = "as stated"
    if None in stated:
        source = "as most providers have it; this one's rules are not known"
        if terms is not None:
            source = f"{terms.source}, read {terms.as_of}" + (f"; {terms.note}" if terms.note else "")
    words = (
        f"prompt cache: beginnings of {minimum:,.0f} tokens or more, in steps of {block:,.0f}, for {ttl_s:g} s after "
        f"each use ({source}); readable as soon as they are sent, never lost before",
    )
    number = list(dict.fromkeys(cached)).index((api.provider, api.model))
    return PromptCacheSpec(number, int(minimum), int(block), float(ttl_s), cache.key == "tenant", cache.history), words
