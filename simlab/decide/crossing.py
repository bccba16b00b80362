"""Where a staircase of whole replicas crosses a line of tokens: first, and for good. Plain arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Crossings:
    """Volumes from which the staircase is below the line; None: nowhere up to the last step's end.

    Args:
        first: the smallest volume beyond which it is below for at least a while.
        durable: the volume beyond which it stays below, to the end of the last step.
        first_step: which step `first` lies on, from 1.
        durable_step: which step `durable` lies on, from 1.
    """

    first: float | None
    durable: float | None
    first_step: int = 0
    durable_step: int = 0


def crossings(ends: Sequence[float], costs: Sequence[float], slope: float) -> Crossings:
    """Where ``costs[n]``, which holds from ``ends[n - 1]`` (for the first: 0) to ``ends[n]``, is below the line.

    On step n the staircase is below the line from ``costs[n] / slope`` on, if that lies before its end; at the start of
    the next, dearer step it may be above it again.

    Args:
        ends: the volume up to which each step reaches, not decreasing.
        costs: cost of each step, not decreasing.
        slope: cost of a unit of volume on the line; 0 or less: the staircase is never below it.
    """
    first: float | None = None
    durable: float | None = None
    first_step = durable_step = 0
    begin = 0.0
    for step, (end, cost) in enumerate(zip(ends, costs, strict=True), start=1):
        if end <= begin:
            continue
        level = cost / slope if slope > 0.0 else float("inf")
        if level >= end:
            durable = None
        elif durable is None or level > begin:
            durable, durable_step = max(begin, level), step
            if first is None:
                first, first_step = durable, step
        begin = end
    return Crossings(first, durable, first_step, durable_step if durable is not None else 0)
