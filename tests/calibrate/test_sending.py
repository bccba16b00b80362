"""What a benchmark sends: as stated, as recorded, or drawn as its client draws."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from made_runs import SERVER, known, made_run

from simlab.calibrate.run import Load
from simlab.calibrate.sending import STAGGER_S, sending

OPEN = Load(rate_rps=4.0, requests=4000, prompt_tokens=512, output_tokens=100)


def test_lengths_are_uniform_and_on_average_the_middle() -> None:
    load = Load(concurrency=8, requests=500, prompt_tokens=1000, output_tokens=400, low=0.8, high=1.2)
    sent = sending(made_run(load))
    assert sent.prompt_tokens.min() == 800
    assert sent.prompt_tokens.max() == 1200
    assert sent.prompt_tokens.mean() == pytest.approx(1000.0, rel=1e-3)
    assert sent.output_tokens.mean() == pytest.approx(400.0, rel=1e-3)
    assert np.quantile(sent.prompt_tokens, 0.25) == pytest.approx(900.0, rel=5e-3)
    assert abs(np.corrcoef(sent.prompt_tokens, sent.output_tokens)[0, 1]) < 0.1
    again, other = sending(made_run(load)), sending(made_run(load), seed=1)
    assert (again.prompt_tokens == sent.prompt_tokens).all()
    assert (other.prompt_tokens != sent.prompt_tokens).any()


def test_a_table_that_does_not_say_how_many_were_sent_means_ten_for_each_user() -> None:
    assert len(sending(made_run(Load(concurrency=16, prompt_tokens=10, output_tokens=10))).due_s) == 160


@pytest.mark.parametrize("burstiness", [0.3, 1.0, 4.0])
def test_times_between_requests_are_gamma_and_take_as_long_as_they_should(burstiness: float) -> None:
    """The shape k has variance 1/k of a mean of 1; the whole takes n/rate, as the client sees to."""
    due = sending(made_run(replace(OPEN, burstiness=burstiness))).due_s
    gaps = np.diff(due)
    assert due[0] == 0.0
    assert due[-1] + gaps.mean() == pytest.approx(4000 / 4.0, rel=2e-3)
    assert np.var(gaps) / gaps.mean() ** 2 == pytest.approx(1.0 / burstiness, rel=0.15)


def test_even_times_are_even() -> None:
    gaps = np.diff(sending(made_run(replace(OPEN, burstiness=math.inf))).due_s)
    np.testing.assert_allclose(gaps, 0.25)


def test_recorded_times_and_lengths_are_taken() -> None:
    load = Load(rate_rps=2.0, requests=3, prompt_tokens=20, output_tokens=5)
    sent = sending(known([5.0, 5.5, 7.0], [(10, 2), (20, 5), (30, 8)], load))
    assert sent.due_s.tolist() == [0.0, 0.5, 2.0]
    assert sent.prompt_tokens.tolist() == [10, 20, 30]
    assert sent.users == 0


def test_users_wait_for_answers_but_the_first_requests_go_one_after_the_other() -> None:
    load = Load(concurrency=3, requests=6, prompt_tokens=20, output_tokens=5)
    sent = sending(made_run(load))
    np.testing.assert_allclose(sent.due_s[:3], [0.0, STAGGER_S, 2 * STAGGER_S])
    assert (sent.due_s[3:] == sent.due_s[2]).all()
    recorded = sending(known([1.0, 1.01, 1.05, 9.0, 9.5, 9.7], [(20, 5)] * 6, load))
    np.testing.assert_allclose(recorded.due_s, [0.0, 0.01, 0.05, 0.05, 0.05, 0.05])
    assert recorded.users == 3


def test_all_at_once_is_one_after_the_other_too() -> None:
    sent = sending(made_run(Load(requests=4, prompt_tokens=20, output_tokens=5)))
    np.testing.assert_allclose(sent.due_s, STAGGER_S * np.arange(4))
    assert sent.users == 0


def test_beginnings_are_equally_many_in_random_order() -> None:
    load = Load(concurrency=4, requests=100, prompt_tokens=896, output_tokens=5, shared_tokens=768, shared_kinds=5)
    kinds = sending(made_run(load)).kind
    assert kinds is not None
    assert np.bincount(kinds).tolist() == [20] * 5
    assert (np.diff(kinds) != 1).sum() > 50


def test_ranks_get_one_request_after_the_other() -> None:
    server = replace(SERVER, dp=2, replicas=2)
    load = Load(rate_rps=2.0, requests=8, prompt_tokens=20, output_tokens=5)
    lengths = [(10 + i, 5) for i in range(8)]
    sent = sending(known(list(range(8)), lengths, load, server))
    assert sent.prompt_tokens.tolist() == [10, 14]
    assert sent.due_s.tolist() == [0.0, 4.0]
    assert sent.share == pytest.approx(0.25)


@pytest.mark.parametrize(("users", "each", "share"), [(16, 4, 0.25), (3, 1, 1 / 3), (1, 1, 1.0), (10, 2, 0.25)])
def test_users_are_spread_over_ranks(users: int, each: int, share: float) -> None:
    load = Load(concurrency=users, requests=12 * users, prompt_tokens=20, output_tokens=5)
    sent = sending(made_run(load, server=replace(SERVER, dp=4)))
    assert sent.users == each
    assert sent.share == pytest.approx(share, rel=0.05)


def test_a_log_of_steps_sends_nothing() -> None:
    with pytest.raises(ValueError, match="does not say what was sent"):
        sending(replace(made_run(OPEN), load=None))
