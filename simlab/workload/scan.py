"""What a cut of a trace amounts to, found by reading it once; remembered as long as the file does not change."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simlab.workload.reader import TraceReader
from simlab.workload.replay import Cut
from simlab.workload.stream import Load

if TYPE_CHECKING:
    from simlab.scenario.workload import TraceFormat

PEAK_S = 60.0
"""The peak rate of a trace is that of its busiest stretch of this length, s."""


class Extent(NamedTuple):
    """Size of a cut: its requests, length (s), tokens, and the most requests in any `PEAK_S`."""

    requests: int
    length_s: float
    prompt_tokens: int
    output_tokens: int
    busiest: int


def trace_load(path: Path, written: str | TraceFormat, cut: Cut, horizon_s: float) -> Load:
    """The mean load that a replay offers over the horizon.

    Raises:
        TraceError: the trace cannot be read.
    """
    extent = _extent(path, path.stat().st_mtime_ns, written, cut.from_s, cut.to_s)
    if extent.requests == 0:
        return Load(0.0, 0.0, 0.0, 0.0)
    length_s = extent.length_s * cut.time_scale
    plays = min(cut.repeat, horizon_s / length_s) if length_s > 0.0 else 1.0
    peak = extent.busiest / min(PEAK_S, extent.length_s) if extent.length_s > 0.0 else math.inf
    return Load(
        extent.requests * cut.rate_scale * plays / horizon_s,
        peak * cut.rate_scale / cut.time_scale,
        extent.prompt_tokens / extent.requests,
        extent.output_tokens / extent.requests,
    )


@lru_cache(maxsize=64)
def _extent(path: Path, _changed_ns: int, written: str | TraceFormat, from_s: float, to_s: float) -> Extent:
    requests = prompt = output = busiest = in_bin = 0
    last_s, last_bin = from_s, -1
    for block in TraceReader(path, written).blocks():
        low, high = (int(i) for i in np.searchsorted(block.arrival_s, (from_s, to_s), side="left"))
        if high > low:
            requests += high - low
            prompt += int(block.prompt_tokens[low:high].sum())
            output += int(block.output_tokens[low:high].sum())
            last_s = float(block.arrival_s[high - 1])
            bins, counts = np.unique(
                ((block.arrival_s[low:high] - from_s) // PEAK_S).astype(np.int64), return_counts=True
            )
            counts[0] += in_bin if bins[0] == last_bin else 0
            busiest = max(busiest, int(counts.max()))
            last_bin, in_bin = int(bins[-1]), int(counts[-1])
        if high < len(block):
            break
    end_s = to_s if math.isfinite(to_s) else last_s + (last_s - from_s) / max(1, requests - 1)
    return Extent(requests, end_s - from_s, prompt, output, busiest)
