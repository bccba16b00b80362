"""Steps as a least-squares problem: which observations, which columns, what no coefficient can be below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from simlab.calibrate.robust import MOST, RobustFit, robust_fit
from simlab.calibrate.run import Floats, Ints
from simlab.calibrate.step_design import Column, Contents, matrix, step_seconds
from simlab.calibrate.step_log import Bools, StepLog
from simlab.profiles import StepTime

TOGETHER, BEYOND = 3, 4
"""Groups of observations beside the phases: sums of bursts, and what the prior says beyond the measured steps."""
BEYOND_WEIGHT = 0.02
"""Of the prior's steps against all measured ones: nothing where there are measured ones."""
_DECODES = tuple(2.0**i for i in range(10))
_PROMPTS = tuple(2.0**i for i in range(6, 15))
_CONTEXTS = (256.0, 2048.0, 8192.0)


@dataclass(frozen=True)
class Beyond:
    """Steps that nobody measured, and how long the prior says they take, s."""

    batch: Contents
    seconds: Floats


@dataclass(frozen=True)
class Observations:
    """What is fitted: single steps and, where bursts are seen as sums, these.

    Attributes:
        x, seconds, groups: as `robust_fit` takes them.
        balance: weights by observation.
        first, last: the steps of each; -1 of the prior's.
    """

    x: Floats
    seconds: Floats
    groups: Ints
    balance: Floats
    first: Ints
    last: Ints


@dataclass(frozen=True)
class Problem:
    """A choice of columns for a log.

    Attributes:
        log: the steps.
        columns: one coefficient each.
        x: [n, k] of the steps.
        floor: [k].
        together: bursts are seen as sums instead of step by step.
        beyond: the prior's steps, and their [m, k].
    """

    log: StepLog
    columns: tuple[Column, ...]
    x: Floats
    floor: Floats
    together: bool = False
    beyond: Beyond | None = None

    @staticmethod
    def of(
        log: StepLog,
        columns: Sequence[Column],
        *,
        floor: StepTime | None = None,
        together: bool = False,
        beyond: Beyond | None = None,
    ) -> Problem:
        """The problem of a log."""
        least = [0.0 if floor is None else _floor(floor, column) for column in columns]
        return Problem(log, tuple(columns), matrix(log.batch, columns), np.array(least), together, beyond)

    def only(self, groups: Sequence[str]) -> Problem:
        """The same with the columns of some groups."""
        kept = np.array([column.group in groups for column in self.columns], dtype=bool)
        chosen = tuple(column for column in self.columns if column.group in groups)
        return replace(self, columns=chosen, x=self.x[:, kept], floor=self.floor[kept])

    def observations(self, rows: Bools, counted: Bools | None = None) -> Observations:
        """What the steps of ``rows`` give; ``counted``: of single steps only these, to be quicker."""
        log = self.log
        single = rows.copy()
        whole = np.zeros(len(log.bursts), dtype=bool)
        if self.together:
            whole = log.whole_bursts(rows)
            edges = np.zeros(len(log) + 1)
            np.add.at(edges, log.bursts[whole, 0], 1)
            np.add.at(edges, log.bursts[whole, 1] + 1, -1)
            single &= np.cumsum(edges[:-1]) == 0
        if counted is not None:
            single &= counted
        at = np.flatnonzero(single)
        x = [self.x[at]]
        seconds = [log.seconds[at]]
        groups = [log.phase[at]]
        first, last = [at], [at]
        if whole.any():
            x.append(log.burst_sums(self.x)[whole])
            seconds.append(log.burst_sums(log.seconds)[whole])
            groups.append(np.full(int(whole.sum()), TOGETHER))
            first.append(log.bursts[whole, 0])
            last.append(log.bursts[whole, 1])
        balance = [np.ones(sum(map(len, seconds)))]
        if self.beyond is not None:
            count = len(self.beyond.seconds)
            x.append(matrix(self.beyond.batch, self.columns))
            seconds.append(self.beyond.seconds)
            total = np.sqrt(np.unique(np.concatenate(groups), return_counts=True)[1]).sum()
            groups.append(np.full(count, BEYOND))
            balance.append(np.full(count, BEYOND_WEIGHT * total / np.sqrt(count)))
            first.append(np.full(count, -1))
            last.append(np.full(count, -1))
        return Observations(
            np.concatenate(x),
            np.concatenate(seconds),
            np.concatenate(groups),
            np.concatenate(balance),
            np.concatenate(first),
            np.concatenate(last),
        )

    def fit(self, seen: Observations, *, rounds: int = MOST) -> RobustFit:
        """The robust fit to observations."""
        return robust_fit(seen.x, seen.seconds, seen.groups, balance=seen.balance, floor=self.floor, rounds=rounds)


def _floor(floor: StepTime, column: Column) -> float:
    return getattr(floor, column.term) if column.term in {"per_kv_token_s", "attn_s"} else 0.0


def beyond(log: StepLog, prior: StepTime) -> Beyond | None:
    """The prior's steps larger than any measured, or of a kind that was not measured; scaled to the measured ones."""
    begins = log.batch.prefill > 0
    most_decodes = float(log.batch.decodes[~begins].max(initial=0.0))
    most_tokens = float(log.batch.tokens[begins].max(initial=0.0))
    decodes = [(batch, batch * context) for batch in _DECODES if batch > 1.25 * most_decodes for context in _CONTEXTS]
    prompts = [tokens for tokens in _PROMPTS if tokens > 1.25 * most_tokens for _ in _CONTEXTS]
    none, batches = np.zeros(len(decodes)), np.array(decodes, dtype=np.float64).reshape(-1, 2)
    lengths = np.array(prompts, dtype=np.float64)
    made = Contents.joined(
        [
            Contents(none, none, batches[:, 0], batches[:, 1], none, none),
            Contents(lengths, np.ones(len(lengths)), 0 * lengths, 0 * lengths, lengths, lengths * (lengths + 1) / 2),
        ]
    )
    if not len(made.prefill):
        return None
    ratio = log.seconds / np.maximum(step_seconds(prior, log.batch), 1e-9)
    overall = float(np.median(ratio))
    of_decodes = float(np.median(ratio[~begins])) if (~begins).any() else overall
    of_prompts = float(np.median(ratio[begins])) if begins.any() else overall
    scale = np.where(made.prefill > 0, of_prompts, of_decodes)
    return Beyond(made, scale * step_seconds(prior, made))
