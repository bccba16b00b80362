"""What is not known of a GPU's speed, carried through whole simulations: values, intervals, warnings, plans."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from typer.testing import CliRunner

import simlab
from simlab.cli.main import app
from simlab.decide import Comparison
from simlab.errors import InputError
from simlab.profiles import Profile, StepTime, Uncertainty, Validity
from simlab.results import Result, result_schema
from simlab.scenario import Scenario, scenario_from_dict

TERMS = ("base_s", "per_seq_s", "per_kv_token_s", "linear")
FIT = Profile(
    name="our-own.asic.tp1.fp8",
    model="our-own",
    gpu="asic",
    tp=1,
    precision="fp8",
    kind="measured",
    step_time=StepTime(base_s=0.004, per_seq_s=2e-4, per_kv_token_s=4e-8, linear=((1, 0.004), (8192, 0.4))),
    uncertainty=Uncertainty(TERMS, tuple(tuple(0.15**2 * (i == j) for j in range(4)) for i in range(4))),
    fitted_on=("bench of a prototype",),
    error={"tpot_left_out_median_ape": 0.031},
    kv_blocks=6000,
    block_size=16,
    max_num_seqs=64,
    max_num_batched_tokens=8192,
    engine="vLLM 0.11.0",
    date="2026-02-03",
)


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[Profile], str]:
    def save(profile: Profile) -> str:
        path = tmp_path / f"{profile.name}.{abs(hash(profile.step_time))}.json"
        profile.save(path)
        return str(path)

    return save


def plan(profile: str, *, pool: dict[str, Any] | None = None, **changes: Any) -> Scenario:
    own = {
        "model": "our-own",
        "gpu": "asic",
        "profile": profile,
        "max_num_seqs": 64,
        "price": {"usd_per_gpu_hour": 2.0},
    }
    return scenario_from_dict(
        {
            "name": "own",
            "horizon": 200,
            "warmup": 20,
            "workload": {
                "chat": {
                    "arrivals": {"kind": "poisson", "rate": 6.0},
                    "lengths": {
                        "prompt": {"kind": "geometric", "mean": 300},
                        "output": {"kind": "geometric", "mean": 80},
                    },
                }
            },
            "pools": {"local": own | (pool or {})},
            "slo": {"ttft": 0.5, "target": 0.9},
        }
        | changes
    )


def run(scenario: Scenario, replications: int = 3, **how: Any) -> Result:
    return simlab.simulate(scenario, replications=replications, workers=1, **how)


def test_values_are_those_of_the_fit_and_intervals_are_wider(saved: Callable[[Profile], str]) -> None:
    scenario = plan(saved(FIT))
    fixed, sampled = run(scenario, calibration="fixed"), run(scenario)
    assert (fixed.calibration, sampled.calibration) == ("fixed", "sampled")
    assert len(sampled.drawn) == 3
    for name, one in fixed.estimates.items():
        other = sampled[name]
        assert other.value == one.value, name
        if one.value is not None:
            assert other.low <= one.low + 1e-12, name
            assert other.high >= one.high - 1e-12, name
    for name in ("ttft_s_mean", "itl_s_mean", "itl_s_p95", "e2e_s_p50"):
        assert sampled[name].calibration_share > 0.5, name
        assert sampled[name].high - sampled[name].low > 1.5 * (fixed[name].high - fixed[name].low), name
    text = " ".join(sampled.assumptions)
    assert "calibration error (every replication again" in text
    assert "no calibration error" in " ".join(fixed.assumptions)


def test_what_does_not_depend_on_speed_is_as_sure_as_before(saved: Callable[[Profile], str]) -> None:
    scenario = plan(saved(FIT))
    fixed, sampled = run(scenario, calibration="fixed"), run(scenario)
    for name in ("tasks", "cost_usd", "cost_usd_per_month", "gpu_usd", "gpu_hours"):
        assert sampled[name].calibration_share == 0.0, name
        assert (sampled[name].low, sampled[name].high) == (fixed[name].low, fixed[name].high), name
    assert sampled["cost_usd"].low == sampled["cost_usd"].high


def test_one_replication_is_at_the_fit_and_says_so(saved: Callable[[Profile], str]) -> None:
    one = run(plan(saved(FIT)), 1)
    assert (one.calibration, one.drawn) == ("fixed", ())
    assert any("no calibration error" in sentence for sentence in one.assumptions)


def test_a_profile_without_uncertainty_is_not_run_twice(saved: Callable[[Profile], str]) -> None:
    sure = run(plan(saved(replace(FIT, uncertainty=Uncertainty()))))
    assert (sure.calibration, sure.drawn) == ("fixed", ())


def test_an_api_has_nothing_to_draw() -> None:
    scenario = simlab.load(Path(__file__).resolve().parent.parent / "scenarios" / "quickstart.yaml", variant="api",
                           sets=["horizon=60", "warmup=0"])  # fmt: skip
    found = run(scenario, 2)
    assert (found.calibration, found.drawn) == ("nothing to draw", ())
    assert found["ttft_s_p95"].calibration_share is None


def test_the_same_seed_gives_the_same_bytes_whoever_works(saved: Callable[[Profile], str]) -> None:
    scenario = plan(saved(FIT))
    alone = run(scenario).to_json()
    with ThreadPoolExecutor(3) as threads:
        assert simlab.simulate(scenario, replications=3, executor=threads).to_json() == alone
    assert simlab.simulate(scenario, replications=3, workers=2).to_json() == alone
    assert run(scenario, seed=1).to_json() != alone


@pytest.mark.slow
def test_processes_give_the_same_bytes(saved: Callable[[Profile], str], monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = plan(saved(FIT))
    alone = run(scenario).to_json()
    monkeypatch.setattr("simlab.simulation._WORTH_A_PROCESS_S", 0.0)
    assert simlab.simulate(scenario, replications=3, workers=2).to_json() == alone


def test_pools_with_one_profile_see_one_draw_of_it_and_others_their_own(saved: Callable[[Profile], str]) -> None:
    """Twins that share the traffic evenly stay alike; a pool of another set-up goes its own way."""
    path, other = saved(FIT), saved(replace(FIT, name="our-own.asic2.tp1.fp8"))
    paces = []
    for second in (path, other):
        pools = {
            name: {"model": "our-own", "gpu": "asic", "profile": p, "price": {"usd_per_gpu_hour": 1}}
            for name, p in (("one", path), ("two", second))
        }
        found = run(plan(path, pools=pools, gateway={"routes": [{"to": {"one": 1, "two": 1}}]}), 6)
        sums = np.array([m.hist_sum[1].sum(axis=0) / m.hist_count[1].sum(axis=0) for m in found.drawn])
        fits = np.array([m.hist_sum[1].sum(axis=0) / m.hist_count[1].sum(axis=0) for m in found.measurements])
        paces.append(np.log(sums / fits))
    alike, apart = paces
    assert np.abs(alike[:, 0] - alike[:, 1]).max() < 0.02
    assert np.abs(apart[:, 0] - apart[:, 1]).max() > 0.04
    # What one pool draws does not depend on who else is there.
    assert np.abs(alike[:, 0] - apart[:, 0]).max() < 0.02


def test_plans_on_one_profile_share_its_error(saved: Callable[[Profile], str]) -> None:
    """A GPU that is slower than its profile says makes both plans slower: their difference is far surer than either."""
    path, other = saved(FIT), saved(replace(FIT, name="another.asic.tp1.fp8"))
    base = plan(path)
    near = simlab.compare({"a": base, "b": plan(path, pool={"max_num_seqs": 63})}, replications=4, workers=1)
    far = simlab.compare({"a": base, "b": plan(other, pool={"max_num_seqs": 63})}, replications=4, workers=1)
    name = "itl_s_mean"
    shared, apart = (found.differences["b"][name] for found in (near, far))
    assert shared.change == apart.change
    assert shared.high - shared.low < 0.1 * (apart.high - apart.low)
    assert apart.calibration_share > 0.9
    wide = near.results["a"][name]
    assert apart.high - apart.low > 0.8 * (wide.high - wide.low)


def test_a_comparison_with_an_api_carries_the_error_of_the_pool(saved: Callable[[Profile], str]) -> None:
    api = {
        "provider": "somebody", "model": "something", "ttft": 0.3, "itl": 0.01,
        "price": {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 4.0},
    }  # fmt: skip
    pool = plan(saved(FIT))
    away = plan("", pools={}, apis={"far": api})
    found = simlab.compare({"pool": pool, "api": away}, replications=3, workers=1)
    assert found.results["api"].calibration == "nothing to draw"
    difference = found.differences["api"]["ttft_s_mean"]
    assert difference.calibration_share > 0.5
    assert found.differences["api"]["tasks"].low == found.differences["api"]["tasks"].high == 0.0


def test_plans_must_be_carried_alike(saved: Callable[[Profile], str]) -> None:
    scenario = plan(saved(FIT))
    with pytest.raises(ValueError, match="calibration"):
        Comparison({"a": run(scenario), "b": run(scenario, calibration="fixed")})
    fixed = simlab.compare({"a": scenario, "b": scenario}, replications=2, workers=1, calibration="fixed")
    assert fixed.differences["b"]["ttft_s_mean"].calibration_share is None


def test_draws_that_overload_a_pool_are_counted(saved: Callable[[Profile], str]) -> None:
    """Four fifths of its capacity, and step times that may be off by half: some draws cannot keep up."""
    wide = Uncertainty(("base_s", "per_seq_s", "linear"), ((0.2, 0.2, 0.2),) * 3)
    scenario = plan(saved(replace(FIT, uncertainty=wide)), workload={
        "chat": {"arrivals": {"kind": "poisson", "rate": 18.0}, "lengths": {"prompt": 300, "output": 80}}})  # fmt: skip
    found = run(scenario, 8)
    times = int(found.overloads.sum())
    assert 1 <= times <= 6
    [warning] = [text for text in found.warnings if "draws of its calibration" in text]
    assert warning.startswith(f"local keeps up at the fit, but in {times} of 8 draws")
    ttft = found["ttft_s_p95"]
    assert ttft.high > 10 * ttft.value
    jsonschema.Draft202012Validator(result_schema()).validate(json.loads(found.to_json()))


def test_a_profile_used_beyond_its_measurements_is_said_and_is_less_sure(saved: Callable[[Profile], str]) -> None:
    narrow = replace(FIT, validity=Validity(max_decode_seqs=4, max_step_tokens=8192, max_context_tokens=100_000))
    within, beyond = run(plan(saved(FIT))), run(plan(saved(replace(narrow, name=FIT.name))))
    [row] = beyond.profiles
    [outside] = row["outside"]
    assert outside["limit"] == "max_decode_seqs"
    assert outside["measured"] == 4
    assert outside["reached"] == max(m.replicas["peak_seqs"].max() for m in beyond.measurements)
    assert 0.2 < outside["share"] <= 1.0
    assert any("local goes beyond what its profile was measured on: up to" in text for text in beyond.warnings)
    assert beyond["itl_s_mean"].value == within["itl_s_mean"].value
    assert beyond["itl_s_mean"].high > within["itl_s_mean"].high
    assert within.profiles[0]["outside"] == []
    jsonschema.Draft202012Validator(result_schema()).validate(json.loads(beyond.to_json()))


def test_even_a_sure_profile_is_unsure_beyond_its_measurements(saved: Callable[[Profile], str]) -> None:
    sure = replace(FIT, uncertainty=Uncertainty(), validity=Validity(max_decode_seqs=4))
    found = run(plan(saved(sure)))
    assert found.calibration == "sampled"
    assert found["itl_s_mean"].calibration_share > 0.5


def test_the_uncertainty_of_a_break_even_holds_that_of_the_profile(saved: Callable[[Profile], str]) -> None:
    api = {
        "provider": "somebody", "model": "something", "ttft": 0.3, "itl": 0.01,
        "price": {"input_usd_per_mtok": 0.2, "output_usd_per_mtok": 0.2},
    }  # fmt: skip
    path = saved(FIT)
    away, own = plan(path, pools={}, apis={"far": api}), plan(path)
    how: dict[str, Any] = {"max_replicas": 2, "replications": 3, "workers": 1}
    fixed = simlab.break_even(away, own, calibration="fixed", **how)
    sampled = simlab.break_even(away, own, **how)
    for (_, one, usd), (_, other, same) in zip(fixed.steps, sampled.steps, strict=True):
        assert (other.value, same) == (one.value, usd)
        assert other.calibration_share > 0.5
        assert one.calibration_share is None
        assert other.high - other.low > 1.5 * (one.high - one.low)
    data = sampled.to_dict()
    assert data["calibration"] == {"mode": "sampled", "draws": 3}
    assert fixed.to_dict()["calibration"] == {"mode": "fixed", "draws": 0}
    assert "calibration error" in " ".join(sampled.assumptions)
    again = simlab.break_even(away, own, max_replicas=2, replications=3, workers=2)
    assert again.to_json() == sampled.to_json()


SCENARIO = """\
name: own
horizon: 2min
warmup: 10s
workload:
  chat:
    arrivals: {kind: poisson, rate: 4/s}
    lengths: {prompt: 300, output: 60}
