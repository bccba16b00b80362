"""`simlab run` around a made-up simulation: what goes to stdout, to stderr, to files, and the exit code."""

from __future__ import annotations

import errno
import io
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic_run
import typer
from synthetic_run import Scenario, Slo

from simlab.cli import run
from simlab.errors import OutputError
from simlab.results import REQUEST_DTYPE, RequestLog, Result
from simlab.results.keys import KEYS

RESULT = synthetic_run.result(2)
FILES = {
    "result.json",
    "report.html",
    "metrics.parquet",
    "ledger.parquet",
    "windows.parquet",
    *(f"by_{key}.parquet" for key in KEYS),
}


class Simulation:
    """Stands where `simlab.simulate` is, and remembers how it was called."""

    def __init__(self, result: Result = RESULT) -> None:
        self.result = result
        self.called: dict[str, Any] = {}
        self.scenario: Any = None

    def simulate(self, scenario: Any, **how: Any) -> Result:
        self.scenario, self.called = scenario, how
        how["progress"](0, 2, "compiling the engine (once)")
        how["progress"](0, 2, "compiling the engine (once)")
        how["progress"](2, 2)
        if how["log"] is not None:
            with RequestLog(how["log"], class_names=("chat",), backends=synthetic_run.FACTS[:1]) as log:
                log.append(np.zeros(3, REQUEST_DTYPE))
        return self.result


@pytest.fixture
def simulation(monkeypatch: pytest.MonkeyPatch) -> Simulation:
    made_up = Simulation()
    module = ModuleType("simlab.simulation")
    module.simulate = made_up.simulate
    monkeypatch.setitem(sys.modules, "simlab.simulation", module)
    monkeypatch.setattr("simlab.scenario.load", lambda path, *, variant, sets: (path, variant, sets))
    return made_up


def call(**how: Any) -> int:
    with pytest.raises(typer.Exit) as left:
        run.run_command("chat.yaml", **how)
    return left.value.exit_code


def test_arguments_reach_scenario_and_simulation(simulation: Simulation) -> None:
    call(variant="api", sets=["seed=3", "horizon=1h"], replications=7, seed=11, workers=1)
    assert simulation.scenario == ("chat.yaml", "api", ("seed=3", "horizon=1h"))
    how = simulation.called
    assert (how["replications"], how["seed"], how["workers"], how["log"]) == (7, 11, 1, None)


@pytest.mark.parametrize("format_", list(run.Format))
def test_stdout_is_the_result_and_stderr_the_progress(
    simulation: Simulation, capsys: pytest.CaptureFixture[str], format_: run.Format
) -> None:
    call(format_=format_)
    printed = capsys.readouterr()
    assert printed.err == "compiling the engine (once)\n"
    if format_ is run.Format.JSON:
        assert json.loads(printed.out)["headline"] == RESULT.headline
    elif format_ is run.Format.CSV:
        frame = pd.read_csv(io.StringIO(printed.out), index_col="metric")
        assert frame.loc["cost_usd", "value"] == RESULT["cost_usd"].value
        assert list(frame.index) == list(RESULT.estimates)
    else:
        assert "86." in printed.out.splitlines()[0]
        assert "\x1b" not in printed.out


def test_quiet(simulation: Simulation, capsys: pytest.CaptureFixture[str]) -> None:
    call(quiet=True)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("target", "code"), [(0.3, 0), (0.999, 1)])
def test_the_exit_code_is_the_verdict(simulation: Simulation, target: float, code: int) -> None:
    simulation.result = Result(Scenario(slo=Slo(target=target)), RESULT.measurements, RESULT.backends)
    assert call() == code


def test_out_holds_every_file_and_nothing_else(simulation: Simulation, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    call(out=out, log_requests=True)
    assert {path.name for path in out.iterdir()} == FILES | {"requests.parquet"}
    assert json.loads((out / "result.json").read_text(encoding="utf-8"))["seed"] == 7
    assert pd.read_parquet(out / "ledger.parquet")["usd"].sum() == pytest.approx(RESULT["cost_usd"].value)
    assert len(pd.read_parquet(out / "windows.parquet")) == 3 * 96
    assert len(pd.read_parquet(out / "requests.parquet")) == 3


def test_an_unwritable_folder_is_known_before_the_run(simulation: Simulation, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(OutputError, match=r"taken: cannot be written: .*name a folder"):
        run.run_command("chat.yaml", out=tmp_path / "taken")
    assert simulation.called == {}
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.parametrize("at", ["pandas.DataFrame.to_parquet", "pathlib.Path.write_text"])
def test_a_full_disk_leaves_nothing(
    simulation: Simulation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(at, full)
    with pytest.raises(OutputError, match="out: cannot be written: the disk is full"):
        run.run_command("chat.yaml", out=tmp_path / "out", log_requests=True)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_simulation_leaves_nothing(
    simulation: Simulation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulation, "result", None)
    with pytest.raises(AttributeError):
        run.run_command("chat.yaml", out=tmp_path / "out", log_requests=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_behind_stdout(simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        with pytest.raises(OutputError, match="standard output: cannot be written: the disk is full"):
            run.run_command("chat.yaml")


def test_a_log_needs_a_folder(simulation: Simulation) -> None:
    with pytest.raises(typer.BadParameter, match="add --out DIR"):
        run.run_command("chat.yaml", log_requests=True)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_there_is_a_bar_and_colour_unless_unwanted(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    stdout, stderr = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setattr(sys, "stderr", stderr)
    call()
    assert "simulating" in stderr.getvalue()
    assert "100%" in stderr.getvalue()
    assert "\x1b[1m" in stdout.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    stdout.truncate(0)
    call()
    assert "\x1b" not in stdout.getvalue()
