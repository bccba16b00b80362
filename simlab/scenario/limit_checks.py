"""Limits and budgets that could never hold, or never matter: what is wrong with them lies elsewhere in the scenario."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from simlab.scenario.base import Fault
from simlab.scenario.limits import Limit, Queue

if TYPE_CHECKING:
    from simlab.scenario.scenario import Scenario
    from simlab.scenario.workload import WorkloadClass


def limit_names(
    limits: Sequence[Limit | None], classes: Sequence[str], backends: Sequence[str], apis: Sequence[str]
) -> Iterator[Fault]:
    """Yields names in limits that lead nowhere; ``backends`` with aliases. None: a limit that is itself broken."""
    from simlab.scenario.outline import suggest

    for i, limit in enumerate(limits):
        if limit is None:
            continue
        for field, what, named, known in (
            ("classes", "workload class", limit.classes, classes),
            ("apis", "API", limit.apis, apis),
        ):
            for j, name in enumerate(named):
                if name not in known:
                    message = f"read {name!r}, which is no {what}; {suggest(name, known)}"
                    yield Fault(("gateway", "limits", i, field, j), message)
        if limit.degrade_to is not None and limit.degrade_to not in backends:
            message = f"read {limit.degrade_to!r}, which is no backend; {suggest(limit.degrade_to, backends)}"
            yield Fault(("gateway", "limits", i, "degrade_to"), message)


def faults(scenario: Scenario) -> Iterator[Fault]:
    """Yields limits that nothing is held to, a queue that nothing waits in, budgets of parts that are not there."""
    gateway = scenario.gateway
    for i, limit in enumerate(gateway.limits):
        yield from _limit(scenario, i, limit)
    if gateway.queue != Queue() and not any(limit.when_over == "queue" for limit in gateway.limits):
        yield Fault(("gateway", "queue"), "nothing waits in it: no limit has when_over: queue; say so, or drop it")
    if gateway.shed is not None and not any(cls.priority > gateway.shed.keep for cls in scenario.workload.values()):
        highest = max(cls.priority for cls in scenario.workload.values())
        yield Fault(
            ("gateway", "shed", "keep"),
            f"read {gateway.shed.keep}, and no class has a priority above it (the highest is {highest}), so nothing "
            "would ever be shed; lower it",
        )
    for name, cls in scenario.workload.items():
        yield from _class(name, cls)


def _limit(scenario: Scenario, i: int, limit: Limit) -> Iterator[Fault]:
    path = ("gateway", "limits", i)
    covered = [scenario.workload[name] for name in limit.classes or scenario.workload]
    most = max(cls.tenants.count for cls in covered)
    for j, tenant in enumerate(limit.tenants):
        if tenant >= most:
            message = f"read {tenant}; the classes it holds for have tenants 0 to {most - 1}"
            yield Fault((*path, "tenants", j), message)
    if limit.of_calls and not scenario.apis:
        yield Fault((*path, "per"), f"read {limit.per}, but there are no APIs, and pools have no provider")
    if limit.degrade_to is not None and limit.of_calls:
        there = scenario.backend_called(limit.degrade_to)
        limited = limit.apis or list(scenario.apis)
        if there in limited:
            message = f"{there!r} is limited by this very limit, so going there changes nothing; name another backend"
            yield Fault((*path, "degrade_to"), message)
        yield from _circle(scenario, (*path, "degrade_to"), limited, there)


def _circle(
    scenario: Scenario, path: tuple[str | int, ...], limited: Sequence[str], there: str
) -> Iterator[Fault]:
    """A fallback that leads back to the limit: both refusing at once, a request would go round and never end."""
    chain = [there]
    while scenario.gateway.fallback.get(chain[-1], there) not in chain:
        chain.append(scenario.gateway.fallback[chain[-1]])
        if chain[-1] in limited:
            shown = " → ".join([chain[-1], *chain])
            yield Fault(path, f"{shown} is a circle of this limit and gateway.fallback; a chain must end: name another")
            return


def _class(name: str, cls: WorkloadClass) -> Iterator[Fault]:
    caps, context = cls.caps, cls.context
    if caps is not None and caps.conversation_usd is not None and cls.sessions is None:
        message = "the class has no conversations (sessions); say usd for a request, or drop it"
        yield Fault(("workload", name, "caps", "conversation_usd"), message)
    if context is None:
        return
    if context.caps.history is not None and cls.sessions is None and cls.agent is None:
        message = "the class has no conversations (sessions) and no agent, so there is no history; drop it"
        yield Fault(("workload", name, "context", "caps", "history"), message)
    system = 0 if cls.prefix is None else cls.prefix.system + cls.prefix.template
    if context.caps.system is not None and system > context.caps.system:
        message = f"read {context.caps.system:,}; the system prompt has {system:,} tokens, above it in every request"
        yield Fault(("workload", name, "context", "caps", "system"), message)
