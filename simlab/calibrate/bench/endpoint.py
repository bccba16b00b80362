"""The address of a running vLLM, and what can be asked of it."""

from __future__ import annotations

import http.client
import json
import os
from dataclasses import dataclass
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import OpenerDirector, ProxyHandler, Request, build_opener

from simlab.calibrate.bench.scrape import Scrape, scrape
from simlab.errors import InputError, Problem

LOCAL = ("127.0.0.1", "localhost", "::1")

_FAILURES = (URLError, OSError, http.client.HTTPException)


@dataclass(frozen=True)
class Endpoint:
    """Where a server listens.

    Args:
        url: such as ``http://127.0.0.1:8000``, without a path.
    """

    url: str

    @property
    def local(self) -> bool:
        """Whether it is on this machine."""
        return urlsplit(self.url).hostname in LOCAL

    def healthy(self) -> bool:
        """Whether it is ready to serve."""
        try:
            self._get("/health", timeout_s=5.0)
        except _FAILURES:
            return False
        return True

    def version(self) -> str:
        """Its version; empty where it does not say."""
        try:
            return str(json.loads(self._get("/version"))["version"])
        except (*_FAILURES, ValueError, KeyError, TypeError):
            return ""

    def models(self) -> list[dict[str, Any]]:
        """What it serves: ``id`` is the name to ask for, ``max_model_len`` the longest request.

        Raises:
            InputError: it cannot be reached, or is no such server.
        """
        try:
            found = json.loads(self._get("/v1/models"))["data"]
            return [dict(entry) for entry in found]
        except HTTPError as error:
            repair = "set OPENAI_API_KEY to its key" if error.code in (401, 403) else "is it a vLLM server?"
            raise self._unusable("/v1/models", f"answers {error.code}; {repair}") from error
        except _FAILURES as error:
            raise self._unusable("/v1/models", f"cannot be reached: {error}; is the server running?") from error
        except (ValueError, KeyError, TypeError) as error:
            raise self._unusable("/v1/models", "does not answer as a vLLM server; check the address") from error

    def metrics(self) -> Scrape:
        """Its counters now.

        Raises:
            InputError: it has no ``/metrics``.
        """
        try:
            return scrape(self._get("/metrics"))
        except _FAILURES as error:
            message = f"cannot be read: {error}; start the server without --disable-log-stats"
            raise self._unusable("/metrics", message) from error

    def _unusable(self, path: str, message: str) -> InputError:
        return InputError([Problem(f"{self.url}{path}", "", message)])

    def _get(self, path: str, timeout_s: float = 30.0) -> str:
        request = Request(f"{self.url}{path}")
        if path.startswith("/v1/") and (key := os.environ.get("OPENAI_API_KEY")):
            request.add_header("Authorization", f"Bearer {key}")
        with self._opener().open(request, timeout=timeout_s) as answer:
            return str(answer.read().decode("utf-8", "replace"))

    def _opener(self) -> OpenerDirector:
        """A proxy is for other machines, also where the environment does not say so."""
        return build_opener(ProxyHandler({})) if self.local else build_opener()
