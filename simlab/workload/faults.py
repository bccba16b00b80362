"""The one way this room complains: a `TraceError` with one problem."""

from __future__ import annotations

from simlab.errors import Problem, TraceError


def trace_error(where: str, message: str) -> TraceError:
    """The error to raise, at ``file:line``: what was read, what is allowed, how to repair."""
    return TraceError([Problem(where, "", message)])
