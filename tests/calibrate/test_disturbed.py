"""Runs that something else slowed down are told from runs that do other work."""

import numpy as np
import pytest

from simlab.calibrate.disturbed import LEAST_RUNS, speeds
from simlab.calibrate.run import Steps


def log(rng, decodes, factor=1.0, n=300):
    """Steps of decodes with a few prompts: 5 ms, 0.1 ms a sequence and 20 µs a prompt token, and 2% noise."""
    batch = rng.integers(max(1, decodes // 2), decodes + 1, n).astype(float)
    prompt = np.where(rng.random(n) < 0.2, 256.0, 0.0)
    seconds = (5e-3 + 1e-4 * batch + 2e-5 * prompt) * factor * np.exp(0.02 * rng.standard_normal(n))
    context, requests = 500.0 * batch, (prompt > 0).astype(float)
    work = prompt * (prompt + 1) / 2
    return Steps(seconds, prompt, requests, 0 * prompt, batch, context, work, np.ones(n, bool))


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def test_slow_runs_are_found_and_by_how_much(rng):
    factors = [1, 1, 1.02, 0.99, 1.2, 1, 1.15, 1.01, 0.98, 1]
    found = speeds([log(rng, 16, factor) for factor in factors])
    assert found.disturbed == tuple(factor > 1.1 for factor in factors)
    assert found.factors[4] == pytest.approx(1.2, abs=0.03)


def test_larger_batches_are_not_a_disturbance(rng):
    found = speeds([log(rng, size) for size in (1, 1, 2, 4, 8, 8, 16, 32, 64, 64)])
    assert not any(found.disturbed)
    assert not any(found.alone)


def test_a_slow_run_of_batches_that_no_other_has_is_left_in_doubt(rng):
    found = speeds([*(log(rng, 8) for _ in range(9)), log(rng, 64, 1.3)])
    assert not any(found.disturbed)
    # Whether 64 sequences cost so much, or something slowed this run, cannot be told.
    assert found.alone[-1] or found.factors[-1] < 1.07


def test_of_few_runs_none_is_called_disturbed(rng):
    logs = [log(rng, 16, 1.3 if i == 0 else 1.0) for i in range(LEAST_RUNS - 1)]
    assert not any(speeds(logs).disturbed)


def test_where_most_runs_are_slow_slow_is_what_the_server_is(rng):
    found = speeds([log(rng, 16, 1.0 if i < 3 else 1.25) for i in range(12)])
    assert not any(found.disturbed)
