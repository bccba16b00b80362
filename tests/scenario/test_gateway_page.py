"""Every piece of YAML in docs/gateway.md is a piece of a good scenario."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from simlab.scenario import scenario_from_dict

PAGE = Path(__file__).resolve().parents[2] / "docs" / "gateway.md"
PIECES = [YAML(typ="safe").load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)]


def base() -> dict[str, Any]:
    """What the pieces take for granted."""
    cls = {"arrivals": {"kind": "poisson", "rate": "1/s"}, "lengths": {"prompt": 5000, "output": 100}}
    price = {"input_usd_per_mtok": 1, "output_usd_per_mtok": 4, "cached_input_usd_per_mtok": 0.1}
    return {
        "horizon": "30d",
        "workload": {
            "faq": {**cls, "feature": "faq", "prefix": {"system": 2000}},
            "chat": {**cls, "tenants": {"count": 20}},
            "prices": dict(cls),
        },
        "pools": {"local": {"model": "llama-3.1-8b", "gpu": "h100-sxm"}},
        "apis": {
            name: {"provider": "p", "model": name, "ttft": "300ms", "itl": "10ms", "price": price}
            for name in ("large", "small", "spare", "claude")
        },
        "gateway": {"routes": [{"to": {"large": 1}}]},
    }


def merged(below: Any, above: Any) -> Any:
    if isinstance(below, dict) and isinstance(above, dict):
        return {key: merged(below.get(key), above.get(key, below.get(key))) for key in {**below, **above}}
    return above


@pytest.mark.parametrize("piece", PIECES, ids=[str(i) for i in range(len(PIECES))])
def test_a_piece_of_yaml_fits_into_a_scenario(piece: dict[str, Any]) -> None:
    scenario = scenario_from_dict(merged(base(), piece))
    assert scenario.workload


def test_there_are_pieces() -> None:
    assert len(PIECES) >= 7
