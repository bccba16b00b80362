"""`simlab compare` and `simlab breakeven`: what they read, print, write, and the exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from plain_plan import plan
from typer.testing import CliRunner

from simlab.cli.compare import targets
from simlab.cli.main import app
from simlab.errors import InputError, ScenarioError


@pytest.fixture
def file(tmp_path: Path) -> str:
    """The plain scenario as a file (JSON is YAML)."""
    path = tmp_path / "plain.yaml"
    data = plan(None).model_dump(mode="json", by_alias=True)
    path.write_text(json.dumps(data), encoding="utf-8")
    return str(path)


def call(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, [*arguments, "--workers", "1", "--quiet"], prog_name="simlab")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.stdout


def test_variants_of_one_file_in_both_ways(file: str) -> None:
    by_colon = call("compare", f"{file}:api", f"{file}:pool", "-r", "2")
    by_option = call("compare", file, "--variant", "api", "--variant", "pool", "-r", "2")
    assert by_colon == by_option
    assert by_colon.startswith("pool costs $")


def test_two_files_are_named_after_themselves(file: str, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(Path(file).read_text(encoding="utf-8").replace('"plain"', '"other"', 1), encoding="utf-8")
    data = json.loads(call("compare", file, f"{other}:api", "-r", "1", "-f", "json"))
    assert list(data["plans"]) == ["plain", "other:api"]


def test_one_variant_is_held_against_the_scenario_as_written(file: str) -> None:
    data = json.loads(call("compare", file, "--variant", "api", "-r", "1", "--format", "json"))
    assert data["baseline"] == "as written"
    assert list(data["differences"]) == ["api"]


def test_sets_and_seed_reach_every_plan(file: str) -> None:
    arguments = ("--set", "workload.chat.arrivals.rate=3", "--seed", "9", "-r", "1", "-f", "json")
    data = json.loads(call("compare", f"{file}:api", f"{file}:pool", *arguments))
    assert data["seed"] == 9
    for result in data["plans"].values():
        assert result["scenario"]["workload"]["chat"]["arrivals"]["rate"] == 3
    assert data["warnings"] == []


def test_the_exit_code_says_what_broke(file: str) -> None:
    slow = ("--set", "workload.chat.arrivals.rate=12", "-r", "1")
    assert "✗ pool: slo chat: missed" in call("compare", f"{file}:api", f"{file}:pool", *slow, code=1)
    call("compare", f"{file}:pool", f"{file}:api", *slow, code=0)


@pytest.mark.parametrize("format_", ["csv", "md"])
def test_other_formats(file: str, format_: str) -> None:
    first = call("compare", f"{file}:api", f"{file}:pool", "-r", "1", "-f", format_).splitlines()[0]
    assert first.startswith("plan,metric,baseline" if format_ == "csv" else "**pool costs")
    arguments = ("breakeven", file, "--between", "api", "pool", "-r", "1", "--max-replicas", "1", "-f", format_)
    first = call(*arguments).splitlines()[0]
    assert first.startswith("tokens_per_month,tasks_per_s" if format_ == "csv" else "**plain: pool becomes cheaper")


def test_out(file: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    call("compare", f"{file}:api", f"{file}:pool", "-r", "1", "--out", str(out))
    call("breakeven", file, "--between", "pool", "api", "-r", "1", "--max-replicas", "1", "--out", str(out))
    assert {"comparison.html", "break_even.png", "break_even.svg"} <= {path.name for path in out.iterdir()}


def test_breakeven_tabulates_what_is_asked_for(file: str) -> None:
    asked = ("--between", "api", "pool", "--volumes", "100M,400M", "-r", "1", "--max-replicas", "1", "-f", "json")
    data = json.loads(call("breakeven", file, *asked))
    assert [point["tokens_per_month"] for point in data["points"]] == [1e8, 4e8]
    assert [point["cheaper"] for point in data["points"]] == ["api", "selfhost"]


def test_an_slo_out_of_reach_is_exit_code_1(file: str) -> None:
    arguments = ("--between", "api", "pool", "-r", "1", "--max-replicas", "1", "--set", "slo.ttft=1ms")
    assert "cannot meet the SLO" in call("breakeven", file, *arguments, code=1)


@pytest.mark.parametrize("volumes", ["1X", "0", "-3", "1G,,2G", "nan"])
def test_volumes_must_be_numbers(file: str, volumes: str) -> None:
    done = CliRunner().invoke(app, ["breakeven", file, "--volumes", volumes], env={"COLUMNS": "200"})
    assert done.exit_code == 2
    assert "--volumes" in done.output


def test_bad_plans(file: str) -> None:
    with pytest.raises(ScenarioError, match="there is no variant 'pol'; did you mean 'pool'"):
        call("compare", f"{file}:api", f"{file}:pol")
    with pytest.raises(InputError, match="a break-even is between a plan that uses only APIs and one that uses only a"):
        call("breakeven", file, "--between", "api", "api")


def test_what_is_a_plan(file: str, tmp_path: Path) -> None:
    assert targets(["a.yaml:x", "quickstart"], []) == [("a.yaml", "x"), ("quickstart", None)]
    assert targets(["a.yaml"], ["x", "y"]) == [("a.yaml", "x"), ("a.yaml", "y")]
    assert targets(["C:\\plans\\a.yaml", "b"], [])[0] == ("C:\\plans\\a.yaml", None)
    odd = tmp_path / "odd:name.yaml"
    odd.write_text("", encoding="utf-8")
    assert targets([str(odd), f"{odd}:x"], []) == [(str(odd), None), (str(odd), "x")]
    for plans, variants in ((["a", "b"], ["x"]), (["a:x"], ["y"])):
        with pytest.raises(typer.BadParameter, match="goes with one FILE"):
            targets(plans, variants)
    with pytest.raises(typer.BadParameter, match=r"has the variants api, pool: add --variant api"):
        targets([file], [])
