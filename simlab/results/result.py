"""The answer of a simulation: metrics with intervals, breakdowns, windows, ledger and a verdict."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import simlab
from simlab.results import words
from simlab.results.batches import half_widths
from simlab.results.breakdown import KEYS, UNUSED, rows_of
from simlab.results.facts import BackendFacts, ScenarioLike
from simlab.results.interval import Estimate, around, student
from simlab.results.ledger import HOURS_PER_MONTH, MONEY, leases_billed_s, ledger
from simlab.results.measurements import Measurements
from simlab.results.metrics import COSTS, METRICS, replication_values, resolution
from simlab.results.verdict import Verdict, verdict
from simlab.results.windows import window_columns

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1
"""Version of the result JSON; raised when a reader of the old one would be misled."""

_MONEY_COLUMNS = frozenset(
    {*COSTS, *MONEY, "idle_usd", "cost_share"} | {f"{name}_{end}" for name in COSTS for end in ("low", "high")}
)
"""Columns of a breakdown that are undefined for what has no price."""


class Result:
    """What a scenario did in one or more replications.

    Args:
        scenario: the resolved scenario.
        measurements: one for each replication, at least one.
        backends: what is known of each backend, in the order of the measurements.
        assumptions: sentences to print below the result, besides those of the backends.
        seed: the seed the replications were derived from; None: that of the first.

    Raises:
        ValueError: without a replication, or when the backends are not those that were measured.
    """

    def __init__(
        self,
        scenario: ScenarioLike,
        measurements: Sequence[Measurements],
        backends: Sequence[BackendFacts],
        *,
        assumptions: Sequence[str] = (),
        seed: int | None = None,
    ) -> None:
        if not measurements:
            raise ValueError("a result needs at least one replication")
        names = tuple(facts.name for facts in backends)
        if names != measurements[0].backend_names:
            raise ValueError(f"facts are of {names}, measured was {measurements[0].backend_names}")
        self.scenario = scenario
        self.measurements = tuple(measurements)
        self.backends = tuple(backends)
        self.seed = measurements[0].seed if seed is None else seed
        self._assumptions = tuple(assumptions)
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
    def values(self) -> dict[str, NDArray[np.float64]]:
        """Every metric in every replication, float64 [replications]; NaN where undefined."""
        rows = [
            replication_values(measured, self.backends, rows)
            for measured, rows in zip(self.measurements, self.ledgers, strict=True)
        ]
        found = {name: np.array([row[name] for row in rows]) for name in METRICS}
        if self._bill_unknown:
            found |= {name: np.full(self.replications, np.nan) for name in COSTS}
        return found

    @cached_property
    def _unpriced_in_use(self) -> list[str]:
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
    def _bill_unknown(self) -> bool:
        """Whether nothing at all is known of the bill: a sum of 0 would be a claim."""
        known = any(rows[name].any() for rows in self.ledgers for name in MONEY)
        return bool(self._unpriced_in_use) and not known

    @cached_property
    def estimates(self) -> dict[str, Estimate]:
        """Every metric with its 95 % interval, in the order of `METRICS`.

        Student's over replications; with one replication from batch means over time windows, where they tell.
        """
        found = {
            name: student(self.values[name].tolist(), metric.unit, resolution=resolution(name))
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
        """The metrics: index ``metric``; columns ``value``, ``low``, ``high`` (95 %), ``unit``, ``meaning``."""
        import pandas as pd

        rows = [{"metric": name, **e.as_dict(), "meaning": METRICS[name].meaning} for name, e in self.estimates.items()]
        frame = pd.DataFrame(rows).set_index("metric")
        return frame.astype({"value": "float64", "low": "float64", "high": "float64"})

    def rows(self, key: str) -> list[dict[str, Any]]:
        """The rows of `by` as dictionaries, NaN where undefined."""
        if key not in self._rows:
            rows = rows_of(self.measurements, self.ledgers, self.backends, key)
            for row in rows:
                unpriced = key == "backend" and row[key] in self._unpriced_in_use and not row["cost_usd"]
                if unpriced or self._bill_unknown:
                    row |= {name: float("nan") for name in row if name in _MONEY_COLUMNS}
            self._rows[key] = rows
        return [dict(row) for row in self._rows[key]]

    def by(self, key: str) -> pd.DataFrame:
        """One row for each ``"backend"``, ``"feature"``, ``"class"`` or ``"tenant"``, means over replications.

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
        """The bill in rows: class, feature, tenant, backend, attempts by outcome, tokens, and where the money went.

        Args:
            replication: of this one; None: means over all.

        Returns:
            ``usd`` = ``api_usd`` + ``gpu_usd`` + ``operations_usd`` adds up to the bill; ``idle_usd`` is a part of
            ``gpu_usd``. Rows without traffic and cost are left out.
        """
        import pandas as pd

        chosen = self.ledgers if replication is None else (self.ledgers[replication],)
        first, measured = chosen[0], self.measurements[0]
        classes = [*measured.class_names, UNUSED]
        features = [*measured.class_features, UNUSED]
        columns: dict[str, Any] = {
            "class": [classes[i] for i in first["cls"]],
            "feature": [features[i] for i in first["cls"]],
            "tenant": [f"t{i}" if i >= 0 else UNUSED for i in first["tenant"]],
            "backend": [measured.backend_names[i] for i in first["backend"]],
        }
        for name in (first.dtype.names or ())[3:]:
            columns[name] = chosen[0][name] if len(chosen) == 1 else np.mean([rows[name] for rows in chosen], axis=0)
        frame = pd.DataFrame(columns)
        frame["usd"] = frame[list(MONEY)].sum(axis=1)
        return frame[(frame["attempts"] > 0) | (frame["usd"] > 0)].reset_index(drop=True)

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
        )

    def _slo_ratio(self, name: str) -> Estimate:
        """The share of one class's finished tasks that met their SLO."""
        index = self.measurements[0].class_names.index(name)
        values = []
        for measured in self.measurements:
            tasks = measured.tasks[index]
            finished = int(tasks["succeeded"] + tasks["failed"])
            values.append(int(tasks["good"]) / finished if finished else 0.0 if tasks["arrived"] else float("nan"))
        return student(values, "ratio")

    @cached_property
    def headline(self) -> str:
        """The result in one sentence."""
        value = {name: estimate.value for name, estimate in self.estimates.items()}
        names = ", ".join(self._unpriced_in_use)
        least, lacking = ("at least ", f": no price for {names}") if names else ("", "")
        if not value["tasks"]:
            bill = "unknown" if self._bill_unknown else f"{least}{words.usd(value['cost_usd'])}"
            return f"{self.name}: no task arrived; the bill is {bill}{lacking}."
        traffic = f"{words.digits((value['arrival_rate_rps'] or 0.0) * 3600.0)} tasks/h"
        if self._bill_unknown:
            parts = [traffic, f"cost unknown{lacking}"]
        else:
            parts = [
                f"{traffic}{', at least' if names else ' at'} "
                f"{words.usd(value['cost_per_success_usd'])} per successful task"
                f" ({least}{words.usd(value['cost_usd_per_month'])} a month{lacking})"
            ]
        ttft = self.estimates["ttft_s_p95"]
        latency = "no task finished"
        if ttft.value is not None:
            ends = words.interval(ttft)
            latency = f"p95 TTFT {words.number(ttft.value, 's')}" + (f" ({ends})" if ends else "")
        share, noun = (value["slo_ratio"], "meet the SLO") if self._has_slo else (value["success_ratio"], "succeed")
        parts.append(f"{latency}, {words.percent(share)} {noun}")
        if value["gpu_utilization"] is not None:
            parts.append(f"GPUs running {value['gpu_utilization']:.0%} of the time")
        return f"{self.name}: {'; '.join(parts)}."

    @property
    def _has_slo(self) -> bool:
        return any((workload.slo or self.scenario.slo) is not None for workload in self.scenario.workload.values())

    @cached_property
    def assumptions(self) -> list[str]:
        """What was taken for granted, in sentences."""
        found = [*self._assumptions]
        for facts in self.backends:
            found += [f"{facts.name}: {sentence}" for sentence in facts.assumptions]
        warmup_s = self.measurements[0].warmup_s
        if warmup_s > 0:
            found.append(
                f"the first {words.duration(warmup_s)} are warm-up: in the bill and in token totals, not in latencies, "
                "tasks and rates"
            )
        if self.estimates["gpu_utilization"].value is not None:
            found.append(
                "GPUs run while a step does, however few requests are in its batch: 100% of the time is not yet the "
                "most they can serve"
            )
        if self.replications == 1:
            found.append(
                "one replication: intervals are batch means over its time windows, where windows tell; metrics without "
                "one have an unknown spread (more replications give it)"
            )
        tasks, left = self.estimates["tasks"].value, self.estimates["in_flight"].value
        if tasks and left and left > 0.02 * tasks:
            found.append(
                f"{words.percent(left / tasks)} of the tasks were still unfinished at the horizon; their latencies are "
                "not counted"
            )
        found.append(f"a month has {HOURS_PER_MONTH:.0f} h; the run's bill is stretched to it")
        return list(dict.fromkeys(found))

    @property
    def profiles(self) -> list[dict[str, str]]:
        """How fast each backend was taken to be, and how well that is known."""
        return [
            {
                "backend": facts.name,
                "model": facts.model,
                "gpu": facts.gpu,
                "name": facts.profile.name,
                "kind": facts.profile.kind,
                "error": facts.profile.error,
                "source": facts.profile.source,
            }
            for facts in self.backends
            if facts.profile is not None
        ]

    @property
    def prices(self) -> list[dict[str, Any]]:
        """Each price that was used, with source and date; a pool has ``usd_per_gpu_hour``, an API the token prices."""
        found: list[dict[str, Any]] = []
        for facts in self.backends:
            if not facts.priced:
                continue
            price: dict[str, Any] = {"backend": facts.name, "source": facts.price_source, "as_of": facts.price_as_of}
            if facts.token_prices is None:
                price |= {"gpu": facts.gpu, "usd_per_gpu_hour": facts.usd_per_gpu_hour}
            else:
                input_usd, cached_usd, output_usd = facts.token_prices.base
                price |= {
                    "model": facts.model,
                    "input_usd_per_mtok": input_usd,
                    "cached_input_usd_per_mtok": cached_usd,
                    "output_usd_per_mtok": output_usd,
                }
                if facts.token_prices.long_threshold_tokens is not None:
                    long_input, long_cached, long_output = facts.token_prices.long
                    price |= {
                        "long_threshold_tokens": facts.token_prices.long_threshold_tokens,
                        "long_input_usd_per_mtok": long_input,
                        "long_cached_input_usd_per_mtok": long_cached,
                        "long_output_usd_per_mtok": long_output,
                    }
            found.append(price)
        return found

    @property
    def unpriced(self) -> list[dict[str, str]]:
        """The backends whose use is missing from the bill for want of a price."""
        return [
            {"backend": facts.name, "what": f"{facts.gpu or 'GPU'} hours" if facts.kind == "pool" else facts.model}
            for facts in self.backends
            if not facts.priced
        ]

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
            "metrics": {name: estimate.as_dict() for name, estimate in self.estimates.items()},
            "by": {key: self.rows(key) for key in KEYS},
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


def finite(value: Any) -> Any:
    """A copy of plain data with NaN and infinities as None: JSON has no word for them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value
