"""The answer of a simulation: metrics with intervals, breakdowns, windows, ledger and a verdict."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import simlab
from simlab.results import sentences, sources
from simlab.results.alerts import Alert, alerts
from simlab.results.batches import half_widths
from simlab.results.breakdown import rows_of
from simlab.results.facts import NOTHING, BackendFacts, Outside, ScenarioLike
from simlab.results.held import limit_rows, violation_rows, wait_rows
from simlab.results.interval import Draws, Estimate, around, student
from simlab.results.keeping_up import overloaded
from simlab.results.keys import KEYS, places
from simlab.results.ledger import MONEY, WASTE, leases_billed_s, ledger
from simlab.results.measurements import CELL_KEYS, Measurements
from simlab.results.metrics import COSTS, METRICS, replication_values, resolution
from simlab.results.parts import part_rows
from simlab.results.savings import cache_rows
from simlab.results.verdict import Verdict, verdict
from simlab.results.windows import window_columns

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1
"""Version of the result JSON; raised when a reader of the old one would be misled."""

_MONEY_COLUMNS = frozenset(
    {*COSTS, *MONEY, "idle_usd", "waste_usd", "cost_share"}
    | {f"{name}_{end}" for name in COSTS for end in ("low", "high")}
)
"""Columns of a breakdown that are undefined for what has no price."""


class Result:
    """What a scenario did in one or more replications.

    Args:
        scenario: the resolved scenario.
        measurements: one for each replication, at least one.
        backends: what is known of each backend, in the order of the measurements.
        assumptions: sentences to print below the result, besides those of the backends.
        outside: by backend, where it went beyond what its profile was measured on.
        seed: the seed the replications were derived from; None: that of the first.
        drawn: the same replications with step times drawn from the uncertainty of their profiles, one for each of
            `measurements`; empty: intervals hold luck alone.
        calibration: `SAMPLED` or `FIXED` as asked for, `NOTHING` where no backend has a profile that could be drawn.

    Raises:
        ValueError: without a replication, when the backends are not those that were measured, or when `drawn` are not
            the same replications.
    """

    def __init__(
        self,
        scenario: ScenarioLike,
        measurements: Sequence[Measurements],
        backends: Sequence[BackendFacts],
        *,
        assumptions: Sequence[str] = (),
        outside: Mapping[str, Sequence[Outside]] = MappingProxyType({}),
        seed: int | None = None,
        drawn: Sequence[Measurements] = (),
        calibration: str = NOTHING,
    ) -> None:
        if not measurements:
            raise ValueError("a result needs at least one replication")
        names = tuple(facts.name for facts in backends)
        if names != measurements[0].backend_names:
            raise ValueError(f"facts are of {names}, measured was {measurements[0].backend_names}")
        if drawn and [each.seed for each in drawn] != [each.seed for each in measurements]:
            raise ValueError("drawn must be the same replications as measurements, in the same order")
        self.scenario = scenario
        self.measurements = tuple(measurements)
        self.drawn = tuple(drawn)
        self.calibration = calibration
        self.backends = tuple(backends)
        self.seed = measurements[0].seed if seed is None else seed
        self._assumptions = tuple(assumptions)
        self.outside = dict(outside)
        self._rows: dict[str, list[dict[str, Any]]] = {}

    @property
    def replications(self) -> int:
        """Number of replications."""
        return len(self.measurements)

    @property
    def name(self) -> str:
        """The scenario's name, with its variant."""
        return self.scenario.name + (f" [{self.scenario.variant}]" if self.scenario.variant else "")

    @property
    def horizon_s(self) -> float:
        """Simulated time, s."""
        return self.measurements[0].horizon_s

    @cached_property
    def ledgers(self) -> tuple[NDArray[Any], ...]:
        """The ledger of each replication, `simlab.results.ledger.LEDGER_DTYPE`."""
        return tuple(ledger(measured, self.backends) for measured in self.measurements)

    @cached_property
    def _drawn_ledgers(self) -> tuple[NDArray[Any], ...]:
        return tuple(ledger(measured, self.backends) for measured in self.drawn)

    @cached_property
    def values(self) -> dict[str, NDArray[np.float64]]:
        """Every metric in every replication, float64 [replications]; NaN where undefined."""
        return self._values(self.measurements, self.ledgers)

    @cached_property
    def drawn_values(self) -> dict[str, NDArray[np.float64]]:
        """Likewise with drawn step times; where there is nothing to draw, the `values` themselves."""
        return self._values(self.drawn, self._drawn_ledgers) if self.drawn else self.values

    def _values(
        self, measurements: Sequence[Measurements], ledgers: Sequence[NDArray[Any]]
    ) -> dict[str, NDArray[np.float64]]:
        rows = [
            replication_values(measured, self.backends, rows)
            for measured, rows in zip(measurements, ledgers, strict=True)
        ]
        found = {name: np.array([row[name] for row in rows]) for name in METRICS}
        if self.bill_unknown:
            found |= {name: np.full(len(rows), np.nan) for name in COSTS}
        return found

    @cached_property
    def overloads(self) -> NDArray[np.bool_]:
        """Which draws overload which backend that keeps up at the fit, bool [draws, backends]."""
        found = [
            overloaded(drawn) & ~overloaded(fitted)
            for drawn, fitted in zip(self.drawn, self.measurements, strict=False)
        ]
        return np.array(found, bool).reshape(-1, len(self.backends))

    @cached_property
    def one_sided(self) -> NDArray[np.bool_]:
        """Which draws overload any such backend, bool [draws]; see `simlab.results.interval.halves`."""
        return np.asarray(self.overloads.any(axis=1), bool)

    def draws(self, values: NDArray[np.float64]) -> Draws | None:
        """Values of the draws for `student` and `halves`; None without draws."""
        return Draws(values, self.one_sided) if self.drawn else None

    @cached_property
    def unpriced_in_use(self) -> list[str]:
        """The backends without a price that had traffic or were leased: those the bill lacks."""
        return [
            facts.name
            for index, facts in enumerate(self.backends)
            if not facts.priced
            and any(
                rows["attempts"][rows["backend"] == index].any() or leases_billed_s(measured, facts, index) > 0.0
                for measured, rows in zip(self.measurements, self.ledgers, strict=True)
            )
        ]

    @cached_property
    def bill_unknown(self) -> bool:
        """Whether nothing at all is known of the bill: a sum of 0 would be a claim."""
        known = any(rows[name].any() for rows in self.ledgers for name in MONEY)
        return bool(self.unpriced_in_use) and not known

    @cached_property
    def estimates(self) -> dict[str, Estimate]:
        """Every metric with its 95 % interval, in the order of `METRICS`.

        Student's over replications, with calibration error where it was drawn; with one replication from batch means
        over time windows, where they tell.
        """
        found = {
            name: student(
                self.values[name],
                metric.unit,
                resolution=resolution(name),
                draws=self.draws(self.drawn_values[name]),
            )
            for name, metric in METRICS.items()
        }
        if self.replications == 1:
            for name, half in half_widths(self.measurements[0], self.backends).items():
                value = found[name].value
                if value is not None:
                    found[name] = around(value, half, METRICS[name].unit)
        return found

    def __getitem__(self, name: str) -> Estimate:
        """One metric by name, e.g. ``result["ttft_s_p95"].value``."""
        return self.estimates[name]

    def metrics(self) -> pd.DataFrame:
        """The metrics: index ``metric``; columns those of `Estimate`, and ``meaning``."""
        import pandas as pd

        rows = [{"metric": name, **e.as_dict(), "meaning": METRICS[name].meaning} for name, e in self.estimates.items()]
        frame = pd.DataFrame(rows).set_index("metric")
        return frame.astype(dict.fromkeys(("value", "low", "high", "calibration_share"), "float64"))

    def rows(self, key: str) -> list[dict[str, Any]]:
        """The rows of `by` as dictionaries, NaN where undefined."""
        if key not in self._rows:
            rows = rows_of(
                self.measurements,
                self.ledgers,
                self.backends,
                key,
                drawn=tuple(zip(self.drawn, self._drawn_ledgers, strict=True)),
                one_sided=self.one_sided,
            )
            for row in rows:
                unpriced = key == "backend" and row[key] in self.unpriced_in_use and not row["cost_usd"]
                if unpriced or self.bill_unknown:
                    row |= {name: float("nan") for name in row if name in _MONEY_COLUMNS}
            self._rows[key] = rows
        return [dict(row) for row in self._rows[key]]

    def by(self, key: str) -> pd.DataFrame:
        """One row for each name of a key (`simlab.results.keys.KEYS`), means over replications.

        Raises:
            ValueError: for another key.
        """
        import pandas as pd

        return pd.DataFrame(self.rows(key))

    def windows(self) -> pd.DataFrame:
        """The run over time, see `simlab.results.windows.window_columns`; means over replications."""
        import pandas as pd

        return pd.DataFrame(window_columns(self.measurements))

    def ledger(self, replication: int | None = None) -> pd.DataFrame:
        """The bill in rows: who, where, why, attempts by outcome, tokens, and where the money went.

        Args:
            replication: of this one; None: means over all.

        Returns:
            A column for each key but outcome, then meters and money: ``usd`` = ``api_usd`` + ``gpu_usd`` +
            ``operations_usd`` adds up to the bill; ``idle_usd`` and ``waste_…_usd`` are parts of it. Rows without
            traffic and cost are left out.
        """
        import pandas as pd

        chosen = self.ledgers if replication is None else (self.ledgers[replication],)
        first, measured = chosen[0], self.measurements[0]
        columns: dict[str, Any] = {}
        for key in KEYS[:-1]:
            names, place = places(measured, first, self.backends, key)
            columns[key] = [names[i] for i in place]
        for name in (first.dtype.names or ())[len(CELL_KEYS) :]:
            columns[name] = first[name] if len(chosen) == 1 else np.mean([rows[name] for rows in chosen], axis=0)
        frame = pd.DataFrame(columns)
        frame["usd"] = frame[list(MONEY)].sum(axis=1)
        return frame[(frame["attempts"] > 0) | (frame["usd"] > 0)].reset_index(drop=True)

    @cached_property
    def waste(self) -> list[dict[str, Any]]:
        """The money spent in vain by kind: ``what``, ``usd`` and ``share`` of the bill, means over replications."""
        total = float(np.mean([sum(rows[name].sum() for name in MONEY) for rows in self.ledgers]))
        usd = {kind: float(np.mean([rows[f"waste_{kind}_usd"].sum() for rows in self.ledgers])) for kind in WASTE}
        return [
            {"what": kind, "usd": spent, "share": spent / total if total else float("nan")}
            for kind, spent in usd.items()
        ]

    @cached_property
    def caches(self) -> list[dict[str, Any]]:
        """What each cache did and saved, see `simlab.results.savings.cache_rows`."""
        return cache_rows(self.measurements, self.backends)

    @cached_property
    def limits(self) -> list[dict[str, Any]]:
        """What each of the gateway's limits did, see `simlab.results.held.limit_rows`."""
        return limit_rows(self.measurements)

    @cached_property
    def violations(self) -> list[dict[str, Any]]:
        """How often each class came to a limit, cap or budget, see `simlab.results.held.violation_rows`."""
        return violation_rows(self.measurements)

    @cached_property
    def waits(self) -> list[dict[str, Any]]:
        """How long tasks waited at limits, by class, see `simlab.results.held.wait_rows`."""
        return wait_rows(self.measurements)

    @cached_property
    def latency_parts(self) -> list[dict[str, Any]]:
        """Where a P50 and a P95 task of each class spends its time, see `simlab.results.parts.part_rows`."""
        return part_rows(self.measurements, self.drawn, self.draws)

    @cached_property
    def alerts(self) -> list[Alert]:
        """What the scenario's alert rules said, replication by replication; none when it has no rules."""
        rules = self.scenario.alerts
        if rules is None:
            return []
        return [alert for i, measured in enumerate(self.measurements) for alert in alerts(rules, measured, i)]

    @cached_property
    def verdict(self) -> Verdict:
        """Whether the plan holds its SLO and its budget."""
        return verdict(
            self.scenario,
            self._slo_ratio,
            self.estimates["cost_usd_per_month"],
            self.estimates["cost_per_success_usd"],
            [item["backend"] for item in self.unpriced],
            any_success=any(measured.tasks_total["succeeded"].any() for measured in self.measurements),
            patient=self.measurements[0].patient,
        )

    def _slo_ratio(self, name: str) -> Estimate:
        """The share of one class's finished tasks that met their SLO."""
        index = self.measurements[0].class_names.index(name)
        values, drawn = (
            np.array([_good_share(measured.tasks[index]) for measured in runs])
            for runs in (self.measurements, self.drawn)
        )
        return student(values, "ratio", draws=self.draws(drawn))

    @cached_property
    def headline(self) -> str:
        """The result in one sentence."""
        return sentences.headline(self)

    @cached_property
    def assumptions(self) -> list[str]:
        """What was taken for granted, in sentences."""
        return list(dict.fromkeys([*self._assumptions, *sentences.assumptions(self)]))

    @cached_property
    def warnings(self) -> list[str]:
        """What a reader must know before using the numbers, in sentences."""
        return sentences.warnings(self)

    @property
    def profiles(self) -> list[dict[str, Any]]:
        """How fast each backend was taken to be, how well that is known, and where it was used beyond that."""
        return sources.profiles(self.backends, self.outside)

    @property
    def prices(self) -> list[dict[str, Any]]:
        """Each price that was used, with source and date; a pool has ``usd_per_gpu_hour``, an API the token prices."""
        return sources.prices(self.backends)

    @property
    def unpriced(self) -> list[dict[str, str]]:
        """The backends whose use is missing from the bill for want of a price."""
        return sources.unpriced(self.backends)

    def to_dict(self) -> dict[str, Any]:
        """The result as plain JSON values, as `simlab.results.schema.result_schema` describes."""
        data = {
            "schema_version": SCHEMA_VERSION,
            "simlab_version": simlab.__version__,
            "scenario": self.scenario.model_dump(mode="json", by_alias=True),
            "variant": self.scenario.variant,
            "seed": self.seed,
            "replications": self.replications,
            "horizon_s": self.horizon_s,
            "warmup_s": self.measurements[0].warmup_s,
            "headline": self.headline,
            "verdict": {
                "holds": self.verdict.holds,
                "checks": [
                    {
                        "name": check.name,
                        "outcome": check.outcome,
                        "holds": check.holds,
                        "limit": check.limit,
                        **check.value.as_dict(),
                        "sentence": check.sentence,
                    }
                    for check in self.verdict.checks
                ],
            },
            "calibration": {"mode": self.calibration, "draws": len(self.drawn)},
            "metrics": {name: estimate.as_dict() for name, estimate in self.estimates.items()},
            "by": {key: self.rows(key) for key in KEYS},
            "waste": self.waste,
            "caches": self.caches,
            "limits": self.limits,
            "violations": self.violations,
            "waits": self.waits,
            "latency_parts": self.latency_parts,
            "alerts": [alert.as_dict() for alert in self.alerts],
            "warnings": self.warnings,
            "assumptions": self.assumptions,
            "profiles": self.profiles,
            "prices": self.prices,
            "unpriced": self.unpriced,
        }
        plain: dict[str, Any] = finite(data)
        return plain

    def to_json(self) -> str:
        """The result as JSON text; undefined numbers are null."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _good_share(tasks: Any) -> float:
    """The share of a class's finished tasks that met their SLO: none, where tasks arrived and nothing finished."""
    finished = int(tasks["succeeded"] + tasks["failed"])
    return int(tasks["good"]) / finished if finished else 0.0 if tasks["arrived"] else float("nan")


def finite(value: Any) -> Any:
    """A copy of plain data with NaN and infinities as None: JSON has no word for them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value
