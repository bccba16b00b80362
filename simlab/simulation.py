"""The meeting place: a scenario in, a `Result` out; the engine and the SimPy world advance together."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
import simpy
from numpy.typing import NDArray

from simlab import assemble
from simlab.control import Incident, Order, change_versions, operate, suffer
from simlab.draws.kernel import compiled_before
from simlab.engine import Engine, PoolSpec
from simlab.recording import Recorder
from simlab.results import RequestLog, Result
from simlab.results import measurements as m
from simlab.results.counts import COUNTER_DTYPE, LIMIT_DTYPE
from simlab.results.facts import FIXED, NOTHING, SAMPLED, Outside
from simlab.results.requestlog import REQUEST_DTYPE

if TYPE_CHECKING:
    from simlab.assemble import Backends, Overreach
    from simlab.scenario import Scenario

T = TypeVar("T")

Calibration = Literal["sampled", "fixed"]
"""Whether runs are repeated with step times drawn from the uncertainty of their profiles."""

COMPILING = "compiling the engine for this machine; once, about a minute …"

_SLICES = 200
"""Progress reports of one replication."""

_WORTH_A_PROCESS_S = 4.0
"""Work below this (of one core, s) is done here, in threads: each process costs a second to start."""

POOL_ASSUMPTIONS = (
    "replicas schedule exactly as vLLM V1 (chunked prefill, first come first served unless stated), without "
    "speculative decoding and without asynchronous scheduling",
)
OUTPUT_ASSUMPTION = "outputs have the drawn length: nothing ends early but by time-out or failure"


class Progress(Protocol):
    """Called with work done and in all, and, now and then, what is going on."""

    def __call__(self, done: float, total: float, note: str = "") -> None:  # noqa: D102
        ...


def _silent(done: float, total: float, note: str = "") -> None:
    """No progress."""


def replication_seed(seed: int, replication: int) -> int:
    """The seed of one replication: the same in every variant, so that all see the same luck."""
    return int(np.random.SeedSequence([seed, replication]).generate_state(1, np.uint64)[0] >> 1)


def simulate(
    scenario: Scenario,
    *,
    replications: int = 1,
    seed: int | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
    log: Path | None = None,
    calibration: Calibration = "sampled",
) -> Result:
    """Simulates a scenario.

    Args:
        scenario: from `simlab.load`.
        replications: independent runs; their spread gives the intervals.
        seed: of all draws; None: the scenario's.
        workers: processes to use; None: one for each core. It never changes a result.
        executor: runs the replications instead (a Dask client's ``get_executor()``, for one).
        progress: called while it runs.
        log: a Parquet file for every attempt of the first replication.
        calibration: ``"sampled"``: with two or more replications each is run again, with the same luck and step times
            drawn from the uncertainty of its profiles, and intervals hold that error too; ``"fixed"``: step times are
            taken to be exactly as fitted. Values are those of the fit either way.

    Raises:
        InputError: something in the scenario cannot be simulated (an unknown model, a broken trace …).
        OutputError: the log cannot be written.
    """
    if replications < 1:
        raise ValueError(f"replications must be at least 1, read {replications}")
    report = progress or _silent
    seed = scenario.seed if seed is None else seed
    seeds = [replication_seed(seed, i) for i in range(replications)]
    backends = assemble.backends(scenario)
    pools = any(profile is not None for profile in backends.profiles)
    drawing = pools and calibration == "sampled" and replications > 1
    runs = replications * (2 if drawing else 1)
    with (
        RequestLog(
            log,
            class_names=list(scenario.workload),
            backends=backends.facts,
            features=[cls.feature for cls in scenario.workload.values()],
            groups=backends.groups,
        )
        if log is not None
        else nullcontext()
    ) as request_log:
        first = _replicate(
            scenario,
            backends,
            seeds[0],
            lambda share, note="": report(share * replications / runs, replications, note),
            request_log,
        )
    with _crew(runs - 1, first.took_s, workers, executor) as crew:

        def finished(done: float) -> None:
            report(done * replications / runs, replications)

        rest = _all(scenario, backends, seeds[1:], crew, lambda done: finished(1 + done))
        measured = [first.measured, *rest]
        overreach = backends.overreach(measured)
        drawing = drawing and (backends.uncertain or any(overreach))
        drawn = []
        if drawing:
            drawn = _all(scenario, backends, seeds, crew, lambda done: finished(replications + done), overreach)
    return Result(
        scenario,
        measured,
        backends.facts,
        assumptions=[
            *_refusals(backends, first.measured),
            *(POOL_ASSUMPTIONS if scenario.pools else ()),
            OUTPUT_ASSUMPTION,
            *first.assumptions,
        ],
        outside={
            facts.name: [
                Outside(one.limit, one.measured, one.reached, one.share, one.log_sd, one.sentence) for one in limits
            ]
            for facts, limits in zip(backends.facts, overreach, strict=True)
            if limits
        },
        seed=seed,
        drawn=drawn,
        calibration=SAMPLED if drawing else FIXED if pools else NOTHING,
    )


@contextmanager
def _crew(runs: int, each_s: float, workers: int | None, executor: Executor | None) -> Iterator[Executor | None]:
    """Who does the runs that are left: the given executor, threads or processes of our own, or None: this thread."""
    workers = min(runs, workers or os.cpu_count() or 1)
    if executor is not None or workers < 2:
        yield executor
        return
    # The event loop runs without Python's lock; the traffic, which a long run makes on the way, does not.
    short = each_s * runs < _WORTH_A_PROCESS_S
    with ThreadPoolExecutor(workers) if short else ProcessPoolExecutor(workers, get_context("spawn")) as own:
        yield own


def _all(
    scenario: Scenario,
    backends: Backends,
    seeds: Sequence[int],
    crew: Executor | None,
    finished: Callable[[float], None],
    overreach: Overreach | None = None,
) -> list[m.Measurements]:
    """A replication for each seed, in their order; at the fit, or with step times drawn when ``overreach`` is given."""
    if crew is not None:
        return in_order(partial(measure, scenario, overreach=overreach), seeds, crew, finished)
    return [
        _replicate(
            scenario,
            backends if overreach is None else backends.drawn(seed, overreach),
            seed,
            lambda share, note="", i=i: finished(i + share),
        ).measured
        for i, seed in enumerate(seeds)
    ]


def _refusals(backends: Backends, measured: m.Measurements) -> list[str]:
    """Says where requests were refused because no replica can hold them: easily mistaken for a lack of capacity."""
    found = []
    for b, (spec, facts) in enumerate(zip(backends.specs, backends.facts, strict=True)):
        refused = int(measured.cells["rejected"][measured.cells["backend"] == b].sum())
        if refused and isinstance(spec, PoolSpec):
            attempts = int(measured.cells["attempts"][measured.cells["backend"] == b].sum())
            limit = min(spec.max_model_len, (spec.kv_blocks - 1) * spec.block_size)
            found.append(
                f"{facts.name}: {refused:,} of {attempts:,} requests were refused: prompt and output are longer "
                f"than the {limit:,} tokens a replica takes (max_model_len, or its KV cache)"
            )
    return found


def in_processes(
    job: Callable[[int], T],
    seeds: Sequence[int],
    workers: int,
    executor: Executor | None,
    finished: Callable[[int], None],
) -> list[T]:
    """The job for each seed, in ``workers`` processes of our own or by the executor; results in the order of the seeds.

    Args:
        job: what a worker process does; it travels there by pickle.
        seeds: of the replications.
        workers: processes, where there is no executor.
        executor: runs the jobs instead.
        finished: called with the number of jobs that are done.
    """
    own = ProcessPoolExecutor(workers, get_context("spawn")) if executor is None else None
    pool = executor or own
    assert pool is not None
    with own or nullcontext():
        return in_order(job, seeds, pool, finished)


def in_order(
    job: Callable[[int], T], seeds: Sequence[int], pool: Executor, finished: Callable[[int], None]
) -> list[T]:
    """The job for each seed by an executor, results in the order of the seeds; arguments as for `in_processes`."""
    futures = [pool.submit(job, seed) for seed in seeds]
    for done, _ in enumerate(as_completed(futures), start=1):
        finished(done)
    return [future.result() for future in futures]


def measure(scenario: Scenario, seed: int, overreach: Overreach | None = None) -> m.Measurements:
    """One replication with a seed of its own, all by itself: what a worker process does.

    Args:
        scenario: what to run.
        seed: `replication_seed`.
        overreach: draw step times from the uncertainty of the profiles, widened where each backend goes beyond them
            (``()``: nowhere); None: run at the fit.

    Raises:
        InputError: as `simulate`.
    """
    backends = assemble.backends(scenario)
    return _replicate(scenario, backends if overreach is None else backends.drawn(seed, overreach), seed).measured


class _Replication(NamedTuple):
    measured: m.Measurements
    assumptions: list[str]
    took_s: float


def _replicate(
    scenario: Scenario,
    backends: Backends,
    seed: int,
    report: Any = None,
    request_log: RequestLog | None = None,
) -> _Replication:
    """One replication: the fast and the slow world, advanced in turn."""
    spec, assumptions = assemble.world(scenario, backends, seed, log_rows=65536 if request_log is not None else 0)
    if report is not None and not compiled_before():
        report(0.0, COMPILING)
    engine = Engine(spec, None if request_log is None else lambda rows: request_log.append(_log_rows(rows)))
    env = simpy.Environment()
    orders = [
        Order(op.at, list(scenario.pools).index(op.pool), op.action, op.replicas, scenario.pools[op.pool].startup)
        for op in scenario.operations
        if op.pool is not None and (op.action == "add" or op.action == "drain" or op.action == "fail")
    ]
    if orders:
        env.process(operate(env, engine, orders))
    incidents = [
        Incident(
            op.at,
            math.inf if op.until is None else op.until,
            scenario.backends.index(op.api),
            1.0 if op.factor is None else op.factor,
            op.share if op.action == "errors" else 0.0,
        )
        for op in scenario.operations
        if op.api is not None
    ]
    if incidents:
        usual = {scenario.backends.index(name): api.error_probability for name, api in scenario.apis.items()}
        env.process(suffer(env, engine, incidents, usual))
    if backends.changes:
        env.process(change_versions(env, engine, backends.changes))
    recorder = None
    if scenario.alerts is not None:
        tenants = [cls.tenants.count for cls in scenario.workload.values()]
        recorder = Recorder(engine, backends.facts, tenants, scenario.alerts.window)
        env.process(recorder.record(env))
    horizon = scenario.horizon
    engine.advance(until=0.0)  # loads the compiled kernels, which should not count as this scenario's work
    began = time.thread_time()
    if report is not None:
        env.process(_reporting(env, horizon, report))
    while env.peek() <= horizon:
        engine.advance(until=env.peek())
        env.step()
    engine.advance(until=horizon)
    engine.settle()
    engine.flush_log()
    measured = replace(
        collect(engine, scenario, backends.names, seed),
        groups=backends.groups,
        stream=None if recorder is None else recorder.stream(),
    )
    return _Replication(measured, assumptions, time.thread_time() - began)


def _reporting(env: simpy.Environment, horizon: float, report: Any) -> Any:
    """Says now and then how far the run is."""
    for i in range(1, _SLICES):
        yield env.timeout(horizon * i / _SLICES - env.now)
        report(i / _SLICES)


def _log_rows(rows: NDArray[Any]) -> NDArray[Any]:
    """The engine's log in the words of the request log; a first token that never came is NaN."""
    named = np.zeros(len(rows), REQUEST_DTYPE)
    for name in named.dtype.names or ():
        named[name] = rows["task" if name == "task_id" else name]
    never = named["first_token_s"] > named["finish_s"]
    named["first_token_s"][never] = np.nan
    return named


def _table(source: NDArray[Any], dtype: np.dtype[np.void]) -> NDArray[Any]:
    """The fields of ``dtype`` out of the engine's records; those it does not keep are zero."""
    table = np.zeros(source.shape, dtype)
    for name in dtype.names or ():
        if name in (source.dtype.names or ()):
            table[name] = source[name]
    return table


def collect(engine: Engine, scenario: Scenario, backend_names: tuple[str, ...], seed: int) -> m.Measurements:
    """What one replication measured."""
    w = engine.world
    tasks = _table(w.tasks, m.TASK_DTYPE)
    tasks["in_flight"] = tasks["arrived"] - tasks["succeeded"] - tasks["failed"]
    counters = _table(w.counters, COUNTER_DTYPE)
    counters["missed"] += engine.overdue()
    replicas = _table(w.reps[w.reps["state"] > 0], m.REPLICA_DTYPE)
    return m.Measurements(
        horizon_s=scenario.horizon,
        warmup_s=scenario.warmup,
        window_s=scenario.window_s,
        seed=seed,
        class_names=tuple(scenario.workload),
        class_features=tuple(cls.feature for cls in scenario.workload.values()),
        backend_names=backend_names,
        tenants_of_class=tuple(cls.tenants.count for cls in scenario.workload.values()),
        cells=_table(w.cells, m.CELL_DTYPE),
        tasks=tasks[0],
        tasks_total=tasks[1],
        tenant_tasks=_table(w.tenants, m.TENANT_TASK_DTYPE),
        hist=np.array(w.hist),
        hist_sum=np.array(w.hist_sum),
        hist_count=np.array(w.hist_count),
        windows=_table(w.windows, m.WINDOW_DTYPE),
        window_hist=np.array(w.window_hist),
        replicas=replicas,
        peak_in_flight=int(w.state[0]["peak_in_flight"]),
        savings=_table(w.savings, m.SAVING_DTYPE),
        counters=counters,
        limit_names=scenario.gateway.limit_names,
        deadlines_s=tuple(cls.task.deadline or np.inf for cls in scenario.workload.values()),
        limits=_table(w.limits[: len(scenario.gateway.limits)], LIMIT_DTYPE),
        queue_wait_hist=np.array(w.wait_hist if w.wait_hist.shape[1] > 1 else w.wait_hist[:0, :0]),
        spans=np.array(w.spans) if w.spans.shape[0] > 1 else np.zeros((2, 0, 0, 0)),
    )
