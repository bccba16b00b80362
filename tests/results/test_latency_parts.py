"""The parts of a quantile, against tasks sorted one by one."""

from __future__ import annotations

import numpy as np
import pytest

from simlab.engine import arrays as a
from simlab.results.measurements import COARSE_BUCKETS, COARSE_FACTOR, bucket_of
from simlab.results.parts import BAND, PARTS, parts_at


def test_the_parts_are_the_engines_columns() -> None:
    names = ["TASKS", *(name.upper() for name in PARTS)]
    assert [getattr(a, f"SPAN_{name}") for name in names] == list(range(a.SPANS))


def test_parts_of_equal_tasks_are_those_of_each() -> None:
    spans = np.zeros((COARSE_BUCKETS, 1 + len(PARTS)))
    spans[100] = 7.0 * np.arange(1 + len(PARTS))
    spans[100, 0] = 7.0
    for q in (0.0, 0.5, 0.95, 1.0):
        assert parts_at(spans, q) == pytest.approx(np.arange(1, 1 + len(PARTS)))


def test_nothing_has_no_parts() -> None:
    assert np.isnan(parts_at(np.zeros((COARSE_BUCKETS, 1 + len(PARTS))), 0.5)).all()


@pytest.mark.parametrize("q", [0.5, 0.95])
def test_parts_are_those_of_the_tasks_around_the_quantile(q: float) -> None:
    """Against the tasks themselves, sorted: what the buckets can be off by is their width, 10%."""
    rng = np.random.default_rng(3)
    n = 20_000
    queue, model = rng.exponential(1.0, n), rng.uniform(0.2, 0.4, n)
    e2e = queue + model
    spans = np.zeros((COARSE_BUCKETS, 1 + len(PARTS)))
    at = np.array([bucket_of(x) // COARSE_FACTOR for x in e2e])
    np.add.at(spans[:, 0], at, 1.0)
    np.add.at(spans[:, a.SPAN_QUEUE], at, queue)
    np.add.at(spans[:, a.SPAN_MODEL], at, model)
    found = parts_at(spans, q)
    assert spans[:, 1:].sum() == pytest.approx(e2e.sum())
    order = np.argsort(e2e)
    around = order[int((q - BAND) * n) : int((q + BAND) * n)]
    assert found[a.SPAN_QUEUE - 1] == pytest.approx(queue[around].mean(), rel=0.05)
    assert found[a.SPAN_MODEL - 1] == pytest.approx(model[around].mean(), rel=0.05)
    assert found.sum() == pytest.approx(np.quantile(e2e, q), rel=0.08)
