"""A server's limits, and who says so: its flags, its own report, or the rule of vLLM's defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from simlab.calibrate.bench import startup
from simlab.calibrate.bench.flags import DATA_PARALLEL, TENSOR_PARALLEL, given, value, whole
from simlab.calibrate.bench.machine import GpuCard

_GIB = 2**30

UNKNOWN_SEQS = 256
"""Sequences taken to fit where nothing says how many: vLLM's smallest default on a GPU."""


@dataclass(frozen=True)
class Limits:
    """Limits of one data-parallel rank, named as vLLM's flags; None where nobody says.

    Attributes:
        dp: data-parallel ranks behind the address.
        max_num_seqs, max_num_batched_tokens, max_model_len, kv_blocks, block_size, prefix_caching: vLLM's.
        told_by: by name, where it is from: ``flags``, ``log``, ``metrics``, ``models`` or ``vLLM's default``.
    """

    dp: int = 1
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    max_model_len: int | None = None
    kv_blocks: int | None = None
    block_size: int | None = None
    prefix_caching: bool | None = None
    told_by: Mapping[str, str] = field(default_factory=dict)

    @property
    def sequences(self) -> int:
        """Most sequences that run at once, over all ranks."""
        return self.dp * (self.max_num_seqs or UNKNOWN_SEQS)

    @property
    def kv_tokens(self) -> int | None:
        """Tokens that the KV caches of all ranks hold; None where not known."""
        known = self.kv_blocks is not None and self.block_size is not None
        return self.dp * (self.kv_blocks or 0) * (self.block_size or 0) if known else None


def limits(
    flags: Sequence[str],
    *,
    log: str = "",
    cache_config: Mapping[str, str] | None = None,
    max_model_len: int | None = None,
    cards: Sequence[GpuCard] = (),
) -> Limits:
    """Limits from all that is known of a server, the surest first.

    Args:
        flags: of ``vllm serve``.
        log: what it printed at its start.
        cache_config: labels of ``vllm:cache_config_info``.
        max_model_len: as ``/v1/models`` tells.
        cards: the GPUs it runs on.
    """
    config = cache_config or {}
    default_seqs, default_tokens = defaults(cards, startup.device(log), whole(flags, *TENSOR_PARALLEL) or 1)
    said: dict[str, list[tuple[str, int | None]]] = {
        "max_num_seqs": [
            ("flags", whole(flags, "--max-num-seqs")),
            ("vLLM's default", default_seqs),
        ],
        "max_num_batched_tokens": [
            ("flags", whole(flags, "--max-num-batched-tokens")),
            ("log", startup.batched_tokens(log)),
            ("vLLM's default", default_tokens),
        ],
        "max_model_len": [("models", max_model_len), ("flags", whole(flags, "--max-model-len"))],
        "kv_blocks": [
            ("metrics", _count(config.get("num_gpu_blocks"))),
            ("flags", whole(flags, "--num-gpu-blocks-override")),
        ],
        "block_size": [("metrics", _count(config.get("block_size"))), ("flags", whole(flags, "--block-size"))],
    }
    found: dict[str, int] = {}
    told_by: dict[str, str] = {}
    for name, sources in said.items():
        for source, number in sources:
            if number is not None:
                found[name], told_by[name] = number, source
                break
    caching = {"True": True, "False": False}.get(config.get("enable_prefix_caching", ""))
    if caching is not None:
        told_by["prefix_caching"] = "metrics"
    elif given(flags, "--enable-prefix-caching", "--no-enable-prefix-caching"):
        caching, told_by["prefix_caching"] = not given(flags, "--no-enable-prefix-caching"), "flags"
    return Limits(dp=whole(flags, *DATA_PARALLEL) or 1, **found, prefix_caching=caching, told_by=told_by)


def defaults(cards: Sequence[GpuCard], device: str | None, tp: int) -> tuple[int | None, int | None]:
    """``max_num_seqs`` and ``max_num_batched_tokens`` of `vllm serve` where no flag gives them.

    The rule of vLLM 0.32 (``EngineArgs.get_batch_defaults``), by device memory; None where the device is not known.

    >>> defaults([GpuCard("NVIDIA H100 80GB HBM3", "570", 80 * 2**30)], "cuda", 1)
    (1024, 8192)
    """
    if device == "cpu":
        return 128 * tp, 2048 * tp
    if not cards:
        return None, None
    memory = cards[0].memory_bytes
    if memory >= 160 * _GIB:
        return 1024, 16384
    if memory >= 70 * _GIB and "a100" not in cards[0].name.lower():
        return 1024, 8192
    return 256, 2048


def precision(flags: Sequence[str]) -> str | None:
    """The weights' precision as the flags say it (``--quantization``, ``--dtype``), in vLLM's words; None if not."""
    for name in (("--quantization", "-q"), ("--dtype",)):
        text = value(flags, *name)
        if text is not None and text != "auto":
            return text
    return None


def _count(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None
