"""How tests run a session against the stand-in for vLLM."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import sys
import time
from pathlib import Path

from simlab.calibrate.bench.plan import Plan, Point
from simlab.calibrate.bench.session import Session
from simlab.calibrate.run import Load

FAKE = Path(__file__).with_name("fake_vllm.py")
VLLM = shlex.join([sys.executable, "-S", str(FAKE)])

TWO = (
    Point("base", Load(concurrency=1, requests=8, prompt_tokens=64, output_tokens=16), seed=1),
    Point("ladder", Load(concurrency=4, requests=16, prompt_tokens=64, output_tokens=16), seed=2),
)
FIRST, SECOND = (point.name for point in TWO)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def session(out: Path, *points: Point, **changes: object) -> Session:
    """A session of two quick points, or of those given."""
    plan = Plan("test", points or TWO, designed=False)
    settings = {"model": "tiny", "vllm": VLLM, "gpu": "h100", "port": free_port(), "start_limit_s": 60.0}
    return Session(plan=plan, out=out, **{**settings, **changes})  # type: ignore[arg-type]


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked for its exit code does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(what, limit_s: float = 60.0) -> None:
    """Waits until ``what()`` is true; fails when it takes too long."""
    until = time.monotonic() + limit_s
    while not what():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


def end_at_once(pid: int) -> None:
    """Ends a process of a test that did not end by itself."""
    if alive(pid):
        os.kill(pid, signal.SIGKILL)
