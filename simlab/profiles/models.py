"""Models: architecture figures from their published configuration, and the bytes and work that follow from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from simlab.errors import InputError, Problem
from simlab.names import lookup

# Bytes of one weight: fp4 carries an FP8 scale per 16 weights (NVFP4), int4 a 16-bit scale and a zero point per 128.
WEIGHT_BYTES: Mapping[str, float] = {"bf16": 2.0, "fp8": 1.0, "fp4": 0.5 + 1 / 16, "int4": 0.5 + 2.5 / 128}
KV_BYTES: Mapping[str, float] = {"bf16": 2.0, "fp8": 1.0}
TYPICAL_CONTEXT = 8192


def _bytes_of(table: Mapping[str, float], precision: str, what: str) -> float:
    if precision not in table:
        allowed = ", ".join(table)
        raise InputError([Problem("", "", f"unknown {what} precision {precision!r}; allowed: {allowed}")])
    return table[precision]


@dataclass(frozen=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434): one compressed KV vector a token for all heads."""

    q_rank: int
    kv_rank: int
    nope_dim: int
    rope_dim: int
    value_dim: int


@dataclass(frozen=True)
class Model:
    """One model's architecture; counts of parameters leave out norms and biases (below 0.1%).

    Attributes:
        name: canonical name, e.g. ``llama-3.1-8b``.
        hf_id: repository the configuration is from.
        layers, hidden, heads, kv_heads, head_dim: attention and width.
        intermediate: width of a dense layer's feed-forward block (gated: three matrices).
        vocabulary: tokens in the vocabulary.
        tied_embeddings: True when input and output embeddings are one matrix.
        max_context: longest context, tokens.
        published_parameters, published_active_parameters: what the model card says.
        native_precision: precision of the published weights.
        experts, experts_per_token, expert_intermediate: mixture-of-experts block; 0 experts is a dense model.
        shared_expert_intermediate: width of the expert every token uses; 0 is none.
        dense_layers: leading layers without experts.
        quantized_experts_only: low precision covers the experts alone (gpt-oss).
        sliding_window: context of the local-attention layers, tokens; 0 is none.
        full_attention_layers: layers that see the whole context.
        mla: latent attention's dimensions, or None.
        source: where the figures are from.
        aliases: other names it goes by.
    """

    name: str
    hf_id: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied_embeddings: bool
    max_context: int
    published_parameters: float
    published_active_parameters: float
    native_precision: str
    source: str
    experts: int = 0
    experts_per_token: int = 0
    expert_intermediate: int = 0
    shared_expert_intermediate: int = 0
    dense_layers: int = 0
    quantized_experts_only: bool = False
    sliding_window: int = 0
    full_attention_layers: int = 0
    mla: LatentAttention | None = None
    aliases: tuple[str, ...] = ()

    @property
    def attention_parameters(self) -> float:
        """Parameters of all attention projections."""
        if self.mla is not None:
            a = self.mla
            query = self.hidden * a.q_rank + a.q_rank * self.heads * (a.nope_dim + a.rope_dim)
            key_value = self.hidden * (a.kv_rank + a.rope_dim) + a.kv_rank * self.heads * (a.nope_dim + a.value_dim)
            return float(self.layers * (query + key_value + self.heads * a.value_dim * self.hidden))
        return float(self.layers * 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads))

    @property
    def expert_parameters(self) -> float:
        """Parameters of all routed experts (0 for a dense model)."""
        per_expert = 3 * self.hidden * self.expert_intermediate
        return float((self.layers - self.dense_layers) * self.experts * per_expert)

    @property
    def dense_parameters(self) -> float:
        """Parameters every token passes besides attention and output layer: dense blocks, shared experts, routers."""
        if not self.experts:
            return float(self.layers * 3 * self.hidden * self.intermediate)
        shared = 3 * self.hidden * self.shared_expert_intermediate + self.hidden * self.experts
        dense = self.dense_layers * 3 * self.hidden * self.intermediate
        return float(dense + (self.layers - self.dense_layers) * shared)

    @property
    def embedding_parameters(self) -> float:
        """Parameters of one embedding matrix (vocabulary × hidden)."""
        return float(self.vocabulary * self.hidden)

    @property
    def n_parameters(self) -> float:
        """All parameters, from the architecture."""
        embeddings = self.embedding_parameters * (1 if self.tied_embeddings else 2)
        return self.attention_parameters + self.expert_parameters + self.dense_parameters + embeddings

    @property
    def active_parameters(self) -> float:
        """Parameters whose products one token needs, the output layer included, the input look-up not."""
        share = self.experts_per_token / self.experts if self.experts else 0.0
        routed = self.expert_parameters * share
        return self.attention_parameters + self.dense_parameters + routed + self.embedding_parameters

    def precision(self, precision: str | None) -> str:
        """The precision meant: the one given, or the published weights' own."""
        return self.native_precision if precision is None else precision

    def expert_weight_bytes(self, precision: str | None = None) -> float:
        """Bytes of all routed experts at a weight precision."""
        return self.expert_parameters * _bytes_of(WEIGHT_BYTES, self.precision(precision), "weight")

    def body_precision(self, precision: str | None = None) -> str:
        """Precision of what every token passes: 4-bit checkpoints of mixtures of experts leave it in BF16.

        >>> model("deepseek-r1").body_precision("fp4"), model("llama-3.1-70b").body_precision("fp4")
        ('bf16', 'fp4')
        """
        chosen = self.precision(precision)
        four_bits = _bytes_of(WEIGHT_BYTES, chosen, "weight") < WEIGHT_BYTES["fp8"]
        return "bf16" if self.quantized_experts_only or (self.experts and four_bits) else chosen

    def step_weight_bytes(self, precision: str | None = None) -> float:
        """Bytes every step reads whatever the batch: attention, dense blocks and the output layer (BF16)."""
        body = self.attention_parameters + self.dense_parameters
        body_bytes = body * WEIGHT_BYTES[self.body_precision(precision)]
        return body_bytes + self.embedding_parameters * WEIGHT_BYTES["bf16"]

    def weight_bytes(self, precision: str | None = None) -> float:
        """Bytes of all weights in memory; embeddings and output layer stay BF16 in quantised checkpoints.

        >>> round(model("llama-3.1-8b").weight_bytes("bf16") / 1e9, 1)
        16.1

        Raises:
            InputError: unknown precision.
        """
        look_up = 0.0 if self.tied_embeddings else self.embedding_parameters * WEIGHT_BYTES["bf16"]
        return self.step_weight_bytes(precision) + self.expert_weight_bytes(precision) + look_up

    def kv_elements_per_token(self, context: int = TYPICAL_CONTEXT) -> float:
        """Cached numbers a token of context costs, on average over a context that long (local layers keep a window)."""
        if self.mla is not None:
            return float(self.layers * (self.mla.kv_rank + self.mla.rope_dim))
        per_layer = 2.0 * self.kv_heads * self.head_dim
        if not self.sliding_window:
            return self.layers * per_layer
        local = self.layers - self.full_attention_layers
        kept = min(context, self.sliding_window) / context
        return per_layer * (self.full_attention_layers + local * kept)

    def kv_bytes_per_token(self, kv_precision: str = "bf16", context: int = TYPICAL_CONTEXT) -> float:
        """KV-cache bytes a token of context takes over all GPUs of a replica.

        2 (key and value) × layers × KV heads × head dimension × bytes; layers with a sliding window count for the part
        of ``context`` they keep; latent attention keeps one vector of ``kv_rank + rope_dim`` a layer.

        >>> model("llama-3.1-8b").kv_bytes_per_token()
        131072.0

        Raises:
            InputError: unknown precision.
        """
        return self.kv_elements_per_token(context) * _bytes_of(KV_BYTES, kv_precision, "KV-cache")

    def kv_shards(self, tp: int) -> int:
        """How many ways tensor parallelism splits the KV cache: whole KV heads only, and latent KV not at all."""
        return 1 if self.mla is not None else min(tp, self.kv_heads)

    @property
    def attention_flops_per_pair(self) -> float:
        """FLOPs of one token attending to one token of context: 2 products × 2 FLOPs × heads × dimension × layers."""
        if self.mla is not None:
            dims = self.mla.nope_dim + self.mla.rope_dim + self.mla.value_dim
            return 2.0 * self.heads * dims * self.layers
        layers = self.full_attention_layers if self.sliding_window else self.layers
        return 4.0 * self.heads * self.head_dim * layers


@cache
def models() -> Mapping[str, Model]:
    """Every model of the table by canonical name."""
    rows = json.loads((files("simlab.profiles") / "data" / "models.json").read_text(encoding="utf-8"))
    table: dict[str, Model] = {}
    for name, row in rows.items():
        latent = row.pop("mla", None)
        mla = None if latent is None else LatentAttention(**latent)
        table[name] = Model(name=name, mla=mla, **{**row, "aliases": tuple(row["aliases"])})
    return table


@cache
def _aliases() -> dict[str, str]:
    """Aliases, Hugging Face ids, and those ids without their owner."""
    names: dict[str, str] = {}
    for name, entry in models().items():
        for alias in (*entry.aliases, entry.hf_id, entry.hf_id.split("/")[-1]):
            names.setdefault(alias.lower(), name)
    return names


def model(name: str) -> Model:
    """The architecture of a model by canonical name, alias or Hugging Face id, in any case.

    >>> model("meta-llama/Llama-3.1-70B-Instruct").name, model("Qwen3-8B").layers
    ('llama-3.1-70b', 36)

    Raises:
        InputError: no model of that name is in the table; the message gives the nearest names.
    """
    return lookup("model", name, models(), _aliases(), repair="or name a fitted profile with `profile:`")
