"""What is compiled by another process beside the first run is what that run then finds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import simlab

CODE = """
import simlab.engine.hook as hook
assert hook.address()
import simlab
print(simlab.__file__)
"""


@pytest.mark.slow
def test_policies_are_compiled_once_wherever_it_is_run(tmp_path: Path) -> None:
    decoy = tmp_path / "simlab"
    decoy.mkdir()
    (decoy / "__init__.py").write_text("raise RuntimeError('not this one')\n", encoding="utf-8")
    here = str(Path(simlab.__file__).parents[1])
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": here}
    environment.pop("NUMBA_CACHE_DIR", None)
    # As an installed command does, without the folder it is run in on its path.
    done = subprocess.run(
        [sys.executable, "-P", "-c", CODE], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == simlab.__file__
    assert done.stderr == ""
    assert len(list((tmp_path / "cache").rglob("policy.decide-*.nbi"))) == 1
    assert len(list((tmp_path / "cache").rglob("policy.decide-*.nbc"))) == 1
