"""Caches that could never hit: what is wrong with them lies in the classes that ask them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from simlab.scenario.base import Fault

if TYPE_CHECKING:
    from simlab.scenario.scenario import Scenario
    from simlab.scenario.workload import WorkloadClass


def faults(scenario: Scenario, *, routed: bool) -> Iterator[Fault]:
    """Yields what keeps a cache from ever being used, and changes of versions after the end.

    Args:
        scenario: with parts that are valid by themselves.
        routed: its routes lead somewhere.
    """
    yield from _answers(scenario)
    if routed:
        yield from _prompts(scenario)
    for name, cls in scenario.workload.items():
        for i, change in enumerate(cls.task.changes):
            if change.at > scenario.horizon:
                yield Fault(
                    ("workload", name, "task", "changes", i, "at"),
                    f"read {change.at:g} s, after the horizon ({scenario.horizon:g} s); it would never happen",
                )


def _answers(scenario: Scenario) -> Iterator[Fault]:
    domains = {*scenario.workload, *(cls.feature for cls in scenario.workload.values())}
    for layer, cache in scenario.gateway.caches.layers.items():
        path = ("gateway", "caches", layer)
        for domain in cache.ttl_by:
            if domain not in domains:
                yield Fault((*path, "ttl_by", domain), f"read {domain!r}, which is no workload class and no feature")
        asking = {name: scenario.workload[name] for name in cache.classes or scenario.workload
                  if name in scenario.workload}  # fmt: skip
        if layer == "results":
            asking = {name: cls for name, cls in asking.items() if cls.task.deterministic}
            if not asking:
                yield Fault(path, "no class that asks it has deterministic results; say task: {deterministic: true}")
                continue
        if getattr(cache, "hit_ratio", None) is None and asking and not any(map(_recurs, asking.values())):
            first = next(iter(asking))
            yield Fault(
                path,
                "it would never hit: no two requests of the classes that ask it are alike; say how questions recur, "
                f"e.g. workload.{first}.queries: {{count: 10k, zipf: 1}}"
                + (", or give hit_ratio" if layer == "semantic" else ""),
            )


def _recurs(cls: WorkloadClass) -> bool:
    """Whether a question can be asked again, as far as the scenario tells; a trace may name its questions."""
    return cls.queries is not None or cls.arrivals.kind == "trace"


def _prompts(scenario: Scenario) -> Iterator[Fault]:
    for name, api in scenario.apis.items():
        cache = api.prompt_cache
        if cache is None:
            continue
        sent = [cls for key, cls in scenario.workload.items() if scenario.route_of(key).get(name, 0.0) > 0]
        longest = max((beginning(cls, cache.history) for cls in sent), default=math.inf)
        if longest == 0:
            yield Fault(
                ("apis", name, "prompt_cache"),
                "nothing to cache: no class sent here has prompts that begin alike; give workload.….prefix, sessions "
                "or agent",
            )
        elif cache.min_tokens is not None and cache.min_tokens > longest:
            yield Fault(
                ("apis", name, "prompt_cache", "min_tokens"),
                f"read {cache.min_tokens:,}; the longest beginning that prompts sent here share has {longest:,.0f} "
                "tokens, so nothing would ever be cached",
            )


def beginning(cls: WorkloadClass, history: bool) -> float:
    """Tokens that begin a prompt of the class and can be asked for again; infinite where nobody can say."""
    if cls.arrivals.kind == "trace" or (history and (cls.sessions or cls.agent)):
        return math.inf
    if cls.prefix is None:
        return 0.0
    documents = cls.prefix.documents
    return cls.prefix.system + cls.prefix.template + (0 if documents is None else documents.tokens)
