"""One replica under priority scheduling on explicit requests: a workload class for each priority."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from small_worlds import Feed, traced

from simlab.engine import ClassSpec, Engine, PoolSpec, StepCoefficients, WorldSpec

END_S = 1e9


def serve_by_priority(
    requests: Sequence[Mapping[str, Any]], limits: Mapping[str, Any]
) -> list[tuple[float, float, int, int]]:
    """First token, finish (s), preemptions and cached tokens of each request; ``requests`` in order of arrival."""
    pace = limits["step_time"]
    levels = sorted({row["priority"] for row in requests})
    members = [[i for i, row in enumerate(requests) if row["priority"] == level] for level in levels]
    chunks = [
        traced(
            [
                (row["arrival_s"], row["prompt_tokens"], row["output_tokens"], row.get("segments", ()))
                for row in (requests[i] for i in rows)
            ]
        )
        for rows in members
    ]
    logs: list[NDArray[Any]] = []
    engine = Engine(
        WorldSpec(
            classes=[
                ClassSpec(content=0, feed=Feed([chunk]), segmented=bool(len(chunk.segment_id)), priority=level)
                for chunk, level in zip(chunks, levels, strict=True)
            ],
            backends=[
                PoolSpec(
                    step=StepCoefficients(
                        base_s=pace["base_s"],
                        prefill_token_s=pace["per_prefill_token_s"],
                        decode_seq_s=pace["per_decode_seq_s"],
                        decode_context_s=pace["per_context_token_s"],
                        prefill_context_s=pace["per_context_token_s"],
                    ),
                    priority=True,
                    max_num_seqs=limits["max_num_seqs"],
                    max_num_batched_tokens=limits["max_num_batched_tokens"],
                    kv_blocks=limits["kv_blocks"],
                    block_size=limits["block_size"],
                    prefix_caching=limits["prefix_caching"],
                )
            ],
            horizon_s=END_S,
            window_s=END_S,
            log_rows=1,
        ),
        logs.append,
    )
    engine.advance(math.inf)
    engine.flush_log()
    log = np.concatenate(logs)
    answer: list[tuple[float, float, int, int]] = [(math.nan, math.nan, -1, -1)] * len(requests)
    for cls, rows in enumerate(members):
        mine = log[log["cls"] == cls]
        for row, entry in zip(rows, mine[np.argsort(mine["task"], kind="stable")], strict=True):
            answer[row] = (
                float(entry["first_token_s"]),
                float(entry["finish_s"]),
                int(entry["preemptions"]),
                int(entry["cached_tokens"]),
            )
    return answer
