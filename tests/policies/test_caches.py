"""Caches of a scenario in the engine's terms, and the money they save in the field's own examples."""

from __future__ import annotations

from typing import Any

import pytest

from simlab import assemble, policies
from simlab.engine import arrays as codes
from simlab.prices import prompt_cache_terms
from simlab.results import savings
from simlab.scenario import Scenario, scenario_from_dict
from simlab.simulation import simulate

PRICE = {"input_usd_per_mtok": 3, "output_usd_per_mtok": 15, "cached_input_usd_per_mtok": 0.3}
DAY = 86400.0


def scenario(**more: Any) -> Scenario:
    cls = {
        "arrivals": {"kind": "poisson", "rate": 10_000 / DAY},
        "lengths": {"prompt": 1000, "output": 500},
        "prefix": {"system": 3000},
        "queries": {"count": 300, "zipf": 1.0},
        **more.pop("cls", {}),
    }
    api = {"provider": "acme", "model": "large", "ttft": 0.5, "itl": 0.01, "price": PRICE, **more.pop("api", {})}
    return scenario_from_dict(
        {"horizon": more.pop("horizon", DAY), "workload": {"faq": cls}, "apis": {"large": api}, **more}
    )


def caches(**layers: Any) -> Scenario:
    return scenario(gateway={"caches": layers})


def test_a_scope_is_a_sum_of_bits() -> None:
    (cache,) = assemble.backends(caches(exact={"scope": ["user", "corpus_version"], "capacity": 7})).caches
    assert cache.scope == codes.SAME_USER | codes.SAME_CORPUS
    assert cache.capacity == 7
    (usual,) = assemble.backends(caches(exact={})).caches
    assert usual.scope == codes.SAME_TENANT | codes.SAME_PROMPT | codes.SAME_MODEL | codes.SAME_CORPUS


def test_domains_are_classes_and_features() -> None:
    made = scenario_from_dict(
        {
            "workload": {
                name: {
                    "feature": feature,
                    "arrivals": {"kind": "poisson", "rate": 1},
                    "lengths": {"prompt": 1, "output": 1},
                    "queries": {"count": 9},
                }
                for name, feature in (("a", "x"), ("b", "x"), ("c", "y"), ("d", "z"))
            },
            "apis": {"large": {"provider": "acme", "model": "large", "ttft": 1, "itl": 0}},
            "gateway": {"caches": {"semantic": {"hit_ratio": 0.3, "ttl": "1h", "ttl_by": {"x": 60, "b": 5, "y": 7}}}},
        }
    )
    assert assemble.backends(made).caches[0].ttl_s == [60.0, 5.0, 7.0, 3600.0]


def test_results_are_kept_of_deterministic_classes_only() -> None:
    layers = {"results": {}, "exact": {}}
    plain = scenario(cls={"task": {"deterministic": True}}, gateway={"caches": layers})
    assert policies.plan(plain).classes[0].caches == [codes.RESULTS, codes.EXACT]  # type: ignore[union-attr]
    with pytest.raises(Exception, match="deterministic"):
        scenario(gateway={"caches": layers})


def test_the_curve_is_read_at_the_threshold() -> None:
    curve = {0.8: {"hit": 0.9, "false_hit": 0.10}, 0.9: {"hit": 0.6, "false_hit": 0.02}}
    (cache,) = assemble.backends(caches(semantic={"threshold": 0.85, "curve": curve})).caches
    assert (cache.hit, cache.false_hit) == pytest.approx((0.75, 0.06))
    assert not cache.stated


def test_layers_have_their_numbers() -> None:
    assert {name: i for i, name in enumerate(savings.LAYERS)} == policies.caches.LAYERS
    assert len(savings.LAYERS) == codes.LAYERS


@pytest.mark.parametrize(
    ("provider", "model", "minimum", "block"),
    [
        ("openai", "gpt-4.1", 1024, 128),
        ("anthropic", "claude-sonnet-4-5", 1024, 1),
        ("anthropic", "claude-haiku-4-5-20251001", 4096, 1),
        ("google", "gemini-2.5-pro", 4096, 1),
        ("acme", "large", 1024, 128),
    ],
)
def test_a_prompt_cache_is_as_its_provider_says(provider: str, model: str, minimum: int, block: int) -> None:
    made = scenario(api={"provider": provider, "model": model, "prompt_cache": {}})
    cache, (words,) = policies.prompt_cache(made, made.apis["large"])
    assert cache is not None
    assert (cache.min_tokens, cache.block, cache.ttl_s) == (minimum, block, 300.0)
    assert ("not known" in words) == (prompt_cache_terms(provider, model) is None) == (provider == "acme")


