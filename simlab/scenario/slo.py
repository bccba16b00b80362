"""What is promised: service level objectives and budgets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from simlab.scenario.base import Fault, Model
from simlab.scenario.units import Ratio, Seconds, Usd, UsdPerMonth


class Slo(Model):
    """Latency objectives; a task is good when it meets all that are given."""

    ttft: Annotated[Seconds, Field(gt=0)] | None = Field(
        None, description="time to first token, from arrival at the gateway, s; none: no objective"
    )
    itl: Annotated[Seconds, Field(gt=0)] | None = Field(
        None, description="mean time per output token after the first, s; none: no objective"
    )
    e2e: Annotated[Seconds, Field(gt=0)] | None = Field(
        None, description="arrival to last token, s; none: no objective"
    )
    target: Ratio = Field(0.95, description="share of tasks that must meet all of them")

    def checks(self) -> Iterator[Fault]:
        """At least one objective; and a request is not done before its first token."""
        if self.ttft is None and self.itl is None and self.e2e is None:
            yield Fault((), "no objective is given; give at least one of ttft, itl, e2e")
        if self.ttft is not None and self.e2e is not None and self.e2e < self.ttft:
            yield Fault(("e2e",), f"read {self.e2e:g} s, below ttft ({self.ttft:g} s); e2e includes the first token")


class Budget(Model):
    """What may be spent."""

    usd_per_month: Annotated[UsdPerMonth, Field(gt=0)] | None = Field(
        None, description="bill of the whole scenario, scaled to a month of 730 h, USD; none: no limit"
    )
    usd_per_success: Annotated[Usd, Field(gt=0)] | None = Field(
        None, description="cost per successful task, USD; none: no limit"
    )

    def checks(self) -> Iterator[Fault]:
        """At least one limit."""
        if self.usd_per_month is None and self.usd_per_success is None:
            yield Fault((), "no limit is given; give usd_per_month or usd_per_success")
