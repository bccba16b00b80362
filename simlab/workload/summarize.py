"""From a trace file to its `WorkloadSummary`, in two streaming passes with bounded memory."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from simlab.workload.formats import RequestLayout, all_layouts, formats
from simlab.workload.lengths import QUANTILES, JointTable
from simlab.workload.pairs import length_columns, read_pairs
from simlab.workload.reader import Block, TraceReader
from simlab.workload.summary import (
    Attribution,
    LengthFacts,
    Pairs,
    PrefixFacts,
    RateSteps,
    WorkloadSummary,
    length_facts,
)
from simlab.workload.table import Table
from simlab.workload.windows import lengths_path, read_lengths, read_windows

if TYPE_CHECKING:
    from simlab.scenario.workload import TraceFormat

BINS_S = (
    1.0,
    5.0,
    10.0,
    30.0,
    60.0,
    120.0,
    300.0,
    600.0,
    900.0,
    1800.0,
    3600.0,
    10800.0,
    21600.0,
    86400.0,
    604800.0,
    2419200.0,
)
"""Lengths of rate steps to choose from, s."""

MAX_BINS = 400
"""The most rate steps of a summary."""

REQUESTS_A_BIN = 100.0
"""A step is chosen long enough to hold this many requests on average: 10% noise."""

_SAMPLE = 1 << 18
_COUNTERS = 1 << 20
_COARSER = {1.0: 60.0, 60.0: 3600.0, 3600.0: 86400.0, 86400.0: 86400.0 * 365.0}


class _Counts:
    """Arrivals by small time bins; the bins grow when there would be too many."""

    def __init__(self) -> None:
        self.width_s = 1.0
        self.counts = np.zeros(1024, np.int64)

    def add(self, arrival_s: NDArray[np.float64]) -> None:
        while arrival_s[-1] / self.width_s >= _COUNTERS:
            wider = _COARSER[self.width_s]
            places = (np.arange(len(self.counts)) * self.width_s // wider).astype(np.int64)
            self.counts = np.bincount(places, weights=self.counts).astype(np.int64)
            self.width_s = wider
        places = (arrival_s // self.width_s).astype(np.int64)
        if places[-1] >= len(self.counts):
            self.counts = np.concatenate((self.counts, np.zeros(2 * int(places[-1]), np.int64)))
        self.counts += np.bincount(places, minlength=len(self.counts))

    def by(self, bin_s: float, duration_s: float) -> NDArray[np.int64]:
        per_bin = round(bin_s / self.width_s)
        bins = math.ceil(duration_s / bin_s)
        counts = np.zeros(bins * per_bin, np.int64)
        kept = min(len(counts), len(self.counts))
        counts[:kept] = self.counts[:kept]
        summed: NDArray[np.int64] = counts.reshape(bins, per_bin).sum(axis=1)
        return summed


class _Sample:
    """Pairs of lengths: sums of all, and every k-th pair, k doubling so that the sample stays small."""

    def __init__(self) -> None:
        self.every = 1
        self.count = 0
        self.failed = 0
        self.sums = np.zeros(2)
        self.maxima = np.zeros(2, np.int64)
        self._parts: list[NDArray[np.int64]] = []
        self._held = 0

    def add(self, block: Block) -> None:
        pairs = np.stack((block.prompt_tokens, block.output_tokens))
        self.failed += int((pairs[1] == 0).sum())
        self.sums += pairs.sum(axis=1)
        self.maxima = np.maximum(self.maxima, pairs.max(axis=1))
        self._parts.append(pairs[:, (-self.count) % self.every :: self.every])
        self.count += len(block)
        self._held += self._parts[-1].shape[1]
        if self._held > _SAMPLE:
            thinned = self.pairs()[:, ::2]
            self._parts, self._held, self.every = [thinned], thinned.shape[1], self.every * 2

    def pairs(self) -> NDArray[np.int64]:
        return np.concatenate(self._parts, axis=1)

    def facts(self) -> tuple[LengthFacts, LengthFacts]:
        pairs = self.pairs()
        prompt, output = (
            length_facts(pairs[i], float(self.sums[i] / self.count), int(self.maxima[i]), QUANTILES) for i in (0, 1)
        )
        return prompt, output


class _Moments:
    """Mean and variance of a stream of numbers."""

    def __init__(self) -> None:
        self._count = 0
        self._sum = 0.0
        self._squares = 0.0
        self._last: float | None = None

    def add_gaps(self, times: NDArray[np.float64]) -> None:
        gaps = np.diff(times) if self._last is None else np.diff(times, prepend=self._last)
        self._last = float(times[-1])
        self._count += len(gaps)
        self._sum += float(gaps.sum())
        self._squares += float((gaps * gaps).sum())

    def cv(self) -> float | None:
        if self._count < 2 or self._sum <= 0.0:
            return None
        mean = self._sum / self._count
        return round(math.sqrt(max(0.0, self._squares / self._count - mean * mean)) / mean, 4)


class _Hits:
    """Prompt tokens in leading blocks seen before, by an unlimited cache."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self.cached = 0
        self.total = 0

    def add(self, block: Block) -> None:
        assert block.segment_ptr is not None
        assert block.segment_id is not None
        assert block.segment_tokens is not None
        self.total += int(block.prompt_tokens.sum())
        ids, tokens = block.segment_id.tolist(), block.segment_tokens.tolist()
        ptr = block.segment_ptr.tolist()
        for start, end in pairwise(ptr):
            for place in range(start, end):
                if ids[place] not in self._seen:
                    break
                self.cached += tokens[place]
            self._seen.update(ids[start:end])


