"""What vLLM's log says of a server's start: how long its phases took, and limits that no flag gives."""

from __future__ import annotations

import re

PHASES = {
    "model_initialised_s": r"Initializing model took ([\d.]+) seconds",
    "weights_downloaded_s": r"Time spent downloading weights for .*: ([\d.]+) seconds",
    "weights_loaded_s": r"Loading weights took ([\d.]+) seconds",
    "model_loaded_s": r"Model loading took .*?GiB.*? ([\d.]+) seconds",
    "compiled_s": r"torch\.compile (?:takes|took) ([\d.]+) s in total",
    "graphs_captured_s": r"Graph capturing finished in ([\d.]+) sec",
    "engine_ready_s": r"init engine \(.*?\) took ([\d.]+) s",
}
"""Phases of a start, s, in their order, and the line that says each; ``engine_ready_s`` holds the later ones."""

_BATCHED_TOKENS = re.compile(r"Chunked prefill is enabled with max_num_batched_tokens=(\d+)")
_DEVICE = re.compile(r"device_config=(\w+)")


def phases(log: str) -> dict[str, float]:
    """Durations by name, s; of several workers the slowest. Phases that the log does not tell are not in it.

    >>> phases("INFO init engine (profile, create kv cache, warmup model) took 29.03 s")
    {'engine_ready_s': 29.03}
    """
    found = {name: re.findall(pattern, log) for name, pattern in PHASES.items()}
    return {name: max(map(float, times)) for name, times in found.items() if times}


def batched_tokens(log: str) -> int | None:
    """Its ``max_num_batched_tokens``; None where the log does not say it."""
    found = _BATCHED_TOKENS.search(log)
    return int(found[1]) if found else None


def device(log: str) -> str | None:
    """What it runs on: ``cuda``, ``cpu``; None where the log does not say it."""
    found = _DEVICE.search(log)
    return found[1] if found else None
