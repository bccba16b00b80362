"""Which steps of a set-up's runs are to be fitted: logs of the server, and token times of its clients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simlab.calibrate.run import Run, Steps
from simlab.calibrate.step_samples import step_samples

LEAST_STEPS = 100
"""Fewer steps than this in all are no step data."""


@dataclass(frozen=True)
class StepData:
    """Steps of one set-up.

    Attributes:
        logs: steps of each run that has some.
        steps: how many in all.
        from_logs, from_tokens: runs whose steps the server logged, and runs whose steps were rebuilt from token times.
        notes: what to know about them.
    """

    logs: tuple[Steps, ...]
    steps: int
    from_logs: int
    from_tokens: int
    notes: tuple[str, ...] = ()


def step_data(runs: Sequence[Run]) -> StepData:
    """The steps of runs of one set-up.

    Token times come before the server's log of the same run: they tell what each step held, and their steps last as
    long as clients see them, with what the server does between steps.
    """
    rebuilt: dict[str, Steps] = {}
    for run in runs:
        if run.requests is None or run.requests.itl_s is None:
            continue
        cached = run.load is not None and run.load.shared_tokens > 0 and run.server.prefix_caching is not False
        found = step_samples(run.requests, token_budget=run.server.max_num_batched_tokens, may_be_cached=cached)
        if len(found.steps.seconds):
            rebuilt[_plain(run)] = found.steps
    logged = [run for run in runs if run.steps is not None and len(run.steps.seconds)]
    own = [run for run in logged if _plain(run) not in rebuilt]
    notes = []
    if len(own) < len(logged):
        notes.append(
            f"steps of {len(logged) - len(own)} runs are taken from their clients' token times, not from the log"
        )
    logs = [*(run.steps for run in own if run.steps is not None), *rebuilt.values()]
    total = int(np.sum([len(steps.seconds) for steps in logs], dtype=np.int64))
    if total < LEAST_STEPS:
        return StepData((), 0, 0, 0, tuple(notes))
    return StepData(tuple(logs), total, len(own), len(rebuilt), tuple(notes))


def _plain(run: Run) -> str:
    """A run's name without the folders that tell it from its copies: a result and its server's log have one name."""
    return run.name.rsplit("/", 1)[-1].split("#")[0]
