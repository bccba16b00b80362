"""What the gateway answers by itself costs nothing, and the page about it can be printed."""

from __future__ import annotations

from simlab.report.text import text
from simlab.scenario import scenario_from_dict
from simlab.simulation import simulate


def test_refusals_and_canned_answers_have_no_price_and_are_shown() -> None:
    result = simulate(scenario_from_dict({
        "horizon": "10min",
        "workload": {"app": {"arrivals": {"kind": "poisson", "rate": "1/s"}, "lengths": {"prompt": 10, "output": 10}}},
        "apis": {
            "api": {
                "provider": "p", "model": "m", "ttft": "200ms", "itl": "5ms", "error_probability": 0.5,
                "price": {"input_usd_per_mtok": 1, "output_usd_per_mtok": 4},
            }
        },
        "gateway": {
            "limits": [{"rpm": 30, "burst": 1}],
            "fallback": {"api": "sorry"},
            "answers": {"sorry": {"latency": "5ms"}},
        },
    }))  # fmt: skip
    assert {row["backend"] for row in result.prices} == {"api"}
    assert result.unpriced == []
    said = text(result)
    assert "sorry" in said
    assert "gateway" in said
    usd = {row["backend"]: row["cost_usd"] for row in result.rows("backend")}
    assert usd["sorry"] == usd["gateway"] == 0.0
