"""Fixtures every test folder shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# A change is judged by the same examples each time; `HYPOTHESIS_PROFILE=search` looks for new ones.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real measurements and traces: `$SIMLAB_SHARED_DATA`, else `../shared/data` beside the checkout."""
    folder = Path(os.environ.get("SIMLAB_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the measured data is not here: set SIMLAB_SHARED_DATA to its folder (looked in {folder.name}/)")
    return folder
