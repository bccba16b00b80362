"""The machine a server runs on: its GPUs, driver and processor."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

_QUERY = ("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader,nounits")
_MIB = 2**20


@dataclass(frozen=True)
class GpuCard:
    """One GPU as its driver names it.

    Attributes:
        name: such as ``NVIDIA H100 80GB HBM3``.
        driver: version of the driver.
        memory_bytes: device memory, bytes.
    """

    name: str
    driver: str
    memory_bytes: int


def gpu_cards() -> list[GpuCard]:
    """The GPUs of this machine that ``nvidia-smi`` tells of and ``CUDA_VISIBLE_DEVICES`` allows, in that order.

    None where there is no such program. Where that variable names GPUs otherwise than by number, all of them.
    """
    try:
        done = subprocess.run(_QUERY, capture_output=True, text=True, timeout=30, check=True, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines()]
    cards = [GpuCard(row[0], row[1], int(row[2]) * _MIB) for row in rows if len(row) == 3 and row[2].isdecimal()]
    allowed = [word.strip() for word in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    if all(word.isdecimal() and int(word) < len(cards) for word in allowed):
        return [cards[int(word)] for word in allowed]
    return cards


def processor() -> str:
    """This machine's processor and how many of its cores we may use."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores"
