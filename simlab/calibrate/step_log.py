"""The steps of one server's logs together: phases, bursts of steps with prompts, and blocks to hold out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simlab.calibrate.run import Floats, Ints, Steps
from simlab.calibrate.step_design import Contents, contents

Bools = NDArray[np.bool_]

PHASES = ("prefill", "decode", "mixed")
PREFILL, DECODE, MIXED = range(3)
BURST = 6
"""Longer runs of steps with prompts are cut: a sum of too many tells little of each."""
BLOCK = 50
"""Steps held out together: neighbours err alike, so single ones would not be unseen."""


@dataclass(frozen=True)
class StepLog:
    """Steps in their order, [n] each; those of several logs one log after the other.

    Attributes:
        batch: what was in each.
        seconds: how long it took.
        phase: index of `PHASES`.
        real: of a mixed stream of requests.
        log: number of the log it is of.
        block: number of the block of consecutive steps of one log.
        bursts: [m, 2] first and last step of each burst: consecutive steps with prompts, at most `BURST`, with the
            step of decodes before and the one after. A prompt that comes to an idle server begins a new one.
    """

    batch: Contents
    seconds: Floats
    phase: Ints
    real: Bools
    log: Ints
    block: Ints
    bursts: Ints

    def __len__(self) -> int:
        return len(self.seconds)

    def burst_sums(self, values: Floats) -> Floats:
        """Sums over each burst of [n] or [n, k] values."""
        total = np.concatenate([np.zeros((1, *values.shape[1:])), np.cumsum(values, axis=0)])
        return np.asarray(total[self.bursts[:, 1] + 1] - total[self.bursts[:, 0]])

    def whole_bursts(self, rows: Bools) -> Bools:
        """Which bursts lie in these rows with all their steps, [m]."""
        inside = np.concatenate([[0], np.cumsum(rows)])
        first, last = self.bursts.T
        return np.asarray(inside[last + 1] - inside[first] == last + 1 - first)

    def thinned(self, enough: int) -> Bools:
        """Every so manieth step of a phase that has more than enough, [n]."""
        chosen = np.zeros(len(self), dtype=bool)
        for phase in range(len(PHASES)):
            at = np.flatnonzero(self.phase == phase)
            chosen[at[:: max(1, len(at) // enough)]] = True
        return chosen

    def shapes(self) -> Ints:
        """Number of each step's shape: its prompt tokens, requests and decoding sequences, [n]."""
        parts = (self.batch.prefill, self.batch.requests, self.batch.decodes)
        return np.asarray(np.unique(np.stack(parts, axis=1), axis=0, return_inverse=True)[1].reshape(-1))


def joined(logs: Sequence[Steps]) -> StepLog:
    """The steps of several logs of one server, one log after the other."""
    parts = [contents(steps) for steps in logs if len(steps.seconds)]
    phases = [np.where(part.prefill <= 0, DECODE, np.where(part.decodes > 0, MIXED, PREFILL)) for part in parts]
    bursts, blocks, begin, blocks_before = [np.zeros((0, 2), dtype=np.int64)], [np.zeros(0, dtype=np.int64)], 0, 0
    for part in parts:
        length = len(part.prefill)
        # Short logs still make blocks enough to hold one of five out.
        block = np.arange(length) // min(BLOCK, max(1, length // 20))
        blocks.append(block + blocks_before)
        bursts.append(_bursts(part) + begin)
        begin, blocks_before = begin + length, blocks_before + int(block[-1]) + 1
    kept = [steps for steps in logs if len(steps.seconds)]
    return StepLog(
        batch=Contents.joined(parts),
        seconds=np.concatenate([np.zeros(0), *(steps.seconds for steps in kept)]),
        phase=np.concatenate([np.zeros(0, dtype=np.int64), *phases]),
        real=np.concatenate([np.zeros(0, dtype=bool), *(steps.real for steps in kept)]),
        log=np.repeat(np.arange(len(kept)), [len(steps.seconds) for steps in kept]),
        block=np.concatenate(blocks),
        bursts=np.concatenate(bursts),
    )


def _bursts(batch: Contents) -> Ints:
    begins = batch.prefill > 0
    from_idle = begins & (batch.decodes == 0) & (batch.prefill_context == batch.prefill)
    found, at, end = [], 0, len(begins)
    while at < end:
        if not begins[at]:
            at += 1
            continue
        last = at
        while last + 1 < end and begins[last + 1] and not from_idle[last + 1] and last + 1 < at + BURST:
            last += 1
        before = at > 0 and not begins[at - 1] and batch.decodes[at] > 0
        after = last + 1 < end and not begins[last + 1]
        found.append((at - before, last + after))
        at = last + 1
    return np.array(found, dtype=np.int64).reshape(-1, 2)
