"""Agents, as the engine takes them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from simlab.draws import Distribution
from simlab.engine.arrays import MOST_PARALLEL
from simlab.engine.limit_spec import NO_LIMIT


@dataclass(frozen=True)
class AgentSpec:
    """Tasks that are loops of model calls and tool calls.

    Args:
        steps: model calls of a task until it has its answer, at least 1.
        helper: backend index that tools are booked at.
        tool_s: time of one call of a tool, s.
        calls: tokens that the model writes to call tools.
        parallel: tools that are called at once, at least 1 and at most `MOST_PARALLEL`; None: one.
        results: tokens of a tool's result.
        failure: chance that a call of a tool fails.
        retries: how often a failed one is called again, at once.
        errors: tokens of the error that the model reads in place of the result when that did not help; None: none.
        max_steps: most times that a task calls tools.
        partial: a task that is stopped answers with what it has, which is no right answer; else it fails.
        runaway_share: share of the tasks that come from ``from_s`` until ``until_s`` which never end by themselves.
    """

    steps: Distribution
    helper: int
    tool_s: Distribution
    calls: Distribution
    parallel: Distribution | None = None
    results: Distribution | None = None
    failure: float = 0.0
    retries: int = 0
    errors: Distribution | None = None
    max_steps: int = NO_LIMIT
    partial: bool = False
    runaway_share: float = 0.0
    from_s: float = 0.0
    until_s: float = math.inf

    @property
    def calls_a_step(self) -> int:
        """The most calls of tools that one step makes, those made again included."""
        return (1 if self.parallel is None else MOST_PARALLEL) * (1 + self.retries)
