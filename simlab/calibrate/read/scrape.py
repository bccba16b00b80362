"""The text that a running vLLM gives at ``/metrics``: limits of the server, means of its histograms."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from simlab.calibrate.read.context import Context
from simlab.calibrate.read.files import plain_name
from simlab.calibrate.read.metrics import positive
from simlab.calibrate.read.plausible import Frame, check_together
from simlab.calibrate.read.servers import Facts, server_of
from simlab.calibrate.run import Run

HISTOGRAMS = {
    "ttft_s_mean": ("vllm:time_to_first_token_seconds",),
    "itl_s_mean": ("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"),
    "tpot_s_mean": ("vllm:request_time_per_output_token_seconds",),
    "e2e_s_mean": ("vllm:e2e_request_latency_seconds",),
}
"""Histograms by metric, those of newer versions first; percentiles of their wide buckets would be guesses."""

CACHE = {"num_gpu_blocks": "kv_blocks", "block_size": "block_size", "enable_prefix_caching": "prefix_caching"}
"""Labels of ``vllm:cache_config_info`` by attribute of `Server`."""

NOTE = "counted by the server since it started, warm-up included; how it was driven is not known"

_SAMPLE = re.compile(r"^(vllm:\w+)(?:\{(.*)\})?\s+(\S+)(?:\s+\d+)?\s*$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Sample:
    """One line: name, labels, value, and its number in the text."""

    name: str
    labels: dict[str, str]
    value: float
    line: int


def is_scrape(text: str) -> bool:
    """Whether a text is a scrape of vLLM."""
    return re.search(r"^vllm:\w+(?:\{|\s)", text, re.MULTILINE) is not None


def samples(text: str) -> list[Sample]:
    """The samples of vLLM's in a scrape; a line that is none has the value NaN."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.startswith("vllm:"):
            continue
        parts = _SAMPLE.match(line)
        try:
            value = math.nan if parts is None else float(parts[3])
        except ValueError:
            value = math.nan
        labels = {} if parts is None else dict(_LABEL.findall(parts[2] or ""))
        found.append(Sample(line if parts is None else parts[1], labels, value, number))
    return found


def scrape_facts(text: str, source: str, facts: Facts) -> None:
    """Adds to facts the limits that ``vllm:cache_config_info`` states."""
    for sample in samples(text):
        if sample.name == "vllm:cache_config_info":
            said = f"{source}: vllm:cache_config_info"
            for label, attribute in CACHE.items():
                facts.say(attribute, sample.labels.get(label), f"{said} {label}")
            facts.say("kv_precision", sample.labels.get("cache_dtype"), f"{said} cache_dtype")
            return


def read_scrape(text: str, path: Path, context: Context) -> Run | None:
    """What a server counted since it started: a run of which is not known how it was driven."""
    found, before = samples(text), len(context.problems)
    for sample in found:
        if math.isnan(sample.value):
            place = f"{path}:{sample.line}"
            context.problems.add(place, "", f"read {sample.name[:60]!r}; allowed: name, labels and a number")
    facts = Facts()
    scrape_facts(text, path.name, facts)
    models = sorted({sample.labels["model_name"] for sample in found if "model_name" in sample.labels})
    if len(models) > 1:
        context.problems.add(str(path), "model_name", f"has {', '.join(models)}; scrape one server at a time")
    facts.say("model", models[0] if models else None, "model_name")
    server = server_of(facts, context, str(path), served_name=True)
    totals: dict[str, float] = {}
    for sample in found:
        totals[sample.name] = totals.get(sample.name, 0.0) + sample.value
    if len(context.problems) > before or server is None:
        return None
    measured = {}
    for metric, spelt in HISTOGRAMS.items():
        name = next((name for name in spelt if totals.get(f"{name}_count", 0.0) > 0.0), None)
        if name is not None:
            measured[metric] = totals[f"{name}_sum"] / totals[f"{name}_count"]
    if not measured:
        context.skip(str(path), "a scrape of a server that has not answered any request yet")
        return None
    fields = {metric: spelt[0] for metric, spelt in HISTOGRAMS.items()}
    check_together(measured, Frame(), str(path), fields, context.problems)
    name = plain_name(path)
    source = f"/metrics of vLLM: {name}"
    return Run(name, str(path), server[0], None, positive(measured), source=source, notes=(*server[1], NOTE))
