"""What limits, lines, caps and context budgets held back: by limit, by class, and how long they made tasks wait."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from simlab.results.counts import COUNTERS, LIMIT_DTYPE
from simlab.results.measurements import Measurements, histogram_quantile

HELD = (
    *("refused", "full", "expired", "shed", "long_prompts", "cut_prompts", "cut_answers"),
    *("cut_history", "summaries", "cut_chunks", "cut_tools"),
    *("stopped_tries", "stopped_steps", "stopped_usd", "over_usd", "over_session_usd"),
)
"""The counters that say that a limit, a cap or a budget was reached."""


def limit_rows(measurements: Sequence[Measurements]) -> list[dict[str, Any]]:
    """What each of the gateway's limits did.

    Returns:
        ``limit``; ``refused``, ``queued`` and ``degraded``: tasks or calls it turned away, sent to its line, and sent
        to another backend, whole run, means over replications.
    """
    names = measurements[0].limit_names
    return [
        {"limit": name}
        | {what: float(np.mean([m.limits[what][i] for m in measurements])) for what in LIMIT_DTYPE.names or ()}
        for i, name in enumerate(names)
    ]


def violation_rows(measurements: Sequence[Measurements]) -> list[dict[str, Any]]:
    """How often each class came to a limit, a cap or a part of its context budget; what never happened is left out.

    Returns:
        ``class``, ``what`` (one of `HELD`), ``meaning`` in words, ``count`` over the whole run, mean over replications,
        and ``per_task``: that over the class's tasks.
    """
    found = []
    for c, name in enumerate(measurements[0].class_names if len(measurements[0].counters) else ()):
        tasks = float(np.mean([m.tasks_total["arrived"][c] for m in measurements]))
        for what in HELD:
            count = float(np.mean([m.counters[what][c] for m in measurements]))
            if count > 0.0:
                row = {"class": name, "what": what, "meaning": COUNTERS[what], "count": count}
                found.append(row | {"per_task": count / tasks if tasks else float("nan")})
    return found


def wait_rows(measurements: Sequence[Measurements]) -> list[dict[str, Any]]:
    """How long tasks of each class waited at limits; classes that never did are left out.

    Returns:
        ``class``; ``waits``, their number, mean over replications; ``wait_s_mean``, ``wait_s_p50`` and ``wait_s_p95``
        of all waits, in whichever way they ended.
    """
    found = []
    for c, name in enumerate(measurements[0].class_names):
        hist = sum(m.queue_wait_hist[c] for m in measurements if c < len(m.queue_wait_hist))
        waits = int(np.sum(hist))
        if waits:
            waited_s = sum(float(m.counters["waited_s"][c]) for m in measurements)
            row = {"class": name, "waits": waits / len(measurements), "wait_s_mean": waited_s / waits}
            found.append(row | {f"wait_s_p{100 * q:.0f}": histogram_quantile(np.asarray(hist), q) for q in (0.5, 0.95)})
    return found
