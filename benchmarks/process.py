"""Runs a case in a process of its own and reads the operating system's account of it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.case import Case, Sample

_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024
_MIB = 1 << 20


class CaseError(Exception):
    """A measured process failed; the message is what it wrote to stderr."""


def environment(**more: str) -> dict[str, str]:
    """The environment of a measured process: as a user has it, with compiled Python files kept."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | more


def measure(case: Case, tree: Path, scale: float, more: Mapping[str, str] | None = None) -> Sample:
    """One measurement of ``case`` with the simlab that lies in ``tree``.

    To be called from a small process: Linux counts the caller's size at the fork in the child's peak memory.

    Args:
        case: what to run.
        tree: root of a checkout; the working directory, hence the first place modules come from.
        scale: size relative to the full one.
        more: further environment variables.

    Raises:
        CaseError: the process ended with an error.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
    ):
        env = environment(**(more or {}))
        if case.fresh_cache:
            env["NUMBA_CACHE_DIR"] = folder
        began = time.perf_counter()
        process = subprocess.Popen([sys.executable, *case.command(scale)], cwd=tree, env=env, stdout=out, stderr=err)
        # wait4 tells of this child alone (and of its own children); getrusage would tell of the greatest one so far.
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        err.seek(0)
        if process.returncode not in case.fine:
            raise CaseError(f"{case.benchmark}, {case.name}: exit code {process.returncode}\n{err.read()}")
        out.seek(0)
        report = case.read(out.read())
    return Sample(
        seconds=wall_s if report.seconds is None else report.seconds,
        cpu_s=usage.ru_utime + usage.ru_stime,
        peak_mib=usage.ru_maxrss * _MAXRSS_BYTES / _MIB,
        report=report,
    )
