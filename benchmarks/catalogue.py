"""All cases, by benchmark, with the targets they are held to."""

from __future__ import annotations

import json
from collections.abc import Callable

from benchmarks.case import Case, Report

_CLI = ("-m", "simlab.cli.main")
_MONTH_DAYS = 30
_RAN = (0, 1)
"""Exit codes of `simlab run` that answers; 1: the plan misses an objective."""


def _worker(module: str, case: str, size: int) -> Callable[[float], list[str]]:
    """A function of ours on some number of requests (never less than 50)."""
    return lambda scale: ["-m", "benchmarks.worker", module, case, str(max(50, round(size * scale)))]


def _said(printed: str) -> Report:
    """The report of one of our workers."""
    return Report(**json.loads(printed))


def _nothing(printed: str) -> Report:
    del printed
    return Report()


def _simlab(*arguments: str) -> Callable[[float], list[str]]:
    """The command line, whatever the scale."""
    return lambda scale: [*_CLI, *arguments]


def _month(days: float) -> Callable[[float], list[str]]:
    return lambda scale: [
        *_CLI, "run", "scenarios/month.yaml", "--replications", "1", "--format", "json",
        "--set", f"horizon={days * scale:g}d", "--set", f"window={0.25 * scale:g}d",
    ]  # fmt: skip


def _tasks(printed: str) -> Report:
    tasks = json.loads(printed)["metrics"]["tasks"]["value"]
    return Report(requests=tasks, note=f"{tasks / 1e6:.2f} M requests")


def _replicas(case: str, target_rps: float | None = None) -> Case:
    return Case("replicas", case, _worker("replicas", case, 2_000_000), _said, target_rps=target_rps)


def _gateway(case: str, target_rps: float | None = None) -> Case:
    return Case("gateway", case, _worker("gateway", case, 1_000_000), _said, target_rps=target_rps)


def _arrivals(case: str) -> Case:
    return Case("arrivals", case, _worker("arrivals", case, 10_000_000), _said)


def _calibration(case: str, name: str, size: int, target_s: float) -> Case:
    def command(scale: float) -> list[str]:
        return ["-m", "benchmarks.worker", "calibration", case, str(max(4, round(size * scale)))]

    return Case("calibration", name, command, _said, is_rate=False, runs=3, target_s=target_s)


CASES: tuple[Case, ...] = (
    _replicas("no prefix caching", 3e6),
    _replicas("prefix caching, nothing shared", 3e6),
    _replicas("no prefix caching, system prompt of 400 tokens"),
    _replicas("prefix caching, system prompt of 400 tokens"),
    Case("full-path", "pool and API", _worker("full_path", "pool and API", 1_000_000), _said, target_rps=1e6),
    _gateway("all policies", 0.7e6),
    _gateway("none used"),
    Case("month", "3 days", _month(_MONTH_DAYS / 10), _tasks, is_rate=False, runs=3, fine=_RAN),
    Case("month", "30 days", _month(_MONTH_DAYS), _tasks, is_rate=False, runs=2, target_s=60, target_mib=1024,
         fine=_RAN),
    Case("start", "simlab run quickstart", _simlab("run", "scenarios/quickstart.yaml"), _nothing,
         is_rate=False, runs=7, target_s=3, fine=_RAN),
    Case("start", "simlab --help", _simlab("--help"), _nothing, is_rate=False, runs=7, target_s=0.5),
    Case("compilation", "first run of quickstart", _simlab("run", "scenarios/quickstart.yaml"), _nothing,
         is_rate=False, runs=1, target_s=60, fresh_cache=True, fine=_RAN),
    _arrivals("poisson"),
    _arrivals("poisson, by hour of day"),
    _arrivals("gamma, cv 2"),
    Case("oracle-size", "simlab.replay", _worker("oracle_size", "simlab", 10_000), _said),
    Case("oracle-size", "ordinary SimPy program", _worker("oracle_size", "simpy", 10_000), _said, runs=3),
    _calibration("fit", "fit, 20 runs of 200 requests", 20, 30.0),
    _calibration("tokens", "fit, 20 runs of 200 requests, by token", 20, 30.0),
    _calibration("validate", "validate, 700 runs of 200 requests", 700, 60.0),
)  # fmt: skip

BENCHMARKS: tuple[str, ...] = tuple(dict.fromkeys(case.benchmark for case in CASES))
