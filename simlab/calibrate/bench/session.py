"""A session: a server, and the points of a plan one after another; it goes on where an earlier one was cut short."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from simlab.calibrate.bench.client import Client, program
from simlab.calibrate.bench.clock import now
from simlab.calibrate.bench.facts import Facts, Start, guessed, learn, remembered, start
from simlab.calibrate.bench.flags import public
from simlab.calibrate.bench.folder import Asked, Folder, Outcome
from simlab.calibrate.bench.measurement import measure, warm_up
from simlab.calibrate.bench.outlook import Outlook
from simlab.calibrate.bench.plan import Plan
from simlab.calibrate.bench.server import PORT, Launch, Serving, running, started
from simlab.calibrate.bench.signals import interruptible
from simlab.calibrate.run import Load
from simlab.errors import InputError, Problem

Progress = Callable[[float, float, str], None]
"""Told the minutes done, the minutes in all, and what is being done."""

START_LIMIT_S = 1800.0
"""How long a server may take to become ready, if the user does not say."""

# The first requests of a server compile kernels and fill caches; they are no measurement.
_WARM_UP = Load(concurrency=8, requests=16, prompt_tokens=256, output_tokens=16)
_WARM_UP_SEED = 999_999


@dataclass(frozen=True)
class Session:
    """What the user asks for.

    Attributes:
        model: name or folder, as `vllm serve` takes it.
        plan: the points.
        out: folder to fill.
        flags: of ``vllm serve``; of a server that runs already, those it was started with, for the record.
        url: of a server that runs already; None: one is started.
        vllm: what starts vLLM's command line.
        gpu: name of the GPU; None: as the machine tells.
        seed: of the session.
        port: where a server that we start listens.
        start_limit_s: how long it may take to become ready, s.
    """

    model: str
    plan: Plan
    out: Path
    flags: tuple[str, ...] = ()
    url: str | None = None
    vllm: str = "vllm"
    gpu: str | None = None
    seed: int = 0
    port: int = PORT
    start_limit_s: float = START_LIMIT_S

    def launch(self, vllm: tuple[str, ...]) -> Launch:
        """How its server is started."""
        return Launch(vllm, self.model, self.flags, self.port)

    def asked(self) -> Asked:
        """What its folder holds."""
        return Asked(self.plan.name, self.model, self.url, public(self.flags), self.seed, self.plan.points)


@dataclass(frozen=True)
class Answer:
    """What a session has measured, or would.

    Attributes:
        session: what was asked for.
        facts: of the server, or what can be said of it before it runs.
        outcomes: of the points that are done, by name.
        outlook: of the points that are left.
        results: folder of the results.
        step_logs: folder of step logs; None where the server wrote none.
    """

    session: Session
    facts: Facts
    outcomes: dict[str, Outcome]
    outlook: Outlook
    results: Path
    step_logs: Path | None = None

    @property
    def fit_command(self) -> str:
        """The command that fits a profile to it."""
        runs = [self.results] if self.step_logs is None else [self.results, self.step_logs]
        return shlex.join(self.facts.fit_command(runs))


def foreseen(session: Session) -> Answer:
    """What would be run, without vLLM, without asking a server, and without writing anything."""
    facts = guessed(session.model, session.flags, session.gpu, here=session.url is None)
    outcomes = {name: Outcome("left out", why) for name, why in session.plan.left_out(facts.limits).items()}
    outlook = Outlook(session.plan, facts, outcomes)
    return Answer(session, facts, outcomes, outlook, Folder(session.out, session.asked(), {}).results)


def run(session: Session, progress: Progress) -> Answer:
    """Measures what is left of a session.

    Raises:
        InputError: no vLLM; a server that does not start, stops, or is another than before; a benchmark that fails.
        OutputError: the folder cannot be written.
        Interrupted: a signal asked us to stop; the server has been ended and what was measured is kept.
    """
    with interruptible():
        folder = Folder.open(session.out, session.asked())
        if folder.complete:
            folder.tidy()
            return _answer(session, folder, remembered(folder.server(), str(folder.path / "server.json")))
        vllm = program(session.vllm)
        log = folder.next_log()
        with _serving(session, vllm, log, progress) as (serving, starts):
            facts = _facts(session, folder, serving, log, starts)
            folder.keep_server(facts.as_json())
            folder.leave_out(session.plan.left_out(facts.limits))
            client = Client(vllm, serving.endpoint.url, facts.served, session.model, session.flags)
            _measure(folder, Outlook(session.plan, facts, folder.outcomes), client, serving, progress)
    folder.tidy()
    return _answer(session, folder, facts)


@contextmanager
def _serving(
    session: Session, vllm: tuple[str, ...], log: Path, progress: Progress
) -> Iterator[tuple[Serving, tuple[Start, ...]]]:
    """The server for the time of the session, and its cold start if it is ours."""
    if session.url is not None:
        yield running(session.url), ()
        return
    launch, date = session.launch(vllm), now()

    def waiting(gone_s: float) -> None:
        # A line every half minute is enough where there is no bar.
        gone = f", {gone_s // 30 * 30:.0f} s" if gone_s >= 30 else ""
        progress(0.0, 1.0, f"the server starts{gone}")

    with started(launch, log=log, limit_s=session.start_limit_s, waiting=waiting) as serving:
        yield serving, (start(date, public(launch.command), serving.ready_s or 0.0, log),)


def _facts(session: Session, folder: Folder, serving: Serving, log: Path, starts: tuple[Start, ...]) -> Facts:
    """What is known of the server; it must be the one that filled the folder before.

    Raises:
        InputError: it is another one.
    """
    kept, where = folder.server(), str(folder.path / "server.json")
    before = remembered(kept, where) if kept else None
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    facts = learn(
        serving,
        model=session.model,
        flags=public(session.flags),
        gpu=session.gpu,
        log=text,
        starts=(*(before.starts if before else ()), *starts),
    )
    changed = facts.differences(before) if before and any(one.measured for one in folder.outcomes.values()) else []
    if changed:
        repair = "results of different servers do not mix: give another --out"
        raise InputError([Problem(where, "", f"{what}; {repair}") for what in changed])
    return facts


def _measure(folder: Folder, outlook: Outlook, client: Client, serving: Serving, progress: Progress) -> None:
    """Measures the points that are left, one after another."""
    done_s, count = 0.0, len(outlook.left()) + sum(one.measured for one in folder.outcomes.values())

    def watching(note: str, now_s: float, rest_s: float) -> Callable[[float], None]:
        def watch(gone_s: float) -> None:
            serving.check()
            progress((done_s + gone_s) / 60, (done_s + max(now_s, gone_s) + rest_s) / 60, note)

        return watch

    left = outlook.left()
    if left:
        watch = watching("warm-up", outlook.pace().client_start_s, sum(step.seconds for step in left))
        done_s += warm_up(folder, client, _WARM_UP, _WARM_UP_SEED, watch)
    while left := outlook.left():
        step = left[0]
        note = f"{count - len(left) + 1}/{count} {step.point.name}: {step.point.tells}"
        watch = watching(note, step.seconds, sum(later.seconds for later in left[1:]))
        done_s += measure(folder, client, serving, outlook.facts, step, watch)


def _answer(session: Session, folder: Folder, facts: Facts) -> Answer:
    logged = any(folder.server_side.glob("*.iterations.csv.gz"))
    return Answer(
        session,
        facts,
        dict(folder.outcomes),
        Outlook(session.plan, facts, folder.outcomes),
        folder.results,
        folder.server_side if logged else None,
    )
