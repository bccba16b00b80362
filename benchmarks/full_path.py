"""The whole way of a request: drawn traffic, tenants, gateway, pool or API, retries, metrics, and the bill."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benchmarks import chat
from benchmarks.case import Report
from benchmarks.replicas import LOAD, REPLICAS, capacity_rps
from simlab import simulate
from simlab.scenario import Scenario, scenario_from_dict

PROFILE = Path(__file__).with_name("profile.json")
"""The step time of `benchmarks.chat`."""

_TO_POOL = 0.7


def scenario(rate_rps: float, horizon_s: float) -> Scenario:
    """Traffic at ``rate_rps``, seven tenths to the replicas of the other benchmark, the rest to an API."""
    data: dict[str, Any] = {
        "name": "full path",
        "horizon": horizon_s,
        "workload": {
            "chat": {
                "tenants": {"count": 20, "skew": 1.0},
                "arrivals": {"kind": "poisson", "rate": rate_rps},
                "lengths": {
                    "prompt": _lengths(chat.PROMPT_MEAN, chat.PROMPT_P95, chat.PROMPT_MAX),
                    "output": _lengths(chat.OUTPUT_MEAN, chat.OUTPUT_P95, chat.OUTPUT_MAX),
                },
            }
        },
        "pools": {
            "own": {
                "model": "llama-3.1-8b",
                "gpu": "h100-sxm",
                "profile": str(PROFILE),
                "replicas": REPLICAS,
                "max_num_seqs": chat.MAX_NUM_SEQS,
                "max_num_batched_tokens": chat.MAX_NUM_BATCHED_TOKENS,
                "kv_blocks": chat.KV_BLOCKS,
                "block_size": chat.BLOCK_SIZE,
                "price": {"usd_per_gpu_hour": 2.5},
            }
        },
        "apis": {
            "cloud": {
                "provider": "somebody",
                "model": "something",
                "ttft": {"kind": "lognormal", "mean": 0.5, "p95": 0.9},
                "itl": {"kind": "lognormal", "mean": 0.012, "p95": 0.018},
                "error_probability": 0.001,
                "price": {"input_usd_per_mtok": 0.4, "output_usd_per_mtok": 1.6},
            }
        },
        "gateway": {
            "routes": [{"to": {"own": _TO_POOL, "cloud": 1 - _TO_POOL}}],
            "timeout": 60,
            "retry": {"max_attempts": 3},
        },
        "slo": {"ttft": 2, "itl": 0.06, "target": 0.95},
    }
    return scenario_from_dict(data)


def _lengths(mean: int, p95: int, most: int) -> dict[str, Any]:
    return {"kind": "lognormal", "mean": mean, "p95": p95, "max": most}


def run(case: str, size: int) -> Report:
    """Times the simulation of about ``size`` requests, its metrics and its ledger included."""
    del case
    rate_rps = LOAD * capacity_rps("no prefix caching", max(2000, min(40_000, size))) / _TO_POOL
    _books(scenario(rate_rps, 1.0))
    plan = scenario(rate_rps, size / rate_rps)
    began = time.perf_counter()
    tasks = _books(plan)
    seconds = time.perf_counter() - began
    return Report(requests=tasks, seconds=seconds, note=f"{rate_rps:.0f} requests/s, 70% of them to 4 replicas")


def _books(plan: Scenario) -> float:
    """Simulates, reads metrics and ledger, and says how many tasks there were."""
    result = simulate(plan)
    assert len(result.ledger())
    return result["tasks"].value or 0.0
