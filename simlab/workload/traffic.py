"""From what an architect wrote about one workload class to the stream the engine reads."""

from __future__ import annotations

import math
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from simlab.draws import Distribution
from simlab.errors import Problem, TraceError
from simlab.workload.faults import trace_error
from simlab.workload.lengths import JointTable
from simlab.workload.library import joint_table
from simlab.workload.locate import find_file
from simlab.workload.rates import RateFunction
from simlab.workload.reader import TraceReader
from simlab.workload.renewal import RenewalSource
from simlab.workload.replay import Cut, TraceReplay
from simlab.workload.scan import trace_load
from simlab.workload.stream import Chunk, Load, Source, Stream
from simlab.workload.summarize import summarize
from simlab.workload.summary import WorkloadSummary, load_summary

if TYPE_CHECKING:
    from simlab.scenario import Scenario
    from simlab.scenario.workload import Closed, Lengths, Summary, Trace, WorkloadClass


class _Drawn:
    """Arrivals whose lengths the engine draws."""

    def __init__(self, times: RenewalSource) -> None:
        self._times = times

    def next_chunk(self) -> Chunk | None:
        arrival_s = self._times.next_times()
        return None if arrival_s is None else Chunk(arrival_s)


def open_stream(
    cls: WorkloadClass, *, index: int, seed: int, start: datetime, horizon_s: float, base_dir: Path | None
) -> Stream:
    """Opens the traffic of one class.

    Args:
        cls: the class as the scenario has it.
        index: its place among the classes; part of the key of every draw.
        seed: seed of the replication.
        start: what the clock shows at time zero (hour and day profiles count from it).
        horizon_s: end of the run, s; nothing arrives at or after it.
        base_dir: folder of the scenario file, where traces are looked for first; None without a file.

    Raises:
        TraceError: a trace, summary or length table is missing or cannot be read.
    """
    arrivals = cls.arrivals
    if arrivals.kind == "closed":
        return _closed(cls, arrivals, base_dir)
    if arrivals.kind == "trace":
        return _trace(cls, arrivals, index=index, seed=seed, horizon_s=horizon_s, base_dir=base_dir)
    if arrivals.kind == "summary":
        summary = load_summary(arrivals.file, base_dir)
        return _summary(cls, arrivals, summary, index=index, seed=seed, horizon_s=horizon_s, base_dir=base_dir)
    rate = RateFunction.from_profile(arrivals.rate, arrivals.profile, start, arrivals.growth_per_month)
    cv = 1.0 if arrivals.kind == "poisson" else arrivals.cv
    times = RenewalSource(rate, arrivals.kind, cv, seed=seed, index=index, horizon_s=horizon_s)
    return _drawn(cls, _Drawn(times), rate, horizon_s, _lengths(cls.lengths, base_dir), [])


def open_class(scenario: Scenario, name: str, seed: int) -> Stream:
    """Opens the traffic of one class of a scenario; see `open_stream`.

    Raises:
        TraceError: a trace, summary or length table is missing or cannot be read.
    """
    cls = scenario.workload[name]
    try:
        return open_stream(
            cls,
            index=list(scenario.workload).index(name),
            seed=seed,
            start=scenario.start,
            horizon_s=scenario.horizon,
            base_dir=scenario.base_dir,
        )
    except TraceError as error:
        path = f"workload.{name}.arrivals.file" if hasattr(cls.arrivals, "file") else f"workload.{name}.lengths"
        place = scenario.place(path)
        if not place:
            raise
        found = [Problem(place, path, f"{problem.where}: {problem.message}") for problem in error.problems]
        raise TraceError(found) from error


