"""Fitting one set-up: step times where there are steps, simulated benchmarks where there are runs, both where both."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from simlab.calibrate.benchmark import Benchmark
from simlab.calibrate.fitted import Fitted, Unfitted
from simlab.calibrate.limits import limits_of
from simlab.calibrate.run import Floats, Run, Server
from simlab.calibrate.run_fit import RunFit, fit_runs
from simlab.calibrate.run_prior import priors_of, step_prior
from simlab.calibrate.shelf import estimate_of, point_of, setup_of
from simlab.calibrate.step_data import StepData, step_data
from simlab.calibrate.step_fit import StepFit, fit_steps
from simlab.calibrate.step_floor import step_floor
from simlab.errors import InputError
from simlab.profiles import Profile, StepTime, Validity, gpus, models

LEAST_POINTS = 3
"""Operating points that averages of benchmarks must have: fewer do not tell prompts from decodes."""
LEAST_POINTS_KNOWN = 2
"""The same where tables know model and GPU, so that what to expect of the terms is known."""
MANY_REQUESTS = 100
"""So many requests, known one by one, of one run tell as much, where tables know model and GPU."""
MOST_SOURCES = 12
"""Sources that a profile names one by one."""
OVERHEAD_S = 10e-3
"""Of a request outside the scheduler (HTTP, tokeniser), before a run tells it."""
ERROR_NAMES = {
    "ttft_s_mean": "ttft",
    "ttft_s_p50": "ttft_p50",
    "ttft_s_p99": "ttft_p99",
    "itl_s_mean": "itl",
    "tpot_s_mean": "tpot",
    "e2e_s_mean": "e2e",
    "output_tokens_per_s": "throughput",
}
"""What a metric is called in `Profile.error`."""

T = TypeVar("T")


def fit_setup(runs: Sequence[Run], *, measured: Iterable[Profile] = ()) -> Fitted | Unfitted:
    """The profile of one set-up.

    Args:
        runs: all of the set-up.
        measured: profiles of others, from which comes what is expected before a run is looked at.
    """
    server = runs[0].server
    others = [one for one in measured if one.kind == "measured" and setup_of(one) != server.setup]
    data = step_data(runs)
    benchmarks, left_out = _benchmarks(runs, data.disturbed)
    points = {point_of(run) for run in benchmarks}
    known = server.model in models() and server.gpu in gpus()
    least = LEAST_POINTS_KNOWN if known else LEAST_POINTS
    if known and any(run.requests is not None and len(run.requests.start_s) >= MANY_REQUESTS for run in benchmarks):
        least = 1
    if not data.logs and len(points) < least:
        return Unfitted(server.setup, len(runs), _too_few(points, least, left_out))
    steps = _fit_steps(data, server, others) if data.logs else None
    by_runs = None
    if benchmarks:
        priors = (step_prior(steps),) if steps is not None else priors_of(server, benchmarks, others)
        by_runs = fit_runs(benchmarks, *priors)
    best = by_runs if by_runs is not None else steps
    assert best is not None
    notes = (*data.notes, *(steps.notes if steps is not None else ()), *(by_runs.notes if by_runs is not None else ()))
    profile = Profile(
        name=server.setup,
        model=server.model,
        gpu=server.gpu,
        tp=server.tp,
        precision=server.precision,
        kind="measured",
        step_time=best.step_time,
        uncertainty=best.uncertainty,
        fitted_on=_sources(runs, left_out),
        error=_errors(steps, by_runs),
        validity=_validity(benchmarks, steps, best.step_time),
        efficiency=by_runs.efficiency if by_runs is not None else None,
        kv_precision=server.kv_precision or (by_runs.kv_precision if by_runs is not None else None) or "bf16",
        max_num_batched_tokens=_common(run.server.max_num_batched_tokens for run in runs),
        max_num_seqs=_common(run.server.max_num_seqs for run in runs),
        kv_blocks=_common(run.server.kv_blocks for run in runs) or (by_runs.kv_blocks if by_runs is not None else None),
        block_size=_common(run.server.block_size for run in runs),
        dp=server.dp,
        expert_parallel=server.expert_parallel,
        points=tuple(dict.fromkeys(point_of(run) for run in runs if run.name not in left_out)),
        engine=server.engine,
        date=max((run.date for run in runs), default=""),
        notes=" ".join(f"{note[0].upper()}{note[1:]}." for note in notes),
    )
    return Fitted(
        profile=profile,
        data=_kinds(data, benchmarks),
        runs=len(runs) - len(left_out),
        requests=sum(_requests(run) for run in runs),
        steps=data.steps,
        misses=_misses(by_runs, benchmarks),
        left_out=tuple(left_out.items()),
        # What is said of a single run by its name is of no use to a reader of the whole.
        notes=tuple(dict.fromkeys([*notes, *(note for run in runs for note in run.notes if run.name not in note)])),
    )


def _benchmarks(runs: Sequence[Run], disturbed: Mapping[str, float]) -> tuple[list[Run], dict[str, str]]:
    """The runs whose benchmark is simulated, and those that tell nothing, each with the reason."""
    used, left_out = [], {}
    for run in runs:
        if run.name in disturbed:
            left_out[run.name] = (
                "something else slowed the server down: its steps took "
                f"{disturbed[run.name] - 1:.0%} longer than alike ones of the fast runs"
            )
        elif run.load is None:
            if run.steps is None:
                left_out[run.name] = "neither its load nor its steps are known"
        elif any(run.measured.get(metric, 0.0) > 0 for metric in ERROR_NAMES):
            used.append(run)
        elif run.requests is None and run.steps is None:
            left_out[run.name] = f"none of {', '.join(ERROR_NAMES)} was measured"
    return used, left_out


def _too_few(points: set[str], least: int, left_out: Mapping[str, str]) -> str:
    """Why there is no profile."""
    found = f"{len(points)} operating point{'s' * (len(points) != 1)}" + (
        f" ({', '.join(sorted(points))})" if points else ""
    )
    more = f"; left out: {'; '.join(f'{run}: {reason}' for run, reason in left_out.items())}" if left_out else ""
    return (
        f"{found}: at least {least} are needed, of different concurrency, rate or lengths, or results of "
        f"--save-detailed, or a step log{more}"
    )


def _fit_steps(data: StepData, server: Server, others: Sequence[Profile]) -> StepFit:
    """The step-time from steps alone; what they do not tell is as an estimate says, where there can be one."""
    try:
        prior: StepTime | None = estimate_of(server, others).step_time
    except InputError:
        prior = None  # No table knows its model or GPU.
    overhead_s = prior.overhead_s if prior is not None else OVERHEAD_S
    return fit_steps(data.logs, floor=step_floor(server), prior=prior, overhead_s=overhead_s)


def _errors(steps: StepFit | None, by_runs: RunFit | None) -> dict[str, float]:
    """What the fit misses by, by metric: shares, of runs and steps that it saw and of those that it did not."""
    errors: dict[str, float] = {}
    if steps is not None:
        errors.update(
            {name.replace("_median_ape", "_left_out_median_ape"): share for name, share in steps.errors.items()}
        )
    if by_runs is not None:
        for metric, name in ERROR_NAMES.items():
            for kind, misses in (("", by_runs.misses), ("left_out_", by_runs.left_out)):
                apes = [abs(math.expm1(one[metric])) for one in misses if metric in one]
                if apes:
                    errors[f"{name}_{kind}median_ape"] = float(np.median(apes))
                    errors[f"{name}_{kind}p90_ape"] = float(np.quantile(apes, 0.9))
    return {name: round(share, 4) for name, share in errors.items()}


def _misses(by_runs: RunFit | None, benchmarks: Sequence[Run]) -> dict[tuple[str, str], float]:
    """log(simulated / measured) of each run and metric, predicted by a fit that did not see its operating point."""
    if by_runs is None:
        return {}
    pairs = zip(benchmarks, by_runs.left_out, strict=True)
    return {(run.name, metric): miss for run, one in pairs for metric, miss in one.items()}


def _validity(benchmarks: Sequence[Run], steps: StepFit | None, step_time: StepTime) -> Validity:
    """What the runs covered; how many requests were in flight together is simulated."""
    seqs, tokens, context = [], [], []
    if steps is not None:
        seqs, tokens = [steps.max_decode_seqs], [steps.max_step_tokens]
        context = [steps.max_context_tokens]
    for run in benchmarks:
        assert run.load is not None
        limits = limits_of(run.server)
        requests = Benchmark(run, limits).requests(step_time)
        together = min(_most_together(requests.start_s, requests.start_s + requests.e2e_s), limits.max_num_seqs)
        seqs.append(together)
        tokens.append(int(min(limits.max_num_batched_tokens, requests.prompt_tokens.max() * together)))
        context.append(int((requests.prompt_tokens + requests.output_tokens).max()))
    return Validity(
        max_decode_seqs=max(seqs, default=None),
        max_step_tokens=max(tokens, default=None),
        max_context_tokens=max(context, default=None),
    )


def _most_together(begin: Floats, end: Floats) -> int:
    """The most intervals that overlap.

    >>> _most_together(np.array([0.0, 1.0, 2.0]), np.array([1.5, 3.0, 2.5]))
    2
    """
    times = np.concatenate([begin, end])
    change = np.repeat([1, -1], [len(begin), len(end)])
    # What ends when another begins is not together with it.
    return int(np.cumsum(change[np.lexsort((change, times))]).max(initial=0))


def _sources(runs: Sequence[Run], left_out: Mapping[str, str]) -> tuple[str, ...]:
    """Where the runs are from."""
    named = list(dict.fromkeys(run.source or run.name for run in runs if run.name not in left_out))
    more = len(named) - MOST_SOURCES
    return (*named[:MOST_SOURCES], *([f"and {more} more"] if more > 0 else []))


def _kinds(data: StepData, benchmarks: Sequence[Run]) -> tuple[str, ...]:
    """What was fitted on, in words."""
    parts = []
    if data.from_logs:
        parts.append(f"step logs of {data.from_logs} runs")
    if data.from_tokens:
        parts.append(f"token times of {data.from_tokens} runs")
    if benchmarks:
        parts.append(f"{len(benchmarks)} simulated benchmarks")
    return tuple(parts)


def _requests(run: Run) -> int:
    """Requests of a run, as far as that is known."""
    if run.requests is not None:
        return len(run.requests.start_s)
    return (run.load.requests or 0) if run.load is not None else 0


def _common(values: Iterable[T | None]) -> T | None:
    """The value where all that are known agree, else None."""
    known = {value for value in values if value is not None}
    return known.pop() if len(known) == 1 else None
