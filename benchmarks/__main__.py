"""`python -m benchmarks`: measures and prints a table."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.against import checkout, short_name
from benchmarks.case import Case, Sample
from benchmarks.catalogue import BENCHMARKS, CASES
from benchmarks.process import CaseError, measure
from benchmarks.remarks import remarks
from benchmarks.table import ratios, results

ROOT = Path(__file__).resolve().parent.parent
_QUICK = 0.05


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which benchmarks: {', '.join(BENCHMARKS)}")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the size, at most two runs")
    parser.add_argument("--scale", type=float, default=1.0, help="size relative to the full one")
    parser.add_argument("--runs", type=int, help="measurements of each case; default: as many as steady it")
    parser.add_argument("--against", metavar="REV", help="measure a git revision in turn with this tree; print ratios")
    arguments = parser.parse_args(argv)
    unknown = [name for name in arguments.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; allowed: {', '.join(BENCHMARKS)}")
    if arguments.scale <= 0 or (arguments.runs is not None and arguments.runs < 1):
        parser.error("--scale must be above 0 and --runs at least 1")
    return arguments


def _heading() -> str:
    load = f", load average {os.getloadavg()[0]:.1f} before the start" if hasattr(os, "getloadavg") else ""
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    return f"{datetime.date.today().isoformat()}, {machine}{load}; each run in a process of its own\n"


def _say(text: str) -> None:
    """Shows on a terminal what is being done, in place of what was said before."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _samples(case: Case, runs: int, scale: float, *sides: tuple[Path, dict[str, str]]) -> list[list[Sample]]:
    """Measures the sides in turn, so that whatever else the machine does hits them alike; first once unmeasured."""
    taken: list[list[Sample]] = [[] for _ in sides]
    if not case.fresh_cache:
        for tree, more in sides:
            measure(case, tree, min(scale, 1e-3), more)
    for run in range(runs):
        for (tree, more), samples in zip(sides, taken, strict=True):
            _say(f"{case.benchmark}, {case.name}: run {run + 1} of {runs}")
            samples.append(measure(case, tree, scale, more))
    _say("")
    return taken


def main(argv: Sequence[str] | None = None) -> None:
    """Measures what the command line asks for and prints the table."""
    arguments = _arguments(argv)
    scale = arguments.scale * (_QUICK if arguments.quick else 1.0)
    cases = [case for case in CASES if not arguments.names or case.benchmark in arguments.names]
    runs = [arguments.runs or (min(case.runs, 2) if arguments.quick else case.runs) for case in cases]
    print(_heading())
    if arguments.against is None:
        here = (ROOT, dict[str, str]())
        measured = [(case, _samples(case, n, scale, here)[0]) for case, n in zip(cases, runs, strict=True)]
        print(results(measured), *remarks(measured), sep="\n\n")
        return
    name = short_name(ROOT, arguments.against)
    with checkout(ROOT, arguments.against) as tree:
        old = (tree, {"NUMBA_CACHE_DIR": str(tree / ".kernels")})
        pairs, failed = [], []
        for case, n in zip(cases, runs, strict=True):
            try:
                before, after = _samples(case, n, scale, old, (ROOT, {}))
            except CaseError as error:  # an old revision need not be able to do all that is measured today
                failed.append(f"not measured: {error}")
            else:
                pairs.append((case, before, after))
    print(ratios(pairs, name), *failed, sep="\n\n")


if __name__ == "__main__":
    try:
        main()
    except CaseError as error:
        sys.exit(str(error))
    except subprocess.CalledProcessError as error:
        sys.exit(error.stderr)
