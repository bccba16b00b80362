"""Flags of ``vllm serve`` and ``vllm bench`` command lines."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from simlab.calibrate.read.servers import Facts

SERVER_FLAGS = {
    "tensor-parallel-size": ("tp", int),
    "tp": ("tp", int),
    "data-parallel-size": ("dp", int),
    "dp": ("dp", int),
    "max-num-seqs": ("max_num_seqs", int),
    "max-num-batched-tokens": ("max_num_batched_tokens", int),
    "num-gpu-blocks-override": ("kv_blocks", int),
    "block-size": ("block_size", int),
    "max-model-len": ("max_model_len", int),
    "dtype": ("precision", str),
    "quantization": ("precision", str),
    "kv-cache-dtype": ("kv_precision", str),
}
"""Flags of ``vllm serve`` with a value: attribute of `Server`, type."""

SERVER_SWITCHES = {
    "enable-expert-parallel": ("expert_parallel", True),
    "enable-prefix-caching": ("prefix_caching", True),
    "no-enable-prefix-caching": ("prefix_caching", False),
}


def flags(command: str) -> dict[str, str]:
    """Flags of a command line by name, without dashes; a switch is ``"true"``.

    >>> flags("vllm bench serve --random-input-len=128 --ignore-eos --seed 3")
    {'random-input-len': '128', 'ignore-eos': 'true', 'seed': '3'}
    """
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    found: dict[str, str] = {}
    name = ""
    for word in words:
        if word.startswith("-") and not _is_number(word):
            name, equals, value = word.lstrip("-").partition("=")
            name = name.replace("_", "-")
            found[name] = value if equals else "true"
            name = "" if equals else name
        elif name:
            found[name] = word
            name = ""
    return found


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def whole_flag(found: Mapping[str, str], name: str) -> int | None:
    """A flag that is a whole number; None where absent or something else."""
    value = found.get(name, "")
    return int(value) if value.isdigit() else None


def server_facts(command: str, field: str, facts: Facts) -> None:
    """Adds to facts what a ``vllm serve`` command line says of the server."""
    said = flags(command)
    for flag, (attribute, kind) in SERVER_FLAGS.items():
        value = said.get(flag)
        if value is not None and (kind is str or value.isdigit()):
            facts.say(attribute, kind(value), f"{field} --{flag}")
    for flag, (attribute, switch) in SERVER_SWITCHES.items():
        if flag in said:
            facts.say(attribute, switch, f"{field} --{flag}")
