"""What a running vLLM counts, as it says at ``/metrics``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from simlab.calibrate.read.scrape import samples

_COUNTED = ("_total", "_bucket", "_sum", "_count")
"""Endings of counters' and histograms' samples."""

_WHOSE = ("engine", "model_name")
"""Labels that only say whose sample it is: samples that differ in nothing else are added up."""

_CACHE_CONFIG = "vllm:cache_config_info"


@dataclass(frozen=True)
class Scrape:
    """One reading of it.

    Attributes:
        counters: counters and the parts of histograms of vLLM by name and labels
            (``vllm:e2e_request_latency_seconds_bucket{le="1.5"}``), added up over engines.
        cache_config: labels of ``vllm:cache_config_info``, of the first engine.
    """

    counters: Mapping[str, float]
    cache_config: Mapping[str, str]

    def since(self, before: Scrape) -> dict[str, float]:
        """How much each counter grew since an earlier reading; only those that did, in the order of their names."""
        grown = {name: value - before.counters.get(name, 0.0) for name, value in self.counters.items()}
        return {name: grown[name] for name in sorted(grown) if grown[name]}


def scrape(text: str) -> Scrape:
    """Reads Prometheus text.

    >>> scrape(chr(10).join(['vllm:x_total{engine="0",k="a"} 3.0', 'vllm:x_total{engine="1",k="a"} 4'])).counters
    {'vllm:x_total{k="a"}': 7.0}
    """
    counters: dict[str, float] = {}
    config: dict[str, str] = {}
    for sample in samples(text):
        if sample.name == _CACHE_CONFIG:
            config = config or sample.labels
        elif sample.name.endswith(_COUNTED) and not math.isnan(sample.value):
            told = ",".join(f'{key}="{label}"' for key, label in sample.labels.items() if key not in _WHOSE)
            key = f"{sample.name}{{{told}}}" if told else sample.name
            counters[key] = counters.get(key, 0.0) + sample.value
    return Scrape(counters, config)
