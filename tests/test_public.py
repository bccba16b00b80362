"""The package's public functions are functions, in whatever order things are imported."""

from __future__ import annotations

import importlib

import pytest

import simlab


@pytest.mark.parametrize("name", simlab.__all__)
def test_public_names_are_functions_however_often_they_are_asked_for(name: str) -> None:
    for _ in range(2):
        assert callable(getattr(simlab, name)), f"simlab.{name} is {getattr(simlab, name)!r}"


@pytest.mark.parametrize("name", ["replay", "simulate"])
def test_a_module_of_the_same_name_does_not_hide_its_function(name: str) -> None:
    importlib.import_module(f"simlab.{name}")
    assert callable(getattr(simlab, name))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'simulator'"):
        _ = simlab.simulator
