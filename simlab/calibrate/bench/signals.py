"""Signals that ask us to stop, as an exception, so that whatever was started is ended on the way out."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Interrupted(KeyboardInterrupt):
    """A signal asked us to stop; no `Exception`, so that nothing takes it for an error.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(f"stopped by {signal.Signals(number).name}")


class _Held:
    """How many blocks want no interruption now, and the signal that came meanwhile."""

    depth = 0
    came: int | None = None


def _stop(number: int, frame: FrameType | None) -> None:
    if _Held.depth:
        _Held.came = number
        return
    raise Interrupted(number)


@contextmanager
def interruptible() -> Iterator[None]:
    """Within it Ctrl-C, SIGTERM and SIGHUP raise `Interrupted`; outside of the main thread nothing changes.

    What is ignored stays ignored: under ``nohup`` a session outlives its terminal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heeded = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _stop) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def held() -> Iterator[None]:
    """Within it such a signal waits, and is raised on leaving: for the moment in which a program is being started."""
    _Held.depth += 1
    try:
        yield
    finally:
        _Held.depth -= 1
        came, _Held.came = (None, _Held.came) if _Held.depth else (_Held.came, None)
    if came is not None:
        raise Interrupted(came)
