"""What somebody wants to be told while the money is being spent: rules on the stream of calls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from simlab.scenario.base import Fault, Model
from simlab.scenario.units import DAY_S, HOUR_S, WEEK_S, Count, Factor, Ratio, Seconds


class Alerts(Model):
    """Rules that look at each window of the run when it ends; a rule that is null is off."""

    window: Annotated[Seconds, Field(gt=0)] = Field(HOUR_S, description="how often the rules look, s")
    least_calls: Count = Field(
        50, ge=1, description="windows with fewer calls (lookups, for cache hits) say nothing about shares"
    )
    tenant_spend: Annotated[Factor, Field(gt=1)] | None = Field(
        10.0, description="a tenant spent more than this many times the median of the tenants that spent in the window"
    )
    call_cost: Annotated[Factor, Field(gt=1)] | None = Field(
        2.0, description="a feature's cost per call over the last `period` is this many times that of the one before"
    )
    period: Annotated[Seconds, Field(gt=0)] = Field(WEEK_S, description="for call_cost: what is compared, s")
    cache_drop: Annotated[Ratio, Field(gt=0)] | None = Field(
        0.3, description="a cache's hit ratio fell by more than this share of its mean over `baseline`"
    )
    errors: Annotated[Ratio, Field(gt=0)] | None = Field(
        0.1, description="a backend's share of failed and timed-out attempts rose by more than this over `baseline`"
    )
    refusals: Annotated[Ratio, Field(gt=0)] | None = Field(
        0.1, description="a backend's share of refused attempts (429, or turned away) rose by more than this likewise"
    )
    baseline: Annotated[Seconds, Field(gt=0)] = Field(
        DAY_S, description="for the three above: the time before the window that it is compared with, s"
    )
    spend_sd: Annotated[Factor, Field(gt=0)] | None = Field(
        4.0,
        description="spending is above the mean of the same time of the days before by this many of their standard "
        "deviations (taken as at least a tenth of the mean); it takes three days to know them",
    )

    def checks(self) -> Iterator[Fault]:
        """What is compared is longer than what it is compared by."""
        for name in ("period", "baseline"):
            value = getattr(self, name)
            if value < self.window:
                yield Fault((name,), f"read {value:g} s, shorter than a window ({self.window:g} s); raise it")
