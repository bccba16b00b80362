"""The limits of load and the unit of time (DESIGN.md I8)."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from small_worlds import Plan, arrivals, run, small_world

from simlab.draws import Distribution
from simlab.engine import ApiSpec, ClassSpec, PoolSpec, StepCoefficients
from simlab.workload import Chunk

STEP = StepCoefficients(
    base_s=0.01,
    prefill_token_s=1e-4,
    decode_seq_s=1e-3,
    decode_context_s=1e-6,
    prefill_context_s=2e-6,
    attention_s=1e-8,
    knots=((0.0, 0.0), (64.0, 0.002), (1024.0, 0.05)),
)
TIMES_OF_STEP = ("base_s", "prefill_token_s", "decode_seq_s", "decode_context_s", "prefill_context_s", "attention_s")
HALF = 0.5


def faster(plan: Plan) -> Plan:
    """The world with every time halved and every rate doubled; limits a minute hold a minute's worth and cannot be."""

    def step(of: StepCoefficients) -> StepCoefficients:
        return replace(
            of,
            knots=tuple((x, HALF * y) for x, y in of.knots),
            **{name: HALF * getattr(of, name) for name in TIMES_OF_STEP},
        )

    def backend(of: PoolSpec | ApiSpec) -> PoolSpec | ApiSpec:
        if isinstance(of, PoolSpec):
            return replace(of, step=step(of.step), overhead_s=HALF * of.overhead_s)
        return replace(
            of, ttft=of.ttft.scaled(HALF), itl=of.itl.scaled(HALF), ttft_per_token_s=HALF * of.ttft_per_token_s
        )

    def cls(of: ClassSpec) -> ClassSpec:
        return replace(of, think=of.think.scaled(HALF) if of.think is not None else None)

    def chunk(of: Chunk) -> Chunk:
        return replace(of, arrival_s=HALF * of.arrival_s)

    gateway = plan.gateway
    return replace(
        plan,
        classes=tuple(cls(of) for of in plan.classes),
        chunks=tuple(tuple(chunk(of) for of in chunks) for chunks in plan.chunks),
        backends=tuple(backend(of) for of in plan.backends),
        gateway=replace(
            gateway,
            timeout_s=HALF * gateway.timeout_s,
            backoff_s=HALF * gateway.backoff_s,
            max_backoff_s=HALF * gateway.max_backoff_s,
        ),
        horizon_s=HALF * plan.horizon_s,
        warmup_s=HALF * plan.warmup_s,
        window_s=HALF * plan.window_s,
        orders=tuple(replace(order, at_s=HALF * order.at_s) for order in plan.orders),
    )


@settings(deadline=None, max_examples=60)
@given(st.builds(small_world, st.randoms(use_true_random=False)))
def test_twice_as_fast_a_world_takes_half_the_time(plan: Plan) -> None:
    assume(all(isinstance(b, PoolSpec) or not (b.rpm or b.tpm) for b in plan.backends))
    slow, fast = run(plan).log, run(faster(plan)).log
    assert len(slow) == len(fast)
    for name in slow.dtype.names:
        factor = 2.0 if name.endswith("_s") else 1
        np.testing.assert_array_equal(slow[name], factor * fast[name], err_msg=name)


def linear_s(tokens: float) -> float:
    x, y = zip(*STEP.knots, strict=True)
    slope = (y[-1] - y[-2]) / (x[-1] - x[-2])
    return float(np.interp(tokens, x, y)) + max(0.0, tokens - x[-1]) * slope


@pytest.mark.parametrize("prompt", [1, 100, 5000])
@pytest.mark.parametrize("output", [1, 2, 300])
def test_without_load_a_request_takes_its_own_steps(prompt: int, output: int) -> None:
    """Prefill in chunks of the token budget, then one decode step for each further token, in closed form."""
    budget = 2048
    plan = Plan(
        classes=(ClassSpec(),),
        chunks=(arrivals([0.0, 100.0, 200.0], [(prompt, output)] * 3),),
        backends=(PoolSpec(step=STEP, max_num_batched_tokens=budget, prefix_caching=False, overhead_s=0.003),),
        horizon_s=400.0,
    )
    log = run(plan).log
    ttft_s, done = 0.003, 0
    while done < prompt:
        chunk = min(budget, prompt - done)
        work = sum(range(done + 1, done + chunk + 1))
        done += chunk
        ttft_s += STEP.base_s + STEP.prefill_token_s * chunk + STEP.prefill_context_s * done
        ttft_s += STEP.attention_s * work + linear_s(chunk)
    e2e_s = ttft_s
    for token in range(1, output):
        e2e_s += STEP.base_s + STEP.decode_seq_s + STEP.decode_context_s * (prompt + token) + linear_s(1)
    np.testing.assert_allclose(log["first_token_s"] - log["arrival_s"], ttft_s, rtol=1e-9)
    np.testing.assert_allclose(log["finish_s"] - log["arrival_s"], e2e_s, rtol=1e-9)


def test_under_overload_the_batch_limit_sets_the_pace() -> None:
    """A replica that is always full makes max_num_seqs tokens a step, whatever waits."""
    n, seqs, output = 400, 8, 20
    plan = Plan(
        classes=(ClassSpec(),),
        chunks=(arrivals([0.0] * n, [(1, output)] * n),),
        backends=(PoolSpec(step=StepCoefficients(base_s=0.01), max_num_seqs=seqs, prefix_caching=False),),
        horizon_s=1e4,
    )
    assert run(plan).log["finish_s"].max() == pytest.approx(n / seqs * output * 0.01, rel=1e-9)


def test_under_overload_a_provider_gives_its_limit() -> None:
    plan = Plan(
        classes=(ClassSpec(),),
        chunks=(arrivals([0.0] * 300, [(10, 11)] * 300),),
        backends=(ApiSpec(ttft=Distribution.fixed(0.5), itl=Distribution.fixed(0.05), concurrency=6),),
        horizon_s=1e4,
    )
    assert run(plan).log["finish_s"].max() == pytest.approx(300 / 6 * 1.0, rel=1e-9)
    assert math.isclose(run(plan).log["finish_s"].min(), 1.0)
