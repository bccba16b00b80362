"""The time of day, as files keep it."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> str:
    """ISO date and time, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
