"""Agents: loops by hand where nothing is drawn, and closed forms of calls, tokens, cost and time where it is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from small_worlds import Plan, Run, arrivals, run

from simlab.draws import Distribution
from simlab.engine import (
    AgentSpec,
    ApiSpec,
    CapSpec,
    ClassSpec,
    ContextSpec,
    GatewaySpec,
    PolicySpec,
    PoolSpec,
    PromptCacheSpec,
    StepCoefficients,
    TokenPrice,
)
from simlab.engine import arrays as a

fixed, exponential, geometric = Distribution.fixed, Distribution.exponential, Distribution.geometric
IN, OUT, TOOL_USD = 3e-6, 15e-6, 0.002
MODEL = ApiSpec(fixed(0.5), fixed(0.01), price=TokenPrice(IN, IN / 10, IN * 1.25, OUT))
TOOLS = ApiSpec(fixed(0.0), fixed(0.0), usd_call=TOOL_USD)
PROMPT, ANSWER, CALL, RESULT, TOOL_S = 1000, 50, 20, 300, 2.0


def loop(steps: Distribution, **more: Any) -> AgentSpec:
    """An agent whose every number is the same each time, but the steps."""
    usual = {"helper": 1, "tool_s": fixed(TOOL_S), "calls": fixed(CALL), "results": fixed(RESULT)}
    return AgentSpec(steps, **{**usual, **more})


def serve(
    agent: AgentSpec,
    times: list[float],
    *,
    model: ApiSpec | PoolSpec = MODEL,
    gateway: dict[str, Any] | None = None,
    cls: dict[str, Any] | None = None,
    horizon_s: float = 1e7,
    **policy: Any,
) -> Run:
    about = {"prompt": fixed(PROMPT), "output": fixed(ANSWER), "route": [1.0, 0.0], **(cls or {})}
    plan = Plan(
        classes=(ClassSpec(**about),),
        chunks=(arrivals(times),),
        backends=(model, TOOLS),
        gateway=GatewaySpec(**(gateway or {})),
        policies=(PolicySpec(agent=agent, timed=True, **policy),),
        horizon_s=horizon_s,
        window_s=1e6,
    )
    return run(plan)


def usd(done: Run) -> float:
    """What the ledger's tokens and calls cost."""
    cells = done.world.cells
    model = cells[cells["backend"] == 0]
    fresh = model["prompt_tokens"] - model["cached_tokens"] - model["written_tokens"]
    tokens = fresh * IN + model["cached_tokens"] * IN / 10 + model["written_tokens"] * IN * 1.25
    tools = cells[cells["backend"] == 1]["attempts"].sum() * TOOL_USD
    return float((tokens + model["output_tokens"] * OUT).sum() + tools)


def counted(done: Run, name: str) -> int:
    return int(done.world.counters[0][name])


def parts(done: Run, metric: int) -> Any:
    """Seconds in each part, summed over all tasks: by TTFT (0) or E2E (1)."""
    return done.world.spans[metric, 0].sum(axis=0)


def test_a_loop_by_hand() -> None:
    done = serve(loop(fixed(3.0)), [0.0])
    calls = done.of(backend=0)
    # Each prompt begins with the one before, what the model wrote then and what the tool said.
    assert calls["prompt_tokens"].tolist() == [1000, 1320, 1640]
    assert calls["output_tokens"].tolist() == [CALL, CALL, ANSWER]
    assert calls["reason"].tolist() == [a.FIRST] * 3
    assert calls["attempt"].tolist() == [0, 1, 2]
    call_s = 0.5 + (CALL - 1) * 0.01
    begins = [0.0, call_s + TOOL_S, 2 * (call_s + TOOL_S)]
    assert calls["started_s"].tolist() == pytest.approx(begins)
    tools = done.of(backend=1)
    assert tools["reason"].tolist() == [a.HELPER] * 2
    assert tools["started_s"].tolist() == pytest.approx([begin + call_s for begin in begins[:2]])
    # The user's first token is the answer's, and the whole loop is waited for.
    assert np.sum(done.world.hist_sum[0]) == pytest.approx(begins[2] + 0.5)
    assert np.sum(done.world.hist_sum[3]) == pytest.approx(begins[2] + 0.5 + (ANSWER - 1) * 0.01)
    tasks = done.world.tasks[1, 0]
    assert (tasks["arrived"], tasks["succeeded"], tasks["retries"]) == (1, 1, 0)
    assert (counted(done, "loops"), counted(done, "tool_steps"), counted(done, "tool_calls")) == (1, 2, 2)
    assert usd(done) == pytest.approx(3960 * IN + (2 * CALL + ANSWER) * OUT + 2 * TOOL_USD)
    assert (done.world.slots["state"] == a.FREE).all()


