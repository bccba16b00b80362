"""The package's public functions are functions, in whatever order things are imported."""

from __future__ import annotations

import importlib.util

import pytest

import simlab


@pytest.mark.parametrize("name", simlab.__all__)
def test_public_names_are_functions_however_often_they_are_asked_for(name: str) -> None:
    for _ in range(2):
        assert callable(getattr(simlab, name)), f"simlab.{name} is {getattr(simlab, name)!r}"


@pytest.mark.parametrize("name", simlab.__all__)
def test_no_module_has_the_name_of_a_function(name: str) -> None:
    """Importing it would put the module in the function's place."""
    assert importlib.util.find_spec(f"simlab.{name}") is None


def test_they_are_listed_before_they_are_loaded() -> None:
    assert set(simlab.__all__) <= set(dir(simlab))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'simulator'"):
        _ = simlab.simulator
