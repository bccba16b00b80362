"""The engine's memory: a few record arrays, one per noun; `simlab.engine.world` hands them to the kernels.

Compile time and call cost grow with the number of arrays, not of fields (docs/design.md), so each noun is one record
array. Everything is a 64-bit integer or float, so no kernel has to think about casts.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import config
from numpy.typing import NDArray

NONE = -1
"""The empty link of every list."""

TIME_EPS_S = 1e-9
"""Times closer than this are the same instant: beyond the resolution of a double after a month."""

NEVER = math.inf
"""The time of an event that does not come."""

PASSED_OVER = -1
"""In place of a slot's tokens in a step: it decodes, but the step left it out."""

# What a slot is doing.
FREE, THINKING, BACKOFF, WAITING, RUNNING, ON_API, QUEUED_API = 0, 1, 2, 3, 4, 5, 6

# What a backend is.
POOL, API = 0, 1

# What a replica is doing.
UNLEASED, STARTING, UP, DRAINING, STOPPED = 0, 1, 2, 3, 4

# How a stretch of steps moves the replica on.
IDLE, PLAN, DECODE, CHUNKS, MIXED = 0, 1, 2, 3, 4

# Dispatch policies of a pool.
ROUND_ROBIN, LEAST_OUTSTANDING, LEAST_KV, PREFIX_AFFINITY, RANDOM = 0, 1, 2, 3, 4

# How an attempt ends.
OK, ERROR, RATE_LIMITED, TIMED_OUT, REJECTED = 0, 1, 2, 3, 4

# Timer kinds.
T_API_DONE, T_RETRY, T_NEXT = 0, 1, 2

# Why `run` came back.
DONE, NEED_CHUNK, GROW_SLOTS, GROW_TIMERS, GROW_SEGMENTS, LOG_FULL = 0, 1, 2, 3, 4, 5

# What a draw is for: with the task's key and the attempt this names one random number.
(
    FOR_ROUTE,
    FOR_PROMPT,
    FOR_OUTPUT,
    FOR_TENANT,
    FOR_DOCUMENT,
    FOR_TTFT,
    FOR_ITL,
    FOR_ERROR,
    FOR_JITTER,
    FOR_THINK,
    FOR_TURNS,
    FOR_DISPATCH,
) = range(1, 13)


def _record(integers: str = "", floats: str = "", words: str = "") -> np.dtype[np.void]:
    fields: list[tuple[str, str]] = [(name, "f8") for name in floats.split()]
    fields += [(name, "i8") for name in integers.split()]
    fields += [(name, "u8") for name in words.split()]
    return np.dtype(fields)


state_dtype = _record(
    "events free_slot n_slots n_timers arrival_cls need_cls need_segs timeout_head timeout_tail free_seg n_segs "
    "spare_segs window free_ref n_refs log_n in_flight peak_in_flight n_reps",
    "now arrival_t warmup_s window_s window_end",
    "seed",
)
"""One record: where the run is, and the heads and sizes of its lists."""

gateway_dtype = _record("max_attempts retry_rate_limited retry_error retry_timed_out retry_rejected",
                        "timeout_s backoff_s backoff_factor max_backoff_s jitter")
"""One record: time-out of an attempt and the retry policy (seconds; jitter is the share subtracted at random)."""

class_dtype = _record(
    "users think prompt output joint_at joint_n tenants tenant_alias_at prio system_tokens document_tokens documents "
    "document_alias_at turns max_context cell_base tenant_base feed_at feed_n feed_done seq explicit segmented stream "
    "content arrivals",
    "slo_ttft_s slo_itl_s slo_e2e_s",
    "system_id",
)
"""A workload class: indices of packed distributions (-1 = none), alias tables, and its feed's cursor."""

