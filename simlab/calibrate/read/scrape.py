"""The text that a running vLLM gives at ``/metrics``: limits of the server, means of its histograms."""

from __future__ import annotations

import re

from simlab.calibrate.read.servers import Facts

_SAMPLE = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+\d+)?$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def is_scrape(text: str) -> bool:
    """Whether a text is a scrape of vLLM."""
    return re.search(r"^vllm:\w+(?:\{|\s)", text, re.MULTILINE) is not None


def samples(text: str) -> list[tuple[str, dict[str, str], str]]:
    """Name, labels and value (as text) of each sample of vLLM's."""
    found = []
    for line in text.splitlines():
        if line.startswith("vllm:"):
            parts = _SAMPLE.match(line.strip())
            if parts:
                found.append((parts[1], dict(_LABEL.findall(parts[2] or "")), parts[3]))
    return found


def scrape_facts(text: str, source: str, facts: Facts) -> None:
    """Adds to facts the limits that ``vllm:cache_config_info`` states."""
    for name, labels, _ in samples(text):
        if name != "vllm:cache_config_info":
            continue
        for label, attribute in (("num_gpu_blocks", "kv_blocks"), ("block_size", "block_size")):
            if labels.get(label, "").isdigit():
                facts.say(attribute, int(labels[label]), f"{source}: vllm:cache_config_info {label}")
        if labels.get("enable_prefix_caching") in {"True", "False"}:
            caching = labels["enable_prefix_caching"] == "True"
            facts.say("prefix_caching", caching, f"{source}: vllm:cache_config_info enable_prefix_caching")
        facts.say("kv_precision", labels.get("cache_dtype"), f"{source}: vllm:cache_config_info cache_dtype")
        return
