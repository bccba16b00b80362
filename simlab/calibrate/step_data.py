"""Which steps of a set-up's runs are to be fitted: logs of the server, and token times of its clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from simlab.calibrate.disturbed import speeds
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
        disturbed: runs that something else slowed down (`simlab.calibrate.disturbed`), each with the factor by which;
            their steps are left out.
        notes: what to know about them.
    """

    logs: tuple[Steps, ...]
    steps: int
    from_logs: int
    from_tokens: int
    disturbed: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def step_data(runs: Sequence[Run]) -> StepData:
    """The steps of runs of one set-up.

    Token times come before the server's log of the same run: they tell what each step held, and their steps last as
    long as clients see them, with what the server does between steps.
    """
    rebuilt: dict[str, tuple[Run, Steps]] = {}
    for run in runs:
        if run.requests is None or run.requests.itl_s is None:
            continue
        cached = run.load is not None and run.load.shared_tokens > 0 and run.server.prefix_caching is not False
        budget = run.server.max_num_batched_tokens
        steps = step_samples(run.requests, token_budget=budget, may_be_cached=cached).steps
        if len(steps.seconds):
            rebuilt[_plain(run)] = run, steps
    logged = [(run, run.steps) for run in runs if run.steps is not None and len(run.steps.seconds)]
    own = [(run, steps) for run, steps in logged if _plain(run) not in rebuilt]
    notes = []
    if len(own) < len(logged):
        doubled = len(logged) - len(own)
        notes.append(f"steps of {doubled} runs are taken from their clients' token times, not from the server's log")
    pairs = [*own, *rebuilt.values()]
    logs = [steps for _, steps in pairs]
    total = sum(len(steps.seconds) for steps in logs)
    if total < LEAST_STEPS:
        return StepData((), 0, 0, 0, notes=tuple(notes))
    found = speeds(logs)
    slow = {run.name: float(found.factors[i]) for i, (run, _) in enumerate(pairs) if found.disturbed[i]}
    kept = [(run, steps) for run, steps in pairs if run.name not in slow]
    from_logs = sum(_plain(run) not in rebuilt for run, _ in kept)
    return StepData(
        logs=tuple(steps for _, steps in kept),
        steps=sum(len(steps.seconds) for _, steps in kept),
        from_logs=from_logs,
        from_tokens=len(kept) - from_logs,
        disturbed=slow,
        notes=tuple(notes),
    )


def _plain(run: Run) -> str:
    """A run's name without the folders that tell it from its copies: a result and its server's log have one name."""
    return run.name.rsplit("/", 1)[-1].split("#")[0]
