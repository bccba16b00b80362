"""What the arrays of a world say of work that may wait, filled from its specification."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from simlab.engine.spec import ApiSpec

if TYPE_CHECKING:
    from simlab.engine.spec import WorldSpec


def set_offline(
    spec: WorldSpec, classes: NDArray[Any], policies: NDArray[Any], backends: NDArray[Any]
) -> None:
    """Writes deadlines to the policies, who is patient to the classes, and batches to the endpoints that take them."""
    for record, cls in zip(classes, spec.classes, strict=True):
        record["patient"] = cls.patient
    policies["deadline_s"] = math.inf
    for record, policy in zip(policies, spec.policies, strict=False):
        if policy is not None:
            record["deadline_s"] = policy.deadline_s
    for record, backend in zip(backends, spec.backends, strict=True):
        if isinstance(backend, ApiSpec) and backend.batch is not None:
            batch = backend.batch
            record["batch"], record["batch_requests"] = 1, batch.requests
            record["batch_window_s"], record["collect_s"] = batch.window_s, batch.collect_s
            record["max_queued_tokens"], record["reject_full"] = batch.queued_tokens, 0
