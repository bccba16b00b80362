"""Validation: each run simulated as it was driven, by its set-up's profile, and compared with what was measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from simlab.calibrate.benchmark import Benchmark, simulate_run
from simlab.calibrate.disturbed import SLOWER
from simlab.calibrate.fitted import listed
from simlab.calibrate.judged import TOTAL, Knee, Row, Validation
from simlab.calibrate.limits import limits_of
from simlab.calibrate.parallel import in_parallel
from simlab.calibrate.run import METRICS, Load, Run, Steps
from simlab.calibrate.shelf import Shelf, kind_of, outside
from simlab.calibrate.step_data import step_data
from simlab.calibrate.step_design import step_seconds
from simlab.errors import InputError
from simlab.profiles import Profile, gpus, models, widened

FULL = 0.95
"""A server to which more than this share of its capacity is offered is at saturation."""
_NORMAL_95 = 1.6449
"""95th percentile of the standard normal law: the end of a 90% interval."""
_TO_SD = 1.4826
"""A normal law's standard deviation by its median absolute deviation."""
_DIRECTIONS = 8
"""Directions of the covariance that are followed: a large one may be of a term that matters little in a run."""
_ALIKE = 0.1
"""Mean lengths that differ by less than about this share are of the same workload."""


@dataclass(frozen=True)
class _Judged:
    """What one run gives.

    Attributes:
        rows: its numbers.
        capacity_rps: requests/s that the server serves when all are sent at once; None of a run without a rate.
        slower: how many times longer its steps took than the profile says of their batches; None where nothing tells.
    """

    rows: tuple[Row, ...]
    capacity_rps: float | None
    slower: float | None = None


def validate(
    shelf: Shelf,
    runs: Sequence[Run],
    *,
    max_error: Mapping[str, float] | None = None,
    workers: int | None = None,
    progress: Callable[[float, float], None] | None = None,
    intervals: bool = True,
) -> Validation:
    """Compares what the profiles predict with runs.

    Args:
        shelf: the profiles; a set-up of which it has none is estimated.
        runs: from `simlab.calibrate.read.read_runs`.
        max_error: largest median error allowed, share, by metric; ``""`` is every metric that is not named.
        workers: processes to use; None: one for each core. It never changes a result.
        progress: called with runs done and in all.
        intervals: also the 90% interval of each number: up to eight more simulations of each run.
    """
    chosen: list[tuple[Run, Profile]] = []
    left_out: list[tuple[str, str]] = []
    found: dict[str, Profile | str] = {}
    for run in runs:
        setup = run.server.setup
        if setup not in found:
            try:
                found[setup] = shelf.find(run.server)
            except InputError as error:
                message = "; ".join(problem.message for problem in error.problems)
                found[setup] = f"no profile of {setup}, and none can be estimated: {message}"
        one = found[setup]
        if isinstance(one, str):
            left_out.append((run.name, one))
        elif run.steps is None and not run.measured:
            left_out.append((run.name, "nothing was measured"))
        else:
            chosen.append((run, one))
    said = (lambda done: progress(done, len(chosen))) if progress is not None else None
    judged = in_parallel(partial(_judge, intervals=intervals), chosen, workers=workers, finished=said)
    pairs = [(run, one, result) for (run, one), result in zip(chosen, judged, strict=True)]
    return Validation(
        name=shelf.name,
        rows=tuple(row for one in judged for row in one.rows),
        knees=_knees(pairs),
        left_out=tuple(left_out),
        warnings=_warnings(pairs),
        limits=dict(max_error or {}),
        groups={run.server.setup: _groups(run) for run, _ in chosen},
    )


def _judge(item: tuple[Run, Profile], *, intervals: bool) -> _Judged:
    """The rows of one run."""
    run, found = item
    rows: list[Row] = []
    capacity = None
    if run.load is not None and any(metric in METRICS for metric in run.measured):
        benchmark = Benchmark(run, limits_of(run.server, found))
        simulated = benchmark.metrics(found.step_time)
        capacity = _capacity_rps(run, found) if math.isfinite(run.load.rate_rps) else None
        saturated = _saturated(run, found, capacity)
        wide = widened(found, outside(run, found)) if found.kind == "measured" else found
        spread = _spread(benchmark, wide, simulated) if intervals else {}
        for metric in METRICS:
            if metric not in run.measured or metric not in simulated or not run.measured[metric] > 0:
                continue
            value, sd = simulated[metric], spread.get(metric)
            reach = math.exp(_NORMAL_95 * sd) if sd is not None else None
            rows.append(
                Row(
                    run=run.name,
                    setup=run.server.setup,
                    metric=metric,
                    measured=float(run.measured[metric]),
                    simulated=float(value),
                    kind=kind_of(run, found),
                    profile=found.name,
                    point=run.load.point,
                    low=None if reach is None else value / reach,
                    high=None if reach is None else value * reach,
                    saturated=saturated,
                )
            )
    if run.steps is not None:
        rows += _step_rows(run, run.steps, found)
    return _Judged(tuple(rows), capacity, _slower(run, found))


