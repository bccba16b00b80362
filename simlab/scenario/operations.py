"""Planned operations on pools: replicas that come, go or fail at a given time."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from simlab.scenario.base import Model
from simlab.scenario.units import Count, Seconds


class Operation(Model):
    """One order to a pool at one time."""

    at: Seconds = Field(ge=0, description="when, s after the start")
    pool: str = Field(min_length=1, description="which pool")
    action: Literal["add", "drain", "fail"] = Field(
        description="add: order replicas (ready after `startup`); drain: finish what they have, then stop; "
        "fail: stop at once"
    )
    replicas: Count = Field(1, ge=1, description="how many")