pools:
  local: {model: our-own, gpu: asic, profile: mine.json}
slo: {ttft: 1s}
"""


def test_a_fitted_profile_of_names_nobody_knows_runs_end_to_end(tmp_path: Path) -> None:
    FIT.save(tmp_path / "mine.json")
    path = tmp_path / "own.yaml"
    path.write_text(SCENARIO, encoding="utf-8")
    validated = CliRunner().invoke(app, ["validate", str(path)])
    assert validated.exit_code == 0, validated.output
    ran = CliRunner().invoke(app, ["run", str(path), "-q", "-r", "2", "-f", "json"])
    assert ran.exit_code == 0, ran.output
    data = json.loads(ran.stdout)
    [profile] = data["profiles"]
    assert (profile["name"], profile["kind"], profile["date"]) == (FIT.name, "measured", "2026-02-03")
    assert "3.1%" in profile["error"]
    assert "bench of a prototype" in profile["source"]
    assert "vLLM 0.11.0" in profile["source"]
    said = " ".join(data["assumptions"])
    assert "6,000 KV blocks of 16 tokens a replica, as the server had that its profile is from" in said
    assert "max_num_seqs 256 (measured with 64)" in said
    assert data["unpriced"] == [{"backend": "local", "what": "asic hours"}]
    assert "cost unknown" in data["headline"]


def test_blocks_of_another_size_hold_the_same_tokens(tmp_path: Path) -> None:
    FIT.save(tmp_path / "mine.json")
    path = tmp_path / "own.yaml"
    path.write_text(SCENARIO.replace("profile: mine.json", "profile: mine.json, block_size: 32"), encoding="utf-8")
    found = run(simlab.load(path), 1)
    assert any("3,000 KV blocks of 32 tokens" in text for text in found.assumptions)


def test_what_a_profile_of_ones_own_cannot_tell_must_be_given(tmp_path: Path) -> None:
    replace(FIT, kv_blocks=None).save(tmp_path / "mine.json")
    path = tmp_path / "own.yaml"
    path.write_text(SCENARIO, encoding="utf-8")
    result = CliRunner().invoke(app, ["run", str(path), "-q"])
    assert result.exit_code != 0
    assert "no table knows the model 'our-own' and the gpu 'asic'" in str(result.exception)
    assert "give kv_blocks" in str(result.exception)
    given = run(simlab.load(path, sets=["pools.local.kv_blocks=5000"]), 1)
    assert given.values["success_ratio"][0] == 1.0


def test_a_profile_file_is_looked_for_beside_the_scenario_and_named_when_missing(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(SCENARIO, encoding="utf-8")
    with pytest.raises(InputError, match="no such profile file") as caught:
        run(simlab.load(path), 1)
    assert str(tmp_path / "mine.json") in str(caught.value)


def test_a_pool_that_borrows_a_profile_says_so(saved: Callable[[Profile], str]) -> None:
    borrowed = plan(saved(FIT), pool={"model": "llama-3.1-8b", "gpu": "h100", "tp": 2, "kv_blocks": 5000})
    found = run(borrowed, 1)
    assert any("step times are those of our-own on 1 × asic" in text for text in found.assumptions)


@pytest.mark.slow
def test_intervals_hold_the_truth_at_their_rate(saved: Callable[[Profile], str]) -> None:
    """Worlds whose true step time is drawn from the covariance: what the plan does there lies in the fit's interval."""
    rng = np.random.default_rng(20)
    names = ("ttft_s_mean", "ttft_s_p95", "itl_s_mean", "itl_s_p99", "e2e_s_mean", "kv_utilization")
    worlds, hits, ends = 80, dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    fit = saved(FIT)
    for world in range(worlds):
        true = replace(FIT, step_time=FIT.sampled(rng.normal(size=len(TERMS)).tolist()), uncertainty=Uncertainty())
        truth = run(plan(saved(true)), 12, seed=10_000 + world, calibration="fixed")
        found, lucky = run(plan(fit), 4, seed=world), run(plan(fit), 4, seed=world, calibration="fixed")
        for name in names:
            value = truth[name].value
            hits[name] += found[name].low <= value <= found[name].high
            ends[name] += lucky[name].low <= value <= lucky[name].high
    for name in names:
        # 95% of 80 is 76 ± 2; without calibration error most miss.
        assert hits[name] >= 70, (name, hits)
        assert ends[name] < 60, (name, ends)
    assert sum(hits.values()) <= 0.99 * worlds * len(names)
