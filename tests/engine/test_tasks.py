"""What requests are made of: tenants, documents, sessions, closed loops, traces."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from small_worlds import Plan, Run, arrivals, run, traced

from simlab.draws import Distribution
from simlab.engine import ApiSpec, ClassSpec, Engine, GatewaySpec, PoolSpec, StepCoefficients
from simlab.engine import arrays as a
from simlab.workload import Chunk

fixed = Distribution.fixed
API = ApiSpec(fixed(0.25), fixed(0.0))
POOL = PoolSpec(step=StepCoefficients(base_s=0.01), block_size=16, kv_blocks=5001)


def serve(cls: ClassSpec, chunk: tuple[Chunk, ...], backend: PoolSpec | ApiSpec = API, **more: Any) -> Run:
    return run(Plan(classes=(cls,), chunks=(chunk,), backends=(backend,), **({"horizon_s": 1e4} | more)))


def test_tenants_share_traffic_by_weight() -> None:
    n = 10_000
    cls = ClassSpec(tenant_weights=[4.0, 1.0, 3.0])
    log = serve(cls, arrivals([0.01 * i for i in range(n)], [(1, 1)] * n)).log
    shares = np.bincount(log["tenant"], minlength=3) / n
    assert shares == pytest.approx([0.5, 0.125, 0.375], abs=0.018)


def test_lengths_come_from_their_laws() -> None:
    n = 5000
    cls = ClassSpec(prompt=Distribution.geometric(40.0), output=Distribution.lognormal(200.0, 500.0))
    log = serve(cls, arrivals([0.01 * i for i in range(n)])).log
    assert log["prompt_tokens"].mean() == pytest.approx(40.0, rel=0.06)
    assert log["output_tokens"].mean() == pytest.approx(200.0, rel=0.06)
    assert np.quantile(log["output_tokens"], 0.95) == pytest.approx(500.0, rel=0.08)
    assert log["prompt_tokens"].min() == 1
    assert abs(np.corrcoef(log["prompt_tokens"], log["output_tokens"])[0, 1]) < 0.06


def test_joint_lengths_are_rows_of_the_table() -> None:
    n = 3000
    table = np.array([[10, 1], [20, 2], [30, 3], [40, 40]])
    other = ClassSpec(joint=np.array([[7, 7]]))
    plan = Plan(
        classes=(other, ClassSpec(joint=table)),
        chunks=(arrivals([0.0]), arrivals([0.01 * i for i in range(n)])),
        backends=(API,),
        horizon_s=1e3,
    )
    done = run(plan)
    assert done.of(cls=0)[["prompt_tokens", "output_tokens"]].tolist() == [(7, 7)]
    pairs, counts = np.unique(done.of(cls=1)[["prompt_tokens", "output_tokens"]], return_counts=True)
    assert pairs.tolist() == [tuple(row) for row in table.tolist()]
    assert counts / n == pytest.approx([0.25] * 4, abs=0.035)


def test_a_system_prompt_and_a_document_come_in_front() -> None:
    cls = ClassSpec(
        prompt=fixed(10.0), output=fixed(5.0), system_tokens=40, document_tokens=50, document_weights=[3.0, 1.0]
    )
    n = 200
    done = serve(cls, arrivals([float(i) for i in range(n)]), POOL)
    assert set(done.log["prompt_tokens"]) == {100}
    cached = done.log["cached_tokens"].tolist()
    # The system prompt fills two blocks and begins a third, which the document goes on with: 90 tokens are five blocks.
    assert cached[0] == 0
    assert cached.count(32) == 1
    assert cached.count(80) == n - 2


def test_classes_do_not_share_a_system_prompt() -> None:
    cls = ClassSpec(prompt=fixed(10.0), output=fixed(2.0), system_tokens=64)
    plan = Plan(classes=(cls, cls), chunks=(arrivals([0.0, 2.0]), arrivals([1.0, 3.0])), backends=(POOL,))
    assert run(plan).log["cached_tokens"].tolist() == [0, 0, 64, 64]


def test_documents_are_as_popular_as_they_should_be() -> None:
    """A document is new once: with caching on, misses beyond the system prompt count the distinct documents."""
    weights = [1.0 / k for k in range(1, 11)]
    cls = ClassSpec(prompt=fixed(4.0), output=fixed(1.0), document_tokens=32, document_weights=weights)
    n = 400
    log = serve(cls, arrivals([float(i) for i in range(n)]), POOL).log
    assert (log["cached_tokens"] == 0).sum() == 10
    assert (log["cached_tokens"] == 32).sum() == n - 10


def conversation(turns: int, backend: PoolSpec | ApiSpec, **more: Any) -> Run:
    cls = ClassSpec(
        prompt=fixed(20.0), output=fixed(30.0), turns=fixed(float(turns)), think=fixed(2.0), system_tokens=24, **more
    )
    return serve(cls, arrivals([1.0]), backend)


def test_a_conversation_grows_and_its_next_turn_comes_after_answer_and_thought() -> None:
    log = conversation(4, API).log
    assert log["prompt_tokens"].tolist() == [24 + 20 + 50 * turn for turn in range(4)]
    np.testing.assert_allclose(log["arrival_s"], [1.0 + 2.25 * turn for turn in range(4)])
    assert (log["attempt"] == 0).all()


def test_a_conversation_hits_the_blocks_of_its_turns_so_far() -> None:
    """After turn n, 44 + 50 n - 21 … tokens were computed: all but the last one generated. Full blocks of them hit."""
    log = conversation(5, POOL).log
    history = [0] + [24 + 50 * turn - 1 for turn in range(1, 5)]
    assert log["cached_tokens"].tolist() == [16 * (tokens // 16) for tokens in history]


def test_conversations_do_not_hit_each_other_beyond_the_system_prompt() -> None:
    cls = ClassSpec(
        prompt=fixed(20.0), output=fixed(30.0), turns=fixed(2.0), think=fixed(50.0), system_tokens=24
    )
    log = serve(cls, arrivals([1.0, 10.0]), POOL).log
    assert log["cached_tokens"].tolist() == [0, 16, 64, 64]


def test_a_conversation_ends_when_its_context_is_full() -> None:
    """With 24 + 50 n tokens after n turns the third turn is the first to pass 160."""
    assert len(conversation(9, API, max_context=160).log) == 3
    assert len(conversation(9, API, max_context=174).log) == 3
    assert len(conversation(9, API, max_context=175).log) == 4


def test_a_conversation_ends_when_a_turn_fails() -> None:
    dead = ApiSpec(fixed(0.25), fixed(0.0), error_probability=1.0)
    done = conversation(4, dead)
    assert len(done.log) == 1
    assert done.world.tasks[1, 0]["arrived"] == 1


def test_a_closed_loop_never_has_more_than_its_users_under_way() -> None:
    think, output = Distribution.exponential(0.2), Distribution.geometric(9.0)
    cls = ClassSpec(users=5, think=think, prompt=fixed(10.0), output=output)
    seen: list[int] = []

    def look(engine: Engine) -> None:
        state = engine.world.state[0]
        assert state["in_flight"] <= 5
        seen.append(int(state["in_flight"]))

    plan = Plan(classes=(cls,), chunks=((),), backends=(POOL,), horizon_s=30.0)
    done = run(plan, [0.05 * i for i in range(600)], look)
    assert 1 <= max(seen) <= done.world.state[0]["peak_in_flight"] <= 5
    assert len(done.log) > 200


def test_a_user_of_a_closed_loop_thinks_between_answer_and_question() -> None:
    cls = ClassSpec(users=1, think=fixed(3.0), prompt=fixed(10.0), output=fixed(1.0))
    log = serve(cls, (), horizon_s=20.0).log
    np.testing.assert_allclose(log["arrival_s"], [3.0 + 3.25 * i for i in range(6)][: len(log)])
    assert len(log) == 6 - (3.0 + 3.25 * 5 + 0.25 > 20.0)


def test_users_who_do_not_think_ask_again_at_once() -> None:
    cls = ClassSpec(users=2, prompt=fixed(10.0), output=fixed(1.0))
    log = serve(cls, (), horizon_s=1.0).log
    assert log["arrival_s"].tolist() == [0.0, 0.0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75]


def test_users_send_what_their_feed_brings_and_then_stop() -> None:
    """Two users, 0.25 s an answer: the third row waits for a user, the fourth until it is due."""
    rows = [(0.0, 10, 1, []), (0.0, 20, 2, [(1, 16)]), (0.0, 30, 3, []), (0.9, 40, 4, []), (0.1, 50, 5, [(1, 16)])]
    done = serve(ClassSpec(users=2, segmented=True), (traced(rows[:2]), traced([]), traced(rows[2:])))
    log = done.log[np.argsort(done.log["task"])]
    assert log[["prompt_tokens", "output_tokens"]].tolist() == [row[1:3] for row in rows]
    np.testing.assert_allclose(log["arrival_s"], [0.0, 0.0, 0.25, 0.9, 0.9])
    assert done.world.state[0]["in_flight"] == 0
    assert done.world.state[0]["n_timers"] == 0
    assert (done.world.slots["state"] == a.FREE).all()


def test_users_with_a_feed_think_between_answer_and_question() -> None:
    cls = ClassSpec(users=1, think=fixed(3.0))
    log = serve(cls, arrivals([0.0] * 4, [(10, 1)] * 4)).log
    np.testing.assert_allclose(log["arrival_s"], [3.0 + 3.25 * i for i in range(4)])


def test_users_with_nothing_to_send_leave() -> None:
    done = serve(ClassSpec(users=3), arrivals([], []))
    assert len(done.log) == 0
    assert (done.world.slots["state"] == a.FREE).all()


def test_a_feed_of_users_brings_lengths() -> None:
    with pytest.raises(ValueError, match="closed loop brings lengths"):
        serve(ClassSpec(users=1, prompt=fixed(1.0), output=fixed(1.0)), arrivals([0.0]))


MANY_USERS = """
from simlab.draws import Distribution
from simlab.engine import ApiSpec, ClassSpec, Engine, WorldSpec
fixed = Distribution.fixed
users = 6000
cls = ClassSpec(users=users, think=fixed(0.1), prompt=fixed(10.0), output=fixed(2.0), system_tokens=16,
                document_tokens=16, document_weights=[1.0, 1.0])
