"""A program that we start, with everything that it starts: all of it ends when we do, whatever ends us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from simlab.calibrate.bench.signals import held
from simlab.errors import InputError, Problem

GRACE_S = 30.0
"""How long a program may take to end on its own: vLLM frees its GPUs."""

_ORPHANS_S = 2.0
"""How long what a program left behind may take to end."""

_KILLED_S = 10.0
"""How long the system may take to end what was killed: a GPU's driver has to let go of it."""

_POLL_S = 0.05
_PROC = Path("/proc")

# Runs beside the program, in a session of its own, and holds the reading end of a pipe to us. That pipe ends when we
# do, even by SIGKILL; then it ends the program's group.
_WATCHER = """
import os, signal, sys, time
group, grace_s = int(sys.argv[1]), float(sys.argv[2])
sys.stdin.buffer.read()
try:
    os.killpg(group, signal.SIGTERM)
    until = time.monotonic() + grace_s
    while time.monotonic() < until:
        time.sleep(0.1)
        os.killpg(group, 0)
    os.killpg(group, signal.SIGKILL)
except ProcessLookupError:
    pass
"""


class Child:
    """A running program; use it as a context manager, which stops it on leaving.

    Args:
        command: program and arguments.
        log: file that gets what it prints, at its end.
        environment: its environment; None is ours.
        grace_s: how long it may take to end once asked to, s; None: `GRACE_S`.

    Raises:
        InputError: the program cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        grace_s: float | None = None,
    ) -> None:
        self.log, self.grace_s = log, GRACE_S if grace_s is None else grace_s
        with held(), log.open("ab") as out:
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    env=None if environment is None else dict(environment),
                    start_new_session=True,
                )
            except OSError as error:
                message = f"cannot be started: {error.strerror or error}; name a program that runs with --vllm"
                raise InputError([Problem(command[0], "", message)]) from error
            self.pid = self._process.pid
            self._watcher = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _WATCHER, str(self.pid), str(self.grace_s)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def poll(self) -> int | None:
        """The program's exit code; None while it runs."""
        return self._process.poll()

    def tail(self, lines: int = 20) -> str:
        """The last lines that it printed, each behind four spaces."""
        with self.log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 64 * 1024))
            text = file.read().decode("utf-8", "replace")
        return "\n".join(f"    {line}" for line in text.splitlines()[-lines:])

    def stop(self) -> None:
        """Ends the program and all that it started.

        The program is asked first (SIGTERM), since it knows best how to end what it started; what is left when it has
        ended, or after the grace time, is asked next, and what is left then is killed. A second signal to us ends the
        waiting.
        """
        try:
            if self.poll() is None:
                self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(self.grace_s)
            self._end(signal.SIGTERM, _ORPHANS_S)
        finally:
            self._end(signal.SIGKILL, _KILLED_S)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_KILLED_S)
            self._watcher.kill()
            self._watcher.communicate()

    def _end(self, number: signal.Signals, patience_s: float) -> None:
        """Sends a signal to all that is left of it and waits until nothing is."""
        for pid in self.members():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        until = time.monotonic() + patience_s
        while self.members() and time.monotonic() < until:
            time.sleep(_POLL_S)

    def members(self) -> list[int]:
        """Processes of its session that still run; they may have left its process group."""
        self._process.poll()  # reaps the program itself, which would stay a zombie
        if not (_PROC / "self" / "stat").exists():
            return self._group()
        found = []
        for entry in _PROC.iterdir():
            if not entry.name.isdecimal():
                continue
            try:
                # After the name in brackets, which may hold anything: state, parent, process group, session.
                state, _, group, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            except (OSError, ValueError):
                continue  # It has ended meanwhile.
            if state != "Z" and str(self.pid) in (group, session):
                found.append(int(entry.name))
        return found

    def _group(self) -> list[int]:
        """Where there is no /proc: the group as a whole, by its negative number, while it has members."""
        try:
            os.killpg(self.pid, 0)
        except (ProcessLookupError, PermissionError):
            return []
        return [-self.pid]
