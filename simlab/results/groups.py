"""What a class's tasks have in common besides their tenant: tier and version of the prompt, and so the route."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TaskGroups:
    """The groups of tasks that the ledger keeps apart in one class, tier by tier and in each version by version.

    Args:
        tiers: names of the tiers.
        prompt_versions: names of the versions of the prompt.
        routes: for each tenant for each tier the name of the route; one row: the same for all tenants.
    """

    tiers: tuple[str, ...] = ("medium",)
    prompt_versions: tuple[str, ...] = ("v1",)
    routes: tuple[tuple[str, ...], ...] = (("all",),)

    @property
    def count(self) -> int:
        """How many groups there are."""
        return len(self.tiers) * len(self.prompt_versions)

    def tier(self, group: int) -> str:
        """The tier of a group."""
        return self.tiers[group // len(self.prompt_versions)]

    def prompt_version(self, group: int) -> str:
        """The prompt version of a group."""
        return self.prompt_versions[group % len(self.prompt_versions)]

    def route(self, tenant: int, group: int) -> str:
        """The route that tasks of a tenant and group take."""
        row = self.routes[tenant if len(self.routes) > 1 else 0]
        return row[group // len(self.prompt_versions)]


class GroupNames:
    """The names that one key takes for the groups of all classes, and which of them rows belong to.

    Args:
        key: ``"tier"``, ``"route"`` or ``"prompt_version"``.
        groups: of each class.
    """

    def __init__(self, key: str, groups: Sequence[TaskGroups]) -> None:
        names: list[str] = []
        self._first: list[int] = []
        self._by_tenant: list[int] = []
        for of_class in groups:
            tenants = len(of_class.routes) if key == "route" else 1
            self._first.append(len(names))
            self._by_tenant.append(of_class.count if tenants > 1 else 0)
            for tenant in range(tenants):
                for group in range(of_class.count):
                    if key == "route":
                        names.append(of_class.route(tenant, group))
                    else:
                        names.append(of_class.tier(group) if key == "tier" else of_class.prompt_version(group))
        self.names = list(dict.fromkeys(names))
        """The different names, in the order of their first mention."""
        self._code = np.array([self.names.index(name) for name in names], np.int64)

    def of(self, rows: NDArray[Any]) -> NDArray[np.int64]:
        """Where among `names` each row (with fields ``cls``, ``tenant`` and ``group``) belongs."""
        cls = rows["cls"]
        place = np.array(self._first)[cls] + np.array(self._by_tenant)[cls] * rows["tenant"] + rows["group"]
        return np.asarray(self._code[place])
