"""Histograms and windows against their slow twins."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_worlds import Plan, arrivals, run

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


def test_a_replicas_time_is_split_at_window_edges() -> None:
    world = engine()
    world.advance(4.25)
    world.settle()
    windows = world.world.windows[:, 0]
    np.testing.assert_allclose(windows["up_s"], [1, 1, 1, 1, 0.25, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(windows["kv_total_block_s"], 9999 * windows["up_s"])
    assert windows["busy_s"].sum() == 0


def test_looking_at_the_meters_half_way_does_not_move_the_windows() -> None:
    world = engine()
    world.advance(2.5)
    world.settle()
    world.advance(4.25)
    world.settle()
    world.settle()
    np.testing.assert_allclose(world.world.windows["up_s"][:, 0], [1, 1, 1, 1, 0.25, 0, 0, 0, 0, 0])


def test_windows_hold_what_happened_in_them() -> None:
    """Against the log and, second by second, against a plain integral of who was waiting and running."""
    random = np.random.default_rng(3)
    times = np.sort(random.uniform(0, 18, 400))
    lengths = list(zip(random.integers(1, 80, 400).tolist(), random.integers(1, 60, 400).tolist(), strict=True))
    plan = Plan(
        classes=(ClassSpec(),),
        chunks=(arrivals(times.tolist(), lengths),),
        backends=(
            PoolSpec(
                StepCoefficients(0.011, 1e-4, 1e-3), 2, 2, max_num_seqs=6, max_num_batched_tokens=64, block_size=4,
                kv_blocks=90, prefix_caching=False,
            ),
        ),
        horizon_s=200.0,
        window_s=1.7,
    )  # fmt: skip
    done = run(plan)
    log, windows = done.log, done.world.windows[:, 0]
    assert len(log) == 400
    assert log["preemptions"].sum() > 20
    edges = 1.7 * np.arange(len(windows) + 1)
    assert windows["arrived"].tolist() == np.histogram(log["arrival_s"], edges)[0].tolist()
    assert windows["finished"].tolist() == np.histogram(log["finish_s"], edges)[0].tolist()
    for name, weight in (("output_tokens", log["output_tokens"]), ("prompt_tokens", log["prompt_tokens"])):
        assert windows[name].tolist() == np.histogram(log["finish_s"], edges, weights=weight)[0].tolist()
    for name, column in (("ttft_sum_s", "first_token_s"), ("e2e_sum_s", "finish_s")):
        spans = log[column] - log["arrival_s"]
        np.testing.assert_allclose(windows[name], np.histogram(log["finish_s"], edges, weights=spans)[0], atol=1e-9)
    inside = [
        float(np.clip(np.minimum(log["finish_s"], end) - np.maximum(log["started_s"], start), 0, None).sum())
        for start, end in pairwise(edges)
    ]
    np.testing.assert_allclose(windows["waiting_s"] + windows["running_s"], inside, atol=1e-9)
    # The last window ends with the horizon.
    np.testing.assert_allclose(windows["up_s"], 2 * np.diff(np.minimum(edges, 200.0)))


def test_replicas_meter_how_far_they_go_and_how_long_beyond_what_is_known() -> None:
    """Steps of a second: a prompt of 3; a decode beside a prompt of 2; two decodes; one decode."""
    plan = Plan(
        classes=(ClassSpec(),),
        chunks=(arrivals([0.0, 0.5], [(3, 3), (2, 3)]),),
        backends=(PoolSpec(StepCoefficients(1.0), known_seqs=1, known_tokens=2, known_context=5),),
        horizon_s=20.0,
    )
    (rep,) = run(plan).world.reps
    assert (rep["peak_seqs"], rep["peak_tokens"], rep["peak_context"]) == (2, 3, 6)
    assert rep["busy_s"] == pytest.approx(4.0)
    assert rep["beyond_seqs_s"] == pytest.approx(1.0)
    assert rep["beyond_tokens_s"] == pytest.approx(2.0)
    assert rep["beyond_context_tokens"] == 6


def test_a_jump_over_many_steps_is_metered_whole() -> None:
    plan = Plan(
        classes=(ClassSpec(),),
        chunks=(arrivals([0.0, 0.0], [(5, 101), (5, 51)]),),
        backends=(PoolSpec(StepCoefficients(0.5, 0.1), known_seqs=1),),
        horizon_s=99.0,
    )
    (rep,) = run(plan).world.reps
    assert rep["peak_seqs"] == 2
    assert rep["beyond_seqs_s"] == pytest.approx(50 * 0.5)
    assert rep["beyond_tokens_s"] == 0.0
