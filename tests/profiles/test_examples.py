"""The examples in the docstrings of profiles and prices give what they say."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest

MODULES = [
    "simlab.names",
    "simlab.prices.api_prices",
    "simlab.prices.gpu_prices",
    "simlab.profiles.gpus",
    "simlab.profiles.memory",
    "simlab.profiles.models",
    "simlab.profiles.roofline",
    "simlab.profiles.step_time",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    outcome = doctest.testmod(import_module(name))
    assert outcome.attempted > 0
    assert outcome.failed == 0
