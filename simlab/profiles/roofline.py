"""Roofline: a step-time from a model's architecture, a GPU's data sheet and the share of the peaks that is reached.

A matrix product takes the longer of reading its weights and computing (Williams et al., CACM 52(4), 2009). A step adds
activations written and read between the products, tensor-parallel all-reduces, the KV cache read by decoding sequences,
attention of prompts, a floor for each layer's kernels and the host's work. Steps with more tokens than CUDA graphs are
captured for are launched kernel by kernel, which takes at least `Efficiency.eager_s`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from simlab.profiles.gpus import Gpu
from simlab.profiles.kernels import ALLREDUCE_LATENCY_S, GATHER_LATENCY_S, ring_share
from simlab.profiles.models import WEIGHT_BYTES, Model
from simlab.profiles.step_time import StepTime

# vLLM captures CUDA graphs up to this many tokens by default; larger steps are launched kernel by kernel.
GRAPH_TOKENS = 512
TABLE_TOKENS = (1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 640, 768, 1024)
PROMPT_TOKENS = (1, 512, 513, 640, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 16384)
# A step with prompt tokens that fits a CUDA graph still launches attention layer by layer: 0.4-0.6 of a step without
# any graph on B300 with vLLM 0.20.1.
PIECEWISE_SHARE = 0.4
# The output layer computes for sampled tokens alone; a step has no more of them than sequences.
SAMPLED_TOKENS = 256
# At the knee memory and compute overlap imperfectly: a 4-norm instead of the larger of the two adds at most 19% there.
KNEE_NORM = 4.0


@dataclass(frozen=True)
class Efficiency:
    """What a server reaches of its data sheet, and the fixed times a data sheet does not tell.

    Attributes:
        bandwidth: share of peak memory bandwidth when reading weights that every token passes.
        flops: share of peak BF16 FLOP/s in large matrix products.
        kv_bandwidth: share of peak memory bandwidth when reading the KV cache.
        attention_flops: share of peak BF16 FLOP/s in prefill attention.
        routing_spread: how evenly tokens spread over experts; 1 is uniform, less touches fewer experts. MoE only.
        host_s: every step: scheduling, launching, sampling, s.
        eager_s: the least a step too large for CUDA graphs takes: its kernels' launches, s.
        per_seq_s: each decoding sequence: sampling, detokenising, sending, s.
        overhead_s: once a request: HTTP, tokenising, s.
        narrow_flops: share of ``flops`` that is left in products of FP8 or FP4.
        expert_bandwidth: share of peak memory bandwidth when reading experts' weights.
        expert_flops: share of peak FLOP/s, of the weights' precision, in grouped products of experts.
        layer_s: least time of one layer's kernels in a CUDA graph, s.
        traffic: how often activations at the ends of each product are moved through memory.
        link: share of the GPU-to-GPU bandwidth in all-reduces.
    """

    bandwidth: float = 0.8
    flops: float = 0.7
    kv_bandwidth: float = 0.8
    attention_flops: float = 0.5
    routing_spread: float = 0.8
    host_s: float = 1.5e-3
    eager_s: float = 30e-3
    per_seq_s: float = 8e-6
    overhead_s: float = 15e-3
    narrow_flops: float = 0.75
    expert_bandwidth: float = 0.8
    expert_flops: float = 0.35
    layer_s: float = 45e-6
    traffic: float = 4.0
    link: float = 0.6

    def as_dict(self) -> dict[str, float]:
        """The figures by name, in field order."""
        return asdict(self)


def touched_experts(tokens: float, experts: int, per_token: int) -> float:
    """Expected share of experts at least one token is routed to, with routing uniform: 1 − (1 − k/E)^tokens.

    >>> touched_experts(1, 8, 2), touched_experts(0, 8, 2)
    (0.25, 0.0)
    """
    return float(1.0 - (1.0 - per_token / experts) ** tokens)


@dataclass(frozen=True)
class Work:
    """What the steps of one set-up need of one GPU, in seconds at the data sheet's peaks.

    Attributes:
        read_s: weights that every step reads.
        wide_s, narrow_s: products a token passes, in BF16 and in the weights' own precision, by token.
        sample_s: output layer, by sampled token.
        expert_read_s: all experts on the GPU.
        expert_s: products of the experts of a token, by token of the step.
        touched: share of experts one token touches; 0 is a dense model.
        ranks: data-parallel ranks whose tokens meet at these experts.
        traffic_s: activations at the ends of each product, once, by token.
        reduce_s: all-reduced bytes over the link, by token.
        collective_s: latency of the collectives of a step.
        layers: of the model.
        kv_s: KV cache, by token of context.
        attention_s: prefill attention, by pair of tokens.
    """

    read_s: float
    wide_s: float
    narrow_s: float
    sample_s: float
    expert_read_s: float
    expert_s: float
    touched: float
    ranks: int
    traffic_s: float
    reduce_s: float
    collective_s: float
    layers: int
    kv_s: float
    attention_s: float

    def graph_s(self, efficiency: Efficiency, tokens: float) -> float:
        """Time of a step of that many tokens on the device, in CUDA graphs, but for KV cache and attention, s."""
        share = efficiency
        compute_s = tokens * (self.wide_s + self.narrow_s / share.narrow_flops)
        compute_s += min(tokens, SAMPLED_TOKENS) * self.sample_s
        seconds = _norm(self.read_s / share.bandwidth, compute_s / share.flops)
        if self.touched:
            routed = tokens * self.ranks
            touched = 1.0 - (1.0 - self.touched) ** (routed * share.routing_spread)
            read_s = touched * self.expert_read_s / share.expert_bandwidth
            seconds += _norm(read_s, routed * self.expert_s / share.expert_flops)
        seconds += tokens * (self.traffic_s * share.traffic + self.reduce_s / share.link)
        return seconds + self.collective_s + self.layers * share.layer_s

    def prompt_s(self, efficiency: Efficiency, tokens: float) -> float:
        """The same for a step with prompt tokens: kernels are launched one by one, at least in part, s."""
        launch = 1.0 if tokens > GRAPH_TOKENS else PIECEWISE_SHARE
        return _norm(self.graph_s(efficiency, tokens), launch * efficiency.eager_s)


def _norm(one: float, other: float) -> float:
    return float((one**KNEE_NORM + other**KNEE_NORM) ** (1.0 / KNEE_NORM))


def work(
    model: Model,
    gpu: Gpu,
    tp: int,
    precision: str,
    *,
    dp: int = 1,
    expert_parallel: bool = False,
    kv_precision: str = "bf16",
) -> Work:
    """What a set-up's steps need; of one rank where there are several.

    Raises:
        InputError: unknown precision.
    """
    bandwidth, wide, narrow = gpu.bandwidth_bytes_per_s, gpu.bf16_flops, gpu.flops(precision)
    body = model.attention_parameters + model.dense_parameters
    narrow_body = body if narrow > wide and model.body_precision(precision) != "bf16" else 0.0
    ranks = dp if expert_parallel else 1
    ways = tp * ranks
    touched = model.experts_per_token / model.experts if model.experts else 0.0
    moved = model.hidden * WEIGHT_BYTES["bf16"]
    reduced = 2.0 * model.layers * moved * 2.0 * (tp - 1) / tp
    # Tokens of all ranks are gathered and their results scattered; each rank takes part in both.
    gathered = 2.0 * model.layers * moved * (ranks - 1) if model.experts else 0.0
    collectives = 2.0 * model.layers * (ALLREDUCE_LATENCY_S if tp > 1 else 0.0)
    collectives += 2.0 * model.layers * (GATHER_LATENCY_S if model.experts and ranks > 1 else 0.0)
    return Work(
        read_s=model.step_weight_bytes(precision) / tp / bandwidth,
        wide_s=2.0 * (body - narrow_body) / tp / wide,
        narrow_s=2.0 * narrow_body / tp / narrow,
        sample_s=2.0 * model.embedding_parameters / tp / wide,
        expert_read_s=model.expert_weight_bytes(precision) / ways / bandwidth,
        expert_s=2.0 * model.expert_parameters * touched / ways / narrow,
        touched=touched,
        ranks=ranks,
        traffic_s=model.layers * _activations(model, tp) * WEIGHT_BYTES["bf16"] / bandwidth,
        reduce_s=(reduced + gathered) / (gpu.link_bytes_per_s * ring_share(gpu, tp)),
        collective_s=collectives,
        layers=model.layers,
        kv_s=model.kv_bytes_per_token(kv_precision) / (bandwidth * model.kv_shards(tp)),
        attention_s=model.attention_flops_per_pair / (wide * tp),
    )


def _activations(model: Model, tp: int) -> float:
    """Numbers at the ends of one layer's matrix products, by token on one GPU."""
    latent = model.mla
    key_value = latent.kv_rank + latent.rope_dim if latent else model.kv_heads * model.head_dim
    attention = 4.0 * model.hidden + 2.0 * (model.heads * model.head_dim + key_value) / tp
    if not model.experts:
        return attention + 2.0 * model.hidden + 3.0 * model.intermediate / tp
    routed = model.experts_per_token * (2.0 * model.hidden + 3.0 * model.expert_intermediate / tp)
    return attention + 2.0 * model.hidden + routed + 3.0 * model.shared_expert_intermediate / tp


