"""simlab: a capacity and cost simulator for LLM serving."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simlab.decide.break_even import break_even
    from simlab.decide.compare import compare
    from simlab.one_replica import replay
    from simlab.scenario import load
    from simlab.simulation import simulate

__version__ = "0.1.0"

_PUBLIC = {
    "break_even": "simlab.decide.break_even",
    "compare": "simlab.decide.compare",
    "load": "simlab.scenario",
    "replay": "simlab.one_replica",
    "simulate": "simlab.simulation",
}

__all__ = ["break_even", "compare", "load", "replay", "simulate"]


def __getattr__(name: str) -> Any:
    """Loads a public function on first use, so that `import simlab` stays quick."""
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'simlab' has no attribute {name!r}")


def __dir__() -> list[str]:
    """What there is, the functions that are not loaded yet included: so that an editor can offer them."""
    return sorted({*globals(), *_PUBLIC})
