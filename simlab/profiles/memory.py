"""How many KV-cache blocks fit a replica's GPUs, as vLLM decides it."""

from __future__ import annotations

from simlab.errors import InputError, Problem
from simlab.profiles.gpus import gpu as find_gpu
from simlab.profiles.models import Model
from simlab.profiles.models import model as find_model

# CUDA context and kernels' workspaces, which vLLM measures at start, and buffers of collectives between GPUs. Fitted to
# start-up logs: DeepSeek-R1 FP4 on B200 with vLLM 0.19.1 (1 901 504 and 3 305 376 tokens at TP4 and TP8: now 0.4% and
# 1.2% off) and Llama-3.1-8B on RTX 4090 with vLLM 0.19.0 (41 408 tokens: 0.0%).
CONTEXT_BYTES = 0.75 * 2**30
COLLECTIVES_BYTES = 0.75 * 2**30
# The driver shows a little more memory than a program can take (about 1.5% on H100 and H200).
USABLE_SHARE = 0.985


def activation_bytes(model: Model, tp: int, max_num_batched_tokens: int, max_num_seqs: int) -> float:
    """Peak memory of one step's intermediate results on one GPU, bytes.

    Hidden states live unsharded (about six of them at once), the feed-forward block's two wide vectors are sharded, and
    the sampler keeps logits of every sequence twice in FP32.
    """
    wide = model.expert_intermediate * model.experts_per_token + model.shared_expert_intermediate
    width = 6 * model.hidden + 3 * max(model.intermediate, wide) / tp
    return max_num_batched_tokens * width * 2.0 + 2 * max_num_seqs * model.vocabulary * 4.0


def kv_blocks(
    model: str,
    gpu: str,
    tp: int = 1,
    precision: str | None = None,
    block_size: int = 16,
    utilization: float = 0.9,
    *,
    kv_precision: str = "bf16",
    max_num_batched_tokens: int = 8192,
    max_num_seqs: int = 256,
    dp: int = 1,
    expert_parallel: bool = False,
) -> int:
    """KV-cache blocks of one replica, or of one of its data-parallel ranks (vLLM's ``num_gpu_blocks``).

    As vLLM V1 does it (``determine_available_memory`` in ``vllm/v1/worker/gpu_worker.py`` and ``get_num_blocks`` in
    ``vllm/v1/core/kv_cache_utils.py``): memory × ``gpu_memory_utilization`` − weights − peak activations − what is
    outside PyTorch, divided by the bytes of a block; here the two reserves are estimated, not profiled.

    Args:
        model: name of the model table.
        gpu: name of the GPU table.
        tp: GPUs of the replica.
        precision: of the weights; None is the published one.
        block_size: tokens of a block.
        utilization: ``gpu_memory_utilization``, share of memory vLLM may take.
        kv_precision: of the KV cache.
        max_num_batched_tokens: token budget of a step; sizes the activation reserve.
        max_num_seqs: sequences of a step; sizes the sampler's reserve.
        dp: data-parallel ranks.
        expert_parallel: experts are spread over all ranks, and not held by each.

    >>> 26_000 < kv_blocks("llama-3.1-8b", "h100-sxm") < 29_000
    True

    Raises:
        InputError: unknown model, GPU or precision, or the weights leave no room for one block; the message says how
            many GPUs would do.
    """
    architecture, card = find_model(model), find_gpu(gpu)
    if tp < 1 or dp < 1 or block_size < 1 or not 0 < utilization <= 1:
        read = f"{tp}, {dp}, {block_size}, {utilization}"
        message = f"need tp >= 1, dp >= 1, block_size >= 1, 0 < utilization <= 1; got {read}"
        raise InputError([Problem("", "", message)])
    experts = architecture.expert_weight_bytes(precision)
    others = architecture.weight_bytes(precision) - experts
    ranks = dp if expert_parallel else 1

    def blocks(gpus: int) -> int:
        budget = card.memory_bytes * USABLE_SHARE * utilization
        reserve = CONTEXT_BYTES + (COLLECTIVES_BYTES if gpus * dp > 1 else 0.0)
        reserve += activation_bytes(architecture, gpus, max_num_batched_tokens, max_num_seqs)
        room = budget - (others + experts / ranks) / gpus - reserve
        block = block_size * architecture.kv_bytes_per_token(kv_precision) / architecture.kv_shards(gpus)
        return int(room // block)

    fit = blocks(tp)
    if fit >= 1:
        return fit
    enough = next((n for n in (1, 2, 4, 8, 16) if n > tp and blocks(n) >= 1), None)
    repair = f"use tp: {enough}" if enough else "use a GPU with more memory"
    weights = f"{(others + experts / ranks) / tp / 2**30:.1f} GiB of weights"
    message = (
        f"{architecture.name} at {architecture.precision(precision)} needs {weights} on each of {tp} {card.name} with "
        f"{card.memory_bytes / 2**30:.1f} GiB: no room for a KV cache; {repair} or a lower precision"
    )
    raise InputError([Problem("", "", message)])
