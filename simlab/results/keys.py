"""What a result can be broken down by: the names a key takes, and which of them each ledger row belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simlab.results.facts import BackendFacts
from simlab.results.groups import GroupNames
from simlab.results.ledger import NOBODY
from simlab.results.measurements import REASONS, Measurements

KEYS = (
    "backend",
    "feature",
    "class",
    "tenant",
    "tier",
    "route",
    "prompt_version",
    "provider",
    "model",
    "reason",
    "outcome",
)
"""What a result can be broken down by; a tenant is named ``class/t0``."""

OF_BACKEND = ("backend", "provider", "model")
"""Keys that are the backend's."""

OF_CLASS = ("feature", "class")
"""Keys that are the workload class's."""

UNUSED = "(unused)"
"""Feature, class, tenant … of money that was spent on a pool which served nobody."""

Indices = NDArray[np.int64]


def check(key: str) -> None:
    """Lets a key of `KEYS` pass.

    Raises:
        ValueError: for another.
    """
    if key not in KEYS:
        raise ValueError(f"a result is broken down by one of {', '.join(KEYS)}, not by {key!r}")


def of_backends(facts: Sequence[BackendFacts], key: str) -> list[str]:
    """The name that a key of `OF_BACKEND` takes for each backend."""
    if key == "backend":
        return [backend.name for backend in facts]
    if key == "provider":
        return [backend.provider or "unknown" for backend in facts]
    return [backend.model or "unknown" for backend in facts]


def of_classes(measured: Measurements, key: str) -> list[str]:
    """The name that a key of `OF_CLASS` takes for each class."""
    return list(measured.class_names if key == "class" else measured.class_features)


def places(
    measured: Measurements, rows: NDArray[Any], backends: Sequence[BackendFacts], key: str
) -> tuple[list[str], Indices]:
    """The names a key takes, in order, `UNUSED` last where money can be nobody's, and the place of each row among them.

    Args:
        measured: the run.
        rows: with the fields of `CELL_KEYS`, at least those the key needs.
        backends: the backends, in order.
        key: one of `KEYS` but ``"outcome"``, of which a row has several.
    """
    if key in OF_BACKEND:
        names, of_each = numbered(of_backends(backends, key))
        return names, of_each[rows["backend"]]
    if key == "reason":
        return [*REASONS, UNUSED], np.where(rows["cls"] == NOBODY, len(REASONS), rows["reason"]).astype(np.int64)
    if key in OF_CLASS:
        names, of_each = numbered(of_classes(measured, key))
        return [*names, UNUSED], np.append(of_each, len(names))[rows["cls"]]
    if key == "tenant":
        pairs = zip(measured.class_names, measured.tenants_of_class, strict=True)
        names = [f"{name}/t{tenant}" for name, count in pairs for tenant in range(count)]
        first = np.concatenate(([0], np.cumsum(measured.tenants_of_class)))
        return [*names, UNUSED], np.where(rows["cls"] == NOBODY, len(names), first[rows["cls"]] + rows["tenant"])
    known = GroupNames(key, measured.groups_of_classes)
    nobody = rows["cls"] == NOBODY
    place = np.full(len(rows), len(known.names), np.int64)
    place[~nobody] = known.of(rows[~nobody])
    return [*known.names, UNUSED], place


def numbered(names: Sequence[str]) -> tuple[list[str], Indices]:
    """The different names in the order of their first mention, and the place of each among them."""
    distinct = list(dict.fromkeys(names))
    return distinct, np.array([distinct.index(name) for name in names], np.int64)
