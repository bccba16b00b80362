"""Where the numbers of a result come from: the speed profile and the price of each backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from simlab.results.facts import BackendFacts, Outside


def profiles(backends: Sequence[BackendFacts], outside: Mapping[str, Sequence[Outside]]) -> list[dict[str, Any]]:
    """How fast each backend was taken to be, how well that is known, and where it was used beyond that."""
    return [
        {
            "backend": facts.name,
            "model": facts.model,
            "gpu": facts.gpu,
            "name": facts.profile.name,
            "kind": facts.profile.kind,
            "error": facts.profile.error,
            "source": facts.profile.source,
            "date": facts.profile.date,
            "outside": [asdict(one) for one in outside.get(facts.name, ())],
        }
        for facts in backends
        if facts.profile is not None
    ]


def prices(backends: Sequence[BackendFacts]) -> list[dict[str, Any]]:
    """Each price that was used, with source and date.

    Returns:
        A pool has ``usd_per_gpu_hour``, an API the token prices, a helper ``usd_per_call``. Caches and answers of the
        gateway itself have none.
    """
    found: list[dict[str, Any]] = []
    for facts in backends:
        if not facts.priced or facts.kind in ("cache", "canned"):
            continue
        price: dict[str, Any] = {"backend": facts.name, "source": facts.price_source, "as_of": facts.price_as_of}
        if facts.kind == "service" and (facts.usd_per_call or facts.token_prices is None):
            price["usd_per_call"] = facts.usd_per_call
        elif facts.token_prices is None:
            price |= {"gpu": facts.gpu, "usd_per_gpu_hour": facts.usd_per_gpu_hour}
        if facts.token_prices is not None:
            input_usd, cached_usd, written_usd, output_usd = facts.token_prices.base
            price |= {
                "model": facts.model,
                "input_usd_per_mtok": input_usd,
                "cached_input_usd_per_mtok": cached_usd,
                "output_usd_per_mtok": output_usd,
            }
            if facts.token_prices.cache_write_usd_per_mtok is not None:
                price["cache_write_usd_per_mtok"] = written_usd
            if facts.token_prices.long_threshold_tokens is not None:
                long_input, long_cached, _, long_output = facts.token_prices.long
                price |= {
                    "long_threshold_tokens": facts.token_prices.long_threshold_tokens,
                    "long_input_usd_per_mtok": long_input,
                    "long_cached_input_usd_per_mtok": long_cached,
                    "long_output_usd_per_mtok": long_output,
                }
        found.append(price)
    return found


def unpriced(backends: Sequence[BackendFacts]) -> list[dict[str, str]]:
    """The backends whose use is missing from the bill for want of a price."""
    return [
        {"backend": facts.name, "what": f"{facts.gpu or 'GPU'} hours" if facts.kind == "pool" else facts.model}
        for facts in backends
        if not facts.priced
    ]