def _trace(
    cls: WorkloadClass, arrivals: Trace, *, index: int, seed: int, horizon_s: float, base_dir: Path | None
) -> Stream:
    written = arrivals.format
    path = find_file(arrivals.file, base_dir, known_format=written if isinstance(written, str) else "map")
    reader = TraceReader(path, written)
    cut = Cut(
        arrivals.from_,
        math.inf if arrivals.to is None else arrivals.to,
        arrivals.time_scale,
        arrivals.rate_scale,
        math.inf if arrivals.repeat == "forever" else arrivals.repeat,
    )
    if reader.is_windows:
        if (cut.from_s, cut.to_s, cut.time_scale) != (0.0, math.inf, 1.0):
            raise trace_error(
                str(path),
                "holds rates by window, which can be neither cut nor stretched; leave out from, to and time_scale",
            )
        return _windows(cls, arrivals, summarize(path, written), index=index, seed=seed, horizon_s=horizon_s)
    notes = [f"{path.name} replayed as format {reader.format}, times counted from its first request"]
    if cut.rate_scale != 1.0:
        notes.append(f"{path.name}: {cut.rate_scale:g} requests made of each on average, drawn by row")
    if reader.has_chains and (cut.rate_scale > 1.0 or cut.repeat > 1):
        notes.append(f"{path.name}: copies and repetitions share no prefix blocks with each other")
    return Stream(
        TraceReplay(reader, cut, seed=seed, index=index, horizon_s=horizon_s),
        lambda: trace_load(path, written, cut, horizon_s),
        assumptions=notes,
    )


def _windows(
    cls: WorkloadClass, arrivals: Trace, summary: WorkloadSummary, *, index: int, seed: int, horizon_s: float
) -> Stream:
    """Rates by window: gamma renewal with the pooled burstiness of the clients."""
    repeat = math.inf if arrivals.repeat == "forever" else arrivals.repeat
    assert summary.duration_s is not None
    assert summary.residual_cv is not None
    rate = summary.rate_function(scale=arrivals.rate_scale)
    assert rate is not None
    end_s = min(horizon_s, repeat * summary.duration_s)
    times = RenewalSource(rate, "gamma", summary.residual_cv, seed=seed, index=index, horizon_s=end_s)
    lengths = _Lengths(None, None, summary.joint)
    return _drawn(cls, _Drawn(times), rate, horizon_s, lengths, list(summary.notes), end_s=end_s)


def _summary(
    cls: WorkloadClass,
    arrivals: Summary,
    summary: WorkloadSummary,
    *,
    index: int,
    seed: int,
    horizon_s: float,
    base_dir: Path | None,
) -> Stream:
    rate = summary.rate_function(scale=arrivals.rate_scale, repeat=arrivals.repeat)
    if rate is None:
        raise trace_error(
            arrivals.file,
            "holds lengths without times, so it cannot say when requests arrive; use it as `lengths: "
            "{joint: …}` with another kind of arrivals",
        )
    lengths = _Lengths(None, None, summary.joint) if cls.lengths is None else _lengths(cls.lengths, base_dir)
    times = RenewalSource(rate, "gamma", arrivals.cv, seed=seed, index=index, horizon_s=horizon_s)
    notes = [f"traffic drawn from the summary {summary.name} ({summary.source.title or 'no source given'})"]
    return _drawn(cls, _Drawn(times), rate, horizon_s, lengths, notes + summary.notes)


class _Lengths:
    """The laws of lengths of a class: either two distributions or one joint table."""

    def __init__(self, prompt: Distribution | None, output: Distribution | None, joint: JointTable | None) -> None:
        self.prompt = prompt
        self.output = output
        self.joint = joint

    def means(self) -> tuple[float, float]:
        """Mean prompt and output, tokens."""
        if self.joint is not None:
            return self.joint.mean_prompt_tokens, self.joint.mean_output_tokens
        assert self.prompt is not None
        assert self.output is not None
        return self.prompt.mean(), self.output.mean()


def _lengths(lengths: Lengths | None, base_dir: Path | None) -> _Lengths:
    if lengths is not None and lengths.joint is not None:
        return _Lengths(None, None, joint_table(lengths.joint, base_dir))
    if lengths is None or lengths.prompt is None or lengths.output is None:
        raise ValueError("these arrivals need lengths; the scenario model sees to it")
    return _Lengths(lengths.prompt.distribution(), lengths.output.distribution(), None)