def test_the_time_of_a_loop_is_in_its_parts() -> None:
    done = serve(loop(fixed(3.0)), [0.0, 100.0])
    whole = parts(done, 1)
    assert whole[a.SPAN_TASKS] == 2
    assert whole[a.SPAN_TOOLS] == pytest.approx(2 * 2 * TOOL_S)
    assert whole[a.SPAN_MODEL] == pytest.approx(2 * 3 * 0.5)
    assert whole[a.SPAN_OUTPUT] == pytest.approx(2 * (2 * 19 + 49) * 0.01)
    assert whole[1:].sum() == pytest.approx(np.sum(done.world.hist_sum[3]))
    first = parts(done, 0)
    assert first[a.SPAN_OUTPUT] == pytest.approx(2 * 2 * 19 * 0.01)  # the answer's own tokens come after its first
    assert first[1:].sum() == pytest.approx(np.sum(done.world.hist_sum[0]))
    assert whole[a.SPAN_RETRIES] == pytest.approx(0.0, abs=1e-9)


def test_a_single_call_is_a_loop_of_one() -> None:
    done = serve(loop(fixed(1.0)), [0.0])
    assert done.log["output_tokens"].tolist() == [ANSWER]
    assert counted(done, "tool_steps") == 0


def test_later_prompts_read_what_the_earlier_ones_wrote() -> None:
    """A provider's prompt cache reads the whole prompt before; a replica's prefix cache its whole blocks."""
    cache = PromptCacheSpec(number=0, min_tokens=1, block=1, ttl_s=300.0)
    done = serve(loop(fixed(3.0)), [0.0], model=ApiSpec(fixed(0.5), fixed(0.01), prompt_cache=cache))
    calls = done.of(backend=0)
    assert calls["cached_tokens"].tolist() == [0, 1000, 1320]
    assert calls["written_tokens"].tolist() == [1000, 320, 320]
    pool = PoolSpec(StepCoefficients(0.01), block_size=16, kv_blocks=1000)
    on_pool = serve(loop(fixed(3.0)), [0.0], model=pool).of(backend=0)
    # All of the earlier call but its last token is computed and kept, in whole blocks.
    assert on_pool["cached_tokens"].tolist() == [0, (1000 + CALL - 1) // 16 * 16, (1320 + CALL - 1) // 16 * 16]


def test_tasks_of_one_class_share_no_loop() -> None:
    cache = PromptCacheSpec(number=0, min_tokens=1, block=1, ttl_s=300.0)
    model = ApiSpec(fixed(0.5), fixed(0.01), prompt_cache=cache)
    done = serve(loop(fixed(2.0)), [0.0, 0.1], model=model, cls={"system_tokens": 64})
    calls = done.of(backend=0)
    assert sorted(calls["cached_tokens"].tolist()) == [0, 64, 1064, 1064]


N = 20_000


def test_geometric_loops_cost_what_the_formula_says() -> None:
    """With N calls, N geometric of mean m: E[N] = m and E[N(N−1)/2] = m(m−1), so prompts take m·P + m(m−1)·(c + r)."""
    m = 4.0
    done = serve(loop(geometric(m)), [0.01 * i for i in range(N)])
    calls = len(done.of(backend=0))
    sd = math.sqrt(m * (m - 1))
    assert calls / N == pytest.approx(m, abs=4 * sd / math.sqrt(N))
    assert counted(done, "tool_steps") == counted(done, "tool_calls") == calls - N
    grows = CALL + RESULT
    prompts = float(done.of(backend=0)["prompt_tokens"].sum()) / N
    # The variance of N(N−1)/2 by its own moments, from the law of N.
    n = np.arange(1, 2000)
    law = (1 - 1 / m) ** (n - 1) / m
    pairs = n * PROMPT + n * (n - 1) / 2 * grows
    mean, deviation = float(law @ pairs), math.sqrt(float(law @ pairs**2) - float(law @ pairs) ** 2)
    assert mean == pytest.approx(m * PROMPT + m * (m - 1) * grows)
    assert prompts == pytest.approx(mean, abs=4 * deviation / math.sqrt(N))
    expected = mean * IN + ((m - 1) * CALL + ANSWER) * OUT + (m - 1) * TOOL_USD
    assert usd(done) / N == pytest.approx(expected, abs=4 * (deviation * IN + sd * (CALL * OUT + TOOL_USD)) / N**0.5)
    # The money on the tasks' tickets is the ledger's: nothing is paid that is not booked.
    assert done.log["usd"].sum() == pytest.approx(usd(done), rel=1e-9)


@pytest.mark.parametrize("k", [1, 3, 8])
def test_a_step_waits_for_the_slowest_of_its_tools(k: int) -> None:
    """The largest of k exponentials of mean 1 has mean 1 + 1/2 + … + 1/k and variance 1 + 1/4 + … + 1/k²."""
    done = serve(loop(fixed(2.0), tool_s=exponential(1.0), parallel=fixed(k)), [0.01 * i for i in range(N)])
    slowest = parts(done, 1)[a.SPAN_TOOLS] / N
    mean, variance = (sum(1 / i**power for i in range(1, k + 1)) for power in (1, 2))
    assert slowest == pytest.approx(mean, abs=4 * math.sqrt(variance / N))
    assert counted(done, "tool_calls") == k * N
    assert done.of(backend=0)["prompt_tokens"].tolist().count(PROMPT + CALL + k * RESULT) == N


def test_tools_that_fail_are_tried_again_and_then_say_so() -> None:
    """With failure q and r retries a call is made 1 + q + … + q^r times, and its error is read with chance q^(r+1)."""
    q, retries, error = 0.4, 2, 7
    agent = loop(fixed(2.0), failure=q, retries=retries, errors=fixed(error))
    done = serve(agent, [0.01 * i for i in range(N)])
    calls = sum(q**i for i in range(retries + 1))
    assert counted(done, "tool_calls") / N == pytest.approx(calls, abs=4 * 0.75 / math.sqrt(N))
    assert counted(done, "tool_failures") / counted(done, "tool_calls") == pytest.approx(q, abs=4 * 0.5 / math.sqrt(N))
    grown = done.of(backend=0, attempt=1)["prompt_tokens"] - PROMPT - CALL
    assert set(grown.tolist()) == {error, RESULT}
    gone = q ** (retries + 1)
    assert (grown == error).mean() == pytest.approx(gone, abs=4 * math.sqrt(gone * (1 - gone) / N))
    cells = done.world.cells[done.world.cells["backend"] == 1]
    assert cells["failed"].sum() == counted(done, "tool_failures")
    assert cells["lost_usd"].sum() == pytest.approx(counted(done, "tool_failures") * TOOL_USD)
    assert len(done.of(backend=1, outcome=a.ERROR)) == counted(done, "tool_failures")
    # Each try takes its time.
    assert parts(done, 1)[a.SPAN_TOOLS] == pytest.approx(counted(done, "tool_calls") * TOOL_S)
    assert done.world.tasks[1, 0]["succeeded"] == N


def test_a_cap_on_steps_stops_a_task() -> None:
    done = serve(loop(fixed(5.0), max_steps=2), [0.0])
    assert len(done.of(backend=0)) == 3  # the third asks for tools again, which it does not get
    assert len(done.of(backend=1)) == 2
    tasks = done.world.tasks[1, 0]
    assert (tasks["succeeded"], tasks["failed"], tasks["wrong"]) == (0, 1, 0)
    assert (counted(done, "stopped_steps"), counted(done, "stopped_loops")) == (1, 1)
    assert np.sum(done.world.hist_count[3]) == 0
    enough = serve(loop(fixed(3.0), max_steps=2), [0.0])
    assert enough.world.tasks[1, 0]["succeeded"] == 1


def test_what_a_stopped_task_has_is_no_right_answer() -> None:
    done = serve(loop(fixed(5.0), max_steps=2, partial=True), [0.0])
    tasks = done.world.tasks[1, 0]
    assert (tasks["succeeded"], tasks["failed"], tasks["wrong"]) == (0, 1, 1)
    end = 3 * (0.5 + 19 * 0.01) + 2 * TOOL_S
    assert np.sum(done.world.hist_sum[0]) == np.sum(done.world.hist_sum[3]) == pytest.approx(end)
    assert parts(done, 1)[1:].sum() == pytest.approx(end)


def test_a_cap_on_cost_stops_a_task() -> None:
    once = 1000 * IN + CALL * OUT
    done = serve(loop(fixed(9.0)), [0.0], caps=CapSpec(usd=once + 1e-9))
    # The second call is made, since the first was below the cap, and goes beyond it with the tool before.
    assert len(done.of(backend=0)) == 2
    assert (counted(done, "stopped_usd"), counted(done, "stopped_loops"), counted(done, "over_usd")) == (1, 1, 1)


def test_a_cap_on_prompts_stops_or_cuts() -> None:
    refused = serve(loop(fixed(9.0)), [0.0], caps=CapSpec(prompt=1500))
    assert refused.of(backend=0)["prompt_tokens"].tolist() == [1000, 1320]
    assert (counted(refused, "long_prompts"), counted(refused, "stopped_loops")) == (1, 1)
    cut = serve(loop(fixed(4.0)), [0.0], caps=CapSpec(prompt=1500, cut=True))
    assert cut.of(backend=0)["prompt_tokens"].tolist() == [1000, 1320, 1500, 1500]
    assert cut.world.tasks[1, 0]["succeeded"] == 1


def test_the_calls_of_a_loop_are_no_retries() -> None:
    done = serve(loop(fixed(6.0)), [0.0], caps=CapSpec(tries=0))
    assert done.world.tasks[1, 0]["succeeded"] == 1
    assert done.world.tasks[1, 0]["retries"] == 0


def test_history_that_grows_above_its_budget_is_cut() -> None:
    done = serve(loop(fixed(4.0)), [0.0], context=ContextSpec(max_history=1400))
    # What was said before the third call has 1,340 tokens, before the fourth 1,660; a tool's new result is not of it.
    assert done.of(backend=0)["prompt_tokens"].tolist() == [1000, 1320, 1640, 1400 + RESULT]
    assert counted(done, "cut_history") == 1


def test_each_call_of_a_loop_is_tried_again_by_itself() -> None:
    """A call that fails with chance p and has two tries gets through with 1 − p²; a task of three needs all."""
    p = 0.3
    model = ApiSpec(fixed(0.5), fixed(0.01), error_probability=p)
    n = 5000
    done = serve(
        loop(fixed(3.0)), [0.01 * i for i in range(n)], model=model, gateway={"max_attempts": 2, "backoff_s": 1.0}
    )
    right = (1 - p * p) ** 3
    tasks = done.world.tasks[1, 0]
    assert tasks["succeeded"] / n == pytest.approx(right, abs=4 * math.sqrt(right * (1 - right) / n))
    assert tasks["retries"] == len(done.of(reason=a.RETRY))
    calls = done.of(backend=0)
    assert len(np.unique(calls["task"] * 100 + calls["attempt"])) == len(calls)
    whole = parts(done, 1)
    assert whole[1:].sum() == pytest.approx(np.sum(done.world.hist_sum[3]))
    assert whole[a.SPAN_RETRIES] > 0.0


def test_runaways_come_from_a_time_on_and_only_limits_stop_them() -> None:
    agent = loop(fixed(2.0), max_steps=30, runaway_share=0.1, from_s=5000.0, until_s=15_000.0)
    n = 2000
    done = serve(agent, [10.0 * i for i in range(n)])
    runaways = counted(done, "runaways")
    assert runaways / 1000 == pytest.approx(0.1, abs=4 * math.sqrt(0.09 / 1000))
    assert counted(done, "stopped_steps") == done.world.tasks[1, 0]["failed"] == runaways
    stopped = done.of(backend=0, attempt=30)
    assert len(stopped) == runaways
    assert ((stopped["arrival_s"] >= 5000.0) & (stopped["arrival_s"] < 15_000.0)).all()


def test_a_deadline_ends_a_loop_wherever_it_is() -> None:
    # Calls take 0.69 s and tools 2 s: at 3 s it is in a call, at 4 s among tools.
    for deadline_s, calls in ((3.0, 2), (4.0, 2)):
        done = serve(loop(fixed(9.0)), [0.0], gateway={"deadline_s": deadline_s})
        tasks = done.world.tasks[1, 0]
        assert (tasks["failed"], len(done.of(backend=0))) == (1, calls)
        assert (done.world.slots["state"] == a.FREE).all()


def test_hedges_and_calls_left_running_end_in_the_books() -> None:
    slow = ApiSpec(exponential(1.0), fixed(0.01), error_probability=0.1, break_probability=0.1)
    n = 500
    gateway = {"hedge_s": 1.0, "abort": False, "timeout_s": 2.0, "max_attempts": 3, "resume": True}
    done = serve(loop(geometric(3.0)), [0.5 * i for i in range(n)], model=slow, gateway=gateway)
    tasks = done.world.tasks[1, 0]
    assert tasks["arrived"] == tasks["succeeded"] + tasks["failed"] == n == counted(done, "loops")
    assert (done.world.slots["state"] == a.FREE).all()
    cells = done.world.cells
    ends = sum(cells[name] for name in ("succeeded", "failed", "rate_limited", "timed_out", "rejected", "cancelled"))
    assert (cells["attempts"] == ends).all()
    for metric in (0, 1):
        assert parts(done, metric)[1:].sum() == pytest.approx(np.sum(done.world.hist_sum[3 * metric]))
        assert (parts(done, metric) >= -1e-6).all()


def test_users_of_a_closed_loop_begin_each_task_anew() -> None:
    plan = Plan(
        classes=(ClassSpec(users=2, think=fixed(1.0), prompt=fixed(PROMPT), output=fixed(ANSWER), route=[1.0, 0.0]),),
        chunks=((),),
        backends=(MODEL, TOOLS),
        policies=(PolicySpec(agent=loop(fixed(2.0))),),
        horizon_s=50.0,
    )
    done = run(plan)
    prompts = done.of(backend=0)["prompt_tokens"].tolist()
    assert set(prompts) == {1000, 1320}
    assert abs(prompts.count(1000) - prompts.count(1320)) <= 2


def test_the_turns_of_a_conversation_carry_on_what_tools_said() -> None:
    done = serve(loop(fixed(2.0)), [0.0], cls={"turns": fixed(2.0), "think": fixed(1.0)})
    after = 1320 + ANSWER
    assert done.of(backend=0)["prompt_tokens"].tolist() == [1000, 1320, after + 1000, after + 1320]
