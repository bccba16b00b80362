"""GPUs: what their data sheets say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from simlab.names import lookup


@dataclass(frozen=True)
class Gpu:
    """One GPU model's data-sheet figures.

    Attributes:
        name: canonical name, e.g. ``h100-sxm``.
        architecture: generation (``hopper``); GPUs of one share the efficiencies of an estimate.
        memory_bytes: device memory as the driver reports it, bytes.
        bandwidth_bytes_per_s: peak memory bandwidth, bytes/s.
        bf16_flops: peak dense BF16 FLOP/s (FP16 where the card has no BF16).
        fp8_flops: peak dense FP8 FLOP/s; None where the card has none.
        fp4_flops: peak dense FP4 FLOP/s; None where the card has none.
        power_w: board power limit, W.
        link_bytes_per_s: GPU-to-GPU bandwidth within a node, one direction, bytes/s.
        node_gpus: GPUs of a usual node.
        source: where the figures are from.
        aliases: other names it goes by.
    """

    name: str
    architecture: str
    memory_bytes: float
    bandwidth_bytes_per_s: float
    bf16_flops: float
    fp8_flops: float | None
    fp4_flops: float | None
    power_w: float
    link_bytes_per_s: float
    node_gpus: int
    source: str
    aliases: tuple[str, ...] = ()

    def flops(self, precision: str) -> float:
        """Peak dense FLOP/s of matrix products at a weight precision.

        A card without units of that precision unpacks the weights and computes in BF16, as vLLM's weight-only kernels
        do; ``int4`` weights are always computed so.

        >>> gpu("h100").flops("fp4") == gpu("h100").bf16_flops, gpu("b200").flops("fp4") == gpu("b200").fp4_flops
        (True, True)
        """
        return {"fp4": self.fp4_flops, "fp8": self.fp8_flops}.get(precision) or self.bf16_flops


@cache
def gpus() -> Mapping[str, Gpu]:
    """Every GPU of the table by canonical name."""
    rows = json.loads((files("simlab.profiles") / "data" / "gpus.json").read_text(encoding="utf-8"))
    return {name: Gpu(name=name, **{**row, "aliases": tuple(row["aliases"])}) for name, row in rows.items()}


@cache
def _aliases() -> dict[str, str]:
    return {alias: name for name, entry in gpus().items() for alias in entry.aliases}


def gpu(name: str) -> Gpu:
    """The data sheet of a GPU by canonical name or alias, in any case.

    >>> gpu("H100").name, gpu("h200-sxm").memory_bytes / 2**30 > 140
    ('h100-sxm', True)

    Raises:
        InputError: no GPU of that name is in the table; the message gives the nearest names.
    """
    return lookup("GPU", name, gpus(), _aliases(), repair="or name a fitted profile with `profile:`")
