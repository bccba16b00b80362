"""The gateway with most of its policies in use, and the same traffic past none of them."""

from __future__ import annotations

import time
from typing import Any

from benchmarks import chat
from benchmarks.case import Report
from simlab import simulate
from simlab.scenario import Scenario, scenario_from_dict

RATE_RPS = 500.0
TENANTS = 20

_LEAST_S = 20.0
"""Shorter runs end before the first answers."""

_TENANT_RPM = 60.0 * RATE_RPS / 4.0
"""A quarter of all traffic: the largest tenant asks for a little more and is refused some, the others pass."""


def scenario(policies: bool, horizon_s: float) -> Scenario:
    """Traffic at `RATE_RPS` to three APIs, without pools: what is timed is the gateway.

    Args:
        policies: tenant limits, exact and semantic cache, routes by tier, a cascade, retries, breakers, fallback. Else
            one route by weights, with retries.
        horizon_s: how long, s.
    """
    cls: dict[str, Any] = {
        "tenants": {"count": TENANTS, "skew": 1.0},
        "arrivals": {"kind": "poisson", "rate": RATE_RPS},
        "lengths": {
            "prompt": _lengths(chat.PROMPT_MEAN, chat.PROMPT_P95, chat.PROMPT_MAX),
            "output": _lengths(chat.OUTPUT_MEAN, chat.OUTPUT_P95, chat.OUTPUT_MAX),
        },
    }
    gateway: dict[str, Any] = {
        "routes": [{"to": {"small": 6, "large": 3, "spare": 1}}],
        "timeout": 60,
        "retry": {"max_attempts": 2},
    }
    data: dict[str, Any] = {
        "name": "gateway",
        "horizon": horizon_s,
        "workload": {"chat": cls},
        "apis": {
            "small": _api("small", 0.004, 0.4),
            "large": _api("large", 0.012, 4.0),
            "spare": _api("large", 0.014, 5.0),
        },
        "gateway": gateway,
    }
    if policies:
        cls["task"] = {"tiers": {"low": 5, "medium": 3, "high": 2}}
        cls["queries"] = {"count": 300_000, "zipf": 0.7}
        data["models"] = {"small": {"by_tier": {"low": 0.95, "medium": 0.75, "high": 0.4}}, "large": {"quality": 0.96}}
        verifier = {"kind": "verifier", "accept_right": 0.92, "accept_wrong": 0.2, "usd_per_call": 1e-4}
        gateway["routes"] = [
            {"tiers": ["low"], "to": {"small": 1}},
            {
                "tiers": ["medium"],
                "by": "cascade",
                "cascade": [{"to": "small", "confidence": verifier}, {"to": "large"}],
            },
            {"to": {"large": 9, "spare": 1}},
        ]
        gateway["fallback"] = {"large": "spare", "small": "large"}
        gateway["breaker"] = {"ratio": 0.5, "window": 10, "cool_down": 30}
        gateway["limits"] = [{"per": "tenant", "rpm": _TENANT_RPM}]
        gateway["caches"] = {
            "exact": {"ttl": 600, "capacity": 20_000, "scope": []},
            "semantic": {
                "ttl": 3600, "capacity": 20_000, "scope": [], "match": {"hit": 0.6, "false_hit": 0.01},
                "embedding": {"usd_per_mtok": 0.02, "latency": 0.03},
            },
        }  # fmt: skip
    return scenario_from_dict(data)


def _lengths(mean: int, p95: int, most: int) -> dict[str, Any]:
    return {"kind": "lognormal", "mean": mean, "p95": p95, "max": most}


def _api(model: str, itl_s: float, usd_per_mtok: float) -> dict[str, Any]:
    return {
        "provider": "somebody",
        "model": model,
        "ttft": {"kind": "lognormal", "mean": 0.5, "p95": 0.9},
        "itl": {"kind": "lognormal", "mean": itl_s, "p95": 1.5 * itl_s},
        "error_probability": 0.02,
        "price": {"input_usd_per_mtok": usd_per_mtok, "output_usd_per_mtok": 4 * usd_per_mtok},
    }


def run(case: str, size: int) -> Report:
    """Times the simulation of about ``size`` tasks, their metrics and their ledger included."""
    policies = case == "all policies"
    _simulated(scenario(policies, 1.0))
    plan = scenario(policies, max(_LEAST_S, size / RATE_RPS))
    began, worked = time.perf_counter(), time.thread_time()
    result = _simulated(plan)
    seconds, cpu_s = time.perf_counter() - began, time.thread_time() - worked
    tasks = result["tasks"].value or 0.0
    attempts = (result["attempts"].value or 0.0) / tasks
    note = f"{tasks / cpu_s / 1e6:.2f} M/s of CPU time; {attempts:.2f} attempts a task, caches and helpers included"
    return Report(requests=tasks, seconds=seconds, note=note)


def _simulated(plan: Scenario) -> Any:
    """Simulates, and reads metrics and ledger."""
    result = simulate(plan)
    assert len(result.ledger())
    return result
