"""Calibration: benchmark files in, profiles out, and how far simulated benchmarks are from measured ones."""

from simlab.calibrate.read import Reading, ServerHints, read_measurements, read_runs
from simlab.calibrate.run import METRICS, Load, Requests, Run, Server, Steps

__all__ = [
    "METRICS",
    "Load",
    "Reading",
    "Requests",
    "Run",
    "Server",
    "ServerHints",
    "Steps",
    "read_measurements",
    "read_runs",
]
