"""What a server's pace says of the points that are left: how many requests, what rate, how many minutes."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace

from simlab.calibrate.bench.facts import Facts
from simlab.calibrate.bench.folder import Outcome
from simlab.calibrate.bench.pace import Measured, Pace, expected
from simlab.calibrate.bench.plan import Plan, Point, in_rounds
from simlab.calibrate.run import Load


@dataclass(frozen=True)
class Step:
    """A point that is still to be measured, as far as it is known now.

    Attributes:
        point: which.
        load: with the number of requests and the rate that would be taken now.
        seconds: how long it would take, the client's start included, s.
        capacity: the capacity and where it is from, where the rate is a share of it.
    """

    point: Point
    load: Load
    seconds: float
    capacity: str


class Outlook:
    """What is known of a server's pace, and what follows for the points that are left.

    Args:
        plan: the session's.
        facts: what is known of the server.
        outcomes: of the points that are done, by name; looked at anew at each call.
    """

    def __init__(self, plan: Plan, facts: Facts, outcomes: Mapping[str, Outcome]) -> None:
        self.plan, self.facts, self.outcomes = plan, facts, outcomes
        self._limits = facts.limits
        server = facts.server
        self._prior = expected(server.model, server.gpu, server.tp, server.precision)

    def pace(self) -> Pace:
        """The pace as the points done so far show it."""
        done = [(point, self.outcomes[point.name]) for point in self.plan.points if self._measured(point)]
        points = [
            Measured(replace(point.load, requests=outcome.requests), outcome.seconds)
            for point, outcome in done
            if not point.open
        ]
        pace = self._prior.learned(points, sequences=self._limits.sequences, kv_tokens=self._limits.kv_tokens)
        starts = [outcome.wall_s - outcome.seconds for _, outcome in done]
        return replace(pace, client_start_s=statistics.median(starts)) if starts else pace

    def left(self) -> list[Step]:
        """The points still to be measured, in their order."""
        pace = self.pace()
        return [self._step(point, pace) for point in in_rounds(self.plan.points) if point.name not in self.outcomes]

    def _measured(self, point: Point) -> bool:
        return point.name in self.outcomes and self.outcomes[point.name].measured

    def _step(self, point: Point, pace: Pace) -> Step:
        sequences, kv_tokens = self._limits.sequences, self._limits.kv_tokens
        throughput_rps = pace.capacity_rps(point.load, sequences=sequences, kv_tokens=kv_tokens)
        capacity_rps, source = self._capacity(point, throughput_rps, pace)
        if point.load.concurrency is not None:
            alone_rps = pace.throughput_rps(point.load, min(point.load.concurrency, sequences))
            throughput_rps = min(throughput_rps, alone_rps)
        load = point.settled(throughput_rps, capacity_rps)
        seconds = pace.seconds(load, sequences=sequences, kv_tokens=kv_tokens)
        return Step(point, load, seconds + pace.client_start_s, source)

    def _capacity(self, point: Point, estimate_rps: float, pace: Pace) -> tuple[float, str]:
        """Requests/s at the point's lengths: of the fastest point measured there, else the pace's; and who says so."""
        if point.share is None:
            return estimate_rps, ""
        rates = {
            other.name: self.outcomes[other.name].throughput_rps
            for other in self.plan.points
            if not other.open and other.like(point) and self._measured(other)
        }
        if rates:
            best = max(rates, key=lambda name: rates[name])
            return rates[best], f"{rates[best]:.4g} requests/s, measured at {best}"
        return estimate_rps, f"{estimate_rps:.3g} requests/s, estimated from {pace.source}"
