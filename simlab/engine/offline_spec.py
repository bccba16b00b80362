"""Work that may wait, as the engine takes it: batch endpoints, and lines that fill the troughs of a pool."""

from __future__ import annotations

import math
from dataclasses import dataclass

NO_END = 1 << 40
"""More requests than there can be."""


@dataclass(frozen=True)
class BatchSpec:
    """What makes an API endpoint a batch endpoint: an answer comes as a whole, after the endpoint's ``ttft``.

    Args:
        window_s: a request that is not done this long after it was handed in expires: it ends as timed out, unpaid.
        collect_s: the gateway hands in together what came within this time of the first, s.
        requests: a batch with so many is handed in at once.
        queued_tokens: prompt tokens handed in and not done (0: no limit); more wait, one request at least goes.
    """

    window_s: float
    collect_s: float = 0.0
    requests: int = NO_END
    queued_tokens: int = 0


@dataclass(frozen=True)
class TroughSpec:
    """What lets a pool take work that may wait.

    Args:
        route: number of the route whose tasks wait for it; its rules have it as their ``gate``.
        pool: backend index.
        fill_to: requests in it, waiting and running, up to this share of ``max_num_seqs`` of its serving replicas.
        kv: while less than this share of their KV blocks is in use.
        waiting: and fewer than this many requests wait for each of them.
        lead_s: a task that is so near its deadline waits no longer (-inf: it does).
        every_s: how often the gateway looks at the pool while tasks wait, s.
    """

    route: int
    pool: int
    fill_to: float = 0.5
    kv: float = 0.8
    waiting: float = 1.0
    lead_s: float = -math.inf
    every_s: float = 0.1
