"""Scenarios so small and plain that the answers can be worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from simlab.scenario import Scenario, scenario_from_dict

PROFILE = Path(__file__).with_name("plain_profile.json")
"""Every step takes 10 ms, whatever is in it."""

PROMPT, OUTPUT = 10, 10
"""Tokens of every request: OUTPUT steps, 0.1 s of a replica that serves one at a time, so 10 requests/s."""


def plan(side: str | None, *sets: str, **changes: Any) -> Scenario:
    """The plain scenario as its variant ``"api"`` or ``"pool"`` (None: as written), changed as on the command line."""
    data: dict[str, Any] = {
        "name": "plain",
        "horizon": 60,
        "warmup": 10,
        "workload": {
            "chat": {
                # Nearly regular arrivals: below capacity nobody waits, above it the queue only grows.
                "arrivals": {"kind": "gamma", "rate": 5, "cv": 0.01},
                "lengths": {"prompt": PROMPT, "output": OUTPUT},
            }
        },
        "pools": {
            "own": {
                "model": "llama-3.1-8b",
                "gpu": "h100-sxm",
                "precision": "bf16",
                "profile": str(PROFILE),
                "max_num_seqs": 1,
                "dispatch": "round_robin",
                "kv_blocks": 64,
                "prefix_caching": False,
                "price": {"usd_per_gpu_hour": 0.5},
            }
        },
        "apis": {
            "cloud": {
                "provider": "somebody",
                "model": "something",
                "ttft": 0.02,
                "itl": 0.001,
                "price": {"input_usd_per_mtok": 1, "output_usd_per_mtok": 1},
            }
        },
        "gateway": {"routes": [{"to": {"own": 1}}]},
        "slo": {"ttft": 0.05, "target": 0.95},
        "variants": {
            "api": [{"gateway.routes.0.to": {"cloud": 1}}, {"pools": {}}],
            "pool": [{"apis": {}}],
        },
    }
    data.update(changes)
    return scenario_from_dict(data, variant=side, sets=sets)
