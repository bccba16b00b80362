"""The arrays of agents, and of what users wait for beside the model, filled from a world's specification."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simlab.engine import arrays as a
from simlab.engine.agent_spec import AgentSpec
from simlab.engine.meters import COARSE, HIST_BUCKETS

if TYPE_CHECKING:
    from simlab.engine.build import Packer
    from simlab.engine.spec import WorldSpec

_ROWS = 4
"""Rows of the log that one event can write for a slot, tools aside."""


def agent_of(spec: WorldSpec, c: int) -> AgentSpec | None:
    """The agent of a class; None: its tasks are single calls."""
    policy = spec.policies[c] if c < len(spec.policies) else None
    return None if policy is None else policy.agent


def log_room(spec: WorldSpec) -> int:
    """Rows of the log that one event can write for a slot."""
    agents = [agent_of(spec, c) for c in range(len(spec.classes))]
    return _ROWS + max((agent.calls_a_step for agent in agents if agent is not None), default=0)


def loop_arrays(spec: WorldSpec, packer: Packer, policies: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """`World.agents` and `World.spans`; tells the policies which class has either."""
    found = [agent_of(spec, c) for c in range(len(spec.classes))]
    agents = a.records(len(found) if any(found) else 1, a.agent_dtype)
    for record, policy, agent in zip(agents, policies, found, strict=False):
        if agent is None:
            continue
        policy["looped"] = 1
        for name in ("steps", "calls", "parallel", "tool_s", "results", "errors"):
            record[name] = packer.distribution(getattr(agent, name))
        for name in ("retries", "helper", "max_steps", "partial", "failure", "from_s", "until_s"):
            record[name] = getattr(agent, name)
        record["share"] = agent.runaway_share
    policies["latency_at"] = a.NONE
    for record, stated in zip(policies, spec.policies, strict=False):
        if stated is None:
            continue
        record["timed"] = stated.timed
        if len(stated.latency):
            record["latency_at"] = min([packer.distribution(part) for part in stated.latency])
    shape = (2, len(found), HIST_BUCKETS // COARSE, a.SPANS) if policies["timed"].any() else (1, 1, 1, 1)
    return {"agents": agents, "spans": np.zeros(shape)}
