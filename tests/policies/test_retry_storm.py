"""A retry storm: pushed once, an API at 95% load stays down under aggressive retries and comes back under careful ones.

`scenarios/examples/retry-storm.yaml` has the arithmetic; its times are tested here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from simlab.results import Result
from simlab.scenario import load
from simlab.simulation import simulate

SCENARIO = Path(__file__).resolve().parents[2] / "scenarios" / "examples" / "retry-storm.yaml"
ARRIVALS, CAPACITY = 47.5, 50.0
PUSH_S, PUSHED_FOR_S, FACTOR = 300.0, 30.0, 6.0
PATIENCE_S = 5.0
"""Time-out less the second that a call takes: a longer queue means no answers."""

BACKLOG = PUSHED_FOR_S * (ARRIVALS - CAPACITY / FACTOR)


def run(variant: str, *sets: str) -> Result:
    return simulate(load(SCENARIO, variant=variant, sets=list(sets)))


def answers(result: Result) -> NDArray[np.float64]:
    """Answers a second that were in time, by minute."""
    windows = result.windows()
    by_window = windows[windows["backend"] == "provider"]["finish_rate_rps"].to_numpy(float)
    per_minute = round(60.0 / result.scenario.window_s)
    return by_window.reshape(-1, per_minute).mean(axis=1)


def back_at_s(load_rps: float) -> float:
    """When a queue that is fed at this rate is short enough again, s after the start."""
    return PUSH_S + PUSHED_FOR_S + (BACKLOG - CAPACITY * PATIENCE_S) / (CAPACITY - load_rps)


@pytest.mark.parametrize("variant", ["none", "aggressive", "jitter", "budget-too-big", "careful", "breaker"])
def test_before_the_push_all_are_alike(variant: str) -> None:
    # 285 s at 47.5 a second: four standard deviations are 1.6.
    assert answers(run(variant, "horizon=5min"))[:-1].mean() == pytest.approx(ARRIVALS, abs=2.0)


@pytest.mark.parametrize("variant", ["aggressive", "jitter", "budget-too-big"])
def test_retries_above_the_spare_capacity_keep_it_down(variant: str) -> None:
    """25 minutes after a push of 30 s there is still no answer, with the API as fast as before the push."""
    assert answers(run(variant))[6:].max() == 0.0


def test_aggressive_retries_do_no_harm_without_a_push() -> None:
    """The same load, retries and time-outs: what is down in one run is up in the other, hence metastable."""
    found = run("aggressive", "operations=[]", "horizon=15min")
    assert answers(found).mean() == pytest.approx(ARRIVALS, abs=1.2)
    assert found["success_ratio"].value == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(("variant", "load_rps"), [("none", ARRIVALS), ("careful", 1.02 * ARRIVALS)])
def test_it_comes_back_when_the_backlog_is_worked_off(variant: str, load_rps: float) -> None:
    minutes = answers(run(variant))
    back = back_at_s(load_rps) / 60.0
    # The backlog, and what comes until it is worked off, are random: the time is within a third of what is expected.
    early, late = 6 + int(0.66 * (back - 6)), int(np.ceil(6 + 1.34 * (back - 6)))
    assert minutes[6:early].max() == 0.0
    assert minutes[late:].mean() == pytest.approx(ARRIVALS, abs=1.5)


def test_a_breaker_gives_it_time_to_recover() -> None:
    minutes = answers(run("breaker"))
    assert minutes[8:].mean() == pytest.approx(ARRIVALS, abs=1.0)


def test_telling_the_server_is_not_enough_but_helps_a_budget() -> None:
    """First come, first served: what is taken up has waited until it is nearly given up, and is, half way."""
    assert answers(run("aggressive", "gateway.abort=true"))[6:].max() == 0.0
    assert answers(run("careful", "gateway.abort=true"))[6:].mean() == pytest.approx(ARRIVALS, abs=1.0)