backend_dtype = _record(
    "kind dispatch priority max_num_seqs budget block_size kv_blocks caching max_model_len rr rep_head knots_at "
    "knots_n prefill_knots_at prefill_knots_n concurrency reject_full in_flight queue_head queue_tail ttft itl "
    "long_tokens known_seqs known_tokens known_context",
    "base_s prefill_token_s decode_seq_s decode_context_s prefill_context_s attention_s prefill_seq_s overhead_s "
    "work_prefill_s work_decode_s ttft_per_token_s rpm tpm rpm_level tpm_level level_t error_probability cached_ratio",
)
"""A backend: a pool's limits and step-time coefficients (``known_``: the largest batch, step and context that these are
good for), or an API's latency law, limits and buckets."""

replica_dtype = _record(
    "backend state next_rep k mode g n_decode ctx n_running n_waiting wait_head wait_tail run_head run_tail pf_head "
    "chunk free plain lru_head lru_tail free_block n_blocks free_run n_runs block_at bucket_at buckets run_at "
    "prepaid phase passed_over heap_n admits aborting steps preemptions prefill_tokens decode_tokens cached_tokens "
    "prompt_tokens hpos step_seqs step_tokens peak_seqs peak_tokens peak_context beyond_context_tokens",
    "t0 step_s step_inc_s t_event t_acc start_s ready_s stop_s busy_s up_s window_busy_s running_s waiting_s "
    "free_block_s beyond_seqs_s beyond_tokens_s",
)
"""A replica: its batch, the stretch of steps it is in, its free blocks and its running totals; ``peak_`` is the most
there was, ``beyond_`` how long (or for how many tokens) it was above what the backend's ``known_`` fields say."""

slot_dtype = _record(
    "state cls tenant prompt output attempt backend replica gen computed target out_done out_join g_join blocks refs "
    "n_refs segs seg_tokens tail_shared heap_pos prev next tprev tnext sched admit preempts cached prefilled run "
    "run_rep aborting session turn turns history seq prio place link phase",
    "arrival_s started_s first_s last_s ctx_work",
    "task tail",
)
"""A task in flight and its current attempt. Slots are reused; ``gen`` tells a stale timer from a live one."""

timer_dtype = _record("slot gen kind", "t")
finish_dtype = _record("key slot")
segment_dtype = _record("end next", "", "key")
"""A prompt's segment: ``key`` names the chain of ids up to and including it, ``end`` is where its tokens end."""
ref_dtype = _record("block next")
"""One hold of a slot on a shared block; a slot's holds are linked from the deepest block to the first."""
block_dtype = _record("refs prev next chain count owner", "", "key")
"""A shared KV block, or (beyond the blocks) a run of ``count`` blocks that only ``owner`` (or nobody) can hit again."""

log_dtype = _record(
    "task cls tenant backend attempt prompt_tokens cached_tokens output_tokens outcome preemptions",
    "arrival_s started_s first_token_s finish_s",
)
"""One attempt that ended."""


cell_dtype = _record(
    "cls tenant backend attempts succeeded failed rate_limited timed_out rejected prompt_tokens cached_tokens "
    "output_tokens long_prompt_tokens long_cached_tokens long_output_tokens",
    "work_s",
)
"""Ledger meters of one tenant on one backend."""
task_dtype = _record("arrived succeeded failed good retries")
"""Tasks of a class."""
tenant_dtype = _record("cls tenant arrived succeeded failed good", "ttft_sum_s e2e_sum_s")
"""Tasks of a tenant after warm-up."""
window_dtype = _record(
    "arrived finished failed prompt_tokens output_tokens",
    "ttft_sum_s e2e_sum_s busy_s up_s waiting_s running_s kv_block_s kv_total_block_s",
)
"""A backend in a time window."""


def records(shape: int | tuple[int, ...], dtype: np.dtype[np.void]) -> NDArray[Any]:
    """Zeroed records. Memory is committed by the system only where it is touched, so generous bounds cost nothing.

    With ``NUMBA_DISABLE_JIT=1`` the kernels are plain Python and need attribute access, which a recarray has.
    """
    array = np.zeros(shape, dtype)
    return array.view(np.recarray) if config.DISABLE_JIT else array


def grown(array: NDArray[Any], n: int) -> NDArray[Any]:
    """A copy with ``n`` records, the old ones first."""
    bigger = records(n, array.dtype)
    bigger[: len(array)] = array
    return bigger
