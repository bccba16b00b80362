"""Replay of a trace, request by request: cut, stretched, thinned or multiplied, repeated."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simlab.draws.counter import key, uniform
from simlab.draws.kernel import kernel
from simlab.workload.faults import trace_error
from simlab.workload.reader import Block, TraceReader
from simlab.workload.renewal import CHUNK, stream_key
from simlab.workload.stream import Chunk

RECENT = 1024
"""An extra copy of a request takes its lengths from one of this many latest requests."""

_COPIES = 0x434F5059  # keeps these draws apart from every other use of (seed, class)


@dataclass(frozen=True)
class Cut:
    """What part of a trace is replayed, and how.

    Args:
        from_s: requests before it are skipped, s of the trace.
        to_s: requests at or after it are left out, s of the trace; infinite: to the end.
        time_scale: stretches time; 2 is twice as slow.
        rate_scale: mean number of requests made of each.
        repeat: how often it is played; infinite: until the run ends.
    """

    from_s: float = 0.0
    to_s: float = math.inf
    time_scale: float = 1.0
    rate_scale: float = 1.0
    repeat: float = 1.0


@kernel
def copies_of(stream: np.uint64, first: int, count: int, rate_scale: float) -> NDArray[np.int64]:
    """How many requests each of ``count`` trace rows becomes, i8[count]: the whole part, and one more by chance."""
    whole = math.floor(rate_scale)
    part = rate_scale - whole
    out = np.empty(count, np.int64)
    for i in range(count):
        extra = part > 0.0 and uniform(key(key(stream, first + i), 0)) < part
        out[i] = whole + 1 if extra else whole
    return out


@kernel
def copy_draws(
    stream: np.uint64, numbers: NDArray[np.int64], copy: NDArray[np.int64], purpose: int
) -> NDArray[np.float64]:
    """A uniform number for each (row number, copy), f8[n]."""
    out = np.empty(len(numbers))
    for i in range(len(numbers)):
        out[i] = uniform(key(key(key(stream, numbers[i]), copy[i]), purpose))
    return out


@kernel
def moved_ids(ids: NDArray[np.int64], world: NDArray[np.int64]) -> NDArray[np.int64]:
    """Segment ids as another population would have them: world 0 keeps them, any other hashes them below 2^62."""
    out = np.empty_like(ids)
    for i in range(len(ids)):
        if world[i] == 0:
            out[i] = ids[i]
        else:
            out[i] = np.int64(key(np.uint64(world[i]), np.uint64(ids[i])) >> np.uint64(2))
    return out


class _Play(NamedTuple):
    """A block within one repetition: its rows, when the next row after it comes, and where the repetition starts."""

    block: Block
    next_s: float
    offset_s: float
    repetition: int


class TraceReplay:
    """Chunks of a trace.

    Rows are copied ``rate_scale`` times on average: the whole part always, one more with the probability of the rest,
    drawn by row number. The first copy keeps its time and lengths. Further copies come at a uniformly drawn moment
    before the next row. Without block ids they take their lengths from one of the latest `RECENT` rows; with block ids
    they keep the row's lengths and chain, with ids of their own: each copy is another population of users that shares
    prefixes among itself exactly as the trace does. Repetitions likewise do not share blocks with each other.

    Args:
        reader: the trace.
        cut: what is played.
        seed: seed of the replication.
        index: index of the class.
        horizon_s: nothing arrives at or after it.
    """

    def __init__(self, reader: TraceReader, cut: Cut, *, seed: int, index: int, horizon_s: float) -> None:
        self._reader = reader
        self._cut = cut
        self._horizon_s = horizon_s
        self._stream = stream_key(seed, _COPIES, index)
        self._recent_prompt = np.empty(0, np.int64)
        self._recent_output = np.empty(0, np.int64)
        self._chunks = self._made()

    def next_chunk(self) -> Chunk | None:
        """The next chunk, or None when the trace or the run is over.

        Raises:
            TraceError: a bad row; a cut that keeps nothing.
        """
        return next(self._chunks, None)

    def _made(self) -> Iterator[Chunk]:
        for play in self._plays():
            arrival_s = play.offset_s + (play.block.arrival_s - self._cut.from_s) * self._cut.time_scale
            if arrival_s[0] >= self._horizon_s:
                return
            chunk = self._chunk(play, arrival_s)
            inside = int(np.searchsorted(chunk.arrival_s, self._horizon_s, side="left"))
            for start in range(0, inside, CHUNK):
                yield _part(chunk, start, min(inside, start + CHUNK))

    def _plays(self) -> Iterator[_Play]:
        """The blocks of all repetitions, each knowing the time of the row that follows it."""
        cut = self._cut
        offset_s = 0.0
        repetition = 0
        while repetition < cut.repeat and offset_s < self._horizon_s:
            self._recent_prompt = self._recent_output = np.empty(0, np.int64)
            held: Block | None = None
            rows = 0
            for block in self._kept():
                if held is not None:
                    yield _Play(held, float(block.arrival_s[0]), offset_s, repetition)
                held = block
                rows += len(block)
            if held is None:
                raise trace_error(
                    str(self._reader.path),
                    f"has no request from {cut.from_s:g} s to {cut.to_s:g} s of its time; correct `from` and `to`",
                )
            end_s = cut.to_s
            if math.isinf(end_s):  # the trace says when its last request came, not when it ended: one mean gap later
                last = float(held.arrival_s[-1])
                end_s = last + (last - cut.from_s) / max(1, rows - 1)
            yield _Play(held, end_s, offset_s, repetition)
            if end_s <= cut.from_s and repetition + 1 < cut.repeat:
                raise trace_error(
                    str(self._reader.path),
                    "all requests come at one moment, so it cannot be repeated; give `to`, the end of one repetition",
                )
            offset_s += (end_s - cut.from_s) * cut.time_scale
            repetition += 1

    def _kept(self) -> Iterator[Block]:
        for block in self._reader.blocks():
            low, high = np.searchsorted(block.arrival_s, (self._cut.from_s, self._cut.to_s), side="left")
            if high > low:
                yield _rows(block, int(low), int(high))
            if high < len(block):
                return

    def _chunk(self, play: _Play, arrival_s: NDArray[np.float64]) -> Chunk:
        block, scale = play.block, self._cut.rate_scale
        prompt = np.maximum(block.prompt_tokens, 1)
        output = np.maximum(block.output_tokens, 1)
        first = play.repetition * 2**40 + block.first_row
        if scale == 1.0:
            row = np.arange(len(block))
            copy = np.zeros(len(block), np.int64)
        else:
            copies = copies_of(self._stream, first, len(block), scale)
            row = np.repeat(np.arange(len(block)), copies)
            copy = np.arange(len(row)) - np.repeat(np.cumsum(copies) - copies, copies)
            numbers = first + row
            end_s = play.offset_s + (play.next_s - self._cut.from_s) * self._cut.time_scale
            gaps = np.diff(np.append(arrival_s, end_s))
            moment = np.where(copy == 0, 0.0, copy_draws(self._stream, numbers, copy, 1))
            times = arrival_s[row] + moment * gaps[row]
            order = np.argsort(times, kind="stable")
            row, copy, arrival_s = row[order], copy[order], times[order]
        worlds = copy + play.repetition * 2**20
        query = None if block.query is None else moved_ids(block.query[row], worlds)
        if block.segment_ptr is None or block.segment_id is None or block.segment_tokens is None:
            return Chunk(arrival_s, *self._lengths(prompt, output, row, copy, first), query=query)
        ptr, entries, world = _chains(block.segment_ptr, row, worlds)
        return Chunk(
            arrival_s, prompt[row], output[row], ptr, moved_ids(block.segment_id[entries], world),
            block.segment_tokens[entries], query,
        )  # fmt: skip

    def _lengths(
        self, prompt: NDArray[np.int64], output: NDArray[np.int64], row: NDArray[np.int64], copy: NDArray[np.int64],
        first: int,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:  # fmt: skip
        if self._cut.rate_scale <= 1.0:
            return prompt[row], output[row]
        before = len(self._recent_prompt)
        prompt = np.concatenate((self._recent_prompt, prompt))
        output = np.concatenate((self._recent_output, output))
        here = row + before
        back = copy_draws(self._stream, first + row, copy, 2) * np.minimum(here + 1, RECENT)
        source = np.where(copy == 0, here, here - back.astype(np.int64))
        self._recent_prompt, self._recent_output = prompt[-(RECENT - 1) :], output[-(RECENT - 1) :]
        return prompt[source], output[source]


def _chains(
    ptr: NDArray[np.int64], row: NDArray[np.int64], world: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Chains of the chosen rows: new pointers, which entries they take, and the world of each entry."""
    counts = (ptr[1:] - ptr[:-1])[row]
    new = np.concatenate(([0], np.cumsum(counts)))
    entries = np.arange(new[-1]) - np.repeat(new[:-1], counts) + np.repeat(ptr[row], counts)
    return new, entries, np.repeat(world, counts)


