"""Results of ``vllm bench latency`` and ``vllm bench throughput``: the engine without HTTP, all requests at once."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from simlab.calibrate.read.command import whole_flag
from simlab.calibrate.read.context import Context
from simlab.calibrate.read.fields import Fields
from simlab.calibrate.read.files import Document, plain_name
from simlab.calibrate.read.plausible import close, unit_hint
from simlab.calibrate.read.servers import Facts, server_of
from simlab.calibrate.read.sidecar import Sidecar
from simlab.calibrate.run import Load, Run

LATENCY_DEFAULTS = {"input-len": 32, "output-len": 128, "batch-size": 8}
"""What ``vllm bench latency`` does where no flag says otherwise."""

NOTE = "no HTTP: requests go straight to the engine"


def is_latency(data: Any) -> bool:
    """Whether a JSON value is a result of ``vllm bench latency``."""
    return isinstance(data, dict) and {"avg_latency", "latencies"} <= data.keys()


def is_throughput(data: Any) -> bool:
    """Whether a JSON value is a result of ``vllm bench throughput``."""
    return isinstance(data, dict) and {"elapsed_time", "num_requests", "tokens_per_second"} <= data.keys()


def read_latency(document: Document, path: Path, side: Sidecar, context: Context) -> Run | None:
    """The run of a latency result: a batch of equal requests, again and again.

    How long the requests are is in the command line beside it alone; without it there is no run.
    """
    if not side.flags:
        context.skip(document.where, _no_command(path, "--input-len, --output-len and --batch-size"))
        return None
    sizes = {flag: whole_flag(side.flags, flag) or default for flag, default in LATENCY_DEFAULTS.items()}
    before = len(context.problems)
    entry = Fields(document.data, document.where, context.problems)
    mean, each = entry.number("avg_latency"), entry.numbers("latencies")
    server = server_of(_facts(entry, side), context, document.where, served_name=True)
    if mean is None or each is None or len(context.problems) > before or server is None:
        return None
    if mean <= 0.0:
        entry.wrong("avg_latency", "read 0; allowed: seconds above 0")
    elif len(each) and not close(mean, float(np.mean(each))):
        own = float(np.mean(each))
        message = f"read {mean:g}, but the mean of latencies is {own:g}{unit_hint(mean, own)}"
        entry.wrong("avg_latency", f"{message}; give the file as the benchmark wrote it")
    prompt, output, batch = sizes["input-len"], sizes["output-len"], sizes["batch-size"]
    load = Load(requests=batch, prompt_tokens=float(prompt), output_tokens=float(output))
    measured = {"e2e_s_mean": mean, "output_tokens_per_s": batch * output / mean if mean else 0.0}
    name = plain_name(path)
    notes = (*server[1], NOTE, f"with {side.found[0].name}")
    source = f"vllm bench latency: {name}"
    return Run(name, document.where, server[0], load, measured, source=source, notes=notes)


def read_throughput(document: Document, path: Path, side: Sidecar, context: Context) -> Run | None:
    """The run of a throughput result: all requests at once.

    How long the requests are is in the command line beside it alone; without it there is no run.
    """
    prompt, output = (
        whole_flag(side.flags, f"random-{what}-len") or whole_flag(side.flags, f"{what}-len")
        for what in ("input", "output")
    )
    if prompt is None or output is None:
        context.skip(document.where, _no_command(path, "--random-input-len and --random-output-len"))
        return None
    before = len(context.problems)
    entry = Fields(document.data, document.where, context.problems)
    elapsed, requests = entry.number("elapsed_time"), entry.whole("num_requests")
    tokens, rate = entry.number("total_num_tokens"), entry.number("tokens_per_second")
    server = server_of(_facts(entry, side), context, document.where, served_name=True)
    if requests == 0:
        entry.wrong("num_requests", "no request was run; run the benchmark again")
    if elapsed == 0.0:
        entry.wrong("elapsed_time", "read 0; allowed: seconds above 0")
    if len(context.problems) > before or server is None or elapsed is None or requests is None:
        return None
    if tokens is not None and rate is not None and not close(rate, tokens / elapsed):
        message = f"read {rate:g}, but {tokens:g} tokens in {elapsed:g} s are {tokens / elapsed:g}"
        entry.wrong("tokens_per_second", f"{message}{unit_hint(rate, tokens / elapsed)}; correct the wrong one")
    if tokens is not None and not close(tokens, requests * (prompt + output), share=0.2):
        message = f"read {tokens:g}, but {requests} requests of {prompt} and {output} tokens have"
        entry.wrong("total_num_tokens", f"{message} {requests * (prompt + output)}; is this the command of this file?")
    load = Load(requests=requests, rate_rps=math.inf, prompt_tokens=float(prompt), output_tokens=float(output))
    measured = {"output_tokens_per_s": requests * output / elapsed}
    name = plain_name(path)
    notes = (*server[1], NOTE, f"with {side.found[0].name}")
    source = f"vllm bench throughput: {name}"
    return Run(name, document.where, server[0], load, measured, source=source, notes=notes)


def _facts(entry: Fields, side: Sidecar) -> Facts:
    facts = side.facts.copy()
    if "model" not in facts.values:
        facts.say("model", entry.text("model_id") or side.flags.get("model"), "model_id")
    return facts


def _no_command(path: Path, what: str) -> str:
    return f"says nothing of lengths; put {plain_name(path)}.metrics.json with its command ({what}) beside it"
