"""What is measured, and one measurement of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Report:
    """What the measured process said about itself.

    Args:
        requests: how many it did; 0 where that is not the point.
        seconds: the part of its time that counts; None: all of it, start and imports included.
        note: what a reader of the table should know.
        facts: numbers to compare across cases.
    """

    requests: float = 0.0
    seconds: float | None = None
    note: str = ""
    facts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """One line of the table: a process that is started afresh for every measurement.

    Args:
        benchmark: what it belongs to, the name on the command line.
        name: what is special about it.
        command: from the scale (1 = full size) to the arguments of the Python interpreter.
        read: from what the process printed to its report.
        is_rate: requests per second rather than seconds.
        runs: measurements unless the command line says otherwise.
        target_rps, target_s, target_mib: what is wanted, at least or at most; None: nothing.
        fresh_cache: start without compiled code.
        fine: exit codes of a process that worked.
    """

    benchmark: str
    name: str
    command: Callable[[float], list[str]]
    read: Callable[[str], Report]
    is_rate: bool = True
    runs: int = 5
    target_rps: float | None = None
    target_s: float | None = None
    target_mib: float | None = None
    fresh_cache: bool = False
    fine: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Sample:
    """One measurement: seconds that count, CPU seconds and peak memory of the whole process, and its report."""

    seconds: float
    cpu_s: float
    peak_mib: float
    report: Report

    @property
    def rate_rps(self) -> float:
        """Requests per second."""
        return self.report.requests / self.seconds