def _rows(block: Block, low: int, high: int) -> Block:
    if low == 0 and high == len(block):
        return block
    ptr = ids = tokens = None
    if block.segment_ptr is not None and block.segment_id is not None and block.segment_tokens is not None:
        ptr = block.segment_ptr[low : high + 1]
        ids, tokens = block.segment_id[ptr[0] : ptr[-1]], block.segment_tokens[ptr[0] : ptr[-1]]
        ptr = ptr - ptr[0]
    return Block(
        block.first_row + low, block.arrival_s[low:high], block.prompt_tokens[low:high], block.output_tokens[low:high],
        ptr, ids, tokens, None if block.query is None else block.query[low:high],
    )  # fmt: skip


def _part(chunk: Chunk, low: int, high: int) -> Chunk:
    if low == 0 and high == len(chunk):
        return chunk
    assert chunk.prompt_tokens is not None
    assert chunk.output_tokens is not None
    lengths = chunk.prompt_tokens[low:high], chunk.output_tokens[low:high]
    query = None if chunk.query is None else chunk.query[low:high]
    if chunk.segment_ptr is None or chunk.segment_id is None or chunk.segment_tokens is None:
        return Chunk(chunk.arrival_s[low:high], *lengths, query=query)
    ptr = chunk.segment_ptr[low : high + 1]
    ids, tokens = chunk.segment_id[ptr[0] : ptr[-1]], chunk.segment_tokens[ptr[0] : ptr[-1]]
    return Chunk(chunk.arrival_s[low:high], *lengths, ptr - ptr[0], ids, tokens, query)