def summarize(path: Path, format: str | TraceFormat = "auto", *, name: str | None = None) -> WorkloadSummary:
    """Reads a trace and says what is in it.

    Args:
        path: the trace.
        format: ``auto``, a format's name or a column map.
        name: short name of the summary; None: from the file's name.

    Returns:
        Without rates for a file that has two columns of lengths and no times.

    Raises:
        TraceError: the file is missing or bad, at its line.
    """
    called = name or path.name.split(".")[0].replace("_", "-").lower()
    if format == "auto":
        table = Table(path)
        pair = length_columns(table)
        if pair is not None and not any(set(layout.columns) <= set(table.columns) for layout in all_layouts()):
            return of_lengths(read_pairs(path), name=called)
    reader = TraceReader(path, format)
    return _of_windows(reader, called) if reader.is_windows else _of_requests(reader, called)


def of_lengths(pairs: JointTable, *, name: str) -> WorkloadSummary:
    """The summary of pairs of lengths without times."""
    prompt, output = (length_facts(v, float(v.mean()), int(v.max()), QUANTILES) for v in (pairs.prompt, pairs.output))
    return WorkloadSummary(
        name=name, format="lengths", requests=len(pairs.prompt), prompt_tokens=prompt,
        output_tokens=output, pairs=_condensed(pairs),
    )  # fmt: skip


def _of_requests(reader: TraceReader, name: str) -> WorkloadSummary:
    layout = reader.layout
    assert isinstance(layout, RequestLayout)
    counts, sample, gaps = _Counts(), _Sample(), _Moments()
    hits = None if layout.hash_ids is None else _Hits()
    last_s = 0.0
    for block in reader.blocks():
        counts.add(block.arrival_s)
        sample.add(block)
        gaps.add_gaps(block.arrival_s)
        if hits is not None:
            hits.add(block)
        last_s = float(block.arrival_s[-1])
    prompt, output = sample.facts()
    notes = []
    if sample.failed:
        notes.append(f"{sample.failed} requests without output: drawn with one output token")
    if hits is not None:
        notes.append(
            "the summary keeps lengths, not prefix chains: replay the trace itself to simulate its prefix cache"
        )
    timed = {}
    if last_s > 0.0:
        duration_s = last_s * sample.count / (sample.count - 1)
        steps = _steps(counts, sample.count, duration_s)
        timed = {
            "duration_s": round(duration_s, 4), "mean_rps": round(sample.count / duration_s, 6), "rate": steps,
            "peak_rps": max(steps.rps), "gap_cv": gaps.cv(), "residual_cv": _residual_cv(reader, steps, duration_s),
        }  # fmt: skip
    else:
        notes.append("all requests come at one moment, so there is no rate to draw from")
    return WorkloadSummary(
        name=name, format=reader.format, source=_attribution(reader.format), requests=sample.count,
        start=None if reader.start is None else reader.start.isoformat(), failed=sample.failed, prompt_tokens=prompt,
        output_tokens=output, pairs=_condensed(JointTable.from_pairs(*sample.pairs())), notes=notes,
        prefix=None if hits is None or not hits.total else PrefixFacts(
            block_tokens=layout.hash_block_tokens, ideal_hit_ratio=round(hits.cached / hits.total, 4)),
        **timed,
    )  # fmt: skip


