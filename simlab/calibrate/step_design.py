"""The step-time family as columns of a linear least-squares problem, one coefficient each, none below zero."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from simlab.calibrate.attention_work import attention_work
from simlab.calibrate.run import Floats, Steps
from simlab.profiles.step_time import TABLES, StepTime

CAPTURED = (1, 2, 4, *range(8, 256, 8), *range(256, 513, 16))
"""Batch sizes for which vLLM captures CUDA graphs; a batch of decodes is padded to the next."""
GRAPH_TOKENS = 512
"""Steps with more tokens are launched kernel by kernel."""
KNOTS = (1, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
KNEE = (2, 4, 8, 16, 24, 48, 96, 192, 384)
"""Additional knots for small batches: each token touches further experts, until all are read."""
LEAST_STEPS = 3
"""So many steps are wanted on either side of a knot."""
GROUPS = {
    "base": "every step",
    "curve": "tokens of the step, straight between a few knots",
    "kv": "context of the decoding sequences",
    "seq": "each decoding sequence",
    "stairs": "decodes padded to the next captured CUDA graph",
    "knee": "more knots for small batches",
    "prefill": "a step with prompt tokens",
    "eager": "a step with prompt tokens too large for a CUDA graph",
    "prefill_token": "each prompt token beyond what a decoded one takes",
    "prefill_seq": "each prefilling request",
    "prefill_kv": "context of the prefilling requests",
    "attention": "pairs of prompt and context tokens",
}
"""Groups of columns that are kept or left out together, in words."""
BASIC = ("base", "curve", "kv")
"""Groups that are always there."""


@dataclass(frozen=True)
class Column:
    """One coefficient: of a plain term, s a unit; or of a table, s that it rises from ``low`` to ``high`` tokens.

    A table's column with ``low == high`` is the table's level: s at all numbers of tokens.
    """

    group: str
    term: str
    low: float = 0.0
    high: float = 0.0


@dataclass(frozen=True)
class Contents:
    """What was in each step, [n] each, in the terms of `StepTime.step_s`; nothing unknown is left in it."""

    prefill: Floats
    requests: Floats
    decodes: Floats
    decode_context: Floats
    prefill_context: Floats
    work: Floats

    @property
    def tokens(self) -> Floats:
        """All tokens of the step."""
        return self.prefill + self.decodes

    def part(self, rows: NDArray[np.bool_] | NDArray[np.int64] | slice) -> Contents:
        """Some of the steps."""
        return Contents(*(getattr(self, entry.name)[rows] for entry in fields(self)))

    @staticmethod
    def joined(parts: Sequence[Contents]) -> Contents:
        """Several one after the other."""
        nothing = np.zeros(0)
        return Contents(
            *(np.concatenate([nothing, *(getattr(part, entry.name) for part in parts)]) for entry in fields(Contents))
        )


def contents(steps: Steps) -> Contents:
    """What was in each step; where a log does not tell, prompts begin at 0 and a decoding sequence has a mean context.

    The mean is over the steps of the same log that tell it; 0 where none does.
    """
    known = np.isfinite(steps.decode_context_tokens) & (steps.decode_requests > 0)
    total = float(steps.decode_requests[known].sum())
    mean = float(steps.decode_context_tokens[known].sum()) / total if total else 0.0
    start = np.nan_to_num(steps.prefill_start_tokens, nan=0.0)
    requests = np.where(steps.prefill_tokens > 0, np.fmax(steps.prefill_requests, 1.0), 0.0)
    by_sums = attention_work(steps.prefill_tokens, requests, start)
    return Contents(
        prefill=steps.prefill_tokens,
        requests=requests,
        decodes=steps.decode_requests,
        decode_context=np.where(
            np.isfinite(steps.decode_context_tokens), steps.decode_context_tokens, mean * steps.decode_requests
        ),
        prefill_context=np.where(steps.prefill_tokens > 0, steps.prefill_tokens + start, 0.0),
        work=np.where(np.isfinite(steps.work), steps.work, by_sums),
    )


def step_seconds(step_time: StepTime, steps: Steps | Contents) -> Floats:
    """Duration of each step by a step-time, s, [n]: `StepTime.step_s` for whole logs."""
    batch = contents(steps) if isinstance(steps, Steps) else steps
    tokens, begins = batch.tokens, batch.prefill > 0
    seconds = (
        step_time.base_s
        + step_time.per_seq_s * batch.decodes
        + step_time.per_kv_token_s * batch.decode_context
        + step_time.per_prefill_kv_token_s * batch.prefill_context
        + step_time.attn_s * batch.work
        + step_time.per_prefill_token_s * batch.prefill
        + _table(step_time.linear, tokens)
        + begins * (step_time.per_prefill_seq_s * batch.requests + _table(step_time.prefill_linear, tokens))
    )
    return np.asarray(seconds, dtype=np.float64)


def _table(points: Sequence[tuple[float, float]], tokens: Floats) -> Floats:
    if not points:
        return np.zeros(len(tokens))
    at, seconds = np.array(points).T
    left = np.clip(np.searchsorted(at, tokens, side="right") - 1, 0, len(at) - 2)
    slope = np.diff(seconds) / np.diff(at)
    return np.asarray(seconds[left] + (tokens - at[left]) * slope[left], dtype=np.float64)


def columns(batch: Contents, beyond: Contents | None = None) -> list[Column]:
    """Every column that these steps can tell anything about, group by group.

    A table rises only between numbers of tokens that occur: below the smallest step it is level, so that a lone
    sequence takes what the smallest measured batch takes, and beyond the largest it goes on at the last slope.

    Args:
        batch: what was measured.
        beyond: what is also to be told: its tokens get knots, its prompts their terms, but no finer ones.
    """
    measured = batch.decodes[batch.prefill <= 0]
    most = float(measured.max()) if len(measured) else 0.0
    batch = batch if beyond is None else Contents.joined([batch, beyond])
    tokens, begins = batch.tokens, batch.prefill > 0
    decoding = batch.decodes[~begins]
    made = [Column("base", "base_s"), Column("kv", "per_kv_token_s"), Column("seq", "per_seq_s")]
    knots = _knots(KNOTS, tokens)
    coarse = list(pairwise(knots))
    made += [Column("curve", "linear", low, high) for low, high in coarse]
    finer = pairwise(_knots((*KNOTS, *(knot for knot in KNEE if knot < 2 * most)), tokens))
    made += [Column("knee", "linear", low, high) for low, high in finer if (low, high) not in coarse]
    made += [
        Column("stairs", "linear", size, size + 1)
        for size in CAPTURED
        if size < most and (measured <= size).sum() >= LEAST_STEPS
    ]
    if begins.any():
        few = (begins & (tokens <= GRAPH_TOKENS)).sum() < LEAST_STEPS
        made += [Column("prefill", "prefill_linear")] if len(decoding) else []
        made += [] if few else [Column("eager", "prefill_linear", GRAPH_TOKENS, GRAPH_TOKENS + 1)]
        made += [
            Column("prefill_token", "per_prefill_token_s"),
            Column("prefill_seq", "per_prefill_seq_s"),
            Column("prefill_kv", "per_prefill_kv_token_s"),
            Column("attention", "attn_s"),
        ]
    x = matrix(batch, made)
    return [column for column, values in zip(made, x.T, strict=True) if values.any()]


def _knots(wanted: Iterable[float], tokens: Floats) -> list[float]:
    """Knots with steps between each two of them; the last is the largest step, so that its slope is a measured one."""
    ordered = np.sort(tokens)
    first, top = float(max(1.0, ordered[min(LEAST_STEPS, len(ordered)) - 1])), float(ordered[-1])
    kept = [first]
    for knot in sorted({float(knot) for knot in wanted if first < knot < top}):
        between = ((tokens > kept[-1]) & (tokens <= knot)).sum()
        if between >= LEAST_STEPS and (tokens > knot).sum() >= LEAST_STEPS:
            kept.append(knot)
    return [*kept, top] if top > kept[-1] else kept


def matrix(batch: Contents, chosen: Sequence[Column]) -> Floats:
    """[n, columns]: seconds of each step for one unit of each coefficient."""
    plain = {
        "base_s": np.ones(len(batch.prefill)),
        "per_seq_s": batch.decodes,
        "per_kv_token_s": batch.decode_context,
        "per_prefill_kv_token_s": batch.prefill_context,
        "attn_s": batch.work,
        "per_prefill_token_s": batch.prefill,
        "per_prefill_seq_s": batch.requests,
    }
    tokens, begins = batch.tokens, batch.prefill > 0
    made = []
    for column in chosen:
        if column.term not in TABLES:
            made.append(plain[column.term])
            continue
        level = column.low == column.high
        rise = np.ones(len(tokens)) if level else np.clip((tokens - column.low) / (column.high - column.low), 0.0, 1.0)
        made.append(rise * begins if column.term == "prefill_linear" else rise)
    return np.stack(made, axis=1) if made else np.zeros((len(tokens), 0))


def step_time_of(chosen: Sequence[Column], solution: Floats, overhead_s: float = 0.0) -> StepTime:
    """Coefficients as a step-time."""
    values: dict[str, float] = {}
    rises: dict[str, list[tuple[Column, float]]] = {}
    for column, value in zip(chosen, map(float, solution), strict=True):
        if column.term in TABLES:
            rises.setdefault(column.term, []).append((column, value))
        else:
            values[column.term] = value
    tables = {term: _points(rise) for term, rise in rises.items() if any(value > 0 for _, value in rise)}
    return StepTime(**values, **tables, overhead_s=overhead_s)  # type: ignore[arg-type]


def _points(rises: Sequence[tuple[Column, float]]) -> tuple[tuple[float, float], ...]:
    """The sum of levels and rises as a table; points on a straight line between their neighbours are left out."""
    level = sum(value for column, value in rises if column.low == column.high)
    slopes = [(column, value) for column, value in rises if column.low < column.high]
    at = sorted({1.0, *(edge for column, _ in slopes for edge in (column.low, column.high))})
    # A table goes on at its last slope: after a stair, or a level alone, that must be level.
    if len(at) == 1 or at[-1] - at[-2] <= 1.0:
        at.append(2.0 * at[-1])
    seconds = [level + sum(v * min(max((x - c.low) / (c.high - c.low), 0.0), 1.0) for c, v in slopes) for x in at]
    points = list(zip(at, seconds, strict=True))
    kept = [points[0]]
    for point, after in pairwise(points[1:]):
        (x0, y0), (x1, y1), (x2, y2) = kept[-1], point, after
        if abs((y1 - y0) * (x2 - x1) - (y2 - y1) * (x1 - x0)) > 1e-12 * max(y2, 1e-12) * (x2 - x0):
            kept.append(point)
    # Rounding must not make a level stretch fall.
    table, floor = [], 0.0
    for x, y in [*kept, points[-1]]:
        floor = max(floor, y)
        table.append((x, floor))
    return tuple(table)