def _slower(run: Run, found: Profile) -> float | None:
    """How many times longer a benchmark's steps took than the profile says, by the times between tokens."""
    data = step_data([run]) if run.load is not None and found.kind == "measured" else None
    if data is None or not data.logs:
        return None
    return float(np.median(data.logs[0].seconds / step_seconds(found.step_time, data.logs[0])))


def _step_rows(run: Run, steps: Steps, found: Profile) -> list[Row]:
    """A row for each segment and phase, and one for each segment in all."""
    simulated = step_seconds(found.step_time, steps)
    apes = np.abs(simulated / steps.seconds - 1.0)
    phases = np.where(steps.prefill_tokens <= 0, "decode", np.where(steps.decode_requests > 0, "mixed", "prefill"))
    rows = []
    for segment, within in (("sweep", ~steps.real), ("real", steps.real)):
        for phase in ("prefill", "decode", "mixed", TOTAL):
            mine = within if phase == TOTAL else within & (phases == phase)
            if not mine.any():
                continue
            rows.append(
                Row(
                    run=run.name,
                    setup=run.server.setup,
                    metric="step_s",
                    measured=float(steps.seconds[mine].mean()),
                    simulated=float(simulated[mine].mean()),
                    kind=kind_of(replace(run, load=None), found),
                    profile=found.name,
                    point=f"{segment}/{phase}",
                    steps=None if phase == TOTAL else apes[mine],
                )
            )
    return rows


def _spread(benchmark: Benchmark, found: Profile, simulated: Mapping[str, float]) -> dict[str, float]:
    """Standard deviation of the logarithm of what such a run measures: the covariance's, and the known error's.

    The covariance is followed along its largest directions, one simulation each.
    """
    variance = dict.fromkeys(simulated, 0.0)
    terms = found.uncertainty.terms
    if not terms:
        return {}
    values, vectors = np.linalg.eigh(np.array(found.uncertainty.log_covariance))
    for k in np.argsort(values)[::-1][:_DIRECTIONS]:
        if values[k] <= 1e-4 * values.max():
            break
        shift = math.sqrt(values[k]) * vectors[:, k]
        law = found.step_time.scaled({term: math.exp(x) for term, x in zip(terms, shift, strict=True)})
        for metric, value in benchmark.metrics(law).items():
            if value > 0 and simulated.get(metric, 0.0) > 0:
                variance[metric] += math.log(value / simulated[metric]) ** 2
    rest = 0.0 if found.kind == "estimated" else 1.0
    return {metric: math.sqrt(v + rest * _known_sd(metric, found) ** 2) for metric, v in variance.items()}


def _known_sd(metric: str, found: Profile) -> float:
    """Standard deviation of the logarithm by which runs outside the fit were missed in a metric like this one."""
    like = metric.split("_s_")[0]
    keys = [f"{like}_left_out_median_ape", "tpot_left_out_median_ape" if like == "itl" else ""]
    shares = [found.error[key] for key in keys if key in found.error]
    return _TO_SD * shares[0] if shares else 0.0


def _capacity_rps(run: Run, found: Profile) -> float:
    """Requests/s that the server serves of such requests when many are sent at once."""
    assert run.load is not None
    limits = limits_of(run.server, found)
    ranks = run.server.dp * run.server.replicas
    load = Load(
        requests=max(run.load.requests or 0, 4 * min(limits.max_num_seqs, 256) * ranks),
        prompt_tokens=run.load.prompt_tokens,
        output_tokens=run.load.output_tokens,
        low=run.load.low,
        high=run.load.high,
        shared_tokens=run.load.shared_tokens,
        shared_kinds=run.load.shared_kinds,
    )
    served = simulate_run(replace(run, load=load, requests=None, steps=None), found.step_time, limits)
    return served["output_tokens_per_s"] / max(run.load.output_tokens, 1.0)


