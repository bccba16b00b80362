"""Pre-flight checks of work that may wait: batches that expire or come too late, troughs that are not left alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from simlab.lint.finding import Finding
from simlab.lint.offered import troughs

if TYPE_CHECKING:
    from simlab.lint.offered import Offered
    from simlab.scenario import Scenario

_FEW = 0.05
"""Share of requests that may be late or expire without a word."""


def check_offline(scenario: Scenario, load: Offered) -> Iterator[Finding]:
    """Yields batches that often expire or miss deadlines, and work that may wait but goes before what may not."""
    for name, api in scenario.batch_endpoints.items():
        batch = api.batch
        assert batch is not None
        usual = batch.window if batch.completion is None else batch.completion.distribution().quantile(1.0 - _FEW)
        path = "apis." + name.rpartition(":")[0] + ".batch"
        if usual > batch.window:
            message = f"more than {_FEW:.0%} of requests are not done within {batch.window:g} s and expire"
            yield Finding("warning", f"{path}.completion", f"{message}; say where they go then (gateway.fallback)")
        for cls, _ in load.on(name):
            deadline = scenario.workload[cls.name].task.deadline
            if deadline is not None and batch.collect + min(usual, batch.window) > deadline:
                yield Finding(
                    "warning",
                    f"workload.{cls.name}.task.deadline",
                    f"more than {_FEW:.0%} of its requests take longer on {name} than the {deadline:g} s they have: "
                    f"collecting {batch.collect:g} s, then up to {min(usual, batch.window):g} s; give them longer, or "
                    "send them elsewhere",
                )
    yield from _troughs(scenario, load)


def _troughs(scenario: Scenario, load: Offered) -> Iterator[Finding]:
    for name, cls in scenario.workload.items():
        for pool in troughs(scenario, name):
            rivals = [other.name for other, _ in load.on(pool) if scenario.workload[other.name].task.deadline is None]
            first = [other for other in rivals if scenario.workload[other].priority >= cls.priority]
            if first and scenario.pools[pool].scheduling == "priority":
                yield Finding(
                    "warning",
                    f"workload.{name}.priority",
                    f"it fills the troughs of pool {pool}, but its requests are served no later than those of "
                    f"{', '.join(first)} (lower goes first); raise it",
                )
