"""The designed grids, and plans of the user's own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simlab.calibrate.bench.plan import Plan, Point
from simlab.calibrate.run import Load
from simlab.errors import InputError, Problem
from simlab.names import nearest, unknown

if TYPE_CHECKING:
    from pydantic import TypeAdapter

BASE = "base step and overhead"
PREFILL = "prefill and its attention"
LADDER = "sequences and KV tokens"
SATURATION = "saturation: the capacity"
PREFIX = "prefix reuse"
MIXED = "mixed steps, queueing"


def _alone(tells: str, prompts: Sequence[int], output: int, seconds: float) -> list[Point]:
    """One request at a time: a ladder of prompt lengths."""
    return [Point(tells, Load(concurrency=1, prompt_tokens=i, output_tokens=output), seconds) for i in prompts]


def _closed(tells: str, prompt: int, output: int, concurrencies: Sequence[int], seconds: float) -> list[Point]:
    """A ladder of concurrencies at one pair of lengths."""
    return [
        Point(tells, Load(concurrency=c, prompt_tokens=prompt, output_tokens=output), seconds) for c in concurrencies
    ]


def _at_once(prompt: int, output: int, seconds: float) -> Point:
    return Point(SATURATION, Load(prompt_tokens=prompt, output_tokens=output), seconds)


def _open(
    prompt: int, output: int, shares: Sequence[float], seconds: float, *, spread: float = 0.0, burstiness: float = 1.0
) -> list[Point]:
    """Open loops at shares of the capacity, lengths within ``spread`` of the nominal ones."""
    load = Load(
        prompt_tokens=prompt, output_tokens=output, burstiness=burstiness, low=1.0 - spread, high=1.0 + spread
    )  # fmt: skip
    return [Point(MIXED, load, seconds, share) for share in shares]


def _shared(
    shared: int, kinds: int, own: int, output: int, concurrencies: Sequence[int], seconds: float
) -> list[Point]:
    """Prompts of ``own`` tokens behind one of ``kinds`` beginnings of ``shared`` tokens."""
    load = Load(prompt_tokens=shared + own, output_tokens=output, shared_tokens=shared, shared_kinds=kinds)
    return [Point(PREFIX, replace(load, concurrency=c), seconds) for c in concurrencies]


QUICK = (
    *_alone(BASE, [128], 128, 20),
    *_alone(PREFILL, [256, 1024, 4096], 4, 12),
    *_alone(PREFILL, [16384], 4, 15),
    *_closed(LADDER, 128, 128, [4, 16, 64, 256], 20),
    *_closed(LADDER, 2048, 128, [1, 4, 16, 64], 20),
    _at_once(512, 128, 30),
    *_shared(768, 1, 256, 64, [8], 20),
    *_shared(1024, 8, 128, 64, [16], 20),
    *_open(512, 128, [0.3, 0.6], 40),
    *_open(512, 128, [0.85], 60),
)
"""Nineteen points in 10 to 15 minutes on a GPU, of which a third is the start of the client program."""

FULL = (
    *_alone(BASE, [128, 2048], 256, 45),
    *_alone(PREFILL, [128, 256, 512, 1024, 2048, 4096, 8192], 4, 20),
    *_alone(PREFILL, [16384, 32768], 4, 30),
    *_closed(PREFILL, 1024, 4, [8], 30),
    *_closed(LADDER, 128, 128, [2, 4, 8, 16, 32, 64, 128, 256, 512], 45),
    *_closed(LADDER, 2048, 128, [2, 4, 8, 16, 32, 64, 128], 45),
    *_closed(LADDER, 8192, 128, [1, 4, 16], 45),
    _at_once(512, 128, 60),
    _at_once(2048, 256, 60),
    *_shared(768, 1, 256, 64, [4, 16], 40),
    *_shared(1024, 8, 128, 64, [4, 16], 40),
    *_open(512, 128, [0.3, 0.5, 0.7, 0.85, 0.95], 100),
    *_open(2048, 256, [0.3, 0.6, 0.85], 100),
    *_open(512, 128, [0.6, 0.85], 80, spread=0.5),
    *_open(512, 128, [0.6], 80, burstiness=0.5),
)
"""Forty-eight points in about an hour on a GPU."""

GRIDS = {"quick": QUICK, "full": FULL}


@dataclass(frozen=True)
class Written:
    """A point of a plan file: lengths in tokens, times in s.

    Attributes:
        prompt_tokens, output_tokens: lengths of a request, the shared beginning within the prompt.
        requests: how many; None: as many as fit in ``seconds``.
        seconds: how long it should take.
        concurrency: most requests in flight; None: no limit.
        rate_rps: requests sent in a second; None: all at once.
        share: the rate as a share of the capacity measured at these lengths; not with ``rate_rps``.
        burstiness: of arrivals, as ``vllm bench serve``.
        spread: lengths are uniform within this share of the nominal ones.
        shared_tokens, shared_kinds: beginnings that prompts share, and how many different ones.
        tells: what the point is for, in words.
    """

    prompt_tokens: int
    output_tokens: int
    requests: int | None = None
    seconds: float = 20.0
    concurrency: int | None = None
    rate_rps: float | None = None
    share: float | None = None
    burstiness: float = 1.0
    spread: float = 0.0
    shared_tokens: int = 0
    shared_kinds: int = 1
    tells: str = "a point of the plan"

    def faults(self) -> list[tuple[str, str]]:
        """Fields that make no sense, and what is allowed."""
        least = {"prompt_tokens": 1, "output_tokens": 1, "requests": 1, "concurrency": 1, "shared_kinds": 1}
        found = [
            (name, f"read {number}; must be {allowed} or more")
            for name, allowed in least.items()
            if (number := getattr(self, name)) is not None and number < allowed
        ]
        found += [
            (name, f"read {number:g}; must be above 0")
            for name in ("seconds", "rate_rps", "share", "burstiness")
            if (number := getattr(self, name)) is not None and not 0 < number < float("inf")
        ]
        if self.rate_rps is not None and self.share is not None:
            found.append(("share", "is a rate, and rate_rps is given too: leave one out"))
        if not 0 <= self.spread < 1:
            found.append(("spread", f"read {self.spread:g}; must be 0 or more and below 1"))
        if not 0 <= self.shared_tokens < self.prompt_tokens:
            found.append(("shared_tokens", f"read {self.shared_tokens}; must be below prompt_tokens, which has them"))
        if self.shared_kinds > 1 and self.spread:
            found.append(("spread", "prompts with several shared beginnings have one length: leave spread out"))
        if self.requests is not None and self.requests % max(self.shared_kinds, 1):
            found.append(("requests", f"read {self.requests}; must be a multiple of shared_kinds {self.shared_kinds}"))
        return found

    def point(self) -> Point:
        """The point that it writes down."""
        load = Load(
            concurrency=self.concurrency,
            rate_rps=float("inf") if self.rate_rps is None else self.rate_rps,
            burstiness=self.burstiness,
            requests=self.requests,
            prompt_tokens=self.prompt_tokens,
            output_tokens=self.output_tokens,
            low=1.0 - self.spread,
            high=1.0 + self.spread,
            shared_tokens=self.shared_tokens,
            shared_kinds=self.shared_kinds,
        )
        return Point(self.tells, load, self.seconds, self.share)


@dataclass(frozen=True)
class WrittenPlan:
    """A plan file: ``{"points": [{"prompt_tokens": 512, "output_tokens": 128, "concurrency": 4}, …]}``."""

    points: tuple[Written, ...]


def plan(name: str, seed: int = 0) -> Plan:
    """A designed plan by name, or one from a JSON file (anything that ends in ``.json``).

    Args:
        name: ``quick``, ``full`` or a path.
        seed: of the session; every point's own seed follows from it and the point's place in the plan.

    Raises:
        InputError: no such plan, or a broken file, with all its problems.
    """
    if name in GRIDS:
        return Plan(name, _seeded(GRIDS[name], seed))
    if not name.endswith(".json"):
        raise unknown("plan", name, GRIDS, repair="or give the path of a plan's .json file")
    path = Path(name)
    return Plan(path.name, _seeded(_read(path), seed), designed=False)


def _seeded(points: Sequence[Point], seed: int) -> tuple[Point, ...]:
    # Every point has prompts of its own: a prompt met before would be in the prefix cache.
    return tuple(replace(point, seed=1000 * seed + i + 1) for i, point in enumerate(points))


def _read(path: Path) -> list[Point]:
    from pydantic import ValidationError

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError([Problem(str(path), "", f"the plan cannot be read: {error}; give UTF-8 JSON")]) from error
    try:
        written = _adapter().validate_json(text).points
    except ValidationError as error:
        raise InputError([_problem(path, entry) for entry in error.errors()]) from None
    problems = [
        Problem(str(path), f"points.{i}.{field}", message)
        for i, entry in enumerate(written)
        for field, message in entry.faults()
    ]
    points = [entry.point() for entry in written] if not problems else []
    names = [point.name for point in points]
    problems += [
        Problem(str(path), f"points.{i}", f"the same operating point {name} is there before: leave one out")
        for i, name in enumerate(names)
        if name in names[:i]
    ]
    if not written:
        problems.append(Problem(str(path), "points", "the list is empty: write at least one point"))
    if problems:
        raise InputError(problems)
    return points


def _problem(path: Path, entry: Mapping[str, Any]) -> Problem:
    """What pydantic says of a field, and the names that are meant where it knows none of this name."""
    place, name = ".".join(str(part) for part in entry["loc"]), str(entry["loc"][-1]) if entry["loc"] else ""
    if entry["type"] == "unexpected_keyword_argument":
        known = [field.name for field in fields(Written)] if len(entry["loc"]) > 1 else ["points"]
        near = nearest(name, known)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
        return Problem(str(path), place, f"there is no such field; {hint}")
    return Problem(str(path), place, f"{entry['msg']} (read {json.dumps(entry['input'], default=str)[:60]})")


@cache
def _adapter() -> TypeAdapter[WrittenPlan]:
    from pydantic import ConfigDict, TypeAdapter

    for part in (Written, WrittenPlan):
        part.__pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)  # type: ignore[union-attr]
    return TypeAdapter(WrittenPlan)
