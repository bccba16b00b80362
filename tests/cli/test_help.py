"""The words of every help page, and that asking for them loads nothing heavy.

To store them again: ``SIMLAB_REGENERATE=1 pytest tests/cli/test_help.py``; then read the diff.
"""

import os
import subprocess
import sys

import pytest
from conftest import ROOT
from typer.testing import CliRunner

from simlab.cli.main import app

GOLDEN = ROOT / "tests" / "golden" / "help"
PAGES = {
    "simlab": [],
    "run": ["run"],
    "compare": ["compare"],
    "breakeven": ["breakeven"],
    "validate": ["validate"],
    "schema": ["schema"],
    "new": ["new"],
    "trace": ["trace"],
    "trace-summarize": ["trace", "summarize"],
    "calibrate": ["calibrate"],
    "calibrate-bench": ["calibrate", "bench"],
    "calibrate-fit": ["calibrate", "fit"],
    "calibrate-validate": ["calibrate", "validate"],
    "profiles": ["profiles"],
    "profiles-list": ["profiles", "list"],
    "profiles-show": ["profiles", "show"],
    "profiles-compare": ["profiles", "compare"],
    "profiles-plot": ["profiles", "plot"],
    "profiles-estimate": ["profiles", "estimate"],
}


@pytest.mark.parametrize("name", PAGES)
def test_help_text(name):
    result = CliRunner().invoke(app, [*PAGES[name], "--help"], prog_name="simlab", env={"COLUMNS": "100"})
    assert result.exit_code == 0
    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("SIMLAB_REGENERATE"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(result.output)
    assert result.output == golden.read_text()


def test_each_command_has_its_page_and_each_page_its_command():
    commands = {command.name for command in app.registered_commands} | {group.name for group in app.registered_groups}
    assert {arguments[0] for arguments in PAGES.values() if arguments} == commands
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(PAGES)


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["breakeven", "--help"], ["--version"], ["new"]])
def test_nothing_heavy_is_imported(arguments):
    code = (
        f"import sys; sys.argv = ['simlab', *{arguments!r}]\n"
        "from simlab.cli.main import run\n"
        "try:\n    run()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "heavy = {'numba', 'pandas', 'scipy', 'matplotlib', 'pyarrow', 'numpy', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
