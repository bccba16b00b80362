"""Loading: bases, variants, --set, positions, and the models that come out."""

import json
import pickle

import pytest
from bad_cases import GOOD
from hypothesis import given
from hypothesis import strategies as st

from simlab.errors import ScenarioError
from simlab.scenario import bundled, load, locate, scenario_from_dict, variants_of
from simlab.scenario.read_yaml import read_text


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(GOOD)
    return path


def test_defaults_and_order(good):
    scenario = load(good)
    assert scenario.name == "good"
    assert scenario.backends == ("local", "gpt-4.1")
    assert list(scenario.workload) == ["chat", "replay"]
    assert scenario.route_of("chat") == {"local": 0.9, "gpt-4.1": 0.1}
    assert scenario.route_of("replay") == {"local": 1.0}
    assert scenario.window_s == 60.0
    assert (scenario.source, scenario.variant, scenario.base_dir) == (good, None, good.parent)
    assert scenario.slo_of("chat") == scenario.slo


def test_name_is_the_file_s_when_left_out(tmp_path):
    path = tmp_path / "june.yaml"
    path.write_text(GOOD.replace("name: good\n", ""))
    assert load(path).name == "june"


def test_variant_replaces_a_value_whole(good):
    scenario = load(good, variant="api")
    assert scenario.route_of("chat") == {"gpt-4.1": 1.0}
    assert scenario.variant == "api"
    assert variants_of(good) == ["api"]


def test_set_comes_after_the_variant(good):
    scenario = load(good, variant="api", sets=["gateway.routes.0.to={local: 1}", "workload.chat.arrivals.rate=30/min"])
    assert scenario.route_of("chat") == {"local": 1.0}
    assert scenario.workload["chat"].arrivals.rate == 0.5


def test_set_may_be_about_what_a_variant_removes_or_brings(good):
    good.write_text(GOOD + "    - operations: []\n    - pools: {}\n    - gateway.routes.1.to: {gpt-4.1: 1}\n")
    scenario = load(good, variant="api", sets=["pools.local.replicas=3", "slo.ttft=3s"])
    assert (scenario.pools, scenario.slo.ttft) == ({}, 3.0)
    good.write_text(GOOD + "    - pools.extra: {model: llama-3.1-8b, gpu: l4}\n")
    assert load(good, variant="api", sets=["pools.extra.replicas=7"]).pools["extra"].replicas == 7
    with pytest.raises(ScenarioError, match="there is no 'extra' in pools"):
        load(good, sets=["pools.extra.replicas=7"])
    with pytest.raises(ScenarioError, match="there is no 'other' in pools"):
        load(good, variant="api", sets=["pools.other.replicas=7"])


def test_set_makes_room_for_optional_parts_and_finds_names_with_dots(good):
    scenario = load(good, sets=["budget.usd_per_month=$20k", "apis.gpt-4.1.rpm=500", "gateway.routes.0.to.gpt-4.1=30"])
    assert scenario.budget.usd_per_month == 20000.0
    assert scenario.apis["gpt-4.1"].rpm == 500.0
    assert scenario.route_of("chat") == {"local": 0.75, "gpt-4.1": 0.25}


def test_set_removes_a_named_entry(good):
    scenario = load(good, sets=["apis.gpt-4.1=", "gateway.routes.0.to={local: 1}"])
    assert scenario.apis == {}


def test_extends_merges_mappings_and_replaces_lists(good):
    child = good.parent / "sub" / "child.yaml"
    child.parent.mkdir()
    child.write_text(
        "extends: ../plan.yaml\nname: child\npools: {local: {replicas: 5}}\nworkload: {replay: null}\n"
        "gateway: {routes: [{to: {local: 1}}]}\nvariants: {big: [{pools.local.replicas: 50}]}\n"
    )
    scenario = load(child)
    assert (scenario.pools["local"].replicas, scenario.pools["local"].tp) == (5, 4)
    assert list(scenario.workload) == ["chat"]
    assert len(scenario.gateway.routes) == 1
    assert variants_of(child) == ["api", "big"]
    assert load(child, variant="big").pools["local"].replicas == 50
    assert scenario.base_dir == child.parent


