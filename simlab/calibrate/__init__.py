"""Calibration: benchmark files in, profiles out, and how far simulated benchmarks are from measured ones."""

from simlab.calibrate.run import METRICS, Load, Requests, Run, Server, Steps

__all__ = ["METRICS", "Load", "Requests", "Run", "Server", "Steps"]
