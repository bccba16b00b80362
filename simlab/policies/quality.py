"""What answers are worth, as tables over difficulty."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simlab.engine import QUALITY_POINTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from simlab.scenario import Scenario

_DIFFICULTIES = np.linspace(0.0, 1.0, QUALITY_POINTS)


def models_of(scenario: Scenario) -> list[str]:
    """The model behind each backend, in order."""
    apis = (*scenario.apis.values(), *scenario.batch_endpoints.values())
    return [*(pool.model for pool in scenario.pools.values()), *(api.model for api in apis)]


def model_numbers(scenario: Scenario) -> list[int]:
    """A number for the model behind each backend: the same model is right about the same tasks wherever it runs."""
    names = models_of(scenario)
    distinct = list(dict.fromkeys(names))
    return [distinct.index(name) for name in names]


def tables(
    scenario: Scenario, name: str, n_backends: int, stated: Mapping[int, float]
) -> list[list[list[float]]]:
    """For each tier of class ``name``, for each backend, the chance of a right answer at `QUALITY_POINTS` difficulties.

    Empty when no model has a stated quality. Backends behind the scenario's own (caches, helpers) are always right,
    but those whose chance is ``stated`` by index.
    """
    if not scenario.models and not stated:
        return []
    models: list[str | None] = [*models_of(scenario)]
    models += [None] * (n_backends - len(models))
    found = []
    for tier in scenario.workload[name].task.shares:
        rows = []
        for index, model in enumerate(models):
            worth = None if model is None else scenario.models.get(model)
            same = stated.get(index, 1.0)
            rows.append([same if worth is None else worth.chance(tier, float(d)) for d in _DIFFICULTIES])
        found.append(rows)
    return found
