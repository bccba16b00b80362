"""simlab: a capacity and cost simulator for LLM serving."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simlab.replay import replay
    from simlab.scenario import load
    from simlab.simulate import simulate

__version__ = "0.1.0"

_PUBLIC = {"load": "simlab.scenario", "replay": "simlab.replay", "simulate": "simlab.simulate"}

__all__ = ["load", "replay", "simulate"]


def __getattr__(name: str) -> Any:
    """Loads a public function on first use, so that `import simlab` stays quick."""
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'simlab' has no attribute {name!r}")