def test_an_error_in_a_base_is_placed_in_the_base(good):
    child = good.parent / "child.yaml"
    child.write_text("extends: plan.yaml\npools: {local: {tp: 0, block_size: 0}}\n")
    good.write_text(GOOD.replace("rate: 12/s", "rate: -12/s"))
    with pytest.raises(ScenarioError) as raised:
        load(child)
    places = [(problem.where.rsplit("/", 1)[-1], problem.path) for problem in raised.value.problems]
    assert places == [
        ("plan.yaml:9:13", "workload.chat.arrivals.rate"),
        ("child.yaml:2:21", "pools.local.tp"),
        ("child.yaml:2:36", "pools.local.block_size"),
    ]


@pytest.mark.parametrize(
    ("name", "variant"), [(name, variant) for name, path in bundled().items() for variant in [None, *variants_of(path)]]
)
def test_bundled_scenarios_survive_json_and_pickle(name, variant):
    scenario = load(name, variant=variant)
    again = scenario_from_dict(scenario.model_dump(mode="json"))
    assert again.model_dump() == scenario.model_dump()
    assert pickle.loads(pickle.dumps(scenario)) == scenario
    for api in scenario.apis.values():
        assert api.ttft.distribution().mean() > 0


def test_bundled_names_and_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert locate("quickstart").name == "quickstart.yaml"
    with pytest.raises(ScenarioError, match="did you mean the bundled 'quickstart'"):
        load("quickstart.yaml")
    with pytest.raises(ScenarioError, match="Bundled scenarios: azure-2023"):
        load("scenarios/zzz.yaml")
    (tmp_path / "quickstart").write_text(GOOD)
    assert load("quickstart").name == "good"


def test_unreadable_files(tmp_path):
    with pytest.raises(ScenarioError, match="is a directory"):
        load(tmp_path)


def test_distributions_written_as_quantities(good):
    lengths = load(good, sets=["workload.chat.lengths.output={kind: empirical, quantiles: {p0: 1, p50: 1k, 1: 3k}}"])
    output = lengths.workload["chat"].lengths.output.distribution()
    assert output.quantile(0.5) == pytest.approx(1000)
    prompt = lengths.workload["chat"].lengths.prompt.distribution()
    assert prompt.mean() == pytest.approx(700)
    assert prompt.quantile(0.95) == pytest.approx(2100, rel=1e-6)
    assert prompt.quantile(1 - 1e-12) == 8000


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"), ("on", "on"), ("no", "no"), ("True", True), ("false", False), ("~", None), ("", None),
        ("0o14", 12), ("0x1f", 31), ("012", 12), ("1_000", 1000), ("-7", -7), ("1e3", 1000.0), ("12:30", "12:30"),
        ("2026-01-05", "2026-01-05"), ("'5'", "5"), ("1.50", 1.5), ("$3.50/h", "$3.50/h"), ("=", "="),
    ],
)  # fmt: skip
def test_yaml_1_2_scalars(text, value):
    assert read_text(f"a: {text}\n", "x").plain() == {"a": value}


def test_yaml_anchors_and_merge_keys():
    text = "base: &b {tp: 1, gpu: l4}\npool:\n  <<: *b\n  tp: 2\nother: {<<: [*b, {gpu: a40, x: 1}]}\n"
    tree = read_text(text, "x")
    assert tree.plain()["pool"] == {"tp": 2, "gpu": "l4"}
    assert tree.plain()["other"] == {"tp": 1, "gpu": "l4", "x": 1}
    assert tree.child("pool").child("tp").where == "x:4:7"


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-10**15, 10**15), st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=8),
)  # fmt: skip
KEYS = st.text("abcdef-._ ", min_size=1, max_size=6)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=12,
)


@given(st.dictionaries(KEYS, TREES, min_size=1, max_size=3))
def test_json_is_read_as_itself(data):
    assert read_text(json.dumps(data, ensure_ascii=False), "x").plain() == data


@given(st.dictionaries(st.sampled_from(["name", "horizon", "workload", "pools", "apis", "gateway", "slo", "x"]), TREES))
def test_any_data_is_a_scenario_or_a_list_of_problems(data):
    with pytest.raises(ScenarioError) as raised:
        scenario_from_dict(data)
    assert raised.value.problems
    assert all(problem.message for problem in raised.value.problems)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_with_a_place(text):
    problems = []
    try:
        read_text(text, "x")
    except ScenarioError as error:
        problems = list(error.problems)
    assert all(problem.where.startswith("x") for problem in problems)
