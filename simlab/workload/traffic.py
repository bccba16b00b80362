"""From what an architect wrote about one workload class to the stream the engine reads."""

from __future__ import annotations

import math
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from simlab.draws import Distribution
from simlab.workload.lengths import JointTable
from simlab.workload.rates import RateFunction
from simlab.workload.renewal import RenewalSource
from simlab.workload.stream import Chunk, Load, Source, Stream

if TYPE_CHECKING:
    from simlab.scenario import WorkloadClass


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
        return _closed(cls, base_dir)
    rate = RateFunction.from_profile(arrivals.rate, arrivals.profile, start, arrivals.growth_per_month)
    cv = 1.0 if arrivals.kind == "poisson" else arrivals.cv
    times = RenewalSource(rate, arrivals.kind, cv, seed=seed, index=index, horizon_s=horizon_s)
    return _drawn(cls, _Drawn(times), rate, horizon_s, _lengths(cls, base_dir), [])


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


def _lengths(cls: WorkloadClass, base_dir: Path | None) -> _Lengths:
    lengths = cls.lengths
    if lengths is None:
        raise ValueError("a class without a trace or summary needs lengths; the scenario model sees to it")
    return _Lengths(lengths.prompt.distribution(), lengths.output.distribution(), None)


def _drawn(
    cls: WorkloadClass, source: Source, rate: RateFunction, horizon_s: float, lengths: _Lengths, notes: list[str]
) -> Stream:
    """A stream of arrivals at a known rate; with sessions, arrivals are their starts."""
    turns = None if cls.sessions is None else cls.sessions.turns.distribution()

    def measure() -> Load:
        prompt, output = _turn_means(cls, turns, lengths)
        per_start = 1.0 if turns is None else _moments(turns)[0]
        return Load(rate.mean_rps(horizon_s) * per_start, rate.peak_rps(horizon_s) * per_start, prompt, output)

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


def _closed(cls: WorkloadClass, base_dir: Path | None) -> Stream:
    lengths = _lengths(cls, base_dir)
    think = cls.arrivals.think_time.distribution()
    users = cls.arrivals.users
    turns = None if cls.sessions is None else cls.sessions.turns.distribution()

    def measure() -> Load:
        mean = think.mean()
        most = users / mean if mean > 0.0 else math.inf
        return Load(most, most, *_turn_means(cls, turns, lengths))

    return Stream(
        None,
        measure,
        closed_users=users,
        think=think,
        prompt=lengths.prompt,
        output=lengths.output,
        joint=lengths.joint,
        turns=turns,
    )


def _moments(turns: Distribution) -> tuple[float, float]:
    """First two moments of the number of turns (whole, >= 1), by the midpoint rule on its quantiles."""
    at = np.array([max(1.0, round(turns.quantile((i + 0.5) / 2000.0))) for i in range(2000)])
    return float(at.mean()), float((at * at).mean())


def _turn_means(cls: WorkloadClass, turns: Distribution | None, lengths: _Lengths) -> tuple[float, float]:
    """Mean prompt and output of one request, tokens.

    Turn k of a session carries the k - 1 earlier prompts and outputs; over all turns of sessions of N turns that is
    ``E[N (N - 1) / 2] / E[N]`` earlier turns on average.
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
        history = (second - first) / 2.0 / first * (prompt + output)
        if cls.sessions.max_context is not None:
            history = min(history, float(cls.sessions.max_context))
    return shared + history + prompt, output