def _drawn(
    cls: WorkloadClass,
    source: Source,
    rate: RateFunction,
    horizon_s: float,
    lengths: _Lengths,
    notes: list[str],
    *,
    end_s: float = math.inf,
) -> Stream:
    """A stream of arrivals at a known rate until ``end_s``; with sessions, arrivals are their starts."""
    turns = None if cls.sessions is None else cls.sessions.turns.distribution()

    def measure() -> Load:
        prompt, output = _turn_means(cls, turns, lengths)
        per_start = (1.0 if turns is None else _moments(turns)[0]) * loop_calls(cls)
        until_s = min(end_s, horizon_s)
        mean_rps = rate.integral(until_s) / horizon_s
        return Load(mean_rps * per_start, rate.peak_rps(until_s) * per_start, prompt, output)

    return Stream(
        source,
        measure,
        prompt=lengths.prompt,
        output=lengths.output,
        joint=lengths.joint,
        turns=turns,
        think=None if cls.sessions is None else cls.sessions.think_time.distribution(),
        assumptions=notes,
    )


def _closed(cls: WorkloadClass, arrivals: Closed, base_dir: Path | None) -> Stream:
    lengths = _lengths(cls.lengths, base_dir)
    think = arrivals.think_time.distribution()
    users = arrivals.users

    def measure() -> Load:
        mean = think.mean()
        most = users * loop_calls(cls) / mean if mean > 0.0 else math.inf
        return Load(most, most, *_turn_means(cls, None, lengths))

    return Stream(
        None,
        measure,
        closed_users=users,
        think=think,
        prompt=lengths.prompt,
        output=lengths.output,
        joint=lengths.joint,
    )


def _moments(turns: Distribution) -> tuple[float, float]:
    """First two moments of the number of turns (whole, >= 1), by the midpoint rule on its quantiles."""
    at = np.array([max(1.0, round(turns.quantile((i + 0.5) / 2000.0))) for i in range(2000)])
    return float(at.mean()), float((at * at).mean())


def _turn_means(cls: WorkloadClass, turns: Distribution | None, lengths: _Lengths) -> tuple[float, float]:
    """Mean prompt and output of one request, tokens.

    Turn k of a session carries the k - 1 earlier prompts and outputs; over all turns of sessions of N turns that is
    ``E[N (N - 1) / 2] / E[N]`` earlier turns on average. The same holds for the calls of an agent's task, each of which
    carries what the ones before wrote and what their tools said.
    """
    prompt, output = lengths.means()
    shared = 0.0
    if cls.prefix is not None:
        documents = cls.prefix.documents
        shared = float(cls.prefix.system + cls.prefix.template)
        shared += 0.0 if documents is None else float(documents.tokens)
    history = 0.0
    if turns is not None and cls.sessions is not None:
        first, second = _moments(turns)
        turn = prompt + output + (loop_calls(cls) - 1.0) * loop_growth(cls)
        history = (second - first) / 2.0 / first * turn
        if cls.sessions.max_context is not None:
            history = min(history, float(cls.sessions.max_context))
    if cls.agent is not None:
        first, second = _moments(cls.agent.calls().distribution())
        history += (second - first) / 2.0 / first * loop_growth(cls)
        output = (output + (first - 1.0) * cls.agent.call_tokens.distribution().mean()) / first
    return shared + history + prompt, output


def loop_calls(cls: WorkloadClass) -> float:
    """Mean model calls of a task, before any cap."""
    return 1.0 if cls.agent is None else _moments(cls.agent.calls().distribution())[0]


def loop_growth(cls: WorkloadClass) -> float:
    """Mean tokens by which the prompt grows from one call of an agent's task to the next."""
    if cls.agent is None:
        return 0.0
    tools = cls.agent.tools
    parallel = 1.0 if tools.parallel is None else _moments(tools.parallel.distribution())[0]
    return cls.agent.call_tokens.distribution().mean() + parallel * tools.result_tokens.distribution().mean()
