"""What simulations are for: comparing plans, and finding the volume from which self-hosting pays."""

from simlab.decide.answer import BreakEven
from simlab.decide.break_even import break_even
from simlab.decide.compare import Comparison, compare

__all__ = ["BreakEven", "Comparison", "break_even", "compare"]
