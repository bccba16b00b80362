"""Limits, caps and context budgets, as the engine takes them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from simlab.draws import Distribution
from simlab.engine.offline_spec import TroughSpec

NO_LIMIT = 1 << 40
"""More tokens or attempts than there can be."""


@dataclass(frozen=True)
class LimitSpec:
    """A limit of the gateway; 0: not limited so.

    Args:
        rpm, tpm: requests and tokens (of prompt and answer) a minute: token buckets that refill evenly.
        burst, burst_tokens: what the buckets hold (0: a minute's worth, one request at least).
        concurrency: tasks in flight, or calls of a provider's key.
        requests_per_day, usd_per_day: reset at midnight.
        over: REFUSE, QUEUE or DEGRADE what is above it; the last to backend ``degrade_to``.
        of_tenants: for each class, for each of its tenants, the number of the allowance it counts in (-1: none). All
            classes and tenants with the same number share it. Looked at once, when a task comes.
        of_backends: likewise for each backend. Looked at for each call.
        keys: each allowance of backends is there so many times; calls take the keys in turn.
        trough: in place of all amounts: calls of one route wait for room in a pool.
    """

    rpm: float = 0.0
    tpm: float = 0.0
    burst: float = 0.0
    burst_tokens: float = 0.0
    concurrency: int = 0
    requests_per_day: int = 0
    usd_per_day: float = 0.0
    over: int = 0
    degrade_to: int = -1
    of_tenants: Sequence[Sequence[int]] = ()
    of_backends: Sequence[int] = ()
    keys: int = 1
    trough: TroughSpec | None = None


@dataclass(frozen=True)
class CapSpec:
    """The most one request of a class may be, and take.

    Args:
        prompt: tokens of the prompt; longer ones are refused or, with ``cut``, cut.
        output: tokens of the answer; longer ones are cut.
        tries: attempts after the first, of whatever kind.
        usd: a task that has cost this much tries nothing more.
        session_usd: likewise a conversation, whose next request is refused.
    """

    prompt: int = NO_LIMIT
    cut: bool = False
    output: int = NO_LIMIT
    tries: int = NO_LIMIT
    usd: float = math.inf
    session_usd: float = math.inf


@dataclass(frozen=True)
class ContextSpec:
    """What a class's prompts consist of besides their own text, and caps on it.

    Args:
        chunks: retrieved chunks of ``chunk_tokens`` each.
        tools: tokens of tool results.
        max_chunks, max_tools, max_history: the most that is put into a prompt; the rest is left out.
        summary_tokens: history above its cap is replaced by a summary of this length.
        helper: backend index of the service that writes it (-1: history is cut to its cap instead, the oldest first).
    """

    chunks: Distribution | None = None
    chunk_tokens: int = 0
    tools: Distribution | None = None
    max_chunks: int = NO_LIMIT
    max_tools: int = NO_LIMIT
    max_history: int = NO_LIMIT
    summary_tokens: int = 0
    helper: int = -1
