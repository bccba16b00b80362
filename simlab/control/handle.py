"""What the slow world knows of the fast one: orders it can give and signals it can read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Signals(Protocol):
    """What an operator sees of a pool; see `simlab.engine.PoolSignals`."""

    @property
    def up(self) -> int:
        """Replicas serving."""

    @property
    def starting(self) -> int:
        """Replicas ordered but not ready."""

    @property
    def waiting(self) -> int:
        """Requests waiting for a batch."""

    @property
    def running(self) -> int:
        """Requests in a batch."""

    @property
    def kv_used(self) -> float:
        """Share of KV blocks held by requests."""


class Handle(Protocol):
    """An engine, as operators' processes see it. Pools and replicas go by number."""

    def order_replica(self, pool: int) -> int:
        """Leases a replica; it serves after `replica_ready`."""

    def replica_ready(self, replica: int) -> None:
        """A leased replica starts to serve."""

    def drain_replica(self, replica: int) -> None:
        """Sends a replica nothing new; its lease ends when it is empty."""

    def fail_replica(self, replica: int) -> None:
        """Kills a replica and what it was doing."""

    def set_route(self, cls: int, weights: Sequence[float]) -> None:
        """Sends a class to the backends by these weights."""

    def set_versions(self, cls: int, prompt: int, model: int, corpus: int) -> None:
        """Puts versions of a class's prompt, model and corpus into force."""

    def set_endpoint(self, backend: int, slowdown: float, error_probability: float) -> None:
        """Makes an API endpoint's calls take so many times as long, and fail with this chance."""

    def replicas(self, pool: int) -> list[int]:
        """Numbers of the pool's serving replicas."""

    def signals(self, pool: int) -> Signals:
        """What an operator sees of a pool now."""
