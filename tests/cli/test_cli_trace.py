"""`simlab trace summarize`: the table, the JSON, the files, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from simlab.cli.trace import app
from simlab.errors import OutputError, TraceError
from simlab.report.traffic import summary_figure, summary_text
from simlab.workload import bundled_summaries, load_summary

RUNNER = CliRunner()


@pytest.fixture
def trace(tmp_path):
    generator = np.random.default_rng(0)
    times = np.sort(generator.uniform(0.0, 3600.0, 3000)).round(3)
    rows = zip(times, generator.integers(50, 2000, 3000), generator.integers(0, 300, 3000), strict=True)
    path = tmp_path / "busy_hour.csv"
    path.write_text("t_s,input_tokens,output_tokens\n" + "".join(f"{t},{p},{o}\n" for t, p, o in rows))
    return path


def run(*arguments):
    result = RUNNER.invoke(app, ["summarize", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_the_table_says_what_is_in_the_trace(trace):
    result = run(trace)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].startswith("busy-hour: 3,000 requests in 60 min, 0.834 a second on average")
    assert any("█" in line for line in lines), "the rate over time is sketched"
    assert any(line.startswith("format") and "azure-2023" in line for line in lines)
    assert any(line.startswith("prompt ") for line in lines)
    assert "CC-BY-4.0" in result.stdout
    assert "requests without output" in result.stdout
    assert "--out" in result.stderr, "how to keep it is a hint, not a result"
    assert "\x1b" not in result.stdout


def test_json_goes_to_stdout_alone(trace):
    result = run(trace, "--json", "--name", "mine")
    facts = json.loads(result.stdout)
    assert facts["name"] == "mine"
    assert facts["requests"] == 3000
    assert facts["schema_version"] == 1


def test_a_folder_gets_the_summary_and_a_figure(trace, tmp_path):
    run(trace, "--out", tmp_path / "new" / "folder")
    made = sorted(path.name for path in (tmp_path / "new" / "folder").iterdir())
    assert made == ["busy-hour.json", "busy-hour.svg"]
    assert load_summary("busy-hour.json", tmp_path / "new" / "folder").requests == 3000
    figure = tmp_path / "new" / "folder" / "busy-hour.svg"
    assert "<svg" in figure.read_text()
    before = figure.read_bytes()
    run(trace, "--out", tmp_path / "new" / "folder")
    assert figure.read_bytes() == before, "the same trace gives the same bytes"


def test_a_file_gets_the_summary_and_plot_the_figure(trace, tmp_path):
    run(trace, "--out", tmp_path / "s.json", "--plot", tmp_path / "f.png")
    assert load_summary("s.json", tmp_path).name == "busy-hour"
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")


def test_a_trace_is_also_found_in_the_data_folders(trace, monkeypatch):
    monkeypatch.setenv("SIMLAB_DATA", str(trace.parent))
    assert run("busy_hour.csv").stdout.startswith("busy-hour")


def test_what_cannot_be_read_or_written_is_refused(trace, tmp_path):
    with pytest.raises(TraceError, match="no such file"):
        run(tmp_path / "absent.csv")
    with pytest.raises(TraceError, match="did you mean mooncake"):
        run(trace, "--format", "mooncke")
    assert run(trace, "--plot", tmp_path / "f.gif").exit_code == 2
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        run(trace, "--out", blocked / "s.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["busy_hour.csv", "file"]


def test_help_needs_no_heavy_import():
    assert "summarize" in RUNNER.invoke(app, ["--help"]).stdout
    code = (
        "import sys, simlab.cli.trace; "
        "print(sorted({'numba', 'pandas', 'scipy', 'matplotlib', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", bundled_summaries())
def test_every_bundled_summary_can_be_shown_and_drawn(name):
    summary = load_summary(name)
    text = summary_text(summary, width=80)
    assert text.startswith(name)
    assert max(map(len, text.splitlines())) <= 80
    figure = summary_figure(summary)
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    expected = ["Lengths", "Lengths of the same request"]
    assert titles == (["Rate over time", *expected] if summary.rate else expected)
    if summary.rate:
        assert figure.axes[0].get_xlim()[0] == 0.0
        assert "\x1b[" in summary_text(summary, colour=True)
