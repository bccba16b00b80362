"""A learned router known by its cost-quality curve, on measured answers of a weak and a strong model."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from simlab.scenario import scenario_from_dict
from simlab.simulation import simulate

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
N = 20_000


@pytest.fixture(scope="module")
def answers(shared_data: Path) -> pd.DataFrame:
    """Questions of GSM8K and MMLU with whether Mixtral-8x7B and GPT-4 were right (RouteLLM)."""
    return pd.read_csv(shared_data / "routing_quality" / "routellm_weak_strong_correct.csv.gz")


def by_length(answers: pd.DataFrame, share: float) -> float:
    """Share of right answers when the longest questions go to the strong model: a router that sees nothing else."""
    ranked = answers.sort_values("prompt_chars", ascending=False, kind="stable")
    sent = round(share * len(ranked))
    right = ranked["gpt4_1106_correct"].iloc[:sent].sum() + ranked["mixtral_8x7b_correct"].iloc[sent:].sum()
    return float(right / len(ranked))


@pytest.mark.parametrize("dataset", ["gsm8k", "mmlu"])
@pytest.mark.parametrize("share", [0.25, 0.6])
def test_a_router_by_length_is_as_often_right_as_it_was(answers: pd.DataFrame, dataset: str, share: float) -> None:
    mine = answers[answers["dataset"].str.startswith(dataset)]
    curve = {x: by_length(mine, x) for x in SHARES}
    price = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 1.0}
    found = simulate(
        scenario_from_dict(
            {
                "horizon": f"{N}s",
                "workload": {
                    "quiz": {"arrivals": {"kind": "poisson", "rate": "1/s"}, "lengths": {"prompt": 100, "output": 10}}
                },
                "apis": {
                    name: {"provider": "p", "model": name, "ttft": "100ms", "itl": "1ms", "price": price}
                    for name in ("weak", "strong")
                },
                "gateway": {
                    "routes": [
                        {
                            "by": "learned",
                            "learned": {"weak": "weak", "strong": "strong", "strong_share": share, "curve": curve},
                        }
                    ]
                },
            }
        )
    )
    sent = {row["backend"]: row["attempts"] for row in found.rows("backend")}
    n = found["tasks"].value or 0.0
    assert sent["strong"] / n == pytest.approx(share, abs=4.0 * math.sqrt(share * (1.0 - share) / n))
    q = by_length(mine, share)
    # Four standard deviations of the draw, and what straight lines between five points of the curve leave out.
    straight = abs(float(np.interp(share, SHARES, [curve[x] for x in SHARES])) - q)
    assert found["success_ratio"].value == pytest.approx(q, abs=4.0 * math.sqrt(q * (1.0 - q) / n) + straight + 1e-3)
    assert straight < 0.01
