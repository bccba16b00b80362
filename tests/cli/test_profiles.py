"""`simlab profiles`: tables, JSON and CSV that agree, figures, estimates with their interval, and what is refused."""

from __future__ import annotations

import csv
import io
import json

import pytest
from typer.testing import CliRunner

from simlab.cli.main import app
from simlab.errors import InputError, OutputError
from simlab.profiles import load, profile, profiles

RUNNER = CliRunner()
TWO = ("llama-3.1-70b.h100-sxm.tp4.fp8", "llama-3.1-70b.h100-sxm.tp8.fp8")


def run(*arguments):
    result = RUNNER.invoke(app, ["profiles", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_list_has_every_profile():
    found = json.loads(run("list", "--format", "json").output)
    assert found["schema_version"] == 1
    assert {one["name"] for one in found["profiles"]} == set(profiles())


@pytest.mark.parametrize(
    ("arguments", "keeps"),
    [
        (("--gpu", "H100"), lambda one: one.gpu == "h100-sxm"),
        (("--model", "meta-llama/Llama-3.1-70B-Instruct"), lambda one: one.model == "llama-3.1-70b"),
        (("--kind", "estimated"), lambda one: one.kind == "estimated"),
    ],
)
def test_list_filters(arguments, keeps):
    listed = list(csv.DictReader(io.StringIO(run("list", *arguments, "--format", "csv").output)))
    wanted = {name for name, one in profiles().items() if keeps(one)}
    assert wanted
    assert {row["name"] for row in listed} == wanted
    assert f"{len(wanted)} profile" in run("list", *arguments).output


def test_list_of_nothing_says_so():
    result = run("list", "--gpu", "v100", "--model", "kimi-k2")
    assert result.exit_code == 0
    assert "no profile is so" in result.output


def test_show_says_where_it_is_from_and_how_sure():
    one = profile(TWO[0])
    shown = json.loads(run("show", TWO[0], "--format", "json").output)
    assert shown["profile"]["fitted_on"] == list(one.fitted_on)
    assert shown["relative_sd"] == pytest.approx(one.uncertainty.relative_sd())
    step = next(s for s in shown["steps"] if (s["seqs"], s["context"]) == (8, 1024))
    assert step["step_s"] == pytest.approx(one.step_time.step_s(0, 8, 8 * 1024))
    assert step["low_s"] < step["step_s"] < step["high_s"]
    text = run("show", TWO[0]).output
    for part in ("vllm_infx_silicon", "relative sd", "base_s", "errors", "90% interval", "covers up to"):
        assert part in text
    assert "\n| base" in run("show", TWO[0], "--format", "md").output


def test_show_takes_a_file(tmp_path):
    path = tmp_path / "mine.json"
    profile(TWO[0]).save(path)
    assert run("show", path).output == run("show", TWO[0]).output


def test_compare_is_against_the_first():
    rows = list(csv.DictReader(io.StringIO(run("compare", *TWO, "--format", "csv").output)))
    first, second = (profile(name).step_time for name in TWO)
    one = next(r for r in rows if r["profile"] == TWO[1] and (r["seqs"], r["context"]) == ("32", "8192"))
    assert float(one["difference"]) == pytest.approx(
        second.step_s(0, 32, 32 * 8192) / first.step_s(0, 32, 32 * 8192) - 1
    )
    assert all(float(r["difference"]) == 0 for r in rows if r["profile"] == TWO[0])
    assert "Against llama-3.1-70b.h100-sxm.tp4.fp8" in run("compare", *TWO).output


def test_compare_wants_two():
    result = run("compare", TWO[0])
    assert result.exit_code == 2
    assert "two profiles or more" in result.stderr


def test_plot_writes_a_figure(tmp_path):
    path = tmp_path / "new" / "steps.png"
    result = run("plot", *TWO, "llama-3.1-8b.h100-sxm.tp1.bf16", "-o", path)
    assert result.output == f"{path}\n"
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [entry.name for entry in path.parent.iterdir()] == ["steps.png"]


def test_plot_knows_its_endings(tmp_path):
    result = run("plot", TWO[0], "-o", tmp_path / "steps.jpg")
    assert result.exit_code == 2
    assert ".png" in result.stderr


def test_estimate_prints_its_interval_and_writes_the_profile(tmp_path):
    path = tmp_path / "mine.json"
    arguments = ("--model", "Qwen3-14B", "--gpu", "L40S", "--tp", "2", "--precision", "fp8")
    shown = json.loads(run("estimate", *arguments, "--format", "json", "-o", path).output)
    one = load(path)
    assert one.name == shown["profile"]["name"] == "qwen3-14b.l40s.tp2.fp8"
    assert one.kind == "estimated"
    assert shown["kv_blocks"] > 1000
    step = shown["steps"][0]
    assert 1.1 < step["high_s"] / step["step_s"] < 2.5
    assert step["high_s"] / step["step_s"] == pytest.approx(step["step_s"] / step["low_s"])
    text = run("estimate", *arguments).output
    assert "90% interval" in text
    assert "KV blocks of 16 tokens" in text


def test_estimate_of_ranks():
    shown = run("estimate", "--model", "deepseek-r1", "--gpu", "h200", "--dp", "8", "--expert-parallel", "-f", "json")
    assert json.loads(shown.output)["profile"]["name"] == "deepseek-r1.h200-sxm.tp1.dp8.ep.fp8"


def test_estimate_of_weights_that_do_not_fit():
    assert "no room for a KV cache" in " ".join(
        run("estimate", "--model", "llama-3.1-405b", "--gpu", "l4").output.split()
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "llama-3.1-70b.h100-sxm.tp4.fp9"), "did you mean llama-3.1-70b.h100-sxm"),
        (("show", "nowhere.json"), "no such profile file"),
        (("list", "--gpu", "h1000"), "unknown GPU 'h1000'"),
        (("estimate", "--model", "llama-3.1-8b", "--gpu", "epyc-9654"), "unknown GPU 'epyc-9654'"),
        (("estimate", "--model", "my-model", "--gpu", "h100"), "unknown model 'my-model'"),
        (("estimate", "--model", "llama-3.1-8b", "--gpu", "h100", "--precision", "fp32"), "need a precision of"),
    ],
)
def test_what_no_table_knows_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        run(*arguments)


def test_output_goes_into_a_file_whole_or_not_at_all(tmp_path):
    path = tmp_path / "list.csv"
    assert run("list", "--format", "csv", "-o", path).output == ""
    assert path.read_text() == run("list", "--format", "csv").output
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(OutputError):
        run("list", "-o", blocked / "list.txt")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "list.csv"]
