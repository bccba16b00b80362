"""The worked examples come out as the arithmetic in their comments says.

By default at a tenth of their horizon or less, with the bill stretched to the whole; slow tests run them as written.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from simlab.lint import lint
from simlab.results import Result
from simlab.scenario import load, variants_of
from simlab.scenario.operations import Operation
from simlab.simulation import simulate

EXAMPLES = Path(__file__).resolve().parents[2] / "scenarios" / "examples"
TESTS = Path(__file__).resolve().parents[1]
DAY_S = 86_400.0

CHAIN = {
    "baseline": 7050.0,
    "prompt-cache": 3720.0,
    "semantic-cache": 2604.0,
    "cascade": 1110.9,
    "cascade-tried": 1157.1,
    "baseline-list": 5850.0,
    "prompt-cache-list": 3420.0,
    "semantic-cache-list": 2394.0,
    "cascade-list": 1026.9,
}
"""USD in 30 days."""


def run(name: str, variant: str, horizon: str | None = None, replications: int = 1) -> Result:
    sets = [] if horizon is None else [f"horizon={horizon}", "window=1h"]
    return simulate(load(EXAMPLES / f"{name}.yaml", variant=variant, sets=sets), replications=replications)


def usd_a_day(result: Result) -> float:
    return float(result["cost_usd"].value or 0.0) * DAY_S / result.scenario.horizon


def test_every_example_has_a_test_here_or_of_its_own() -> None:
    here = {"batch-and-cache", "savings-chain", "savings-stack", "tiered-routing"}
    tests = {path.stem.removeprefix("test_").replace("_", "-") for path in TESTS.rglob("test_*.py")}
    assert {path.stem for path in EXAMPLES.glob("*.yaml")} - here - tests == set()


@pytest.mark.parametrize(("variant", "usd"), CHAIN.items())
def test_savings_chain_in_three_days(variant: str, usd: float) -> None:
    # 30,000 calls, Poisson, of which 30% and then 60% are drawn: 4 standard deviations of the dearest sum are 5%.
    assert 30 * usd_a_day(run("savings-chain", variant, "3d")) == pytest.approx(usd, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "usd"), CHAIN.items())
def test_savings_chain(variant: str, usd: float) -> None:
    found = run("savings-chain", variant)
    assert found.scenario.horizon == 30 * DAY_S
    assert found["cost_usd"].value == pytest.approx(usd, rel=0.02)


def test_the_published_price_and_the_list_price_differ_by_a_dollar_a_million_tokens() -> None:
    published, listed = (run("savings-chain", variant, "1d") for variant in ("baseline", "baseline-list"))
    calls = published["tasks"].value
    assert calls == listed["tasks"].value
    assert published["cost_per_success_usd"].value == pytest.approx(0.0235, rel=1e-9)
    assert listed["cost_per_success_usd"].value == pytest.approx(0.0195, rel=1e-9)
    assert usd_a_day(published) - usd_a_day(listed) == pytest.approx(calls * 4000 * 1e-6, rel=1e-3)


ALONE = {
    "dedupe": 0.08,
    "routing": 0.45,
    "exact-cache": 0.12,
    "semantic-cache": 0.18 * 0.4137,
    "context-budget": 0.20,
    "batch": 0.138,
}
"""Share of the bill that each saves by itself."""


@pytest.fixture(scope="module")
def stack() -> dict[str, float]:
    """USD a day of every variant, over one day."""
    return {name: usd_a_day(run("savings-stack", name)) for name in load(EXAMPLES / "savings-stack.yaml").variants}


def test_savings_stack_begins_at_two_thousand_a_day(stack: dict[str, float]) -> None:
    # 92,000 tasks and 8,000 sent twice: standard deviations 0.33% and 1.1% of these.
    assert stack["baseline"] == pytest.approx(2000.0, rel=0.016)
    found = run("savings-stack", "baseline")
    assert (found["duplicate_usd"].value or 0.0) / stack["baseline"] == pytest.approx(0.08, abs=0.004)


@pytest.mark.parametrize(("variant", "share"), ALONE.items())
def test_savings_stack_each_alone(stack: dict[str, float], variant: str, share: float) -> None:
    # The same arrivals and draws in all variants: what is left of chance is in the saved share only.
    assert 1.0 - stack[variant] / stack["baseline"] == pytest.approx(share, abs=0.006)


def test_savings_stack_compounds_but_not_perfectly(stack: dict[str, float]) -> None:
    saved = 1.0 - stack["all"] / stack["baseline"]
    product = 1.0 - math.prod(1.0 - share for share in ALONE.values())
    assert sum(ALONE.values()) > 1.0
    assert 0.73 < saved < 0.75
    assert 0.015 < saved - product < 0.035
    row = ["baseline", "dedupe", *(name for name in stack if name.startswith("then-")), "all"]
    assert [stack[name] for name in row] == sorted((stack[name] for name in row), reverse=True)


def test_savings_stack_overlaps_and_helps_along(stack: dict[str, float]) -> None:
    def left(after: str, before: str) -> float:
        return stack[after] / stack[before]

    # The semantic cache behind the exact one finds far less than alone; batch after routing far more.
    alone = 1.0 - left("semantic-cache", "baseline")
    behind = 1.0 - left("all", "all-but-semantic-cache")
    assert behind < 0.5 * alone
    assert 1.0 - left("all", "then-context-budget") > 1.8 * (1.0 - left("batch", "baseline"))
    # Last in the row, dedupe saves calls that have become cheap: fewer dollars than alone, by far.
    assert stack["all-but-dedupe"] - stack["all"] < 0.35 * (stack["baseline"] - stack["dedupe"])


def test_batch_and_cached_prompt_leave_a_quarter() -> None:
    usd = {name: run("batch-and-cache", name)["cost_per_success_usd"].value for name in (
        "real-time", "cached", "batch", "batch-and-cached",
    )}  # fmt: skip
    assert usd["real-time"] == pytest.approx(0.0162, rel=1e-9)
    # The beginning is written a few times a day at the full price: no more than 0.1%.
    for name, share in {"cached": 0.5, "batch": 0.5, "batch-and-cached": 0.25}.items():
        assert usd[name] / usd["real-time"] == pytest.approx(share, rel=2e-3), name


TIERS = {"low": 0.6, "medium": 0.25, "high": 0.15}
USD = {"small": 0.000875, "middle": 0.0035, "frontier": 0.0175}
RIGHT = {
    "small": {"low": 0.96, "medium": 0.7, "high": 0.3},
    "middle": {"low": 0.98, "medium": 0.93, "high": 0.6},
    "frontier": {"low": 0.99, "medium": 0.97, "high": 0.9},
}
LEVELS = dict(zip(TIERS, USD, strict=True))


def expected(variant: str) -> tuple[float, float]:
    """(USD a call, share right) in closed form."""
    usd = right = 0.0
    for tier, share in TIERS.items():
        if variant == "cascade":
            reached = 1.0
            for model in USD:
                q = RIGHT[model][tier]
                last = model == "frontier"
                passes_right, passes_wrong = (1.0, 1.0) if last else (0.95, 0.2)
                usd += share * reached * (USD[model] + (0.0 if last else 0.0003))
                right += share * reached * q * passes_right
                reached *= 1.0 - q * passes_right - (1.0 - q) * passes_wrong
            continue
        if variant == "classifier":
            to = {LEVELS[guess]: 0.85 if guess == tier else 0.075 for guess in TIERS}
            usd += share * 0.0001
        elif variant == "tiered":
            to = {LEVELS[tier]: 1.0}
        else:
            to = {"frontier" if variant == "frontier" else "small": 1.0}
        usd += share * sum(p * USD[model] for model, p in to.items())
        right += share * sum(p * RIGHT[model][tier] for model, p in to.items())
    return usd, right


@pytest.mark.parametrize("variant", ["frontier", "tiered", "classifier", "cascade", "small-only"])
def test_tiered_routing_by_hand(variant: str) -> None:
    usd, right = expected(variant)
    found = run("tiered-routing", variant)
    n = found["tasks"].value or 0.0
    # 20,000 tasks: four standard deviations of a share are 1.1 points at most, of the mix of prices 4%.
    assert found["success_ratio"].value == pytest.approx(right, abs=4 * math.sqrt(right * (1 - right) / n) + 1e-6)
    assert (found["cost_usd"].value or 0.0) / n == pytest.approx(usd, rel=0.04)
    assert found["cost_per_success_usd"].value == pytest.approx(usd / right, rel=0.045)


def test_tiered_routing_saves_sixty_to_eighty_percent() -> None:
    always = run("tiered-routing", "frontier")
    for variant in ("tiered", "classifier"):
        found = run("tiered-routing", variant)
        for metric in ("cost_usd", "cost_per_success_usd"):
            assert 0.6 < 1.0 - (found[metric].value or 0.0) / (always[metric].value or 1.0) < 0.8, (variant, metric)


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.yaml")))
def test_examples_pass_the_checks_before_a_run(name: str) -> None:
    path = EXAMPLES / f"{name}.yaml"
    for variant in [None, *variants_of(path)]:
        scenario = load(path, variant=variant)
        said = [found.path for found in lint(scenario) if found.severity != "note"]
        # Documents sent to the chat's replica at once are more than it can do: that is what the variant shows.
        assert said == (["pools.local.replicas"] if (name, variant) == ("offline", "at-once") else []), variant
        dumped = scenario.model_dump(mode="json", by_alias=True)
        if name == "retry-storm":  # what is written out in full is the same operation
            again = Operation.model_validate(dumped["operations"][0])
            assert again == scenario.operations[0]
