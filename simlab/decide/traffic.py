"""A scenario with more or less traffic, and the busiest part of it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from simlab.simulation import replication_seed
from simlab.workload import open_class
from simlab.workload.rates import MONTH_S, RateFunction

if TYPE_CHECKING:
    from simlab.scenario import Scenario, WorkloadClass

PEAK_S = 3600.0
"""Length of the busiest stretch, s, where the run is longer."""

LEAD_S = 900.0
"""How long before the busiest stretch the simulation of it begins, s, if that is more than the warm-up."""

_BINS = 1000


def scaled(scenario: Scenario, factor: float) -> Scenario:
    """The scenario with ``factor`` times the traffic in every class: rates (session starts, too), or users.

    A trace is thinned or copied with fresh draws; users of a closed loop are rounded to at least one.
    """
    workload = {
        name: cls.model_copy(update={"arrivals": cls.arrivals.model_copy(update=_more(cls, factor))})
        for name, cls in scenario.workload.items()
    }
    return scenario.model_copy(update={"workload": workload})


def _more(cls: WorkloadClass, factor: float) -> dict[str, float | int]:
    arrivals = cls.arrivals
    if arrivals.kind == "closed":
        return {"users": max(1, round(arrivals.users * factor))}
    if arrivals.kind == "trace" or arrivals.kind == "summary":
        return {"rate_scale": arrivals.rate_scale * factor}
    return {"rate": arrivals.rate * factor}


def busiest(scenario: Scenario) -> tuple[Scenario, str]:
    """The stretch of `PEAK_S` (or all of a shorter run after warm-up) in which most requests arrive.

    Where every rate that moves is drawn by the clock (hour and day profiles, growth), the run is moved to just before
    that stretch; otherwise it starts where it did, and all before the stretch is warm-up.

    Returns:
        The scenario whose metrics are those of that stretch, and what was done, in words.

    Raises:
        TraceError: a trace is missing or broken.
    """
    stretch_s = min(PEAK_S, scenario.horizon - scenario.warmup)
    moves = [_moves(cls) for cls in scenario.workload.values()]
    if not any(moves) or stretch_s >= scenario.horizon - scenario.warmup:
        end_s = scenario.warmup + stretch_s
        what = f"the run of {_hours(scenario.horizon)}" if end_s >= scenario.horizon else f"its first {_hours(end_s)}"
        return scenario.model_copy(update={"horizon": end_s, "window": None}), what
    begin_s = _busiest_s(scenario, stretch_s)
    what = f"its busiest {_hours(stretch_s)} (from {_hours(begin_s)} on)"
    if all(how in ("", "clock") for how in moves):
        shift_s = max(0.0, begin_s - max(scenario.warmup, LEAD_S))
        update = {
            "start": scenario.start + timedelta(seconds=shift_s),
            "workload": {name: _grown(cls, shift_s) for name, cls in scenario.workload.items()},
        }
        scenario, begin_s = scenario.model_copy(update=update), begin_s - shift_s
    return scenario.model_copy(update={"warmup": begin_s, "horizon": begin_s + stretch_s, "window": None}), what


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.3g} h" if seconds >= 3600 else f"{seconds / 60:.3g} min"


def _moves(cls: WorkloadClass) -> str:
    """How the rate of a class moves over time: not at all (""), by the "clock", or "otherwise"."""
    arrivals = cls.arrivals
    if arrivals.kind == "trace" or arrivals.kind == "summary":
        return "otherwise"
    if arrivals.kind == "closed":
        return ""
    if arrivals.profile is not None and arrivals.profile.series is not None:
        return "otherwise"
    return "clock" if arrivals.profile is not None or arrivals.growth_per_month else ""


def _grown(cls: WorkloadClass, shift_s: float) -> WorkloadClass:
    """The class as it is ``shift_s`` later, its growth until then in its rate."""
    arrivals = cls.arrivals
    if arrivals.kind == "trace" or arrivals.kind == "summary" or arrivals.kind == "closed":
        return cls
    rate = arrivals.rate * (1.0 + arrivals.growth_per_month) ** (shift_s / MONTH_S)
    return cls.model_copy(update={"arrivals": arrivals.model_copy(update={"rate": rate})})


def _busiest_s(scenario: Scenario, stretch_s: float) -> float:
    """When the busiest stretch after warm-up begins, s, to a thousandth of the horizon."""
    edges = np.linspace(0.0, scenario.horizon, _BINS + 1)
    arrived = np.zeros(_BINS + 1)
    for name in scenario.workload:
        arrived += _arrived(scenario, name, edges)
    begins = edges[(edges >= scenario.warmup) & (edges <= scenario.horizon - stretch_s)]
    begins = np.append(begins, scenario.horizon - stretch_s)
    mass = np.interp(begins + stretch_s, edges, arrived) - np.interp(begins, edges, arrived)
    # The first of those that are alike to a millionth: float dust does not choose the hour.
    return float(begins[np.argmax(mass >= mass.max() * (1.0 - 1e-6))])


def _arrived(scenario: Scenario, name: str, edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Arrivals of a class until each time: expected ones where there is a rate, else those that are replayed."""
    arrivals = scenario.workload[name].arrivals
    if arrivals.kind == "closed":
        return np.zeros(len(edges))
    if arrivals.kind == "trace" or arrivals.kind == "summary":
        stream = open_class(scenario, name, replication_seed(scenario.seed, 0))
        counts = np.zeros(len(edges))
        while (chunk := stream.next_chunk()) is not None:
            counts += np.searchsorted(chunk.arrival_s, edges)
        return counts
    rate = RateFunction.from_profile(arrivals.rate, arrivals.profile, scenario.start, arrivals.growth_per_month)
    return np.array([rate.integral(float(t)) for t in edges])
