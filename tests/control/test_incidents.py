"""Incidents of endpoints against an engine that only writes down what it is told, and against the real one."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
import simpy

from simlab.control import Handle, Incident, suffer
from simlab.engine import Engine
from simlab.scenario import scenario_from_dict
from simlab.simulation import simulate


@dataclass
class Recorder:
    """An engine that writes down how its endpoints are."""

    env: simpy.Environment
    told: list[tuple[float, int, float, float]] = field(default_factory=list)

    def set_endpoint(self, backend: int, slowdown: float, error_probability: float) -> None:
        self.told.append((self.env.now, backend, slowdown, error_probability))


def told(*incidents: Incident, errors: dict[int, float] | None = None) -> list[tuple[float, int, float, float]]:
    env = simpy.Environment()
    engine = Recorder(env)
    env.process(suffer(env, cast(Handle, engine), incidents, errors or {0: 0.0, 1: 0.0}))
    env.run(1000.0)
    return engine.told


def test_an_incident_begins_and_ends() -> None:
    assert told(Incident(5.0, 35.0, 0, slowdown=6.0)) == [(5.0, 0, 6.0, 0.0), (35.0, 0, 1.0, 0.0)]


def test_without_an_end_it_lasts() -> None:
    assert told(Incident(5.0, math.inf, 1, error_probability=1.0)) == [(5.0, 1, 1.0, 1.0)]


def test_usual_errors_come_on_top_and_come_back() -> None:
    first, last = told(Incident(5.0, 6.0, 0, error_probability=0.5), errors={0: 0.2})
    assert first == (5.0, 0, 1.0, pytest.approx(0.6))
    assert last == (6.0, 0, 1.0, 0.2)


def test_factors_of_several_multiply_while_they_overlap() -> None:
    slow, slower = Incident(0.0, 20.0, 0, slowdown=2.0), Incident(10.0, 30.0, 0, slowdown=3.0)
    assert told(slower, slow) == [(0.0, 0, 2.0, 0.0), (10.0, 0, 6.0, 0.0), (20.0, 0, 3.0, 0.0), (30.0, 0, 1.0, 0.0)]


def test_endpoints_do_not_mind_each_other() -> None:
    found = told(Incident(5.0, 15.0, 0, slowdown=2.0), Incident(10.0, 15.0, 1, error_probability=0.5))
    assert found == [(5.0, 0, 2.0, 0.0), (10.0, 1, 1.0, 0.5), (15.0, 0, 1.0, 0.0), (15.0, 1, 1.0, 0.0)]


def plan(*operations: dict[str, Any]) -> dict[str, Any]:
    """An API whose calls take 1 s, asked twice a second for 100 s."""
    return {
        "horizon": 200,
        "window": 1,
        "workload": {
            "app": {
                "arrivals": {"kind": "gamma", "rate": 2, "cv": 0.001, "profile": {"series": [[0, 1], [100, 0]]}},
                "lengths": {"prompt": 10, "output": 11},
            }
        },
        "apis": {
            "api": {
                "provider": "p", "model": "m", "ttft": 0.5, "itl": 0.05,
                "price": {"input_usd_per_mtok": 1, "output_usd_per_mtok": 1},
            }
        },
        "operations": list(operations),
    }  # fmt: skip


def test_calls_that_begin_while_an_api_is_slow_take_so_much_longer() -> None:
    usual = simulate(scenario_from_dict(plan()))
    slow = simulate(scenario_from_dict(plan({"at": 20, "api": "api", "action": "slow_down", "factor": 5, "for": 30})))
    assert usual["e2e_s_mean"].value == pytest.approx(1.0, rel=1e-6)
    # 30 of 100 s: 60 of 200 calls took 5 s.
    assert slow["e2e_s_mean"].value == pytest.approx(0.7 * 1.0 + 0.3 * 5.0, rel=0.03)
    assert slow["ttft_s_mean"].value == pytest.approx(0.7 * 0.5 + 0.3 * 2.5, rel=0.03)
    assert slow["tasks"].value == usual["tasks"].value
    assert slow["cost_usd"].value == usual["cost_usd"].value


def test_an_outage_fails_what_begins_in_it_and_nothing_else() -> None:
    out = simulate(scenario_from_dict(plan({"at": 20, "api": "api", "action": "errors", "for": 30})))
    columns = out.windows()
    mine = columns[columns["backend"] == "api"]
    failed = mine["failure_rate_rps"].to_numpy()
    assert failed.sum() == pytest.approx(60, abs=2)
    # A call fails half a second after it began.
    assert failed[:20].sum() == 0
    assert failed[52:].sum() == 0
    assert out["success_ratio"].value == pytest.approx(0.7, abs=0.01)


def test_a_share_of_errors_is_a_share() -> None:
    coin = plan({"at": 0, "api": "api", "action": "errors", "share": 0.5})
    half = simulate(scenario_from_dict(coin), replications=10)
    # 2,000 calls, each a coin: four standard deviations are 0.045.
    assert half["success_ratio"].value == pytest.approx(0.5, abs=0.045)


@pytest.mark.parametrize(("slowdown", "errors"), [(0.0, 0.0), (math.inf, 0.0), (1.0, 1.1), (1.0, -0.1)])
def test_the_engine_refuses_what_makes_no_sense(slowdown: float, errors: float) -> None:
    from simlab import assemble

    scenario = scenario_from_dict(plan())
    spec, _ = assemble.world(scenario, assemble.backends(scenario), 1, log_rows=0)
    with pytest.raises(ValueError, match="slowdown"):
        Engine(spec).set_endpoint(0, slowdown, errors)