def roofline(
    model: Model,
    gpu: Gpu,
    tp: int,
    precision: str,
    efficiency: Efficiency,
    *,
    kv_precision: str = "bf16",
    dp: int = 1,
    expert_parallel: bool = False,
) -> StepTime:
    """The step-time of a set-up at given efficiencies; the device's time is tabulated over tokens in the step."""
    need = work(model, gpu, tp, precision, dp=dp, expert_parallel=expert_parallel, kv_precision=kv_precision)
    return of_work(need, efficiency)


def of_work(need: Work, efficiency: Efficiency) -> StepTime:
    """The step-time of known work."""
    last = TABLE_TOKENS[-1]
    linear = [(float(tokens), need.graph_s(efficiency, tokens)) for tokens in TABLE_TOKENS]
    # Beyond its last knot `linear` must not grow, so that all of a large prompt is in one table.
    linear.append((last + 1.0, linear[-1][1]))
    extra, highest = [], 0.0
    for tokens in PROMPT_TOKENS:
        graph_s = need.graph_s(efficiency, min(tokens, last))
        highest = max(highest, need.prompt_s(efficiency, tokens) - graph_s)
        extra.append((float(tokens), highest))
    return StepTime(
        base_s=efficiency.host_s,
        per_seq_s=efficiency.per_seq_s,
        per_kv_token_s=need.kv_s / efficiency.kv_bandwidth,
        attn_s=need.attention_s / efficiency.attention_flops,
        linear=tuple(linear),
        prefill_linear=tuple(extra),
        overhead_s=efficiency.overhead_s,
    )
