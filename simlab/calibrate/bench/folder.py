"""The folder that a session fills: results as vLLM wrote them, what goes with them, and how far the session is."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from simlab import __version__
from simlab.calibrate.bench.plan import Point
from simlab.calibrate.run import Load
from simlab.errors import InputError, OutputError, Problem

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Outcome:
    """What became of a point.

    Attributes:
        state: ``measured`` or ``left out``.
        reason: why it was left out.
        requests: requests sent.
        failed: those that ended in an error.
        rate_rps: rate they were sent at; None: all at once, or as the concurrency let them.
        capacity: where the rate's capacity is from, where the rate is a share of it.
        seconds: from the first request to the end of the last, s.
        wall_s: what the client took in all, s.
        throughput_rps, output_tokens_per_s, ttft_s_mean, tpot_s_mean: main results.
        date: ISO date and time of the start, UTC.
    """

    state: str
    reason: str = ""
    requests: int = 0
    failed: int = 0
    rate_rps: float | None = None
    capacity: str = ""
    seconds: float = 0.0
    wall_s: float = 0.0
    throughput_rps: float = 0.0
    output_tokens_per_s: float = 0.0
    ttft_s_mean: float = 0.0
    tpot_s_mean: float = 0.0
    date: str = ""

    @property
    def measured(self) -> bool:
        """Whether there is a result."""
        return self.state == "measured"


@dataclass(frozen=True)
class Asked:
    """What a session is to measure; one folder holds one such thing.

    Attributes:
        plan: name of the plan.
        model: the model's name or folder.
        url: of a running server; None: one is started.
        flags: of ``vllm serve``.
        seed: of the session.
        points: the plan's.
    """

    plan: str
    model: str
    url: str | None
    flags: tuple[str, ...]
    seed: int
    points: tuple[Point, ...]

    def as_json(self) -> dict[str, Any]:
        """As it is kept."""
        return {
            "plan": self.plan,
            "model": self.model,
            "url": self.url,
            "flags": list(self.flags),
            "seed": self.seed,
            "points": [_point_json(point) for point in self.points],
        }


class Folder:
    """A session's folder.

    Attributes:
        path: the folder.
        outcomes: what became of the points so far, by name.
    """

    def __init__(self, path: Path, asked: Asked, outcomes: Mapping[str, Outcome]) -> None:
        self.path, self._asked, self.outcomes = path, asked, dict(outcomes)

    @classmethod
    def open(cls, path: Path, asked: Asked) -> Folder:
        """The folder of a session, with what an earlier one has measured there of the same thing.

        Raises:
            InputError: something else was measured there, or its ``plan.json`` is broken.
            OutputError: it cannot be made.
        """
        folder = cls(path, asked, {})
        state = folder.path / "plan.json"
        if state.exists():
            folder.outcomes = _resumed(state, asked)
            lost = [
                name for name, outcome in folder.outcomes.items()
                if outcome.measured and not folder.holds(name)
            ]  # fmt: skip
            for name in lost:
                del folder.outcomes[name]
        try:
            for inner in (folder.results, folder.server_side, folder.unfinished):
                inner.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(path, error) from error
        folder.keep()
        return folder

    @property
    def results(self) -> Path:
        """Holds the result of each point."""
        return self.path / "results"

    @property
    def server_side(self) -> Path:
        """Holds what the server says of each point."""
        return self.path / "server_side"

    @property
    def client_log(self) -> Path:
        """What the client prints."""
        return self.unfinished / "client.log"

    @property
    def complete(self) -> bool:
        """Whether nothing is left to be measured."""
        done = all(point.name in self.outcomes for point in self._asked.points)
        return done and (self.path / "server.json").exists()

    @property
    def unfinished(self) -> Path:
        """Holds what is being written."""
        return self.path / ".unfinished"

    def result(self, name: str) -> Path:
        """The result file of a point."""
        return self.results / f"{name}.json"

    def holds(self, name: str) -> bool:
        """Whether a point's result is there; it may have been compressed since (``NAME.json.gz``)."""
        return self.result(name).is_file() or self.result(name).with_suffix(".json.gz").is_file()

    def next_log(self) -> Path:
        """The log of the next server that is started."""
        number = 1 + sum(1 for _ in self.path.glob("server-*.log"))
        return self.path / f"server-{number}.log"

    def server(self) -> dict[str, Any]:
        """What is kept of the server so far; empty before the first start.

        Raises:
            InputError: the file is broken.
        """
        return _read(self.path / "server.json") if (self.path / "server.json").exists() else {}

    def keep_server(self, facts: Mapping[str, Any]) -> None:
        """Writes ``server.json``."""
        self._write(self.path / "server.json", {"schema_version": SCHEMA_VERSION, **facts})

    def keep(self) -> None:
        """Writes ``plan.json``: what was asked for and how far it is."""
        points = [
            {"name": point.name, "tells": point.tells, "outcome": None if done is None else asdict(done)}
            for point in self._asked.points
            for done in [self.outcomes.get(point.name)]
        ]
        state = {"schema_version": SCHEMA_VERSION, "simlab": __version__, "asked": self._asked.as_json()}
        self._write(self.path / "plan.json", {**state, "points": points})

    def leave_out(self, reasons: Mapping[str, str]) -> None:
        """Notes which points the server does not allow, in the place of what was thought of that before."""
        self.outcomes = {name: outcome for name, outcome in self.outcomes.items() if outcome.measured}
        for name, why in reasons.items():
            self.outcomes.setdefault(name, Outcome("left out", why))
        self.keep()

    def finish(self, name: str, outcome: Outcome, side: Mapping[str, Any]) -> None:
        """Puts a point's result in its place: first what goes with it, then the result, then the word that it is done.

        Args:
            name: of the point, whose result lies in `unfinished`.
            outcome: what it gave.
            side: what the server says of it.
        """
        self._write(self.server_side / f"{name}.metrics.json", side)
        try:
            (self.unfinished / f"{name}.json").replace(self.result(name))
        except OSError as error:
            raise _unwritable(self.results, error) from error
        self.outcomes[name] = outcome
        self.keep()

    def tidy(self) -> None:
        """Removes what never became a result."""
        shutil.rmtree(self.unfinished, ignore_errors=True)

    def _write(self, path: Path, data: Mapping[str, Any]) -> None:
        beside = path.with_name(f".{path.name}.part")
        try:
            beside.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            beside.replace(path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise _unwritable(path, error) from error


def _resumed(state: Path, asked: Asked) -> dict[str, Outcome]:
    """Outcomes of an earlier session.

    Raises:
        InputError: it measured something else, said by what differs; or the file is broken.
    """
    data = _read(state)
    before, now = data.get("asked"), asked.as_json()
    try:
        if data["schema_version"] != SCHEMA_VERSION or not isinstance(before, dict):
            raise ValueError("another schema_version")
        outcomes = {
            str(entry["name"]): Outcome(**entry["outcome"]) for entry in data["points"] if entry["outcome"] is not None
        }
    except (KeyError, TypeError, ValueError) as error:
        message = f"is not what this version of simlab writes ({error}); give another --out"
        raise InputError([Problem(str(state), "", message)]) from error
    problems = [
        Problem(str(state), name, f"this folder measures {_shown(before.get(name))}, now asked for is {_shown(value)}; "
                "give another --out, or ask for the same")
        for name, value in now.items()
        if name != "points" and before.get(name) != value
    ]  # fmt: skip
    if not problems and before.get("points") != now["points"]:
        changed = [entry["name"] for entry in now["points"] if entry not in (before.get("points") or [])]
        what = f"point {changed[0]} differs or is new" if changed else "points are missing now"
        problems = [Problem(str(state), "points", f"the plan has changed since: {what}; give another --out")]
    if problems:
        raise InputError(problems)
    return outcomes


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        message = f"cannot be read: {error}; restore it, or give another --out"
        raise InputError([Problem(str(path), "", message)]) from error
    if not isinstance(data, dict):
        raise InputError([Problem(str(path), "", "is not a session's file; give another --out")])
    return data


def _point_json(point: Point) -> dict[str, Any]:
    own = {"name": point.name, "seed": point.seed, "seconds": point.seconds, "share": point.share}
    return {**own, **load_json(point.load)}


def _shown(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(str(item) for item in value) or "none"
    return "none" if value is None else str(value)


def _unwritable(path: Path, error: OSError) -> OutputError:
    reason = f"{error.strerror or error}; free some space or give another --out"
    return OutputError(f"{path}: cannot be written: {reason}")


def load_json(load: Load) -> dict[str, Any]:
    """A load as it is kept beside its result; an unlimited rate is null."""
    return {name: None if value == math.inf else value for name, value in asdict(load).items()}
