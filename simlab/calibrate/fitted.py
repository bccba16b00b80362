"""What a fit gives: a profile for each set-up, what it rests on, and what was left out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from simlab import __version__
from simlab.errors import OutputError
from simlab.profiles import Profile
from simlab.profiles.step_time import TABLES

SCHEMA_VERSION = 1
UNSURE = 0.25
"""A combination of terms with a larger relative deviation than this is not identified by the runs."""

_WORDS = {
    "base_s": ("the fixed time of a step", "add runs at low concurrency"),
    "per_seq_s": ("the time by decoding sequence", "add short prompts at high concurrency"),
    "per_kv_token_s": ("reading the KV cache", "add long contexts at high concurrency"),
    "per_prefill_kv_token_s": ("reading the KV cache in prefill", "add long prompts"),
    "attn_s": ("prefill attention", "add long prompts"),
    "per_prefill_token_s": ("the time by prompt token", "add prompts of other lengths"),
    "per_prefill_seq_s": ("the time by prefilling request", "add short prompts at a high rate"),
    "linear": ("weights and matrix products", "add higher and lower concurrency"),
    "prefill_linear": ("what a step with prompt tokens takes more", "add prompts of other lengths"),
    "overhead_s": ("the time of a request outside the scheduler", "add short prompts at concurrency 1"),
}
"""Each term in words, and what runs would tell it."""


@dataclass(frozen=True)
class Fitted:
    """One set-up's profile.

    Attributes:
        profile: the profile.
        data: what it was fitted on, in words: benchmark runs, step logs, token times.
        runs, requests, steps: how many of each.
        misses: log(simulated / measured) by metric, each operating point predicted by a fit that did not see it;
            ``(run, metric) → log ratio``.
        left_out: runs that were not used, and why.
        notes: what had to be assumed.
    """

    profile: Profile
    data: tuple[str, ...]
    runs: int
    requests: int
    steps: int
    misses: Mapping[tuple[str, str], float] = field(default_factory=dict)
    left_out: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def coefficients(self) -> list[tuple[str, float, float | None]]:
        """Each term that is not zero: name, value (of a table its seconds at 1024 tokens), relative deviation."""
        step, sure = self.profile.step_time, self.profile.uncertainty.relative_sd()
        rows: list[tuple[str, float, float | None]] = []
        for term in _WORDS:
            value = getattr(step, f"{term}_s")(1024) if term in TABLES else getattr(step, term)
            if value > 0:
                rows.append((term, float(value), sure.get(term)))
        return rows

    def weakest(self) -> str:
        """What the runs tell least, and what would tell it."""
        return weakest(self.profile)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        profile = self.profile
        return {
            "setup": profile.name,
            "data": list(self.data),
            "runs": self.runs,
            "requests": self.requests,
            "steps": self.steps,
            "coefficients": [
                {"term": term, "value": value, "relative_sd": sd} for term, value, sd in self.coefficients()
            ],
            "error": dict(profile.error),
            "weakest": self.weakest(),
            "left_out": [{"run": run, "reason": reason} for run, reason in self.left_out],
            "notes": list(self.notes),
            "profile": asdict(profile),
        }


@dataclass(frozen=True)
class Unfitted:
    """A set-up that has no profile, and why."""

    setup: str
    runs: int
    reason: str


@dataclass(frozen=True)
class Fits:
    """All that was fitted together."""

    fitted: tuple[Fitted, ...]
    unfitted: tuple[Unfitted, ...] = ()

    def write(self, out: Path) -> dict[str, Path]:
        """Writes the profiles and says where each is: into ``out`` when it ends in ``.json``, else into that folder.

        Raises:
            OutputError: a file or the folder cannot be written.
        """
        single = out.suffix.lower() == ".json"
        folder = out.parent if single else out
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise OutputError(f"{folder}: the folder cannot be made: {reason}; name another place") from error
        files = {}
        for one in self.fitted:
            files[one.profile.name] = out if single else folder / f"{one.profile.name}.json"
            one.profile.save(files[one.profile.name])
        return files

    def to_json(self, files: Mapping[str, Path]) -> str:
        """Everything as JSON, with the file of each profile."""
        data = {
            "schema_version": SCHEMA_VERSION,
            "simlab_version": __version__,
            "profiles": [{"file": str(files[one.profile.name]), **one.as_dict()} for one in self.fitted],
            "left_out": [vars(one) for one in self.unfitted],
        }
        return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def weakest(profile: Profile) -> str:
    """The combination of terms that the runs tell least, and what would tell it, in words; empty where not known.

    It is the direction of the covariance with the largest variance: one term alone where that dominates, otherwise two
    that stand for each other.
    """
    terms = profile.uncertainty.terms
    if not terms:
        return ""
    values, vectors = np.linalg.eigh(np.array(profile.uncertainty.log_covariance))
    sd, direction = float(np.sqrt(max(values[-1], 0.0))), vectors[:, -1]
    first, *others = np.argsort(-np.abs(direction))
    second = others[0] if others and abs(direction[others[0]]) > 0.5 * abs(direction[first]) else None
    name, advice = _WORDS[terms[first]]
    if sd <= UNSURE:
        return f"{name} is known least, to {sd:.0%}"
    if second is not None and direction[first] * direction[second] < 0:
        other, also = _WORDS[terms[second]]
        added = advice if also == advice else f"{advice} or {also.removeprefix('add ')}"
        return f"{name} and {other} are not told apart by these runs: {added}"
    return f"{name} is not identified by these runs (known to {sd:.0%}): {advice}"


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first few names, and how many more there are.

    >>> listed(["a", "b", "c", "d"])
    'a, b, c and 1 more'
    """
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
