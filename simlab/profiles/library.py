"""The profiles that come with simlab, and the choice of one for a set-up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from simlab.names import unknown
from simlab.profiles.estimates import estimate
from simlab.profiles.gpus import gpu as find_gpu
from simlab.profiles.models import Model, models
from simlab.profiles.models import model as find_model
from simlab.profiles.record import Profile, load, parse


def _json_files(folder: Traversable) -> list[Traversable]:
    return sorted((entry for entry in folder.iterdir() if entry.name.endswith(".json")), key=lambda entry: entry.name)


@cache
def profiles() -> Mapping[str, Profile]:
    """Every profile that comes with simlab, by name."""
    folder = files("simlab.profiles") / "data" / "profiles"
    found = [parse(entry.read_text(encoding="utf-8"), entry.name) for entry in _json_files(folder)]
    return {profile.name: profile for profile in found}


def profile(name_or_path: str | Path) -> Profile:
    """A profile by name, or from a JSON file (anything that ends in ``.json``).

    Raises:
        InputError: no such profile, with the nearest names; or a broken file, with all its problems.
    """
    text = str(name_or_path)
    if text.endswith(".json"):
        return load(Path(text))
    if text not in profiles():
        raise unknown("profile", text, profiles(), repair="or give the path of a profile's .json file")
    return profiles()[text]


def select(model: str, gpu: str, tp: int = 1, precision: str | None = None) -> Profile:
    """The profile of a set-up: the measured one where there is one, otherwise an estimate.

    A measurement of a model of the very same architecture counts as one of this model; its name says which it was.

    Args:
        model: name of the model table.
        gpu: name of the GPU table.
        tp: GPUs of one replica.
        precision: of the weights; None is the published one.

    Raises:
        InputError: unknown model, GPU or precision; the message gives the nearest names.
    """
    architecture, card = find_model(model), find_gpu(gpu)
    weights = architecture.precision(precision)
    for name in (architecture.name, *same_architecture(architecture)):
        found = profiles().get(f"{name}.{card.name}.tp{tp}.{weights}")
        if found is not None:
            return found
    return estimate(architecture.name, card.name, tp, weights)


def same_architecture(architecture: Model) -> list[str]:
    """Models that differ in their weights' values alone (Llama-3.3-70B and Llama-3.1-70B): as fast as each other."""

    def shape(entry: Model) -> Model:
        return replace(
            entry, name="", hf_id="", source="", aliases=(), max_context=0, published_parameters=0.0,
            published_active_parameters=0.0,
        )  # fmt: skip

    return [
        name for name, entry in models().items() if name != architecture.name and shape(entry) == shape(architecture)
    ]
