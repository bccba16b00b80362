"""A result in words: its headline, and what was taken for granted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simlab.results import words
from simlab.results.facts import NOTHING
from simlab.results.ledger import HOURS_PER_MONTH

if TYPE_CHECKING:
    from simlab.results.result import Result


def headline(result: Result) -> str:
    """The result in one sentence."""
    value = {name: estimate.value for name, estimate in result.estimates.items()}
    names = ", ".join(result.unpriced_in_use)
    least, lacking = ("at least ", f": no price for {names}") if names else ("", "")
    if not value["tasks"]:
        bill = "unknown" if result.bill_unknown else f"{least}{words.usd(value['cost_usd'])}"
        return f"{result.name}: no task arrived; the bill is {bill}{lacking}."
    traffic = f"{words.digits((value['arrival_rate_rps'] or 0.0) * 3600.0)} tasks/h"
    if result.bill_unknown:
        parts = [traffic, f"cost unknown{lacking}"]
    else:
        parts = [
            f"{traffic}{', at least' if names else ' at'} "
            f"{words.usd(value['cost_per_success_usd'])} per successful task"
            f" ({least}{words.usd(value['cost_usd_per_month'])} a month{lacking})"
        ]
    ttft = result.estimates["ttft_s_p95"]
    latency = "no task finished"
    if ttft.value is not None:
        ends = words.interval(ttft)
        latency = f"p95 TTFT {words.number(ttft.value, 's')}" + (f" ({ends})" if ends else "")
    has_slo = any((cls.slo or result.scenario.slo) is not None for cls in result.scenario.workload.values())
    share, noun = (value["slo_ratio"], "meet the SLO") if has_slo else (value["success_ratio"], "succeed")
    parts.append(f"{latency}, {words.percent(share)} {noun}")
    if value["gpu_utilization"] is not None:
        parts.append(f"GPUs running {value['gpu_utilization']:.0%} of the time")
    return f"{result.name}: {'; '.join(parts)}."


def assumptions(result: Result) -> list[str]:
    """What was taken for granted, in sentences, besides what the traffic assumes."""
    found = []
    for facts in result.backends:
        found += [f"{facts.name}: {sentence}" for sentence in facts.assumptions]
    warmup_s = result.measurements[0].warmup_s
    if warmup_s > 0:
        found.append(
            f"the first {words.duration(warmup_s)} are warm-up: in the bill and in token totals, not in latencies, "
            "tasks and rates"
        )
    if result.estimates["gpu_utilization"].value is not None:
        found.append(
            "GPUs run while a step does, however few requests are in its batch: 100% of the time is not yet the most "
            "they can serve"
        )
    if result.replications == 1:
        found.append(
            "one replication: intervals are batch means over its time windows, where windows tell; metrics without one "
            "have an unknown spread (more replications give it)"
        )
    found += _calibration(result)
    tasks, left = result.estimates["tasks"].value, result.estimates["in_flight"].value
    if tasks and left and left > 0.02 * tasks:
        found.append(
            f"{words.percent(left / tasks)} of the tasks were still unfinished at the horizon; their latencies are not "
            "counted"
        )
    found.append(f"a month has {HOURS_PER_MONTH:.0f} h; the run's bill is stretched to it")
    return found


def _calibration(result: Result) -> list[str]:
    """What the intervals hold of calibration error."""
    if result.drawn:
        return [
            "values are of step times as fitted; intervals hold luck (Student's over the replications) and calibration "
            "error (every replication again with step times drawn from the uncertainty of its profiles)"
        ]
    if result.calibration == NOTHING:
        return []
    return ["step times are taken to be exactly as fitted: intervals hold luck, but no calibration error"]


def warnings(result: Result) -> list[str]:
    """What a reader must know before using the numbers, in sentences."""
    found = [
        f"{backend} goes beyond what its profile was measured on: {one.sentence}"
        for backend, limits in result.outside.items()
        for one in limits
    ]
    for facts, times in zip(result.backends, result.overloads.sum(axis=0), strict=True):
        if times:
            found.append(
                f"{facts.name} keeps up at the fit, but in {times} of {len(result.drawn)} draws of its calibration it "
                "cannot: requests queue without end or time out"
            )
    return found
