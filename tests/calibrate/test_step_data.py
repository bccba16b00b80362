"""Which steps of a set-up's runs are fitted."""

import numpy as np

from simlab.calibrate.run import Load, Requests, Run, Server, Steps
from simlab.calibrate.step_data import LEAST_STEPS, step_data

SERVER = Server("m", "g", max_num_batched_tokens=512)


def log(n, name="log"):
    ones = np.ones(n)
    return Run(name, "x", SERVER, steps=Steps(ones, 0 * ones, 0 * ones, 0 * ones, ones, ones, 0 * ones, ones > 0))


def detailed(n, name="run"):
    itl = tuple(np.full(n, 0.02) for _ in range(2))
    two = np.array([0.0, 1e-4])
    requests = Requests(two, np.array([8, 8]), np.array([n + 1, n + 1]), 0.03 - two, 0.03 - two + 0.02 * n, itl)
    return Run(name, "x", SERVER, Load(concurrency=2, prompt_tokens=8, output_tokens=n + 1), requests=requests)


def test_a_log_and_the_token_times_of_other_runs_are_taken_together():
    found = step_data([log(LEAST_STEPS), detailed(200)])
    assert (found.from_logs, found.from_tokens) == (1, 1)
    assert found.steps == sum(len(steps.seconds) for steps in found.logs) > LEAST_STEPS + 150


def test_token_times_come_before_the_log_of_the_same_run():
    found = step_data([log(500, "server_side/a"), detailed(200, "results/a")])
    assert (found.from_logs, found.from_tokens) == (0, 1)
    assert "1 runs are taken from their clients' token times" in found.notes[0]
    assert all(np.allclose(steps.seconds, 0.02) for steps in found.logs)


def test_too_few_steps_are_none():
    assert step_data([log(LEAST_STEPS - 1)]).logs == ()
    assert step_data([log(LEAST_STEPS)]).steps == LEAST_STEPS


def test_runs_without_steps_have_none():
    assert step_data([Run("r", "x", SERVER, Load(concurrency=1))]).steps == 0
