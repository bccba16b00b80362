"""How a benchmark's client drove the server, as its flags say: lengths, their spread, shared beginnings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from simlab.calibrate.read.command import whole_flag
from simlab.calibrate.read.context import Context
from simlab.calibrate.read.plausible import close
from simlab.calibrate.run import Requests

PREFIX_REPETITION = (256, 10)
"""Prefix length and number of prefixes of the data set ``prefix_repetition`` where no flag says them."""


@dataclass(frozen=True)
class Shape:
    """Nominal lengths of requests, the shares of them between which they spread, and what their prompts share."""

    prompt_tokens: float
    output_tokens: float
    low: float = 1.0
    high: float = 1.0
    shared_tokens: int = 0
    shared_kinds: int = 1


def shape_of(
    said: Mapping[str, str], means: tuple[float, float], requests: Requests | None, where: str, context: Context
) -> Shape:
    """The shape of a benchmark's requests.

    Args:
        said: flags of the client, by name without dashes.
        means: mean tokens of prompts and of answers.
        requests: the requests, where kept.
        where: the file that ``said`` is from, for problems.
        context: has the user's prefix; gets what contradicts.
    """
    shared, kinds = _shared(said, where, context)
    if shared > means[0]:
        message = f"{shared} tokens of each prompt are said to be shared, but prompts have {means[0]:.0f}; correct it"
        context.problems.add(where, "--prefix", message)
    nominal = (whole_flag(said, "random-input-len"), whole_flag(said, "random-output-len"))
    if nominal[0] is not None and nominal[1] is not None:
        prompt, output = float(nominal[0] + shared), float(nominal[1])
        low, high = spread_of(said.get("random-range-ratio", ""), nominal[1], means[1])
        if close(prompt, means[0], share=0.5) and close(output, means[1], share=0.5):
            return Shape(prompt, output, low, high, shared, kinds)
    prompt, output = means
    if requests is not None and np.ptp(requests.prompt_tokens) <= 2 and np.ptp(requests.output_tokens) == 0:
        # Decoded and encoded again, a random prompt can gain or lose a token.
        prompt, output = float(np.median(requests.prompt_tokens)), float(requests.output_tokens[0])
    return Shape(prompt, output, shared_tokens=shared, shared_kinds=kinds)


def _shared(said: Mapping[str, str], where: str, context: Context) -> tuple[int, int]:
    """Shared tokens and kinds of them, by flags and the user's hint, which must agree."""
    hint, flags = context.hints.shared_prefix(), _prefix_flags(said)
    if hint is not None and flags is not None and hint != flags:
        message = f"says {flags[0]}x{flags[1]}, but --prefix says {hint[0]}x{hint[1]}; leave out the flag or the file"
        context.problems.add(where, "command", message)
    return hint or flags or (0, 1)


def _prefix_flags(said: Mapping[str, str]) -> tuple[int, int] | None:
    repeated = whole_flag(said, "prefix-repetition-prefix-len")
    if said.get("dataset-name") == "prefix_repetition" or repeated is not None:
        length, kinds = PREFIX_REPETITION
        return repeated or length, whole_flag(said, "prefix-repetition-num-prefixes") or kinds
    prefix = whole_flag(said, "random-prefix-len")
    return (prefix, 1) if prefix else None


def spread_of(text: str, nominal: int, mean: float) -> tuple[float, float]:
    """Shares of the nominal length between which lengths are uniform.

    ``--random-range-ratio r`` is 1 − r … 1 + r; until vLLM 0.8 it was r … 1. The mean length tells which.
    """
    try:
        value = json.loads(text) if text else 0.0
        ratio = float(value["output"]) if isinstance(value, dict) else float(value)
    except (ValueError, KeyError, TypeError):
        return 1.0, 1.0
    if not 0.0 < ratio < 1.0:
        return 1.0, 1.0
    old, new = (1.0 + ratio) / 2.0, 1.0
    is_old = abs(mean / nominal - old) < abs(mean / nominal - new)
    return (ratio, 1.0) if is_old else (1.0 - ratio, 1.0 + ratio)
