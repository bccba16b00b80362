"""Self-hosted pools of vLLM replicas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from simlab.scenario.base import Fault, Model
from simlab.scenario.capabilities import Offers
from simlab.scenario.units import Bytes, Count, Ratio, Seconds, Tokens, UsdPerHour, UsdPerMonth


class GpuPrice(Model):
    """What a GPU hour costs."""

    usd_per_gpu_hour: Annotated[UsdPerHour, Field(ge=0)] | None = Field(
        None, description="your own price of one GPU for an hour, USD/h; none: from simlab's dated price table"
    )
    provider: str | None = Field(None, min_length=1, description="cloud to look up in the table; none: the median")
    market: Literal["on_demand", "reserved", "spot"] = Field("on_demand", description="how the GPUs are bought")


class Pool(Model):
    """Identical replicas of one model behind a dispatch policy, each with vLLM's V1 scheduler."""

    model: str = Field(min_length=1, description="model in simlab's table, e.g. llama-3.1-70b")
    gpu: str = Field(min_length=1, description="GPU in simlab's table, e.g. h100-sxm")
    tp: Count = Field(1, ge=1, description="tensor parallel size: GPUs of one replica")
    precision: Literal["bf16", "fp8", "fp4", "int4"] | None = Field(
        None, description="precision of the weights; none: the one the model is published in"
    )
    profile: str | None = Field(
        None,
        min_length=1,
        description="step-time profile: a name, or a JSON file beside the scenario; none: the measured one that fits, "
        "else an estimate",
    )
    replicas: Count = Field(1, ge=0, description="replicas at the start")
    dispatch: Literal["round_robin", "least_outstanding", "least_kv", "prefix_affinity", "random"] = Field(
        "least_outstanding", description="which replica gets the next request"
    )
    scheduling: Literal["fcfs", "priority"] = Field(
        "fcfs", description="order of waiting requests: first come first served, or by the class's priority"
    )
    max_num_seqs: Count = Field(256, ge=1, description="vLLM --max-num-seqs: most requests in one step of a replica")
    max_num_batched_tokens: Count = Field(
        8192, ge=1, description="vLLM --max-num-batched-tokens: most tokens in one step of a replica"
    )
    max_model_len: Annotated[Tokens, Field(ge=1)] | None = Field(
        None, description="vLLM --max-model-len: longest prompt plus output, tokens; none: the model's own"
    )
    offers: Offers = Field(Offers(), description="what it can do, for classes that need something")
    block_size: Count = Field(16, ge=1, description="vLLM --block-size: tokens of one KV block")
    kv_blocks: Annotated[Count, Field(ge=2)] | None = Field(
        None,
        description="KV blocks of a replica; none: what fits in GPU memory beside the weights, or what the "
        "profile's server had where no table knows the model or the GPU",
    )
    kv_cache_memory: Annotated[Bytes, Field(gt=0)] | None = Field(
        None, description="vLLM --kv-cache-memory-bytes: KV cache of one GPU, B; none: from gpu_memory_utilization"
    )
    gpu_memory_utilization: Annotated[Ratio, Field(gt=0)] = Field(
        0.9, description="vLLM --gpu-memory-utilization: share of GPU memory vLLM may use"
    )
    prefix_caching: bool = Field(True, description="vLLM --enable-prefix-caching: full blocks are kept and found again")
    startup: Seconds = Field(300.0, ge=0, description="from ordering a replica to its first request, s")
    price: GpuPrice = Field(GpuPrice(), description="what its GPU hours cost")
    billing_granularity: Seconds = Field(1.0, ge=0, description="replica time is billed in whole steps of this, s")
    operations_usd_per_month: UsdPerMonth = Field(
        0.0, ge=0, description="people, monitoring, network of the pool, USD per month of 730 h"
    )

    def checks(self) -> Iterator[Fault]:
        """What vLLM itself demands of its settings."""
        if self.max_num_batched_tokens < self.max_num_seqs:
            yield Fault(
                ("max_num_batched_tokens",),
                f"read {self.max_num_batched_tokens}, below max_num_seqs ({self.max_num_seqs}); vLLM refuses that: a "
                "step must hold one token of every running request",
            )
        if self.kv_blocks is not None and self.kv_cache_memory is not None:
            yield Fault(("kv_cache_memory",), "kv_blocks already says how large the KV cache is; give one of the two")
