"""Does the plan hold its SLO and its budget? Decided on intervals, and said honestly where they do not tell."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from simlab.results import words
from simlab.results.facts import ScenarioLike
from simlab.results.interval import Estimate

MET, MISSED, UNDECIDED = "met", "missed", "undecided"


@dataclass(frozen=True)
class Check:
    """One promise and what became of it.

    Args:
        name: e.g. ``"slo chat"`` or ``"budget usd_per_month"``.
        outcome: ``"met"`` or ``"missed"`` when the whole 95 % interval lies on that side of the limit,
            ``"undecided"`` when the limit lies within it, or when the cost is incomplete.
        holds: whether the value itself keeps the limit; this decides the exit code where the interval does not.
        limit: the limit, in the unit of `value`.
        value: what was found.
        sentence: all of this in words.
    """

    name: str
    outcome: str
    holds: bool
    limit: float
    value: Estimate
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """All checks of a result; without an SLO and a budget there are none, and the plan holds."""

    checks: tuple[Check, ...]

    @property
    def holds(self) -> bool:
        """Whether every promise is kept."""
        return all(check.holds for check in self.checks)

    @property
    def exit_code(self) -> int:
        """0 when the plan holds, 1 when it misses its SLO or budget."""
        return 0 if self.holds else 1


def verdict(
    scenario: ScenarioLike,
    slo_ratio_of: Callable[[str], Estimate],
    cost_per_month: Estimate,
    cost_per_success: Estimate,
    unpriced: Sequence[str],
    *,
    any_success: bool = True,
    patient: Collection[str] = (),
) -> Verdict:
    """The verdict on a scenario.

    Args:
        scenario: its SLOs and budget.
        slo_ratio_of: the share of a class's tasks that met every limit of its SLO.
        cost_per_month: USD per month.
        cost_per_success: USD per successful task.
        unpriced: backends without a price; while there are any, a budget can be missed but not surely kept.
        patient: classes whose work may wait: the scenario's SLO is not theirs.
        any_success: whether a task succeeded; without one a price of success is missed, whatever the bill.
    """
    checks = []
    for name, workload in scenario.workload.items():
        slo = workload.slo or (None if name in patient else scenario.slo)
        if slo is None or (slo.ttft is None and slo.itl is None and slo.e2e is None):
            continue
        checks.append(_check(f"slo {name}", slo.target, slo_ratio_of(name), at_least=True))
    budget = scenario.budget
    if budget is not None and budget.usd_per_month is not None:
        checks.append(_check("budget usd_per_month", budget.usd_per_month, cost_per_month, unpriced=unpriced))
    if budget is not None and budget.usd_per_success is not None:
        lacking = unpriced if any_success else ()
        checks.append(_check("budget usd_per_success", budget.usd_per_success, cost_per_success, unpriced=lacking))
    return Verdict(tuple(checks))


def _check(name: str, limit: float, value: Estimate, *, at_least: bool = False, unpriced: Sequence[str] = ()) -> Check:
    """One promise: the value must be at least (a share) or at most (money) the limit."""
    says = words.percent if at_least else words.usd
    rule = f"at least {limit * 100:g}%" if at_least else f"at most {says(limit)}"
    if value.value is None:
        if at_least:
            return Check(name, UNDECIDED, True, limit, value, f"{name}: undecided, no task arrived, {rule} wanted")
        if unpriced:
            said = f"{name}: undecided, cost unknown: no price for {', '.join(unpriced)}, {rule} wanted"
            return Check(name, UNDECIDED, True, limit, value, said)
        return Check(name, MISSED, False, limit, value, f"{name}: missed, no task succeeded, {rule} wanted")
    low = value.value if value.low is None else value.low
    high = value.value if value.high is None else value.high
    holds = value.value >= limit if at_least else value.value <= limit
    surely = (low >= limit) if at_least else (high <= limit)
    surely_not = (high < limit) if at_least else (low > limit)
    outcome = MET if surely else MISSED if surely_not else UNDECIDED
    said = f"{name}: {outcome}, {says(value.value)}"
    if value.low is None:
        said += " (one replication, no interval)"
    elif low != high:
        said += f" ({words.interval(value)})" if words.interval(value) else ""
    said += f", {rule} wanted"
    if outcome == UNDECIDED:
        said += f"; the limit lies within the interval, taken as {'met' if holds else 'missed'} by its mean"
    if unpriced and outcome != MISSED:
        outcome = UNDECIDED
        said += f"; not counted for want of a price: {', '.join(unpriced)}"
    return Check(name, outcome, holds, limit, value, said)
