"""What a pre-flight check finds, and the list of all checks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from simlab.scenario import Scenario

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One remark on a scenario.

    Attributes:
        severity: ``error``: it cannot run; ``warning``: it runs, but will miss an objective, a budget, its capacity or
            a price, or leave what its profile was measured on; ``note``: good to know.
        path: dotted path of the field it is about.
        message: what was found, with the numbers, and how to repair it.
    """

    severity: Severity
    path: str
    message: str

    def as_dict(self) -> dict[str, str]:
        """The same as plain data."""
        return asdict(self)


def lint(scenario: Scenario) -> list[Finding]:
    """Everything the checks have to say about a valid scenario, in a fixed order.

    The figures are bounds, not predictions: needed replicas assume perfect batching and every shared prefix cached,
    smallest latencies an empty system. What is refused here fails in the simulation too; the reverse does not hold.
    """
    return list(_findings(scenario))


def _findings(scenario: Scenario) -> Iterator[Finding]:
    from simlab.lint.apis import check_api
    from simlab.lint.limits import check_limits
    from simlab.lint.money import check_money
    from simlab.lint.offered import offered_load
    from simlab.lint.offline import check_offline
    from simlab.lint.pools import check_pool
    from simlab.lint.routes import check_routes

    load = offered_load(scenario)
    yield from load.findings
    for name in scenario.pools:
        yield from check_pool(scenario, name, load)
    for name in scenario.apis:
        yield from check_api(scenario, name, load)
    yield from check_routes(scenario)
    yield from check_limits(scenario, load)
    yield from check_offline(scenario, load)
    yield from check_money(scenario, load)
