"""Which backends fit a class, and where a route by price or latency may then go."""

from __future__ import annotations

from typing import Any

import pytest

from simlab.assemble import backends
from simlab.errors import InputError
from simlab.lint import lint
from simlab.scenario import Scenario, scenario_from_dict
from simlab.scenario.capabilities import lacking
from simlab.simulation import simulate

PRICE = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 4.0}
DEAR = {"input_usd_per_mtok": 2.0, "output_usd_per_mtok": 8.0}
CHEAP = {"input_usd_per_mtok": 0.1, "output_usd_per_mtok": 0.4}


def plan(**changes: Any) -> Scenario:
    """A class that needs tools in the EU, by price over a cheap endpoint that lacks them and two that do not."""

    def api(name: str, price: dict[str, float], **offers: Any) -> dict[str, Any]:
        return {"provider": "own", "model": name, "ttft": "0.2s", "itl": "5ms", "price": price, "offers": offers}

    data: dict[str, Any] = {
        "horizon": "10min",
        "workload": {
            "chat": {
                "arrivals": {"kind": "poisson", "rate": "1/s"},
                "lengths": {"prompt": 100, "output": 20},
                "needs": {"can": ["tools"], "regions": ["eu"], "context": 8000},
            }
        },
        "apis": {
            "cheap": api("small", CHEAP, regions=["eu"]),
            "abroad": api("small", CHEAP, can=["tools"], regions=["us"]),
            "short": api("small", CHEAP, can=["tools"], regions=["eu"], context=4000),
            "fit": api("large", PRICE, can=["tools", "vision"], regions=["eu"], context=8000),
            "dear": api("large", DEAR, can=["tools"], regions=["eu"]),
        },
        "gateway": {
            "routes": [{"by": "cheapest", "to": dict.fromkeys(("cheap", "abroad", "short", "fit", "dear"), 1)}]
        },
    }
    return scenario_from_dict(data | changes)


def test_what_a_backend_lacks_is_said() -> None:
    scenario = plan()
    assert lacking(scenario, "chat", "cheap") == ["'tools'"]
    assert lacking(scenario, "chat", "abroad") == ["the guarantee that nothing goes to 'us'"]
    assert lacking(scenario, "chat", "short") == ["a context of 8,000 tokens (it has 4,000)"]
    assert lacking(scenario, "chat", "fit") == lacking(scenario, "chat", "dear") == []


def test_the_cheapest_of_those_that_fit_gets_everything() -> None:
    found = simulate(plan())
    served = {row["backend"]: row["attempts"] for row in found.rows("backend") if row["attempts"]}
    assert list(served) == ["fit"]
    assert plan().route_of("chat") == {"fit": 0.5, "dear": 0.5}


def test_a_route_by_price_needs_prices() -> None:
    scenario = plan(
        workload={"chat": {"arrivals": {"kind": "poisson", "rate": 1}, "lengths": {"prompt": 9, "output": 9}}},
        apis={
            "known": {"provider": "own", "model": "a", "ttft": 1, "itl": 0.01, "price": PRICE},
            "unknown": {"provider": "nobody", "model": "b", "ttft": 1, "itl": 0.01},
        },
        gateway={"routes": [{"by": "cheapest", "to": {"known": 1, "unknown": 1}}]},
    )
    with pytest.raises(InputError, match=r"no price of 'unknown' is known.*give apis\.unknown\.price"):
        backends(scenario)
    said = [(found.path, found.severity) for found in lint(scenario)]
    assert ("gateway.routes.0.to.unknown", "error") in said
