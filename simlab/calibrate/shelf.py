"""The profiles at hand for a validation: one, or a folder of them, and estimates where there is none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from simlab.calibrate.judged import BETWEEN, CALIBRATED, ESTIMATED
from simlab.calibrate.read import read_runs
from simlab.calibrate.read.hints import ServerHints
from simlab.calibrate.run import Run, Server
from simlab.errors import InputError, Problem
from simlab.profiles import Beyond, Profile, estimate, load, profile, profiles
from simlab.profiles.library import same_architecture
from simlab.profiles.models import models


@dataclass(frozen=True)
class Shelf:
    """Profiles by the set-up that they are of.

    Attributes:
        name: what they were opened as.
        profiles: by name.
        single: there is one, named by the user; it is for runs whose file does not say the set-up.
    """

    name: str
    profiles: tuple[Profile, ...]
    single: bool

    @classmethod
    def open(cls, name: str) -> Shelf:
        """A profile's file, a folder of such files, or a bundled profile's name.

        Raises:
            InputError: nothing there, an empty folder, a broken file, or two files of one set-up; all problems at once.
        """
        path = Path(name)
        if not path.is_dir():
            return cls(name, (profile(name),), single=True)
        found: list[Profile] = []
        problems: list[Problem] = []
        places: dict[str, Path] = {}
        for file in sorted(path.glob("*.json")):
            try:
                one = load(file)
            except InputError as error:
                problems += error.problems
                continue
            key = setup_of(one)
            if key in places:
                message = f"is of the same set-up as {places[key].name} ({key}): keep one of the two"
                problems.append(Problem(str(file), "", message))
            places[key] = file
            found.append(one)
        if not found and not problems:
            message = "holds no profile (*.json): `simlab calibrate fit RUNS -o DIR` writes them"
            problems.append(Problem(name, "", message))
        if problems:
            raise InputError(problems)
        return cls(name, tuple(found), single=False)

    def read(self, paths: Sequence[Path], hints: ServerHints) -> list[Run]:
        """The runs of files, for which the only profile at hand says what neither they nor the user do.

        Raises:
            InputError: the runs cannot be read, or none is of the profile's set-up.
        """
        if len(self.profiles) > 1:
            return read_runs(paths, server=hints)
        only = self.profiles[0]
        said = {name: value for name, value in vars(hints).items() if value is not None}
        known = {name: getattr(only, name) for name in ("model", "gpu", "tp", "precision", "dp", "expert_parallel")}
        try:
            return read_runs(paths, server=ServerHints(**{**known, **said}))
        except InputError:
            # They say otherwise, which may be a model of the same architecture.
            found = read_runs(paths, server=hints)
        if self.single and not any(self.of(run.server) for run in found):
            setups = sorted({run.server.setup for run in found})
            listed = ", ".join(setups[:5]) + (f" and {len(setups) - 5} more" if len(setups) > 5 else "")
            message = f"is of {setup_of(only)}; the runs are of {listed}: take their profile, or a folder of profiles"
            raise InputError([Problem(self.name, "", message)])
        return found

    def of(self, server: Server) -> Profile | None:
        """The profile of a server's set-up; one of a model of the very same architecture counts."""
        by_setup = {setup_of(one): one for one in self.profiles}
        setups = (replace(server, model=name).setup for name in (server.model, *_twins(server.model)))
        return next((by_setup[setup] for setup in setups if setup in by_setup), None)

    def find(self, server: Server) -> Profile:
        """The profile of a server's set-up; where there is none, an estimate from all other set-ups that are known.

        Raises:
            InputError: there is none, and none can be estimated: a model or GPU that no table knows.
        """
        found = self.of(server)
        if found is not None:
            return found
        known = {**profiles(), **{one.name: one for one in self.profiles}}
        # simlab may come with a measurement of the very set-up: it is not on the shelf and is not used.
        others = [one for one in known.values() if one.kind == "measured" and setup_of(one) != server.setup]
        return estimate_of(server, others)


def estimate_of(server: Server, measured: Sequence[Profile]) -> Profile:
    """The estimate of a server's set-up from measured profiles.

    Raises:
        InputError: no table knows its model, GPU or precision.
    """
    return estimate(
        server.model,
        server.gpu,
        server.tp,
        server.precision,
        dp=server.dp,
        expert_parallel=server.expert_parallel,
        kv_precision=server.kv_precision or "bf16",
        measured=measured,
    )


def setup_of(one: Profile) -> str:
    """The set-up that a profile is of, named as `Server.setup` does.

    A profile may have any name of its own.
    """
    server = Server(one.model, one.gpu, one.tp, one.precision, one.dp, one.expert_parallel)
    return server.setup


def _twins(model: str) -> list[str]:
    """Other models of the same architecture; none for a model that no table knows."""
    known = models().get(model)
    return same_architecture(known) if known is not None else []


def point_of(run: Run) -> str:
    """What a run measured, in short: its operating point; of a log of steps alone its count and total time.

    Two runs of one point measure the same thing; a log of steps is the same only when it is the very same log.
    """
    if run.load is not None:
        return run.load.point
    if run.steps is None:
        return ""
    return f"steps{len(run.steps.seconds)}-{float(run.steps.seconds.sum()):.6g}s"


def kind_of(run: Run, found: Profile) -> str:
    """`CALIBRATED`, `BETWEEN` or `ESTIMATED`."""
    if found.kind != "measured":
        return ESTIMATED
    return CALIBRATED if point_of(run) in found.points else BETWEEN


def outside(run: Run, found: Profile) -> tuple[Beyond, ...]:
    """Where a run lies outside what the profile was fitted on; nothing where that is not known.

    >>> from simlab.calibrate.run import Load
    >>> from simlab.profiles import StepTime, Validity
    >>> one = Profile("m.g.tp1.bf16", "m", "g", 1, "bf16", "measured", StepTime(), validity=Validity(64, 2048, 4096))
    >>> load = Load(concurrency=128, prompt_tokens=5000, output_tokens=9)
    >>> [(far.limit, far.reached) for far in outside(Run("r", "r.json", Server("m", "g"), load), one)]
    [('max_decode_seqs', 128), ('max_context_tokens', 5009)]
    """
    reached: dict[str, float] = {}
    load = run.load
    if load is not None:
        if load.concurrency is not None:
            share = load.concurrency / (run.server.dp * run.server.replicas)
            reached["max_decode_seqs"] = min(share, run.server.max_num_seqs or math.inf)
        reached["max_context_tokens"] = (load.prompt_tokens + load.output_tokens) * max(load.high, 1.0)
    if run.steps is not None and len(run.steps.seconds):
        reached["max_step_tokens"] = float((run.steps.prefill_tokens + run.steps.decode_requests).max())
    far = []
    for limit, most in reached.items():
        measured = getattr(found.validity, limit)
        # What differs by a token was rounded.
        if measured and most > measured + 1:
            far.append(Beyond(limit, measured, math.ceil(most), 1.0))
    return tuple(far)
