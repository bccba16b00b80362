"""The decorator of every compiled kernel, and where compiled code is kept.

numba finds a function's cached machine code by the date and size of the function's own file, so a kernel that inlined
an older version of another file's kernel would be used without a word. The cache folder is therefore named by a hash of
all kernel sources: change any of them, or install another version, and everything is compiled afresh.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numba

P = ParamSpec("P")
R = TypeVar("R")

_KEPT = 4
"""Cache folders of other versions that are left alone."""


def _sources_hash() -> str:
    package = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256(f"{numba.__version__} {sys.version_info[:2]}".encode())
    for folder in ("draws", "engine", "workload"):
        for path in sorted((package / folder).glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _cache_base() -> Path:
    """The first of the user's cache folder and a temporary folder that can be written."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path("~").expanduser() / ".cache")
    fallback = Path(tempfile.gettempdir()) / f"simlab-kernels-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    for base in (Path(home) / "simlab" / "kernels", fallback):
        try:
            base.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(base, os.W_OK):
            return base
    return fallback


def _cache_folder() -> Path:
    """Where compiled kernels of exactly these sources live; folders of old versions are cleared away."""
    if numba.config.CACHE_DIR:
        return Path(numba.config.CACHE_DIR)
    base = _cache_base()
    folder = base / _sources_hash()
    if not folder.exists():
        others = sorted((path for path in base.glob("*") if path.is_dir()), key=lambda path: path.stat().st_mtime)
        for old in others[:-_KEPT]:
            shutil.rmtree(old, ignore_errors=True)
    numba.config.CACHE_DIR = str(folder)
    return folder


CACHE_FOLDER = _cache_folder()
"""Folder of the compiled kernels; set NUMBA_CACHE_DIR to choose another."""


def compiled_before() -> bool:
    """Whether the engine's kernels are in the cache, so that a first run will not have to compile them."""
    return numba.config.DISABLE_JIT or any(CACHE_FOLDER.glob("**/loop.run-*.nbi"))


def _once(dispatcher: Any) -> Any:
    """The same function, compiled once for integers and not again for each constant it is called with.

    numba types a constant argument as that one number, so that a kernel called with five outcomes is compiled five
    times, and everything that calls those as well; that made up two thirds of the time to compile the engine.
    """
    if numba.config.DISABLE_JIT:
        return dispatcher  # the plain function itself
    template = dispatcher.get_call_template

    def get_call_template(args: Any, kws: Any) -> Any:
        plain = {name: numba.types.unliteral(value) for name, value in kws.items()}
        return template(tuple(numba.types.unliteral(value) for value in args), plain)

    dispatcher.get_call_template = get_call_template
    return dispatcher


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compiles a plain scalar function on first call and keeps the machine code in `CACHE_FOLDER`.

    It runs without Python's lock, so that runs in several threads share no more than the memory's speed.
    """
    compiled: Callable[P, R] = _once(numba.njit(cache=True, error_model="numpy", nogil=True)(function))
    return compiled


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """A kernel that is copied into its callers: for what is called at every event and from few places.

    numba's calls pass a status and a return pointer; without them the event loop is a fifth faster.
    """
    compiled: Callable[P, R] = _once(numba.njit(cache=True, error_model="numpy", forceinline=True)(function))
    return compiled
