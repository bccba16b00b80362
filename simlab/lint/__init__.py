"""Pre-flight checks: what can be told about a plan from its numbers, before anything is simulated."""

from simlab.lint.finding import Finding, lint

__all__ = ["Finding", "lint"]
