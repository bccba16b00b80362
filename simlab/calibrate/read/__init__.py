"""Measurements of real servers, of whatever tool made them, as `Run`."""

from __future__ import annotations

from simlab.calibrate.read.dispatch import Reading, read_measurements, read_runs
from simlab.calibrate.read.hints import ServerHints

__all__ = ["Reading", "ServerHints", "read_measurements", "read_runs"]
