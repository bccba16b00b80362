"""Fixtures every test folder shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real measurements and traces: `$SIMLAB_SHARED_DATA`, else `../shared/data` beside the checkout."""
    folder = Path(os.environ.get("SIMLAB_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the measured data is not here: set SIMLAB_SHARED_DATA to its folder (looked in {folder.name}/)")
    return folder
