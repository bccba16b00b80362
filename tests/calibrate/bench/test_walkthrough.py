"""What docs/calibration-walkthrough.md shows of `calibrate bench` is what it prints of the session that is kept."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest
from conftest import ROOT

FOLDER = ROOT / "calibration" / "walkthrough"


@pytest.fixture(scope="module")
def render() -> ModuleType:
    spec = importlib.util.spec_from_file_location("walkthrough_render", FOLDER / "render.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["dry-run", "bench"])
def test_the_page_shows_what_is_printed(render, name):
    page = render.PAGE.read_text(encoding="utf-8")
    assert render.placed(page, name, render.blocks(name)[name]) == page


def test_a_third_of_the_runs_is_kept_for_the_check(render):
    names = {path.name.split(".json")[0] for path in (FOLDER / "session" / "results").iterdir()}
    assert set(render.KEPT) < names
    assert 3 * len(render.KEPT) == len(names)


def test_braces_are_a_shells(render):
    assert render._braces("a/{b,c}.json") == ["a/b.json", "a/c.json"]
    assert render._braces("--plan") == ["--plan"]
