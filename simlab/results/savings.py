"""What caches saved, layer by layer: counted where it happened, against the same run without that layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simlab.results.facts import BackendFacts
from simlab.results.measurements import Measurements

LAYERS = ("results", "exact", "semantic")
"""Caches of answers, in the order of `Measurements.savings`; a test holds it equal to the engine's."""


def layer_savings(measured: Measurements) -> dict[str, dict[str, float]]:
    """For each cache of answers that was asked: lookups, hits, wrong hits, tokens no backend saw, and USD saved.

    The USD of a hit is what the request's first attempt would have cost at the backend its route draws for it. Later
    hits of other caches, retries that were not needed and replicas that could be given back are not in it.
    """
    rows = measured.savings.reshape(-1, len(LAYERS)) if len(measured.savings) >= len(LAYERS) else None
    if rows is None:
        return {}
    return {
        layer: {name: float(rows[name][:, i].sum()) for name in rows.dtype.names or ()}
        for i, layer in enumerate(LAYERS)
        if rows["lookups"][:, i].any()
    }


def prompt_cache_usd(measured: Measurements, facts: Sequence[BackendFacts]) -> NDArray[np.float64]:
    """USD that each backend's prompt cache saved, f8[backends]: cheaper reads less dearer writes."""
    saved = np.zeros(len(facts))
    cells = measured.cells
    for b, backend in enumerate(facts):
        prices = backend.token_prices
        if prices is None:
            continue
        mine = cells[cells["backend"] == b]
        for tier, usd in (("long_", prices.long), ("", prices.base)):
            fresh, read, write, _ = usd
            cached, written = (
                float(mine[f"{tier}{name}"].sum() - (0 if tier else mine[f"long_{name}"].sum()))
                for name in ("cached_tokens", "written_tokens")
            )
            saved[b] += (cached * (fresh - read) - written * (write - fresh)) / 1e6
    return saved


def cache_rows(measurements: Sequence[Measurements], facts: Sequence[BackendFacts]) -> list[dict[str, Any]]:
    """What each cache did, means over replications: the gateway's caches of answers, then those of prompts by backend.

    Returns:
        ``cache``, ``lookups``, ``hits``, ``wrong`` (hits), ``hit_ratio``, ``prompt_tokens`` and ``output_tokens`` that
        did not have to be made or read at full price, ``saved_usd``; NaN where it means nothing: a prompt cache knows
        tokens and no lookups, and what a pool's prefix cache saves is time, which has no price of its own.
    """
    found = []
    nothing = dict.fromkeys(("lookups", "hits", "wrong", "hit_ratio", "prompt_tokens", "output_tokens"), float("nan"))
    layers = [layer_savings(measured) for measured in measurements]
    for layer in LAYERS:
        mine = [by_layer[layer] for by_layer in layers if layer in by_layer]
        if mine:
            total = {name: sum(row[name] for row in mine) / len(layers) for name in mine[0]}
            saved = total.pop("usd")
            ratio = total["hits"] / total["lookups"]
            found.append({"cache": f"{layer} cache", **total, "hit_ratio": ratio, "saved_usd": saved})
    usd = np.mean([prompt_cache_usd(measured, facts) for measured in measurements], axis=0)
    for b, backend in enumerate(facts):
        cells = [measured.cells[measured.cells["backend"] == b] for measured in measurements]
        tokens = float(np.mean([mine["cached_tokens"].sum() for mine in cells]))
        written = float(np.mean([mine["written_tokens"].sum() for mine in cells]))
        if tokens or written:
            kind, saved = ("prefix", float("nan")) if backend.kind == "pool" else ("prompt", float(usd[b]))
            name = f"{kind} cache of {backend.name}"
            found.append({"cache": name, **nothing, "prompt_tokens": tokens, "saved_usd": saved})
    return found
