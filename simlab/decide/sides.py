"""The two sides of a break-even: one plan on APIs, one on a self-hosted pool, with what money needs to know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from simlab import assemble
from simlab.decide.compare import labelled, unlike_traffic
from simlab.errors import InputError, Problem

if TYPE_CHECKING:
    from simlab.results import BackendFacts
    from simlab.scenario import Scenario


@dataclass(frozen=True)
class Sides:
    """An API plan and a self-hosted one, fit to be compared over volume.

    Args:
        api: all its traffic goes to APIs; pools that stand idle in it are left out.
        selfhost: all its traffic goes to `pool`; planned operations are left out.
        api_label: name of the API side.
        selfhost_label: name of the other.
        pool: the pool's name.
        pool_facts: its GPUs and price.
        api_facts: the APIs that get traffic, and their prices.
        notes: what was left out, in sentences.
        warnings: how their traffic differs, in sentences.
    """

    api: Scenario
    selfhost: Scenario
    api_label: str
    selfhost_label: str
    pool: str
    pool_facts: BackendFacts
    api_facts: tuple[BackendFacts, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def sides(one: Scenario, other: Scenario) -> Sides:
    """Tells which is which, and whether they can be compared.

    Raises:
        InputError: they are not an API and a pool, there is no SLO to size the pool by, or no price.
    """
    plans = labelled([one, other])
    used = {label: _used(scenario) for label, scenario in plans.items()}
    on_apis = [label for label, (pools, apis) in used.items() if apis and not pools]
    on_pools = [label for label, (pools, apis) in used.items() if pools and not apis]
    if len(on_apis) != 1 or len(on_pools) != 1:
        said = "; ".join(f"{label} uses {_listed(*backends)}" for label, backends in used.items())
        raise _wrong(one, "gateway.routes", f"{said}; a break-even is between a plan that uses only APIs and one that "
                     "uses only a pool: name two such variants with --between")  # fmt: skip
    [api_label], [selfhost_label] = on_apis, on_pools
    api, selfhost = plans[api_label], plans[selfhost_label]
    pools = used[selfhost_label][0]
    if len(pools) > 1:
        raise _wrong(selfhost, "gateway.routes", f"{selfhost_label} sends traffic to the pools {', '.join(pools)}; the "
                     "number of replicas can be searched in one pool only: route everything to one")  # fmt: skip
    if not any(selfhost.slo_of(name) for name in selfhost.workload):
        raise _wrong(selfhost, "slo", f"{selfhost_label} has no SLO, so nothing says how many replicas are enough; add "
                     "one, e.g. slo: {ttft: 2s, itl: 50ms, target: 95%}")  # fmt: skip
    warnings = tuple(unlike_traffic({api_label: api, selfhost_label: selfhost}))
    notes = []
    if any(operation.api is not None for operation in (*api.operations, *selfhost.operations)):
        notes.append("incidents of APIs are left out: the question is what an ordinary month costs")
    if any(operation.pool is not None for operation in selfhost.operations):
        notes.append(f"planned operations of {selfhost_label} are left out: its replicas are all there from the start")
    if api.pools:
        notes.append(f"pools that stand idle in {api_label} are not on its bill")
    api = api.model_copy(update={"pools": {}, "operations": []})
    selfhost = selfhost.model_copy(update={"pools": {pools[0]: selfhost.pools[pools[0]]}, "apis": {}, "operations": []})
    [pool_facts] = assemble.backends(selfhost).facts
    api_facts = tuple(facts for facts in assemble.backends(api).facts if facts.name in used[api_label][1])
    _priced(api, selfhost, api_label, selfhost_label, (*api_facts, pool_facts))
    return Sides(api, selfhost, api_label, selfhost_label, pools[0], pool_facts, api_facts, tuple(notes), warnings)


def _used(scenario: Scenario) -> tuple[list[str], list[str]]:
    """Pools and APIs that get traffic."""
    routed = {name for cls in scenario.workload for name in scenario.route_of(cls)}
    apis = (*scenario.apis, *scenario.batch_endpoints)
    return [name for name in scenario.pools if name in routed], [name for name in apis if name in routed]


def _listed(pools: list[str], apis: list[str]) -> str:
    parts = [f"{kind} {', '.join(names)}" for kind, names in (("pool", pools), ("API", apis)) if names]
    return " and ".join(parts) or "nothing"


def _priced(
    api: Scenario, selfhost: Scenario, api_label: str, selfhost_label: str, facts: tuple[BackendFacts, ...]
) -> None:
    problems = []
    for backend in facts:
        if backend.priced:
            continue
        if backend.kind == "api":
            message = (
                f"{api_label}: no price is known for {backend.model}, so there is nothing to break even with; state "
                "price: {input_usd_per_mtok: …, output_usd_per_mtok: …}"
            )
            problems.append(Problem(str(api.source or ""), f"apis.{backend.name}.price", message))
        else:
            message = (
                f"{selfhost_label}: no price is known for {backend.gpu} hours; state price: {{usd_per_gpu_hour: …}}"
            )
            problems.append(Problem(str(selfhost.source or ""), f"pools.{backend.name}.price", message))
    if problems:
        raise InputError(problems)


def _wrong(scenario: Scenario, path: str, message: str) -> InputError:
    return InputError([Problem(str(scenario.source or ""), path, message)])
