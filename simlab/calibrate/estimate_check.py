"""How far estimates are from what was measured: each run is estimated without what was measured of its GPU or model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from simlab.calibrate.judged import Row
from simlab.calibrate.run import Run, Server
from simlab.calibrate.shelf import Shelf, estimate_of
from simlab.calibrate.validate import validate
from simlab.profiles import Profile, gpus, models

Left = Literal["gpu", "model", "both"]
LEFT: tuple[Left, ...] = ("gpu", "model", "both")
"""What is left out of the regression: all profiles of the run's GPU, of its model, or of either."""
METRICS = ("ttft_s_mean", "tpot_s_mean")


@dataclass(frozen=True)
class LeftOut(Shelf):
    """Profiles from which each set-up is estimated, and never looked up.

    Attributes:
        left: what is left out for each.
    """

    left: Left = "gpu"

    def of(self, server: Server) -> Profile | None:
        """None: nothing is looked up."""
        return None

    def find(self, server: Server) -> Profile:
        """The estimate of a set-up from what is not left out.

        Raises:
            InputError: no table knows its model, GPU or precision.
        """
        return estimate_of(server, [one for one in self.profiles if not self._alike(one, server)])

    def _alike(self, one: Profile, server: Server) -> bool:
        same_gpu, same_model = one.gpu == server.gpu, one.model == server.model
        return (same_gpu and self.left != "model") or (same_model and self.left != "gpu")


@dataclass(frozen=True)
class Errors:
    """The errors of a group of estimates in one metric.

    Attributes:
        left: what was left out of the regression.
        group: ``all``, or a set-up.
        metric: one of `METRICS`.
        n: how many numbers.
        median_ape, p90_ape: median and 90th percentile of the absolute percentage error, as shares.
        bias: median of simulated / measured − 1.
        inside: share of what was measured within the 90% interval.
        width: median of the interval's upper end over the estimate, − 1.
    """

    left: Left
    group: str
    metric: str
    n: int
    median_ape: float
    p90_ape: float
    bias: float
    inside: float
    width: float


def check_estimates(
    measured: Sequence[Profile],
    runs: Sequence[Run],
    *,
    left: Sequence[Left] = LEFT,
    workers: int | None = None,
    progress: Callable[[float, float], None] | None = None,
) -> tuple[Errors, ...]:
    """Errors and coverage of estimates of runs, in all and by set-up.

    Args:
        measured: profiles to learn from; those that are not measured are left out.
        runs: what was measured; runs of models and GPUs that no table knows are left out, and so are those at
            saturation, whose times tell of the queue.
        left: what to leave out in turn.
        workers: processes to use; None: one for each core.
        progress: called with runs done and in all, for each of ``left``.
    """
    known = tuple(one for one in measured if one.kind == "measured")
    usable = [run for run in runs if run.server.model in models() and run.server.gpu in gpus()]
    found: list[Errors] = []
    for what in left:
        rows = validate(
            LeftOut("estimates", known, single=False, left=what), usable, workers=workers, progress=progress
        ).rows
        found += summarise(what, [row for row in rows if not row.saturated])
    return tuple(found)


def summarise(left: Left, rows: Sequence[Row]) -> list[Errors]:
    """Errors of rows that have an interval, in all and by set-up."""
    groups = ["all", *sorted({row.setup for row in rows})]
    found = []
    for group in groups:
        for metric in METRICS:
            mine = [row for row in rows if row.metric == metric and group in {"all", row.setup} and row.high]
            if not mine:
                continue
            apes = np.array([row.ape for row in mine])
            found.append(
                Errors(
                    left=left,
                    group=group,
                    metric=metric,
                    n=len(mine),
                    median_ape=float(np.median(apes)),
                    p90_ape=float(np.quantile(apes, 0.9)),
                    bias=float(np.median([row.simulated / row.measured - 1.0 for row in mine])),
                    inside=float(np.mean([bool(row.inside) for row in mine])),
                    width=float(np.median([(row.high or 0.0) / row.simulated - 1.0 for row in mine])),
                )
            )
    return found


def profile_errors(found: Sequence[Errors]) -> Mapping[str, float]:
    """What an estimated profile says of its error (`profiles.estimates.known_errors`): GPUs left out, all runs."""
    return {
        f"{one.metric.split('_s_')[0]}_other_hardware_{key}": round(value, 4)
        for one in found
        if one.left == "gpu" and one.group == "all"
        for key, value in (("median_ape", one.median_ape), ("p90_ape", one.p90_ape))
    }