def test_endpoints_of_one_model_at_one_provider_share_a_prompt_cache() -> None:
    def endpoint(model: str, **more: Any) -> dict[str, Any]:
        return {"provider": "acme", "model": model, "ttft": 1, "itl": 0, "price": PRICE, "prompt_cache": {}, **more}

    data = scenario().model_dump(mode="json", by_alias=True)
    data["apis"] = {"a": endpoint("x"), "b": endpoint("y"), "c": endpoint("x")}
    data["gateway"] = {"routes": [{"to": {"a": 1, "b": 1, "c": 1}}]}
    specs = assemble.backends(scenario_from_dict(data)).specs
    assert [spec.prompt_cache.number for spec in specs] == [0, 1, 0]  # type: ignore[union-attr]


def test_versions_are_numbered_as_they_come() -> None:
    changes = [
        {"at": 10, "prompt_version": "b"},
        {"at": 20, "prompt_version": "v1", "corpus_version": "june"},
        {"at": 30, "prompt_version": "c"},
    ]
    made = scenario(cls={"task": {"changes": changes}})
    assert policies.changes(made) == [(10, 0, 1, 0, 0), (20, 0, 0, 0, 1), (30, 0, 2, 0, 1)]


# --- the field's arithmetic: 10 000 calls a day, 4 000 tokens in and 500 out, at $3 and $15 a million -----------------


def cost_of(made: Scenario) -> tuple[float, float]:
    """(USD that a day costs, USD that its caches saved)."""
    result = simulate(made, seed=5)
    return float(result.values["cost_usd"][0]), float(result.values["cache_saved_usd"][0])


def test_three_of_four_thousand_tokens_cached_at_a_tenth() -> None:
    """1 000 at $3 and 3 000 at $0.3 a million, 500 at $15: $0.0114 a call, 58.5 % of $0.0195; few are written."""
    cache = {"min_tokens": 1000, "block": 1, "ttl": "1h"}
    cost, saved = cost_of(scenario(api={"prompt_cache": cache}))
    plain, none = cost_of(scenario())
    assert cost / plain == pytest.approx(0.0114 / 0.0195, rel=2e-3)
    assert none == 0.0
    assert cost + saved == pytest.approx(plain, rel=1e-9)


def test_thirty_of_a_hundred_questions_look_like_one_before() -> None:
    """Hits cost nothing, so 70 % of the bill is left; they are some 3 000 of 10 000 ± 1.2 % at 99 %."""
    cost, saved = cost_of(scenario(gateway={"caches": {"semantic": {"hit_ratio": 0.3}}}))
    plain, _ = cost_of(scenario())
    assert cost / plain == pytest.approx(0.7, abs=0.012)
    assert cost + saved == pytest.approx(plain, rel=1e-3)


@pytest.mark.parametrize("layer", ["exact", "semantic"])
def test_what_a_layer_saves_is_what_a_run_without_it_costs_more(layer: str) -> None:
    """Counted hit by hit, against the same day without the layer: the same luck, so the same tasks and prices."""
    made = {"exact": {"ttl": "2h"}, "semantic": {"match": {"hit": 0.8, "false_hit": 0.01}, "ttl": "2h"}}[layer]
    cost, saved = cost_of(scenario(gateway={"caches": {layer: made}}))
    plain, _ = cost_of(scenario())
    assert saved > 0.1 * plain
    # What is in flight at the end, some 5 s of the day, is billed in neither or in one.
    assert cost + saved == pytest.approx(plain, rel=2e-4)


def test_a_hit_s_assumption_is_printed() -> None:
    stated = simulate(scenario(horizon=600, gateway={"caches": {"semantic": {"hit_ratio": 0.3}}}))
    assert any("stated share: 30.0% of lookups" in text for text in stated.assumptions)
    modelled = simulate(scenario(horizon=600, gateway={"caches": {"semantic": {"match": {"hit": 0.5}}}}))
    assert any("hits follow from what was asked before" in text for text in modelled.assumptions)


@pytest.mark.slow
def test_two_layers_save_what_two_runs_tell_apart() -> None:
    """Each layer's savings, against runs without it: paired, so Student's interval of the difference holds them.

    Behind the exact cache the semantic one has only its false hits. Without the exact cache it takes some of that one's
    hits over, which is why what a layer saves as counted is no less than what the run without it costs more.
    """
    both = {"exact": {"ttl": "2h"}, "semantic": {"match": {"hit": 0.7, "false_hit": 0.1}, "ttl": "2h"}}
    full = simulate(scenario(gateway={"caches": both}), replications=5, seed=1)
    bare = simulate(scenario(), replications=5, seed=1)
    gap = bare.values["cost_usd"] - full.values["cost_usd"]
    counted = full.values["cache_saved_usd"]
    assert counted == pytest.approx(gap, rel=2e-4)
    for layer in both:
        without = simulate(
            scenario(gateway={"caches": {name: cache for name, cache in both.items() if name != layer}}),
            replications=5, seed=1,
        )  # fmt: skip
        dearer = without.values["cost_usd"] - full.values["cost_usd"]
        assert (dearer > 0).all()
        assert (dearer < counted).all()
