"""Incidents of API endpoints: for a while their calls take longer, or fail."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import simpy

from simlab.control.handle import Handle
from simlab.control.operations import Process


@dataclass(frozen=True)
class Incident:
    """What happens to an endpoint.

    Args:
        at_s: from when, s.
        until_s: until when, s; infinite: to the end.
        backend: the endpoint's number among all backends.
        slowdown: calls that begin take this many times as long.
        error_probability: chance that a call that begins fails, whatever else may make it fail.
    """

    at_s: float
    until_s: float
    backend: int
    slowdown: float = 1.0
    error_probability: float = 0.0


def suffer(
    env: simpy.Environment, engine: Handle, incidents: Sequence[Incident], usual_errors: Mapping[int, float]
) -> Process:
    """Has the incidents happen, and end. Of one endpoint's at the same time, factors and chances to go well multiply.

    Args:
        env: the slow world.
        engine: where it happens.
        incidents: in any order.
        usual_errors: error probability of each endpoint without incidents, by its number.
    """
    times = {incident.at_s for incident in incidents} | {incident.until_s for incident in incidents}
    for time_s in sorted(time_s for time_s in times if time_s < math.inf):
        yield env.timeout(max(0.0, time_s - env.now))
        changed = {one.backend for one in incidents if time_s in (one.at_s, one.until_s)}
        for backend in sorted(changed):
            now = [one for one in incidents if one.backend == backend and one.at_s <= time_s < one.until_s]
            slowdown = math.prod(one.slowdown for one in now)
            works = (1.0 - usual_errors[backend]) * math.prod(1.0 - one.error_probability for one in now)
            engine.set_endpoint(backend, slowdown, 1.0 - works if now else usual_errors[backend])
