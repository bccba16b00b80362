"""Distributions as a scenario writes them: a plain quantity (always that), or a kind with its parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar

from pydantic import BeforeValidator, Field

from simlab.scenario.base import Fault, Model
from simlab.scenario.units import Number, Probability, Quantity, Seconds, TokenCount

if TYPE_CHECKING:
    from simlab.draws import Distribution

Q = TypeVar("Q")

LOGNORMAL_P95_OVER_MEAN = math.exp(1.6448536269514722**2 / 2.0)
"""The largest p95 / mean a lognormal can have: p95/mean = exp(z s - s^2/2) is largest at s = z = 1.645."""


class _Kind(Model, Generic[Q]):
    @classmethod
    def model_parametrized_name(cls, params: tuple[Any, ...]) -> str:
        # A name of its own for each unit: results are pickled between processes, and a class is pickled by its name.
        names = [mark.name for mark in getattr(params[0], "__metadata__", ()) if isinstance(mark, Quantity)]
        return f"{cls.__name__}{''.join(names)}"


class Fixed(_Kind[Q]):
    """Always the same value; a bare quantity means this."""

    kind: Literal["fixed"] = Field("fixed", description="fixed: always the same value")
    value: Annotated[Q, Field(ge=0)] = Field(description="the value")

    def distribution(self) -> Distribution:
        """The same as data a kernel can draw from."""
        from simlab.draws import Distribution

        return Distribution.fixed(_number(self.value))


class Exponential(_Kind[Q]):
    """Exponential: the memoryless one."""

    kind: Literal["exponential"] = Field(description="exponential: memoryless, coefficient of variation 1")
    mean: Annotated[Q, Field(gt=0)] = Field(description="mean")

    def distribution(self) -> Distribution:
        """The same as data a kernel can draw from."""
        from simlab.draws import Distribution

        return Distribution.exponential(_number(self.mean))


class Geometric(_Kind[Q]):
    """Geometric on 1, 2, 3, …: stop with equal probability after each."""

    kind: Literal["geometric"] = Field(description="geometric: whole numbers from 1, equal chance to stop after each")
    mean: Annotated[Q, Field(ge=1)] = Field(description="mean, at least 1")

    def distribution(self) -> Distribution:
        """The same as data a kernel can draw from."""
        from simlab.draws import Distribution

        return Distribution.geometric(_number(self.mean))


class Lognormal(_Kind[Q]):
    """Lognormal by its mean and 95th percentile."""

    kind: Literal["lognormal"] = Field(description="lognormal: skewed to the right, as lengths and latencies are")
    mean: Annotated[Q, Field(gt=0)] = Field(description="mean (before `max` cuts the tail)")
    p95: Annotated[Q, Field(gt=0)] = Field(description="95th percentile: above the mean, at most 3.86 times it")
    max: Annotated[Q, Field(gt=0)] | None = Field(None, description="draws above this become this; none: no limit")

    def checks(self) -> Iterator[Fault]:
        """A lognormal's p95 lies above its mean and at most exp(1.645^2 / 2) = 3.87 times above it."""
        mean, p95 = _number(self.mean), _number(self.p95)
        if not mean < p95 <= mean * LOGNORMAL_P95_OVER_MEAN:
            yield Fault(
                ("p95",),
                f"no lognormal has mean {mean:g} and p95 {p95:g}: p95 must lie above the mean and at most "
                f"{LOGNORMAL_P95_OVER_MEAN:.2f} times it, i.e. in ({mean:g}, {mean * LOGNORMAL_P95_OVER_MEAN:g}]; "
                "use kind: empirical for another shape",
            )
        if self.max is not None and _number(self.max) < mean:
            yield Fault(("max",), f"max {_number(self.max):g} is below the mean {mean:g}; raise it or leave it out")

    def distribution(self) -> Distribution:
        """The same as data a kernel can draw from."""
        from simlab.draws import Distribution

        high = math.inf if self.max is None else _number(self.max)
        return Distribution.lognormal(_number(self.mean), _number(self.p95), high=high)


class Empirical(_Kind[Q]):
    """A table of quantiles, straight lines in between."""

    kind: Literal["empirical"] = Field(description="empirical: quantiles as measured, straight lines in between")
    quantiles: dict[Probability, Annotated[Q, Field(ge=0)]] = Field(
        description="value at each probability, e.g. {0: 10, p50: 120, p95: 900, 1: 4000}; 0 and 1 are extended from "
        "the outermost",
        min_length=2,
    )

    def checks(self) -> Iterator[Fault]:
        """Quantiles never fall as the probability rises."""
        rows = sorted((p, _number(value)) for p, value in self.quantiles.items())
        for (low_p, low), (high_p, high) in pairwise(rows):
            if high < low:
                yield Fault(
                    ("quantiles",),
                    f"the value at {high_p:g} is {high:g}, below {low:g} at {low_p:g}; quantiles must not fall",
                )

    def distribution(self) -> Distribution:
        """The same as data a kernel can draw from."""
        from simlab.draws import Distribution

        return Distribution.empirical({p: _number(value) for p, value in self.quantiles.items()})


def _number(value: Any) -> float:
    return float(value)


def _bare(raw: Any) -> Any:
    return {"kind": "fixed", "value": raw} if isinstance(raw, int | float | str) and not isinstance(raw, bool) else raw


_SecondsKinds = Annotated[
    Fixed[Seconds] | Exponential[Seconds] | Lognormal[Seconds] | Empirical[Seconds], Field(discriminator="kind")
]
_TokensKinds = Annotated[
    Fixed[TokenCount] | Exponential[TokenCount] | Geometric[TokenCount] | Lognormal[TokenCount] | Empirical[TokenCount],
    Field(discriminator="kind"),
]
_NumberKinds = Annotated[
    Fixed[Number] | Exponential[Number] | Geometric[Number] | Lognormal[Number] | Empirical[Number],
    Field(discriminator="kind"),
]

SecondsDist = Annotated[_SecondsKinds, BeforeValidator(_bare, json_schema_input_type=Seconds | _SecondsKinds)]
"""A duration that varies, in seconds."""

TokensDist = Annotated[_TokensKinds, BeforeValidator(_bare, json_schema_input_type=TokenCount | _TokensKinds)]
"""A number of tokens that varies."""

NumberDist = Annotated[_NumberKinds, BeforeValidator(_bare, json_schema_input_type=Number | _NumberKinds)]
"""A plain number that varies, such as the turns of a conversation."""

Dist = SecondsDist | TokensDist | NumberDist
"""Any of them, for annotations; each has ``distribution()``."""
