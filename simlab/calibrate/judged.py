"""What a validation says of each run, and of groups of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from simlab import __version__
from simlab.calibrate.run import METRICS, Floats

SCHEMA_VERSION = 1
CALIBRATED, BETWEEN, ESTIMATED = "calibrated", "between", "estimated"
"""What a prediction rests on: a fit that saw this operating point, one that saw others, or no measurement at all."""
TOTAL = "all"
"""The phase of the row that sums the steps of all phases of a segment."""
STEP_TOTAL = "step_s_total"
"""In the summary: the time of all steps of a segment together, where ``step_s`` is of single steps."""
BELOW, AT = "below saturation", "at saturation"


@dataclass(frozen=True)
class Row:
    """One number of one run, measured and simulated.

    Attributes:
        run: its name.
        setup: of the server, as `Server.setup`.
        metric: one of `METRICS`; ``step_s`` is the mean step of a segment and phase, and off as their sum is.
        measured, simulated: s, or tokens/s.
        kind: what the prediction rests on: calibrated, between, estimated.
        profile: the profile's name.
        point: the operating point; ``SEGMENT/PHASE`` for steps.
        low, high: 90% interval of what such a run measures, from the profile's covariance and its known error; None
            where not known.
        saturated: more was offered than the server can serve; None where that is not known.
        steps: absolute percentage errors of the single steps, as shares; None for other metrics and sums of phases.
    """

    run: str
    setup: str
    metric: str
    measured: float
    simulated: float
    kind: str
    profile: str
    point: str = ""
    low: float | None = None
    high: float | None = None
    saturated: bool | None = None
    steps: Floats | None = field(default=None, compare=False, repr=False)

    @property
    def ape(self) -> float:
        """Absolute percentage error as a share: 0.05 is 5%."""
        return abs(self.simulated / self.measured - 1.0)

    @property
    def inside(self) -> bool | None:
        """Whether the measured number lies within the 90% interval; None where there is none."""
        return None if self.low is None or self.high is None else self.low <= self.measured <= self.high

    def as_dict(self) -> dict[str, Any]:
        """For JSON and CSV."""
        return {
            "run": self.run,
            "setup": self.setup,
            "metric": self.metric,
            "measured": self.measured,
            "simulated": self.simulated,
            "ape": self.ape,
            "kind": self.kind,
            "point": self.point,
            "profile": self.profile,
            "low": self.low,
            "high": self.high,
            "inside": self.inside,
            "saturated": self.saturated,
            "step_median_ape": None if self.steps is None else float(np.median(self.steps)),
            "steps": None if self.steps is None else len(self.steps),
        }


@dataclass(frozen=True)
class Summary:
    """The errors of a group of rows in one metric.

    Attributes:
        group: ``all``, a kind, a set-up, a GPU, ``dense`` or ``moe``, ``below saturation`` or ``at saturation``, or a
            kind and one of these, such as ``between, below saturation``.
        metric: one of `METRICS`, or ``step_s_total``.
        n: how many numbers; of ``step_s``: steps.
        median_ape, p90_ape: median and 90th percentile of the absolute percentage error, as shares.
        inside: share of the measured numbers within their 90% intervals; None where none has one.
    """

    group: str
    metric: str
    n: int
    median_ape: float
    p90_ape: float
    inside: float | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "group": self.group,
            "metric": self.metric,
            "n": self.n,
            "median_ape": self.median_ape,
            "p90_ape": self.p90_ape,
            "inside": self.inside,
        }


@dataclass(frozen=True)
class Knee:
    """Where a server of a ladder of rates is full: the most requests it serves in a second, however many are sent.

    Attributes:
        setup, profile, kind: as in `Row`.
        workload: what the requests of the ladder have in common.
        measured_rps, simulated_rps: requests/s that are served when more are sent.
    """

    setup: str
    profile: str
    kind: str
    workload: str
    measured_rps: float
    simulated_rps: float

    @property
    def ape(self) -> float:
        """Absolute percentage error as a share."""
        return abs(self.simulated_rps / self.measured_rps - 1.0)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**vars(self), "ape": self.ape}


@dataclass(frozen=True)
class Validation:
    """A profile, or a folder of them, against runs.

    Attributes:
        name: what was validated.
        rows: every number of every run, in the order of runs and metrics.
        knees: of the ladders of rates among the runs.
        left_out: runs that could not be judged, and why.
        warnings: runs outside what their profile was fitted on, failed requests.
        limits: largest median error allowed, by metric; ``""`` is every metric that is not named.
        groups: further groups of a set-up: its GPU, dense or MoE.
    """

    name: str
    rows: tuple[Row, ...]
    knees: tuple[Knee, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    limits: Mapping[str, float] = field(default_factory=dict)
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @cached_property
    def summary(self) -> tuple[Summary, ...]:
        """Each group and metric of which there is a row; groups from the widest to the narrowest."""
        members: dict[str, list[Row]] = {"all": list(self.rows)}
        for kind in (CALIBRATED, BETWEEN, ESTIMATED):
            members[kind] = [row for row in self.rows if row.kind == kind]
        for name, saturated in ((BELOW, False), (AT, True)):
            members[name] = [row for row in self.rows if row.saturated is saturated]
            for kind in (CALIBRATED, BETWEEN, ESTIMATED):
                members[f"{kind}, {name}"] = [row for row in members[name] if row.kind == kind]
        for row in self.rows:
            for name in self.groups.get(row.setup, ()):
                members.setdefault(name, []).append(row)
        for row in self.rows:
            members.setdefault(row.setup, []).append(row)
        return tuple(one for name, rows in members.items() for one in _summaries(name, rows))

    def of(self, group: str, metric: str) -> Summary | None:
        """The summary of a group and metric; None where there is no row."""
        return next((one for one in self.summary if (one.group, one.metric) == (group, metric)), None)

    @cached_property
    def over(self) -> tuple[tuple[Summary, float], ...]:
        """The metrics whose median error over all rows is above its limit, with the limit."""
        found = []
        for one in self.summary:
            limit = self.limits.get(one.metric, self.limits.get(""))
            if one.group == "all" and limit is not None and one.median_ape > limit:
                found.append((one, limit))
        return tuple(found)

    @property
    def exit_code(self) -> int:
        """1 when a metric is over its limit."""
        return 1 if self.over else 0

    def to_json(self) -> str:
        """Everything as JSON."""
        data = {
            "schema_version": SCHEMA_VERSION,
            "simlab_version": __version__,
            "validated": self.name,
            "rows": [row.as_dict() for row in self.rows],
            "summary": [one.as_dict() for one in self.summary],
            "knees": [one.as_dict() for one in self.knees],
            "left_out": [{"run": run, "reason": reason} for run, reason in self.left_out],
            "warnings": list(self.warnings),
            "over": [{**one.as_dict(), "limit": limit} for one, limit in self.over],
        }
        return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _summaries(group: str, rows: Sequence[Row]) -> Iterable[Summary]:
    """The summaries of a group, in the order of the metrics."""
    for metric in METRICS:
        chosen = [row for row in rows if row.metric == metric]
        singles = [row for row in chosen if row.steps is not None]
        totals = [row for row in chosen if metric == "step_s" and row.steps is None]
        if metric != "step_s" and chosen:
            yield _summary(group, metric, np.array([row.ape for row in chosen]), chosen)
        if singles:
            yield _summary(group, metric, np.concatenate([row.steps for row in singles if row.steps is not None]), [])
        if totals:
            yield _summary(group, STEP_TOTAL, np.array([row.ape for row in totals]), totals)


def _summary(group: str, metric: str, apes: Floats, rows: Sequence[Row]) -> Summary:
    known = [row.inside for row in rows if row.inside is not None]
    inside = sum(known) / len(known) if known else None
    return Summary(group, metric, len(apes), float(np.median(apes)), float(np.quantile(apes, 0.9)), inside)
