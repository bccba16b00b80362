"""The slow world: SimPy processes that watch the engine and give it orders."""

from simlab.control.handle import Handle, Signals
from simlab.control.incidents import Incident, suffer
from simlab.control.operations import Order, operate, start_replica
from simlab.control.versions import change_versions

__all__ = ["Handle", "Incident", "Order", "Signals", "change_versions", "operate", "start_replica", "suffer"]
