"""Roofline: a step-time from a model's architecture, a GPU's data sheet and the share of the peaks that is reached.

A matrix product takes the longer of reading its weights and computing (Williams et al., CACM 52(4), 2009); a step adds
the KV cache read by decoding sequences, attention products of prefill, tensor-parallel all-reduces and host work.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from simlab.profiles.gpus import Gpu
from simlab.profiles.models import Model
from simlab.profiles.step_time import StepTime

TABLE_TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 192, 256, 384, 512, 513, 768, 1024, 1536, 2048, 4096, 8192, 16384)
# vLLM captures CUDA graphs up to this many tokens by default; larger steps are launched kernel by kernel.
GRAPH_TOKENS = 512
# One all-reduce of a small message over NVLink in vLLM's CUDA graph: 5-10 µs on 2-8 GPUs (aiconfigurator-core 0.12.0).
ALLREDUCE_LATENCY_S = 7e-6
LINK_EFFICIENCY = 0.6
# At the knee memory and compute overlap imperfectly: a 4-norm instead of the larger of the two adds at most 19% there.
KNEE_NORM = 4.0


@dataclass(frozen=True)
class Efficiency:
    """What a server reaches of its data sheet, and the fixed times a data sheet does not tell.

    Attributes:
        bandwidth: share of peak memory bandwidth when reading weights.
        flops: share of peak FLOP/s in large matrix products.
        kv_bandwidth: share of peak memory bandwidth when reading the KV cache.
        attention_flops: share of peak BF16 FLOP/s in prefill attention.
        routing_spread: how evenly tokens spread over experts; 1 is uniform, less touches fewer experts. MoE only.
        host_s: every step: scheduling, launching, sampling, s.
        eager_s: the least a step too large for CUDA graphs takes: its kernels' launches, s.
        per_seq_s: each decoding sequence: sampling, detokenising, sending, s.
        overhead_s: once a request: HTTP, tokenising, s.
    """

    bandwidth: float = 0.75
    flops: float = 0.5
    kv_bandwidth: float = 0.6
    attention_flops: float = 0.4
    routing_spread: float = 0.8
    host_s: float = 2e-3
    eager_s: float = 10e-3
    per_seq_s: float = 10e-6
    overhead_s: float = 10e-3

    def as_dict(self) -> dict[str, float]:
        """The figures by name, in field order."""
        return asdict(self)


def touched_experts(tokens: float, experts: int, per_token: int) -> float:
    """Expected share of experts at least one token is routed to, with routing uniform: 1 − (1 − k/E)^tokens.

    >>> touched_experts(1, 8, 2), touched_experts(0, 8, 2)
    (0.25, 0.0)
    """
    return float(1.0 - (1.0 - per_token / experts) ** tokens)


def matrix_s(model: Model, gpu: Gpu, tp: int, precision: str, efficiency: Efficiency, tokens: float) -> float:
    """Time of a step's matrix products and all-reduces for a number of tokens, s."""
    weights = model.step_weight_bytes(precision)
    if model.experts:
        share = touched_experts(tokens * efficiency.routing_spread, model.experts, model.experts_per_token)
        weights += share * model.expert_weight_bytes(precision)
    read_s = weights / tp / (gpu.bandwidth_bytes_per_s * efficiency.bandwidth)
    # Layers left in BF16 (output layer, attention of gpt-oss) also compute in BF16.
    narrow = model.expert_parameters * (model.experts_per_token / model.experts if model.experts else 0.0)
    if not model.quantized_experts_only:
        narrow += model.attention_parameters + model.dense_parameters
    wide = model.active_parameters - narrow
    seconds_per_token = 2.0 * (narrow / gpu.flops(precision) + wide / gpu.flops("bf16")) / tp / efficiency.flops
    compute_s = tokens * seconds_per_token
    product_s = (read_s**KNEE_NORM + compute_s**KNEE_NORM) ** (1.0 / KNEE_NORM)
    device_s = float(product_s) + allreduce_s(model, gpu, tp, tokens)
    # Launching overlaps with computing: the slower of the two is what the step takes.
    return max(device_s, efficiency.eager_s) if tokens > GRAPH_TOKENS else device_s


def allreduce_s(model: Model, gpu: Gpu, tp: int, tokens: float) -> float:
    """Time of the two all-reduces of each layer over ``tp`` GPUs, BF16 activations, s; 0 for one GPU."""
    if tp == 1:
        return 0.0
    moved = 2.0 * tokens * model.hidden * 2.0 * (tp - 1) / tp
    return 2.0 * model.layers * (ALLREDUCE_LATENCY_S + moved / (gpu.link_bytes_per_s * LINK_EFFICIENCY))


def roofline(
    model: Model, gpu: Gpu, tp: int, precision: str, efficiency: Efficiency, *, kv_precision: str = "bf16"
) -> StepTime:
    """The step-time of a set-up at given efficiencies; the matrix products are tabulated over tokens in the step."""
    kv_bandwidth = gpu.bandwidth_bytes_per_s * efficiency.kv_bandwidth * model.kv_shards(tp)
    attention_rate = gpu.bf16_flops * efficiency.attention_flops * tp
    return StepTime(
        base_s=efficiency.host_s,
        per_seq_s=efficiency.per_seq_s,
        per_kv_token_s=model.kv_bytes_per_token(kv_precision) / kv_bandwidth,
        attn_s=model.attention_flops_per_pair / attention_rate,
        linear=tuple((float(t), matrix_s(model, gpu, tp, precision, efficiency, t)) for t in TABLE_TOKENS),
        overhead_s=efficiency.overhead_s,
    )
