"""Benchmarks of a real vLLM server over a designed grid: what `simlab calibrate bench` runs and records."""

from __future__ import annotations
