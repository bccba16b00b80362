"""What each class asks of each backend: rates and mean lengths."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from simlab.errors import InputError
from simlab.lint.finding import Finding

if TYPE_CHECKING:
    from simlab.scenario import Scenario, WorkloadClass
    from simlab.workload import Stream


@dataclass(frozen=True)
class ClassLoad:
    """One class's requests.

    Attributes:
        name: of the class.
        mean_rps: requests a second over the horizon; infinite for a closed loop without think time.
        peak_rps: the highest rate; of work that fills the troughs of a pool its mean: it waits until the peak is over.
        prompt_tokens: mean, shared prefixes and history included.
        new_tokens: mean part of it that no prefix cache can know.
        output_tokens: mean.
        longest_tokens: prompt plus output that one request in a thousand exceeds; None where it is not known.
        closed: whether a fixed number of users offers it, who wait when it is slow.
    """

    name: str
    mean_rps: float
    peak_rps: float
    prompt_tokens: float
    new_tokens: float
    output_tokens: float
    longest_tokens: float | None
    closed: bool


@dataclass(frozen=True)
class Offered:
    """The load of all classes whose traffic could be opened.

    Attributes:
        classes: by name.
        shares: by class, the share of its requests each backend gets.
        findings: why the traffic of a class could not be opened.
    """

    classes: dict[str, ClassLoad]
    shares: dict[str, dict[str, float]]
    findings: tuple[Finding, ...]

    def routed(self, backend: str) -> bool:
        """Whether any class sends a backend anything."""
        return any(backend in shares for shares in self.shares.values())

    def on(self, backend: str) -> list[tuple[ClassLoad, float]]:
        """The classes a backend serves, with the share it gets of each."""
        return [
            (self.classes[name], shares[backend])
            for name, shares in self.shares.items()
            if backend in shares and name in self.classes
        ]


def offered_load(scenario: Scenario) -> Offered:
    """Opens every class's traffic and takes its mean load; a trace is read once for it."""
    from simlab.workload import open_class

    classes: dict[str, ClassLoad] = {}
    findings: list[Finding] = []
    for name in scenario.workload:
        try:
            classes[name] = _class_load(name, scenario.workload[name], open_class(scenario, name, scenario.seed))
        except InputError as error:
            findings += [Finding("error", f"workload.{name}", str(problem)) for problem in error.problems]
        if name in classes and troughs(scenario, name):
            classes[name] = replace(classes[name], peak_rps=classes[name].mean_rps)
    shares = {name: scenario.route_of(name) for name in scenario.workload}
    return Offered(classes, shares, tuple(findings))


def troughs(scenario: Scenario, name: str) -> list[str]:
    """The pools that some task of a class waits for room in."""
    cls = scenario.workload[name]
    routes = [
        scenario.route_for(name, tier, tenant) for tier in cls.task.shares for tenant in range(cls.tenants.count)
    ]
    filled = [next(iter(route.to)) for route in routes if route is not None and route.by == "trough"]
    return list(dict.fromkeys(scenario.backend_called(pool) for pool in filled))


def _class_load(name: str, cls: WorkloadClass, stream: Stream) -> ClassLoad:
    from simlab.workload.traffic import loop_calls, loop_growth

    load = stream.load
    new, longest = load.mean_prompt_tokens, None
    if stream.joint is not None:
        new = float(stream.joint.prompt.mean())
        longest = float((stream.joint.prompt + stream.joint.output).max())
    elif stream.prompt is not None and stream.output is not None:
        new = stream.prompt.mean()
        # Both long at once is rarer still: one of them at its 0.999 quantile and the other at its mean is fair.
        longest = max(
            stream.prompt.quantile(0.999) + stream.output.mean(), stream.prompt.mean() + stream.output.quantile(0.999)
        )
    if cls.agent is not None:
        calls, growth = loop_calls(cls), loop_growth(cls)
        new = (new + (calls - 1.0) * growth) / calls
        if longest is not None:
            longest += (cls.agent.calls().distribution().quantile(0.999) - 1.0) * growth
    return ClassLoad(
        name=name,
        mean_rps=load.mean_rate_rps,
        peak_rps=load.peak_rate_rps if math.isfinite(load.peak_rate_rps) else load.mean_rate_rps,
        prompt_tokens=load.mean_prompt_tokens,
        new_tokens=min(new, load.mean_prompt_tokens),
        output_tokens=max(1.0, load.mean_output_tokens),
        longest_tokens=longest,
        closed=stream.closed_users > 0,
    )
