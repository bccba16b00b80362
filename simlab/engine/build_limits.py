"""The arrays of limits, of the lines at them, and of context budgets, filled from a world's specification."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simlab.engine import arrays as a
from simlab.engine.limit_spec import NO_LIMIT, ContextSpec, LimitSpec
from simlab.engine.meters import HIST_BUCKETS

if TYPE_CHECKING:
    from simlab.engine.build import Packer
    from simlab.engine.spec import WorldSpec


def limit_arrays(
    spec: WorldSpec, gateway: NDArray[Any], policies: NDArray[Any], backends: NDArray[Any]
) -> dict[str, NDArray[Any]]:
    """`World.limits` … `World.wait_hist`; tells the gateway, policies and backends where theirs are."""
    limits = a.records(max(1, len(spec.limits)), a.limit_dtype)
    rows = _allowances(spec)
    queued = any(limit.over == a.QUEUE for limit in spec.limits)
    for record, limit in zip(limits, spec.limits, strict=False):
        for name in a.limit_dtype.names or ():
            record[name] = getattr(limit, name, 0)
        record["gate"] = a.NONE
        if limit.trough is not None:
            for name in ("pool", "fill_to", "kv", "waiting", "lead_s", "every_s"):
                record[name] = getattr(limit.trough, name)
            record["gate"] = limit.trough.route
        record["burst"] = limit.burst or max(limit.rpm, 1.0)
        record["burst_tokens"] = limit.burst_tokens or limit.tpm
    allowances = a.records(max(1, len(rows)), a.allowance_dtype)
    for record, (index, line) in zip(allowances, rows, strict=False):
        record["limit"], record["line"] = index, line
        record["requests"], record["tokens"] = limits[index]["burst"], limits[index]["burst_tokens"]
    lines, flows = _lines(spec, rows)
    gateway["guarded"] = spec.gateway.shed_queue < math.inf or spec.gateway.shed_ttft_s < math.inf
    gateway["guarded"] |= any(len(limit.of_backends) for limit in spec.limits)
    gateway["budgeted"] = any(limit.usd_per_day for limit in spec.limits)
    gateway["timers_a_slot"] = 4 if queued else 1
    n_classes = len(spec.classes)
    return {
        "limits": limits,
        "allowances": allowances,
        "limit_places": _places(spec, policies, backends),
        "lines": lines,
        "flows": flows,
        "counters": a.records(n_classes, a.counter_dtype),
        "wait_hist": np.zeros((n_classes, HIST_BUCKETS) if queued else (1, 1), np.int64),
    }


def _members(limit: LimitSpec) -> int:
    """How many allowances it has, keys aside."""
    numbers = [number for tenants in limit.of_tenants for number in tenants]
    return 1 + max([*numbers, *limit.of_backends], default=-1)


def _allowances(spec: WorldSpec) -> list[tuple[int, int]]:
    """The limit and the line of each allowance: member by member, key by key; a provider's keys share a line."""
    rows = []
    line = 0
    for index, limit in enumerate(spec.limits):
        for _ in range(_members(limit)):
            rows += [(index, line)] * limit.keys
            line += 1
    return rows


def _places(spec: WorldSpec, policies: NDArray[Any], backends: NDArray[Any]) -> NDArray[np.int64]:
    first = np.cumsum([0, *(_members(limit) * limit.keys for limit in spec.limits)])
    places: list[int] = []
    for c, cls in enumerate(spec.classes):
        mine = [
            (at, limit.of_tenants[c])
            for at, limit in zip(first, spec.limits, strict=False)
            if c < len(limit.of_tenants) and max(limit.of_tenants[c], default=-1) >= 0
        ]
        policies[c]["limits_at"], policies[c]["limits_n"] = len(places), len(mine)
        for tenant in range(len(cls.tenant_weights)):
            places += [int(at) + of[tenant] if of[tenant] >= 0 else a.NONE for at, of in mine]
    for b in range(len(spec.backends)):
        bound = [
            (at, limit)
            for at, limit in zip(first, spec.limits, strict=False)
            if b < len(limit.of_backends) and limit.of_backends[b] >= 0
        ]
        keys = max((limit.keys for _, limit in bound), default=1)
        backends[b]["limits_at"], backends[b]["limits_n"], backends[b]["keys"] = len(places), len(bound), keys
        for at, limit in bound:
            places += [int(at) + limit.of_backends[b] * limit.keys + key % limit.keys for key in range(keys)]
    return np.array(places or [a.NONE], np.int64)


def _lines(spec: WorldSpec, rows: list[tuple[int, int]]) -> tuple[NDArray[Any], NDArray[np.float64]]:
    lines = a.records(1 + max((line for _, line in rows), default=0), a.line_dtype)
    lines["head"] = lines["tail"] = lines["armed_slot"] = a.NONE
    said = spec.gateway
    lines["order"], lines["length"], lines["deadline_s"] = said.order, said.length, said.queue_deadline_s
    tenants = max(len(cls.tenant_weights) for cls in spec.classes)
    flows = 0
    for index, line in dict.fromkeys(rows):
        if spec.limits[index].trough is not None:
            lines[line]["order"], lines[line]["length"], lines[line]["deadline_s"] = a.BY_DEADLINE, NO_LIMIT, math.inf
        elif spec.limits[index].over == a.QUEUE and spec.gateway.order == a.FAIR:
            lines[line]["flow_at"], lines[line]["flows"] = flows, tenants
            flows += tenants
    return lines, np.zeros(max(1, flows))


def set_caps(spec: WorldSpec, policies: NDArray[Any]) -> None:
    """Writes caps to the policies, and which classes have anything to be held to when a task comes."""
    for record, policy in zip(policies, spec.policies, strict=False):
        if policy is None:
            continue
        caps = policy.caps
        record["max_prompt"] = record["max_output"] = record["max_tries"] = NO_LIMIT
        record["max_usd"] = record["max_session_usd"] = math.inf
        if caps is not None:
            record["max_prompt"], record["cut_prompt"] = caps.prompt, caps.cut
            record["max_output"], record["max_tries"] = caps.output, caps.tries
            record["max_usd"], record["max_session_usd"] = caps.usd, caps.session_usd
            record["capped"] = 1
        record["guarded"] = caps is not None or policy.context is not None or record["limits_n"] > 0


def contexts(spec: WorldSpec, packer: Packer) -> NDArray[Any]:
    """`World.contexts`."""
    budgets = [policy.context if policy is not None else None for policy in spec.policies]
    records = a.records(len(spec.classes) if any(budgets) else 1, a.context_dtype)
    for record, budget in zip(records, budgets, strict=False):
        if isinstance(budget, ContextSpec):
            record["used"] = 1
            record["chunks"] = packer.distribution(budget.chunks)
            record["tools"] = packer.distribution(budget.tools)
            for name in ("chunk_tokens", "max_chunks", "max_tools", "max_history", "summary_tokens", "helper"):
                record[name] = getattr(budget, name)
    return records
