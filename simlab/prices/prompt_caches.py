"""How providers' prompt caches work: facts from their public documentation."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class PromptCacheTerms:
    """A provider's rules for what prompts begin with.

    Attributes:
        provider: as genai-prices names it.
        model: what the names of its models begin with; empty: all others.
        min_tokens: shorter beginnings are not cached.
        block: tokens are cached in multiples of this.
        ttl_s: time a beginning keeps after its last use, s.
        source: where it is said.
        as_of: when it was read, ISO date.
        note: what is not said there.
    """

    provider: str
    model: str
    min_tokens: int
    block: int
    ttl_s: float
    source: str
    as_of: str
    note: str = ""


@cache
def _table() -> tuple[PromptCacheTerms, ...]:
    text = files("simlab.prices").joinpath("data/prompt_caches.csv").read_text("utf-8")
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    return tuple(
        PromptCacheTerms(
            row["provider"], row["model"], int(row["min_tokens"]), int(row["block"]), float(row["ttl_s"]),
            row["source"], row["as_of"], row["note"],
        )
        for row in rows
    )  # fmt: skip


def prompt_cache_terms(provider: str, model: str) -> PromptCacheTerms | None:
    """The rules for a model at a provider, by the longest beginning of its name; None where nothing is known."""
    provider, model = provider.strip().lower(), model.strip().lower()
    fitting = [terms for terms in _table() if terms.provider == provider and model.startswith(terms.model)]
    return max(fitting, key=lambda terms: len(terms.model), default=None)
