"""What kernels reach of the data sheet by GPU generation: where estimates start before any server was measured.

Fitted to the kernel times of vLLM 0.14 and 0.24 on A100, L40S, H100, H200 and B200 that NVIDIA publishes with
aiconfigurator-core 0.12.0 (Apache-2.0): matrix products of Llama and Qwen shapes as launch + 4-norm of reading and
computing + activation traffic (median error 5-11%), attention as launch + reading or computing (2-12%), all-reduces in
CUDA graphs as latency + moved bytes (8-12%). Vidur's matrix products on A100, H100 and A40 agree (MLSys 2024, MIT).
Volta and CDNA 3 are in neither; their shares are what published matrix-product benchmarks reach, with no more weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from simlab.profiles.gpus import Gpu


@dataclass(frozen=True)
class Shares:
    """Shares of the data sheet that kernels of one GPU generation reach.

    Attributes:
        bandwidth: of the memory bandwidth, large matrix products of few tokens.
        flops: of the BF16 FLOP/s, large matrix products of many tokens.
        kv_bandwidth: of the memory bandwidth, attention of decoding sequences.
        attention_flops: of the BF16 FLOP/s, attention of prompts.
        link: of the GPU-to-GPU bandwidth, all-reduces of many tokens.
    """

    bandwidth: float
    flops: float
    kv_bandwidth: float
    attention_flops: float
    link: float


GENERATIONS: Mapping[str, Shares] = {
    "volta": Shares(0.70, 0.60, 0.70, 0.45, 0.55),
    "ampere": Shares(0.72, 0.78, 0.75, 0.53, 0.59),
    "ada": Shares(0.77, 0.62, 0.82, 0.50, 0.60),
    "hopper": Shares(0.82, 0.74, 0.82, 0.60, 0.68),
    "blackwell": Shares(0.77, 0.68, 0.88, 0.52, 0.57),
    "cdna3": Shares(0.65, 0.45, 0.60, 0.35, 0.50),
}
# One all-reduce of a small message in a CUDA graph: 5-8 µs, of which the kernels' own launch is counted by the layer.
ALLREDUCE_LATENCY_S = 2e-6
# Gathering tokens of all data-parallel ranks for their experts and sending them back: two collectives a layer.
GATHER_LATENCY_S = 12e-6
# Cards on PCIe alone lose most of the link with more than two in a ring: 0.60, 0.12 and 0.064 of it on L40S.
PCIE_BYTES_PER_S = 100e9
PCIE_RING_SHARE: Mapping[int, float] = {2: 1.0, 4: 0.2, 8: 0.107}


def shares(gpu: Gpu) -> Shares:
    """Shares of a GPU's generation; those of Hopper, in the middle of all, where no table has it."""
    return GENERATIONS.get(gpu.architecture, GENERATIONS["hopper"])


def ring_share(gpu: Gpu, gpus: int) -> float:
    """Share of the link that is left in a ring of that many GPUs, against a ring of two."""
    if gpu.link_bytes_per_s >= PCIE_BYTES_PER_S:
        return 1.0
    return PCIE_RING_SHARE[min(size for size in PCIE_RING_SHARE if size >= min(gpus, max(PCIE_RING_SHARE)))]
