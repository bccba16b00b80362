"""Reads what vLLM's scheduler answered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "oracle"
COLUMNS = ("first_token_s", "finish_s", "preemptions", "cached_tokens")
# Recorded times carry ten decimals; the project's promise is 1e-6 s.
TOLERANCE_S = 1e-6


def names() -> list[str]:
    """The recorded cases."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def load(name: str) -> dict[str, Any]:
    """One recording: name, vllm_version, limits, requests, answer."""
    recording: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return recording