engine = Engine(WorldSpec([cls], [ApiSpec(fixed(0.25), fixed(0.0))], horizon_s=0.5))
engine.advance(0.3)
w = engine.world
assert w.tasks[1, 0]["arrived"] == users
assert 2 * users == w.state[0]["n_segs"] <= len(w.segs), (w.state[0]["n_segs"], len(w.segs))
"""


def test_many_users_with_long_prefixes_have_room() -> None:
    """More segments at once than the engine makes room for at first; apart, for writing past an end can end all."""
    done = subprocess.run([sys.executable, "-c", MANY_USERS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]


def test_a_trace_brings_its_lengths_and_segments() -> None:
    rows = [
        (0.0, 70, 3, [(1, 32), (2, 32)]),
        (1.0, 70, 4, [(1, 32), (3, 32)]),
        (2.0, 64, 5, [(1, 32), (2, 32)]),
        (3.0, 50, 6, [(2, 32)]),
        (4.0, 40, 7, []),
    ]
    log = serve(ClassSpec(segmented=True), (traced(rows[:2]), traced(rows[2:])), POOL).log
    assert log[["arrival_s", "prompt_tokens", "output_tokens"]].tolist() == [row[:3] for row in rows]
    # A segment is the same only behind the same chain; one token of the third is always computed: 63 tokens, 3 blocks.
    assert log["cached_tokens"].tolist() == [0, 32, 48, 0, 0]


def test_arrivals_come_in_any_number_of_chunks() -> None:
    times = [0.1 * i for i in range(100)]
    lengths = [(1 + i % 7, 1 + i % 5) for i in range(100)]
    whole = serve(ClassSpec(), arrivals(times, lengths)).log
    one_by_one = [arrivals(times[i : i + 1], lengths[i : i + 1]) for i in range(100)]
    parts = tuple(chunk for part in one_by_one for chunk in (*arrivals([], []), *part))
    assert serve(ClassSpec(), parts).log.tobytes() == whole.tobytes()


def test_warm_up_is_cut_from_latencies_but_not_from_the_ledger() -> None:
    done = serve(ClassSpec(), arrivals([1.0, 2.0, 3.0, 4.0], [(5, 2)] * 4), warmup_s=2.5)
    w = done.world
    assert w.tasks[0, 0]["arrived"] == 2
    assert w.tasks[1, 0]["arrived"] == 4
    assert w.cells["prompt_tokens"].sum() == 20
    assert w.hist_count[0].sum() == 2
    assert w.tenants["succeeded"].sum() == 2


def test_more_tasks_than_slots_at_first() -> None:
    """Arrays grow while it runs; nothing is lost."""
    n = 5000
    done = serve(ClassSpec(), arrivals([0.0] * n, [(1, 1)] * n), gateway=GatewaySpec(timeout_s=100.0))
    assert len(done.log) == n == done.world.state[0]["peak_in_flight"]
    assert (done.log["outcome"] == a.OK).all()


def test_refused_users_without_thought_do_not_stop_time() -> None:
    """A user who is refused at once and asks again at once must not keep the clock from moving on."""
    full = ApiSpec(fixed(1e6), fixed(0.0), concurrency=1, reject_full=True)
    cls = ClassSpec(users=2, prompt=fixed(1.0), output=fixed(1.0))
    ended = 0

    def count(rows: NDArray[Any]) -> None:
        nonlocal ended
        ended += len(rows)
        assert ended < 200_000, f"{ended} attempts were refused and the clock stands at {engine.now} s"

    engine = Engine(Plan(classes=(cls,), chunks=((),), backends=(full,)).spec(), count)
    engine.advance(2.0)
    assert engine.now == 2.0
