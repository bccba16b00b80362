"""A vLLM server for the time of a session: started and ended by us, or running already."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from simlab.calibrate.bench.child import Child
from simlab.calibrate.bench.client import environment
from simlab.calibrate.bench.endpoint import Endpoint
from simlab.calibrate.bench.flags import value
from simlab.errors import InputError, Problem

HOST = "127.0.0.1"
PORT = 8000

_POLL_S = 0.25


@dataclass(frozen=True)
class Launch:
    """How a server is started.

    Attributes:
        vllm: words that start vLLM's command line.
        model: name or folder.
        flags: the user's, handed on as they are; ``--host`` and ``--port`` among them go before ours.
        port: where it listens if the flags do not say.
    """

    vllm: tuple[str, ...]
    model: str
    flags: tuple[str, ...] = ()
    port: int = PORT

    @property
    def command(self) -> list[str]:
        """The words of the command line."""
        words = [*self.vllm, "serve", self.model]
        words += [] if value(self.flags, "--host") else ["--host", HOST]
        words += [] if value(self.flags, "--port") else ["--port", str(self.port)]
        return [*words, *self.flags]

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to reach it at.

        Raises:
            InputError: the flags' port is no number.
        """
        host, port = value(self.flags, "--host") or HOST, value(self.flags, "--port") or str(self.port)
        if not port.isdecimal():
            raise InputError([Problem("--port", "", f"read {port!r}; must be a number")])
        return (HOST if host in {"0.0.0.0", "::"} else host), int(port)

    @property
    def endpoint(self) -> Endpoint:
        """Where it answers."""
        host, port = self.address
        return Endpoint(f"http://{host}:{port}")


@dataclass(frozen=True)
class Serving:
    """A server that answers.

    Attributes:
        endpoint: where.
        child: its process; None: it is none of ours.
        ready_s: from the command to the first healthy answer, s; None where it ran before.
    """

    endpoint: Endpoint
    child: Child | None = None
    ready_s: float | None = None

    def check(self) -> None:
        """Notices that our server has ended.

        Raises:
            InputError: it has, with the last lines of its log.
        """
        if self.child is not None and (code := self.child.poll()) is not None:
            raise _ended(self.child, code, "while it was measured")


@contextmanager
def started(launch: Launch, *, log: Path, limit_s: float, waiting: Callable[[float], None]) -> Iterator[Serving]:
    """Starts a server and waits until it is ready; ends it, and all its processes, on leaving.

    Args:
        launch: how.
        log: file that gets what it prints.
        limit_s: how long it may take, s.
        waiting: called with the seconds gone by until it is ready.

    Raises:
        InputError: its port is in use, it ended before it was ready, or was not ready in time; with its log's end.
    """
    _must_be_free(launch.address)
    began = time.monotonic()
    with Child(launch.command, log=log, environment=environment()) as child:
        while not launch.endpoint.healthy():
            gone_s = time.monotonic() - began
            if (code := child.poll()) is not None:
                raise _ended(child, code, f"after {gone_s:.0f} s, before it was ready")
            if gone_s > limit_s:
                repair = "give it longer with --start-timeout, or see its log, which ends"
                message = f"not ready after {gone_s:.0f} s; {repair}:\n{child.tail()}"
                raise InputError([Problem(str(log), "", message)])
            waiting(gone_s)
            time.sleep(_POLL_S)
        yield Serving(launch.endpoint, child, time.monotonic() - began)


def running(url: str) -> Serving:
    """A server that somebody else runs.

    Raises:
        InputError: the address is no http address, or nothing healthy answers there.
    """
    if not url.startswith(("http://", "https://")):
        raise InputError([Problem("--url", "", f"read {url!r}; write an address such as http://127.0.0.1:8000")])
    endpoint = Endpoint(url.rstrip("/").removesuffix("/v1"))
    if not endpoint.healthy():
        message = "no healthy vLLM server answers at /health; start it, wait until it is ready, or correct the address"
        raise InputError([Problem(endpoint.url, "", message)])
    return Serving(endpoint)


def _ended(child: Child, code: int, when: str) -> InputError:
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    message = f"the server {how} {when}; its log ends:\n{child.tail()}"
    return InputError([Problem(str(child.log), "", message)])


def _must_be_free(address: tuple[str, int]) -> None:
    """Another server on the port would answer in the place of ours, and be measured."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: the port of one that has just ended counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            used = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
            message = f"the address {used}; give another --port, or --url if the server that runs there is meant"
            raise InputError([Problem(f"{address[0]}:{address[1]}", "", message)]) from error


def served_name(models: Sequence[dict[str, object]], model: str, flags: Sequence[str]) -> str:
    """The name to ask a server for: the one of the flags, the model's own, else the first that it serves."""
    names = [str(entry.get("id", "")) for entry in models]
    for name in (value(flags, "--served-model-name"), model):
        if name in names:
            return str(name)
    return names[0] if names else model
