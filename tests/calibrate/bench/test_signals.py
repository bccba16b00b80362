"""However a session is ended, its server ends with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from faking import SECOND, VLLM, alive, end_at_once, free_port, wait_until

from simlab.calibrate.bench.signals import Interrupted, held, interruptible

PLAN = {
    "points": [
        {"prompt_tokens": 64, "output_tokens": 16, "concurrency": 1, "requests": 8},
        {"prompt_tokens": 64, "output_tokens": 16, "concurrency": 4, "requests": 16},
    ]
}


def begin(tmp_path: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """The command in a process of its own, hanging in its second benchmark; and the pids of its stubborn server."""
    (tmp_path / "plan.json").write_text(json.dumps(PLAN))
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "FAKE_PIDS": str(tmp_path / "pids"),
        "FAKE_RAN": str(tmp_path / "ran"),
        "FAKE_HANGS": SECOND,
        "FAKE_STUBBORN": "1",
    }
    words = ["calibrate", "bench", "--model", "tiny", "--plan", "plan.json", "--out", "out", "--port", str(free_port())]
    code = (
        "import signal\nfrom simlab.calibrate.bench import child\nfrom simlab.cli.main import run\n"
        # Tests may themselves run where these are ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\nsignal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        "child.GRACE_S = 1.0\nrun()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words, "--vllm", VLLM],
        cwd=tmp_path, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    ran = tmp_path / "ran"
    try:
        wait_until(lambda: process.poll() is not None or (ran.exists() and SECOND in ran.read_text().split()))
        return process, json.loads((tmp_path / "pids").read_text())
    except BaseException:
        process.kill()  # the watcher ends its server
        process.communicate()
        raise


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_its_server_ends_with_it(tmp_path, number):
    process, pids = begin(tmp_path)
    try:
        assert all(alive(pid) for pid in pids)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        wait_until(lambda: not alive(pids[0]), limit_s=40)
        if number != signal.SIGKILL:  # then only the watcher is left, and it ends the group
            assert not any(alive(pid) for pid in pids)
            assert process.returncode == 128 + number
            assert f"stopped by {number.name}: the server has been ended" in err
            assert [path.stem for path in (tmp_path / "out" / "results").iterdir()] == ["i64-o16-c1"]
    finally:
        process.kill()
        for pid in pids:
            end_at_once(pid)


def test_signals_are_exceptions_only_within():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="stopped by SIGTERM"), interruptible():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_held_signal_waits_for_the_end():
    done = []

    def work() -> None:
        with interruptible(), held():
            with held():
                os.kill(os.getpid(), signal.SIGTERM)
                done.append("inner")
            done.append("outer")

    with pytest.raises(Interrupted):
        work()
    assert done == ["inner", "outer"]