def _steps(counts: _Counts, requests: int, duration_s: float) -> RateSteps:
    """The finest rate steps that are few enough and hold enough requests each; else one step for all."""
    bin_s = math.ceil(duration_s / counts.width_s) * counts.width_s
    for width in BINS_S:
        few = duration_s / width <= MAX_BINS and width < duration_s
        if few and requests * width / duration_s >= REQUESTS_A_BIN and (width / counts.width_s).is_integer():
            bin_s = width
            break
    by_bin = counts.by(bin_s, duration_s)
    widths_s = np.minimum(bin_s, duration_s - np.arange(len(by_bin)) * bin_s)
    return RateSteps(bin_s=bin_s, rps=[round(float(rate), 6) for rate in by_bin / widths_s])


def _residual_cv(reader: TraceReader, steps: RateSteps, duration_s: float) -> float | None:
    edges = np.minimum(np.arange(len(steps.rps) + 1) * steps.bin_s, duration_s)
    mass = np.concatenate(([0.0], np.cumsum(np.array(steps.rps) * np.diff(edges))))
    moments = _Moments()
    for block in reader.blocks():
        moments.add_gaps(np.interp(block.arrival_s, edges, mass))
    return moments.cv()


def _of_windows(reader: TraceReader, name: str) -> WorkloadSummary:
    windows = read_windows(reader)
    joint, known = read_lengths(reader, windows)
    rps = windows.total_rps()
    duration_s = len(rps) * windows.window_s
    bins, width = len(rps), windows.window_s
    per = math.ceil(bins / (MAX_BINS * 2))
    kept = np.add.reduceat(rps, np.arange(0, bins, per)) / np.diff(np.append(np.arange(0, bins, per), bins))
    prompt, output = (length_facts(v, float(v.mean()), int(v.max()), QUANTILES) for v in (joint.prompt, joint.output))
    cv = round(windows.pooled_cv(), 4)
    return WorkloadSummary(
        name=name, format=reader.format, source=_attribution(reader.format), requests=round(float(rps.sum()) * width),
        duration_s=duration_s, mean_rps=round(float(rps.mean()), 6), peak_rps=round(float(kept.max()), 6),
        residual_cv=cv, rate=RateSteps(bin_s=per * width, rps=[round(float(rate), 6) for rate in kept]),
        prompt_tokens=prompt, output_tokens=output, pairs=_condensed(joint),
        notes=[
            f"the trace gives rates and quantiles by client, not requests: {len(np.unique(windows.client))} clients, "
            f"lengths of {known:.0%} of the requests from {lengths_path(reader).name}, prompt and output independent "
            "within a client and period",
            "residual_cv pools the clients' own burstiness: right over long times, too bursty over short ones",
        ],
    )  # fmt: skip


def _condensed(pairs: JointTable) -> Pairs:
    small = pairs.condensed()
    return Pairs(prompt=small.prompt.tolist(), output=small.output.tolist())


def _attribution(format: str) -> Attribution:
    known = formats().get(format)
    if known is None or not known.url:
        return Attribution()
    return Attribution(title=known.title, url=known.url, licence=known.licence, cite=known.cite)
