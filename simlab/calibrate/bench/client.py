"""`vllm bench serve` as a program: its command for a point, and running it."""

from __future__ import annotations

import math
import os
import shlex
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from simlab.calibrate.bench.child import Child
from simlab.calibrate.bench.flags import given, value
from simlab.calibrate.run import Load
from simlab.errors import InputError, Problem

_POLL_S = 0.1
_PASSED_ON = ("--tokenizer-mode",)
_SWITCHES = ("--trust-remote-code",)

OFFLINE = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
"""vLLM reports its use to its makers unless told not to; nobody asked us for that."""


def environment() -> dict[str, str]:
    """Ours, with usage reports switched off where it does not say anything of them."""
    return {**OFFLINE, **os.environ}


def program(vllm: str) -> tuple[str, ...]:
    """The words that start vLLM's command line.

    Args:
        vllm: what the user gave: a program, its path, or several words (``python -m vllm.entrypoints.cli.main``).

    Raises:
        InputError: there is no such program.
    """
    words = tuple(shlex.split(vllm))
    if not words or shutil.which(words[0]) is None:
        message = (
            "there is no such program on PATH; install vLLM with `pip install 'simlab[vllm]'` (Linux), or name it with "
            "--vllm PATH; --dry-run needs none"
        )
        raise InputError([Problem(vllm or "--vllm", "", message)])
    return words


@dataclass(frozen=True)
class Client:
    """How every benchmark of a session is run.

    Attributes:
        vllm: words that start vLLM's command line.
        url: of the server.
        served: the name under which the server serves the model.
        tokenizer: the model or tokenizer, name or path.
        flags: of the server, some of which concern the tokenizer.
    """

    vllm: tuple[str, ...]
    url: str
    served: str
    tokenizer: str
    flags: tuple[str, ...] = ()

    def command(self, load: Load, seed: int, result: Path | None) -> list[str]:
        """The command of one benchmark.

        Args:
            load: how the server is driven, with its number of requests.
            seed: of lengths, prompts and arrivals.
            result: file to write; None: nothing is kept, as for a warm-up.
        """
        words = [*self.vllm, "bench", "serve", "--backend", "vllm", "--base-url", self.url, "--model", self.served]
        words += ["--tokenizer", value(self.flags, "--tokenizer") or self.tokenizer]
        for name in _PASSED_ON:
            if (setting := value(self.flags, name)) is not None:
                words += [name, setting]
        words += [name for name in _SWITCHES if given(self.flags, name)]
        words += ["--ignore-eos", "--temperature", "0", "--disable-tqdm"]
        words += ["--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "50,90,95,99"]
        if result is not None:
            words += ["--save-result", "--save-detailed", "--result-dir", str(result.parent)]
            words += ["--result-filename", result.name]
        words += _dataset(load)
        words += ["--num-prompts", str(load.requests)]
        if load.concurrency is not None:
            words += ["--max-concurrency", str(load.concurrency)]
        if load.concurrency is None or math.isfinite(load.rate_rps):
            words += ["--request-rate", f"{load.rate_rps:g}"]
        if load.burstiness != 1.0:
            words += ["--burstiness", f"{load.burstiness:g}"]
        return [*words, "--seed", str(seed)]


def _dataset(load: Load) -> list[str]:
    prompt, output = round(load.prompt_tokens), round(load.output_tokens)
    if load.shared_kinds > 1:
        return [
            "--dataset-name", "prefix_repetition",
            "--prefix-repetition-num-prefixes", str(load.shared_kinds),
            "--prefix-repetition-prefix-len", str(load.shared_tokens),
            "--prefix-repetition-suffix-len", str(prompt - load.shared_tokens),
            "--prefix-repetition-output-len", str(output),
        ]  # fmt: skip
    words = ["--dataset-name", "random", "--random-input-len", str(prompt - load.shared_tokens)]
    words += ["--random-output-len", str(output)]
    if load.shared_tokens:
        words += ["--random-prefix-len", str(load.shared_tokens)]
    if load.high > 1.0:
        words += ["--random-range-ratio", f"{load.high - 1.0:g}"]
    return words


def run(command: Sequence[str], *, log: Path, limit_s: float, watch: Callable[[float], None]) -> float:
    """Runs a benchmark to its end.

    Args:
        command: of `Client.command`.
        log: file that gets what it prints.
        limit_s: longest time, s.
        watch: called with the seconds gone by all the while; what it raises stops the benchmark.

    Returns:
        How long it took, s.

    Raises:
        InputError: it could not be started, failed, or took longer than ``limit_s``.
    """
    began = time.monotonic()
    with Child(command, log=log, environment=environment(), grace_s=5.0) as child:
        while (code := child.poll()) is None:
            gone_s = time.monotonic() - began
            watch(gone_s)
            if gone_s > limit_s:
                message = f"no end after {gone_s / 60:.0f} minutes; is the server stuck? Last lines:\n{child.tail()}"
                raise InputError([Problem(shlex.join(command), "", message)])
            time.sleep(_POLL_S)
        if code != 0:
            message = f"ended with exit code {code}; its last lines:\n{child.tail()}"
            raise InputError([Problem(shlex.join(command), "", message)])
    return time.monotonic() - began
