"""Histograms and windows against their slow twins."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simlab.draws import Distribution
from simlab.engine import ClassSpec, Engine, PoolSpec, StepCoefficients, WorldSpec, meters
from simlab.results import measurements as m

quick = settings(deadline=None, max_examples=200)
times = st.one_of(st.floats(1e-9, 1e7), st.integers(0, 3000).map(lambda i: m.HIST_LOW_S * m.HIST_GAMMA**i))


def engine(horizon_s: float = 10.0, window_s: float = 1.0) -> Engine:
    """An idle world with meters to fill."""
    one = Distribution.fixed(1.0)
    return Engine(
        WorldSpec(
            classes=[ClassSpec(users=1, think=Distribution.fixed(1e9), prompt=one, output=one)],
            backends=[PoolSpec(step=StepCoefficients(base_s=0.01))],
            horizon_s=horizon_s,
            window_s=window_s,
        )
    )


def test_the_engine_and_the_results_mean_the_same_histogram() -> None:
    assert meters.HIST_LOW_S == m.HIST_LOW_S
    assert meters.HIST_GAMMA == m.HIST_GAMMA
    assert meters.HIST_BUCKETS == m.HIST_BUCKETS
    assert meters.COARSE == m.COARSE_FACTOR
    assert tuple(
        m.HIST_METRICS.index(name) for name in ("ttft", "itl", "tpot", "e2e")
    ) == (meters.TTFT, meters.ITL, meters.TPOT, meters.E2E)


def test_the_meters_have_the_fields_that_results_read() -> None:
    w = engine().world
    for array, dtype in ((w.cells, m.CELL_DTYPE), (w.tenants, m.TENANT_TASK_DTYPE), (w.windows, m.WINDOW_DTYPE),
                         (w.reps, m.REPLICA_DTYPE)):  # fmt: skip
        assert set(dtype.names or ()) <= set(array.dtype.names or ())
    assert set(m.TASK_DTYPE.names or ()) - set(w.tasks.dtype.names or ()) == {"in_flight"}
    assert w.hist.shape == (len(m.HIST_METRICS), 1, 1, m.HIST_BUCKETS)
    assert w.window_hist.shape == (10, len(m.COARSE_METRICS), m.COARSE_BUCKETS)


@quick
@given(times)
def test_bucket_of_equals_its_twin(x: float) -> None:
    """To one bucket where rounding puts a time on the other side of an edge; then the edge is as near as can be."""
    i, twin = meters.bucket_of(x), m.bucket_of(x)
    if i != twin:
        edge = m.HIST_LOW_S * m.HIST_GAMMA ** min(i, twin)
        assert abs(i - twin) == 1
        assert x == pytest.approx(edge, rel=1e-12)


@quick
@given(st.floats(1e-6, 1e5))
def test_a_bucket_is_within_half_a_percent_of_what_it_holds(x: float) -> None:
    assert m.bucket_values()[meters.bucket_of(x)] == pytest.approx(x, rel=m.HIST_RELATIVE_ERROR * (1 + 1e-9))


@pytest.mark.parametrize("x", [0.0, 1e-12, 1e-6, 1e30])
def test_times_beyond_the_histogram_go_to_its_ends(x: float) -> None:
    assert meters.bucket_of(x) == (0 if x <= 1e-6 else m.HIST_BUCKETS - 1)


@quick
@given(st.lists(st.tuples(st.sampled_from(range(4)), times, st.integers(1, 5)), max_size=20))
def test_add_time_counts_and_sums(rows: list[tuple[int, float, int]]) -> None:
    world = engine()
    for metric, x, n in rows:
        assert meters.add_time(world._p, metric, 0, 0, x, n) == meters.bucket_of(x)
    w = world.world
    for metric in range(4):
        mine = [(x, n) for which, x, n in rows if which == metric]
        assert w.hist_count[metric, 0, 0] == sum(n for _, n in mine) == w.hist[metric].sum()
        assert w.hist_sum[metric, 0, 0] == pytest.approx(math.fsum(x * n for x, n in mine), rel=1e-12)


@settings(deadline=None, max_examples=300)
@given(
    first=st.floats(1e-7, 2.0),
    inc=st.one_of(st.just(0.0), st.floats(1e-12, 1e-2)),
    k=st.integers(1, 3000),
    n=st.integers(1, 9),
)
def test_steps_are_counted_as_if_one_by_one(first: float, inc: float, k: int, n: int) -> None:
    """The closed form puts every step's time where a plain loop puts it, but for times on the very edge of a bucket."""
    closed = engine()
    meters.add_steps(closed._p, 0, 0, first, inc, k, n)
    x = first + inc * np.arange(k)
    plain = np.zeros(m.HIST_BUCKETS, np.int64)
    for value in x:
        plain[m.bucket_of(float(value))] += n
    hist = closed.world.hist[meters.ITL, 0, 0]
    assert hist.min() >= 0
    assert hist.sum() == closed.world.hist_count[meters.ITL, 0, 0] == n * k
    assert closed.world.hist_sum[meters.ITL, 0, 0] == pytest.approx(n * x.sum(), rel=1e-9)
    edges = m.HIST_LOW_S * m.HIST_GAMMA ** np.arange(m.HIST_BUCKETS)
    on_edge = sum(bool(np.isclose(value, edges, rtol=1e-9, atol=0).any()) for value in x) if k < 300 else 3
    assert np.abs(np.cumsum(hist) - np.cumsum(plain)).max() <= n * on_edge


@pytest.mark.parametrize(("t", "window"), [(0.0, 0), (0.999, 0), (1.0, 1), (9.5, 9), (10.0, 9), (400.0, 9)])
def test_window_of(t: float, window: int) -> None:
    assert meters.window_of(engine()._p, t) == window


def test_a_replicas_time_is_split_at_window_edges() -> None:
    world = engine()
    world.advance(2.5)
    world.settle()
    world.advance(4.25)
    world.settle()
    windows = world.world.windows[:, 0]
    np.testing.assert_allclose(windows["up_s"], [1, 1, 1, 1, 0.25, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(windows["kv_total_block_s"], 9999 * windows["up_s"])
    assert windows["busy_s"].sum() == 0
