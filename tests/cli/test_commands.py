"""validate, schema and new; exit codes; what is printed where."""

import errno
import json
import subprocess
import sys

import pytest
from conftest import ROOT

from simlab import __version__
from simlab.cli import main
from simlab.scenario import bundled, load


@pytest.fixture
def simlab(monkeypatch, capsys, tmp_path):
    """Runs the command line in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SIMLAB_DEBUG", raising=False)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["simlab", *arguments])
        with pytest.raises(SystemExit) as stop:
            main.run()
        out, err = capsys.readouterr()
        return stop.value.code or 0, out, err

    return call


def test_version(simlab):
    assert simlab("--version") == (0, f"simlab {__version__}\n", "")


@pytest.mark.parametrize("arguments", [["nonsense"], ["run"], ["validate", "--nope"], ["schema", "--format", "xml"]])
def test_bad_usage_is_2(simlab, arguments):
    code, out, err = simlab(*arguments)
    assert (code, out) == (2, "")
    assert "Error" in err


def test_bad_scenario_is_2_with_all_errors_on_stderr(simlab, tmp_path):
    (tmp_path / "s.yaml").write_text("workload: {}\npols: {}\n")
    code, out, err = simlab("validate", "s.yaml")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 3
    assert "s.yaml:2:1: pols: unknown key 'pols'; did you mean 'pools'?" in err
    assert "Traceback" not in err


def test_a_bug_is_101_and_asks_to_be_reported(simlab, monkeypatch):
    def broken(*_args, **_kwargs):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("simlab.scenario.load", broken)
    code, out, err = simlab("validate", "quickstart")
    assert (code, out) == (101, "")
    assert "ZeroDivisionError: division by zero" in err
    assert "Please report it" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError("Unable to allocate"), "out of memory: more requests were in flight"),
        (OSError(errno.ENOSPC, "No space left on device"), "output: cannot be written: the disk is full"),
    ],
)
def test_what_the_machine_cannot_do_is_no_bug(simlab, monkeypatch, error, words):
    def broken(*_args, **_kwargs):
        raise error

    monkeypatch.setattr("simlab.scenario.load", broken)
    code, out, err = simlab("validate", "quickstart")
    assert (code, out) == (2, "")
    assert err.startswith(words)


def test_unknown_names_have_their_place(simlab, tmp_path):
    text = (ROOT / "scenarios" / "quickstart.yaml").read_text()
    (tmp_path / "s.yaml").write_text(text.replace("llama-3.1-70b", "lama-70b").replace("h100-sxm", "h10"))
    line = next(i for i, row in enumerate(text.splitlines(), 1) if "model: llama" in row)
    code, out, _ = simlab("validate", "s.yaml", "--variant", "selfhost")
    assert code == 2
    assert f"s.yaml:{line}:12: error: pools.local.model: unknown model 'lama-70b'; did you mean" in out
    assert f"s.yaml:{line + 1}:10: error: pools.local.gpu: unknown GPU 'h10'; did you mean" in out
    code, out, err = simlab("run", "s.yaml", "--replications", "1", "--quiet")
    assert (code, out) == (2, "")
    assert f"s.yaml:{line}:12: pools.local.model: unknown model 'lama-70b'; did you mean" in err
    assert f"s.yaml:{line + 1}:10: pools.local.gpu: unknown GPU 'h10'; did you mean" in err


def test_debug_shows_the_traceback(simlab, monkeypatch):
    monkeypatch.setenv("SIMLAB_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["simlab", "validate", "nowhere.yaml"])
    with pytest.raises(Exception, match="there is no such file"):
        main.run()


def test_debug_option(tmp_path):
    command = [sys.executable, "-m", "simlab.cli.main", "--debug", "validate", "nowhere.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_validate_checks_every_variant(simlab):
    code, out, err = simlab("validate", "quickstart")
    assert (code, err) == (0, "")
    assert out.endswith("(checked: as written, selfhost, api)\n")


def test_validate_one_variant(simlab):
    code, out, _ = simlab("validate", "quickstart", "--variant", "api")
    assert code == 0
    assert out == "quickstart: ok (checked: api)\n"


def test_validate_says_which_variants_a_finding_is_about(simlab):
    code, out, _ = simlab("validate", "quickstart", "--set", "workload.chat.arrivals.rate=60/s")
    assert code == 1
    lines = [line for line in out.splitlines() if "pools.local.replicas" in line]
    assert len(lines) == 2
    assert lines[0].startswith("quickstart:31:15: warning: pools.local.replicas: the peak of 54 requests/s needs at ")
    assert lines[0].endswith("[as written]")
    assert lines[1].endswith("[selfhost]")


def test_validate_json(simlab):
    code, out, _ = simlab("validate", "month", "--set", "pools.local.gpu=h100x", "--format", "json")
    assert code == 2
    data = json.loads(out)
    assert data["variants"] == [None]
    assert {"variant", "where", "severity", "path", "message"} == set(data["findings"][0])
    assert ("error", "pools.local.gpu") in [(row["severity"], row["path"]) for row in data["findings"]]


def test_schema(simlab):
    code, out, err = simlab("schema")
    assert (code, err) == (0, "")
    assert json.loads(out)["title"] == "simlab scenario"
    assert simlab("schema", "--format", "md")[1] == (ROOT / "docs" / "scenario.md").read_text(encoding="utf-8")


def test_new_lists_what_there_is(simlab):
    code, out, _ = simlab("new")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == list(bundled())


@pytest.mark.parametrize("example", bundled())
def test_new_copies_an_example_that_loads(simlab, tmp_path, example):
    code, out, _ = simlab("new", "mine", "--from", example)
    assert code == 0
    assert out.startswith("wrote mine.yaml\n")
    scenario = load(tmp_path / "mine.yaml")
    assert scenario.name == "mine"
    assert scenario.model_dump(exclude={"name"}) == load(example).model_dump(exclude={"name"})
    assert f"scenarios/{example}.yaml" not in (tmp_path / "mine.yaml").read_text()


def test_new_default_and_own_name(simlab, tmp_path):
    assert simlab("new", "sessions")[0] == 0
    assert "support" in load(tmp_path / "sessions.yaml").workload
    assert simlab("new", "plan.yaml")[0] == 0
    assert load(tmp_path / "plan.yaml").name == "plan"


def test_new_never_overwrites(simlab, tmp_path):
    (tmp_path / "mine.yaml").write_text("precious")
    code, out, err = simlab("new", "mine")
    assert (code, out) == (2, "")
    assert err == "mine.yaml: is already there and is not overwritten; give another name\n"
    assert (tmp_path / "mine.yaml").read_text() == "precious"


def test_new_errors(simlab):
    assert simlab("new", "mine", "--from", "quickstrt")[2].startswith(
        "--from: unknown example 'quickstrt'; did you mean 'quickstart'?"
    )
    code, _, err = simlab("new", "nowhere/mine")
    assert (code, err) == (2, "nowhere/mine.yaml: cannot be written: no such file or directory\n")
