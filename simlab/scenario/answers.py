"""What a model's answers are worth: the chance that one is right, by tier and difficulty of the task."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from simlab.scenario.base import Fault, Model
from simlab.scenario.units import Factor, Ratio


class Logistic(Model):
    """A chance that falls with difficulty along a logistic curve (item response theory, with floor and ceiling)."""

    kind: Literal["logistic"] = Field(description="logistic: floor + (ceiling − floor) / (1 + e^(slope·(d − skill)))")
    skill: Factor = Field(description="difficulty d at which the chance is halfway between floor and ceiling")
    slope: Factor = Field(10.0, gt=0, description="how sharply it falls there")
    floor: Ratio = Field(0.0, description="chance of the hardest tasks")
    ceiling: Ratio = Field(1.0, description="chance of the easiest tasks")

    def checks(self) -> Iterator[Fault]:
        """The floor lies below the ceiling."""
        if self.floor > self.ceiling:
            yield Fault(("floor",), f"read {self.floor:g}, above ceiling ({self.ceiling:g}); lower it")

    def at(self, difficulty: float) -> float:
        """The chance at a difficulty."""
        x = min(max(self.slope * (difficulty - self.skill), -700.0), 700.0)
        return self.floor + (self.ceiling - self.floor) / (1.0 + math.exp(x))


class Curve(Model):
    """A chance given at some difficulties, with straight lines in between."""

    kind: Literal["table"] = Field(description="table: as measured")
    at_difficulty: dict[Ratio, Ratio] = Field(
        description="chance by difficulty, e.g. {0: 0.98, 0.5: 0.9, 1: 0.4}", min_length=1
    )

    def at(self, difficulty: float) -> float:
        """The chance at a difficulty; level outside the table."""
        points = sorted(self.at_difficulty.items())
        below = [point for point in points if point[0] <= difficulty]
        above = [point for point in points if point[0] > difficulty]
        if not below or not above:
            return (below[-1] if below else above[0])[1]
        (x0, y0), (x1, y1) = below[-1], above[0]
        return y0 + (difficulty - x0) * (y1 - y0) / (x1 - x0)


class Constant(Model):
    """The same chance at any difficulty."""

    kind: Literal["constant"] = Field(description="constant: the same for easy and hard tasks")
    chance: Ratio = Field(description="chance of a right answer")

    def at(self, difficulty: float) -> float:
        """The chance."""
        del difficulty
        return self.chance


def _bare(raw: Any) -> Any:
    number = isinstance(raw, int | float | str) and not isinstance(raw, bool)
    return {"kind": "constant", "chance": raw} if number else raw


_Kinds = Annotated[Constant | Curve | Logistic, Field(discriminator="kind")]
Chance = Annotated[_Kinds, BeforeValidator(_bare, json_schema_input_type=Ratio | _Kinds)]
"""A chance of a right answer, against difficulty."""


class AnswerModel(Model):
    """A model as a source of answers, wherever it runs."""

    quality: Chance = Field(
        Constant(kind="constant", chance=1.0), description="chance of a right answer in every tier that has none below"
    )
    by_tier: dict[str, Chance] = Field({}, description="chance of a right answer by tier of the task")

    def chance(self, tier: str, difficulty: float) -> float:
        """The chance of a right answer to a task."""
        return self.by_tier.get(tier, self.quality).at(difficulty)
