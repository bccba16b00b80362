"""Two or more plans under the same traffic and the same luck: what changes, by how much, and how sure that is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

import simlab
from simlab.decide.difference import SAME, UNKNOWN, Difference, paired
from simlab.results import Result, words
from simlab.results.facts import FIXED, SAMPLED
from simlab.results.metrics import METRICS
from simlab.results.result import finite
from simlab.simulation import Calibration, Progress, simulate

if TYPE_CHECKING:
    import pandas as pd

    from simlab.scenario import Scenario

SCHEMA_VERSION = 1
"""Version of the comparison JSON."""


class Comparison:
    """Plans side by side; the first is the baseline that the others are held against.

    Args:
        results: by label, in order, all of the same replications (number and seeds).
        warnings: what makes the comparison less than fair, in sentences.

    Raises:
        ValueError: with fewer than two results, or when their replications are not the same.
    """

    def __init__(self, results: Mapping[str, Result], warnings: Sequence[str] = ()) -> None:
        if len(results) < 2:
            raise ValueError(f"a comparison needs at least two plans, read {len(results)}")
        seeds = {tuple(measured.seed for measured in result.measurements) for result in results.values()}
        if len(seeds) > 1:
            raise ValueError("the replications of all plans must have the same seeds in the same order")
        if {SAMPLED, FIXED} <= {result.calibration for result in results.values()}:
            raise ValueError("either all plans or none must have been simulated with drawn step times (calibration)")
        self.results = dict(results)
        self.warnings = (
            *warnings,
            *(f"{label}: {text}" for label, result in results.items() for text in result.warnings),
        )

    @property
    def baseline(self) -> str:
        """Label of the plan that the others are held against."""
        return next(iter(self.results))

    @property
    def replications(self) -> int:
        """Number of replications."""
        return self.results[self.baseline].replications

    @property
    def seed(self) -> int:
        """The seed all replications were derived from."""
        return self.results[self.baseline].seed

    @cached_property
    def differences(self) -> dict[str, dict[str, Difference]]:
        """For each plan but the baseline, every metric's paired difference to the baseline."""
        return {
            label: {name: self._difference(name, result) for name in METRICS}
            for label, result in self.results.items()
            if label != self.baseline
        }

    def _difference(self, name: str, result: Result) -> Difference:
        first = self.results[self.baseline]
        drawn = None
        if first.drawn or result.drawn:
            lopsided = [each.one_sided for each in (first, result) if each.drawn]
            drawn = first.drawn_values[name], result.drawn_values[name], np.logical_or.reduce(lopsided)
        return paired(name, first.values[name], result.values[name], drawn)

    def table(self) -> pd.DataFrame:
        """One row for each plan and metric: ``plan, metric`` and the fields of `Difference.as_dict`."""
        import pandas as pd

        return pd.DataFrame(
            [
                {"plan": label, "metric": name, **difference.as_dict()}
                for label, found in self.differences.items()
                for name, difference in found.items()
            ]
        )

    @cached_property
    def broken(self) -> list[str]:
        """Promises (SLO, budget) that the baseline keeps and a later plan does not, in sentences."""
        kept = {check.name for check in self.results[self.baseline].verdict.checks if check.holds}
        return [
            f"{label}: {check.sentence}; {self.baseline} keeps it"
            for label in self.differences
            for check in self.results[label].verdict.checks
            if not check.holds and check.name in kept
        ]

    @property
    def exit_code(self) -> int:
        """1 when a later plan misses an SLO or budget that the baseline keeps, else 0."""
        return 1 if self.broken else 0

    @cached_property
    def headline(self) -> str:
        """The comparison in a sentence for each plan."""
        return " ".join(self._sentence(label) for label in self.differences)

    def _sentence(self, label: str) -> str:
        found = self.differences[label]
        parts = [_money(label, self.baseline, found["cost_usd_per_month"]), _latency(found["ttft_s_p95"])]
        has_slo = any(check.name.startswith("slo ") for check in self.results[label].verdict.checks)
        parts.append(
            _share(found["slo_ratio" if has_slo else "success_ratio"], "meet the SLO" if has_slo else "succeed")
        )
        unpriced = [item["backend"] for name in (self.baseline, label) for item in self.results[name].unpriced]
        if unpriced:
            parts.append(f"without what has no price ({', '.join(dict.fromkeys(unpriced))})")
        return "; ".join(part for part in parts if part) + "."

    @cached_property
    def assumptions(self) -> list[str]:
        """What was taken for granted, in sentences; those that not all plans share say whose they are."""
        found = [
            "the plans saw the same arrivals and draws (common random numbers), those of a speed profile that they "
            "share included; intervals are of the differences by replication"
        ]
        every = {label: result.assumptions for label, result in self.results.items()}
        for label, sentences in every.items():
            for sentence in sentences:
                shared = all(sentence in others for others in every.values())
                found.append(sentence if shared else f"[{label}] {sentence}")
        return list(dict.fromkeys(found))

    def to_dict(self) -> dict[str, Any]:
        """The comparison as plain JSON values; undefined numbers are None."""
        data = {
            "schema_version": SCHEMA_VERSION,
            "simlab_version": simlab.__version__,
            "seed": self.seed,
            "replications": self.replications,
            "headline": self.headline,
            "baseline": self.baseline,
            "got_worse": self.broken,
            "warnings": list(self.warnings),
            "differences": {
                label: {name: difference.as_dict() for name, difference in found.items()}
                for label, found in self.differences.items()
            },
            "assumptions": self.assumptions,
            "plans": {label: result.to_dict() for label, result in self.results.items()},
        }
        plain: dict[str, Any] = finite(data)
        return plain

    def to_json(self) -> str:
        """The comparison as JSON text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def compare(
    scenarios: Sequence[Scenario] | Mapping[str, Scenario],
    *,
    replications: int = 5,
    seed: int | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
    calibration: Calibration = "sampled",
) -> Comparison:
    """Simulates several plans with the same seeds and compares them with the first.

    Args:
        scenarios: two or more from `simlab.load`; a mapping gives them labels of your own.
        replications: independent runs of each.
        seed: of all draws; None: the first scenario's, for all of them.
        workers: as for `simlab.simulate`.
        executor: as for `simlab.simulate`.
        progress: called while it runs.
        calibration: as for `simlab.simulate`.

    Raises:
        ValueError: with fewer than two scenarios.
        InputError: as `simlab.simulate`.
    """
    plans = dict(scenarios) if isinstance(scenarios, Mapping) else labelled(scenarios)
    if len(plans) < 2:
        raise ValueError(f"a comparison needs at least two scenarios, read {len(plans)}")
    used = next(iter(plans.values())).seed if seed is None else seed
    results = {}
    for place, (label, scenario) in enumerate(plans.items()):

        def report(done: float, total: float, note: str = "", *, place: int = place, label: str = label) -> None:
            if progress is not None:
                progress(place + done / total, len(plans), note or f"simulating {label}")

        results[label] = simulate(
            scenario,
            replications=replications,
            seed=used,
            workers=workers,
            executor=executor,
            progress=report,
            calibration=calibration,
        )
    return Comparison(results, unlike_traffic(plans))


def labelled(scenarios: Sequence[Scenario]) -> dict[str, Scenario]:
    """Short names that tell scenarios apart: the variant alone where all are of one scenario."""
    one_name = len({scenario.name for scenario in scenarios}) == 1
    plans: dict[str, Scenario] = {}
    for scenario in scenarios:
        if one_name:
            label = scenario.variant or ("as written" if any(s.variant for s in scenarios) else scenario.name)
        else:
            label = scenario.name + (f":{scenario.variant}" if scenario.variant else "")
        number = 2
        unique = label
        while unique in plans:
            unique, number = f"{label} ({number})", number + 1
        plans[unique] = scenario
    return plans


def unlike_traffic(plans: Mapping[str, Scenario]) -> list[str]:
    """Warnings about plans that do not see the traffic of the first, and in what."""
    (first, base), *others = plans.items()
    found = []
    for label, scenario in others:
        unlike = [name for name in ("horizon", "warmup", "start") if getattr(base, name) != getattr(scenario, name)]
        classes = dict.fromkeys([*base.workload, *scenario.workload])
        if list(base.workload) != list(scenario.workload):
            unlike.append("the names or the order of workload classes")
        for name in classes:
            one, two = base.workload.get(name), scenario.workload.get(name)
            if one is not None and two is not None:
                exclude = {"slo", "priority", "feature"}
                asks = one.model_dump(exclude=exclude), two.model_dump(exclude=exclude)
                unlike += [f"workload.{name}.{key}" for key in asks[0] if asks[0][key] != asks[1][key]]
        if unlike:
            found.append(
                f"{label} does not see the traffic of {first}: different {', '.join(unlike)}. Differences below are "
                "those of plan and traffic together."
            )
    return found


def _money(label: str, baseline: str, found: Difference) -> str:
    if found.change is None:
        return f"{label} against {baseline}: cost unknown"
    if found.verdict == SAME or found.change == 0:
        return f"{label} costs the same as {baseline} ({words.usd(found.value)} a month)"
    word = "less" if found.change < 0 else "more"
    unsure = ", one replication" if found.verdict == UNKNOWN else ""
    return f"{label} costs {words.usd(abs(found.change))} a month {word} than {baseline}{_percents(found, unsure)}"


def _percents(found: Difference, unsure: str = "") -> str:
    """' (−41%, 40–42)': the change as a share of the baseline, and the interval of its size."""
    if found.relative is None:
        return ""
    share, low, high = found.relative
    sign = "−" if share < 0 else "+"
    ends = ""
    if low is not None and high is not None:
        near, far = sorted((abs(low), abs(high)))
        ends = f", {words.percent(near).rstrip('%')}–{words.percent(far).rstrip('%')}" if near != far else ""
    return f" ({sign}{words.percent(abs(share))}{ends}{unsure})"


def _latency(found: Difference) -> str:
    if found.change is None or found.value is None:
        return ""
    value = words.number(found.value, "s")
    if found.verdict == SAME or found.change == 0:
        return f"its p95 TTFT is the same ({value})"
    word = "shorter" if found.change < 0 else "longer"
    return f"its p95 TTFT is {words.number(abs(found.change), 's')} {word} ({value})"


def _share(found: Difference, what: str) -> str:
    if found.change is None or found.value is None:
        return ""
    if found.verdict == SAME or found.change == 0:
        return f"as many {what} ({words.percent(found.value)})"
    word = "more" if found.change > 0 else "fewer"
    points = words.digits(abs(found.change) * 100.0, 2)
    return f"{words.percent(found.value)} {what}, {points} points {word}"
