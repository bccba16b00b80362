"""What the gateway's limits, lines, caps and context budgets did: counts, over the whole horizon like all money."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

COUNTERS = {
    "refused": "tasks refused (429) by a limit",
    "queued": "waits at a limit, or for room in a pool, that ended, however",
    "full": "turned away (429) from a line that was full",
    "expired": "waits that ended at the line's deadline, and failed",
    "shed": "tasks shed (503) while their backend was overloaded",
    "long_prompts": "tasks refused because the prompt was above its cap",
    "cut_prompts": "prompts cut to their cap",
    "cut_answers": "answers to be cut at their cap",
    "cut_history": "requests whose history was trimmed to its cap",
    "summaries": "requests whose history was summarised",
    "cut_chunks": "requests that retrieved more chunks than may be used",
    "cut_tools": "requests whose tool results were above their cap",
    "stopped_tries": "attempts that were not made because there were enough",
    "stopped_usd": "attempts that were not made because the task, or its conversation, had cost enough",
    "over_usd": "tasks that cost more than their cap in the end",
    "over_session_usd": "turns refused because the conversation had cost enough",
    "in_time": "tasks with a deadline that had their answer by then",
    "missed": "tasks with a deadline that failed, or had no answer by then",
    "loops": "agents' tasks that ended, however",
    "tool_steps": "times that these called tools",
    "tool_calls": "calls of tools, those made again included",
    "tool_failures": "calls of tools that failed",
    "stopped_steps": "agents' tasks stopped because they had called tools often enough",
    "stopped_loops": "agents' tasks stopped by any cap before they had their answer",
    "runaways": "agents' tasks that would never have ended by themselves",
    "waited_s": "time spent waiting at limits, s",
}
"""What is counted of each class, and what it means."""

CONTEXT_VIOLATIONS = ("cut_history", "summaries", "cut_chunks", "cut_tools")
"""The counters of requests that were above a part of their context budget."""

BUDGET_VIOLATIONS = ("stopped_tries", "stopped_steps", "stopped_usd", "over_usd", "over_session_usd")
"""The counters of caps on tries, steps and money that were reached."""

LOOP_COUNTERS = ("loops", "tool_steps", "tool_calls", "tool_failures", "stopped_loops")
"""The counters that agents' metrics are made of."""

COUNTER_DTYPE = np.dtype([(name, "f8" if name.endswith("_s") else "i8") for name in COUNTERS])
"""`COUNTERS` of one class."""

LIMIT_DTYPE = np.dtype([("refused", "i8"), ("queued", "i8"), ("degraded", "i8")])
"""What one limit did: tasks or calls it refused, sent to its line, sent to another backend."""


def no_counters(n_classes: int) -> NDArray[Any]:
    """Counters that counted nothing."""
    return np.zeros(n_classes, COUNTER_DTYPE)
