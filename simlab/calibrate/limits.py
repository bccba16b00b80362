"""The limits a server's schedulers ran with, where neither its files nor the user say all of them."""

from __future__ import annotations

from simlab.calibrate.benchmark import Limits
from simlab.calibrate.run import Server
from simlab.errors import InputError
from simlab.profiles import Profile, gpus, kv_blocks, models

_LARGE_BYTES = 70 * 2**30
"""vLLM's API server has larger defaults on GPUs of this much memory, A100s excepted (vllm/engine/arg_utils.py)."""


def limits_of(server: Server, profile: Profile | None = None) -> Limits:
    """The limits of one scheduler of a server: as it says, else as its profile, else vLLM's defaults.

    KV blocks that nobody states are those that fit the GPU's memory beside the weights; of a model or GPU that no table
    knows they are taken as enough.
    """
    card = gpus().get(server.gpu)
    large = card is not None and card.memory_bytes >= _LARGE_BYTES and "a100" not in card.name
    seqs = server.max_num_seqs or (profile.max_num_seqs if profile else None) or (1024 if large else 256)
    tokens = server.max_num_batched_tokens or (profile.max_num_batched_tokens if profile else None)
    block_size = server.block_size or (profile.block_size if profile else None) or Limits.block_size
    budget = tokens or (8192 if large else 2048)
    blocks = server.kv_blocks or (profile.kv_blocks if profile else None)
    return Limits(
        max_num_seqs=seqs,
        max_num_batched_tokens=max(budget, seqs),
        kv_blocks=blocks or _blocks(server, profile, block_size, budget, seqs) or Limits.kv_blocks,
        block_size=block_size,
        prefix_caching=server.prefix_caching is not False,
    )


def _blocks(server: Server, profile: Profile | None, block_size: int, budget: int, seqs: int) -> int | None:
    """KV blocks that fit, None where that cannot be told."""
    if server.model not in models() or server.gpu not in gpus():
        return None
    try:
        return kv_blocks(
            server.model,
            server.gpu,
            server.tp,
            server.precision,
            block_size,
            kv_precision=server.kv_precision or (profile.kv_precision if profile else "bf16"),
            max_num_batched_tokens=budget,
            max_num_seqs=seqs,
            dp=server.dp,
            expert_parallel=server.expert_parallel,
        )
    except InputError:
        return None  # The weights do not fit by the estimate, but the server ran.