def _saturated(run: Run, found: Profile, capacity_rps: float | None) -> bool:
    """Whether more is offered than the server can take: a rate near its capacity, or more users than its places."""
    assert run.load is not None
    if capacity_rps is not None:
        return run.load.rate_rps > FULL * capacity_rps
    if run.load.concurrency is None:
        return True
    limits = limits_of(run.server, found)
    each = run.load.concurrency / (run.server.dp * run.server.replicas)
    tokens = each * (run.load.prompt_tokens + 0.5 * run.load.output_tokens)
    return each > limits.max_num_seqs or tokens > FULL * limits.kv_blocks * limits.block_size


def _knees(pairs: Sequence[tuple[Run, Profile, _Judged]]) -> tuple[Knee, ...]:
    """The knee of each ladder: runs of one server and workload at rates of which some are above its capacity."""
    ladders: dict[tuple[str, str | None, str], list[tuple[Run, Profile, _Judged]]] = {}
    for run, found, judged in pairs:
        if run.load is not None and math.isfinite(run.load.rate_rps) and "output_tokens_per_s" in run.measured:
            prompt, output = _about(run.load.prompt_tokens), _about(run.load.output_tokens)
            alike = replace(run, load=replace(run.load, prompt_tokens=prompt, output_tokens=output))
            ladders.setdefault((run.server.setup, run.server.engine, workload_of(alike)), []).append(
                (run, found, judged)
            )
    knees = []
    for (setup, engine, _), ladder in ladders.items():
        served = [_served(run, judged) for run, _, judged in ladder]
        # Measured to be full: a tenth of what was sent was not served while it was.
        full = [i for i, (run, _, _) in enumerate(ladder) if run.load and served[i][0] < 0.9 * run.load.rate_rps]
        if len(ladder) > 1 and full:
            top = max(full, key=lambda i: served[i][0])
            run, found, _ = ladder[top]
            name = " ".join(part for part in (workload_of(run), engine) if part)
            knees.append(Knee(setup, found.name, kind_of(run, found), name, *served[top]))
    return tuple(knees)


def _about(tokens: float) -> float:
    """A mean length to a tenth or so: that of the same requests differs a little from run to run."""
    return float(round(math.exp(round(math.log(max(tokens, 1.0)) / _ALIKE) * _ALIKE)))


def _served(run: Run, judged: _Judged) -> tuple[float, float]:
    """Requests served in a second, measured and simulated."""
    assert run.load is not None
    row = next(row for row in judged.rows if row.metric == "output_tokens_per_s")
    each = max(run.load.output_tokens, 1.0)
    return row.measured / each, row.simulated / each


def workload_of(run: Run) -> str:
    """What a run's requests are, without their rate: its operating point without it."""
    assert run.load is not None
    return replace(run.load, rate_rps=math.inf, concurrency=1).point.replace("-c1", "", 1)


def _groups(run: Run) -> tuple[str, ...]:
    """Further groups of a set-up: dense or MoE, GPU, precision."""
    known = models().get(run.server.model)
    kind = () if known is None else ("moe" if known.experts else "dense",)
    gpu = run.server.gpu
    return (*kind, gpu if gpu in gpus() else f"{gpu} (not in the table)", run.server.precision)


def _warnings(pairs: Sequence[tuple[Run, Profile, _Judged]]) -> tuple[str, ...]:
    """What to know of the runs, the same of many said once."""
    said: dict[str, list[str]] = {}
    for run, found, judged in pairs:
        if judged.slower is not None and judged.slower > SLOWER:
            said.setdefault(
                f"steps took over {SLOWER - 1:.0%} longer than {found.name} says of such batches: if others did not, "
                "something else slowed the server down",
                [],
            ).append(f"{run.name} ({judged.slower - 1:.0%})")
        if found.kind == "measured":
            for far in outside(run, found):
                unit = {"max_decode_seqs": "sequences at once", "max_context_tokens": "tokens of context"}
                what = f"more {unit.get(far.limit, 'tokens in a step')} than {found.name} was fitted on"
                said.setdefault(f"{what} ({far.measured:,}): intervals are wider", []).append(run.name)
        if run.failed:
            said.setdefault(f"{run.failed} requests failed; they are in no measured number", []).append(run.name)
    lines = []
    for text, runs in said.items():
        lines.append(f"{listed(runs)}: {text}")
    return tuple(lines)
