"""A small job that other simulators publish figures for: 10 000 requests of 690 tokens in and 180 out, one replica."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd

from benchmarks import chat, simpy_replica
from benchmarks.case import Report
from simlab import replay

RATE_RPS = 21.0
"""Poisson arrivals, about three fifths of what the replica can do."""


def _requests(n: int) -> pd.DataFrame:
    arrival_s = np.cumsum(np.random.default_rng(1).exponential(1 / RATE_RPS, n))
    return pd.DataFrame({"arrival_s": arrival_s, "prompt_tokens": chat.PROMPT_MEAN, "output_tokens": chat.OUTPUT_MEAN})


def _replayed(requests: pd.DataFrame) -> pd.DataFrame:
    return replay(
        requests,
        step_time={
            "base_s": chat.BASE_S,
            "per_prefill_token_s": chat.PREFILL_TOKEN_S,
            "per_decode_seq_s": chat.DECODE_SEQ_S,
            "per_context_token_s": chat.CONTEXT_TOKEN_S,
        },
        max_num_seqs=chat.MAX_NUM_SEQS,
        max_num_batched_tokens=chat.MAX_NUM_BATCHED_TOKENS,
        kv_blocks=chat.KV_BLOCKS,
        block_size=chat.BLOCK_SIZE,
        prefix_caching=False,
    )


def run(case: str, size: int) -> Report:
    """Times the job, by `simlab.replay` or as a SimPy program."""
    requests = _requests(size)
    if case == "simlab":
        _replayed(requests.head(50))
        began = time.perf_counter()
        answer = _replayed(requests)
        seconds = time.perf_counter() - began
        ttft_s = float((answer["first_token_s"] - requests["arrival_s"]).mean())
        e2e_s = float((answer["finish_s"] - requests["arrival_s"]).mean())
    else:
        rows = list(requests.itertuples(index=False, name=None))
        began = time.perf_counter()
        times = simpy_replica.simulate(rows)
        seconds = time.perf_counter() - began
        ttft_s = float(np.mean([t.first_token_s - t.arrival_s for t in times]))
        e2e_s = float(np.mean([t.finish_s - t.arrival_s for t in times]))
    note = f"mean TTFT {ttft_s * 1e3:.4f} ms, E2E {e2e_s:.6f} s"
    return Report(requests=size, seconds=seconds, note=note, facts={"ttft_s": ttft_s, "e2e_s": e2e_s})
