"""The simlab of another git revision, to be measured by the same benchmarks."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", root, *arguments], check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def checkout(root: Path, revision: str) -> Iterator[Path]:
    """A work tree of ``revision`` in a temporary folder, with the benchmarks and scenarios of ``root`` put into it.

    Raises:
        subprocess.CalledProcessError: there is no such revision.
    """
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        _git(root, "worktree", "add", "--detach", str(tree), revision)
        try:
            for name in ("benchmarks", "scenarios"):
                shutil.rmtree(tree / name, ignore_errors=True)
                shutil.copytree(root / name, tree / name)
            yield tree
        finally:
            _git(root, "worktree", "remove", "--force", str(tree))


def short_name(root: Path, revision: str) -> str:
    """The revision's abbreviated hash.

    Raises:
        subprocess.CalledProcessError: there is no such revision.
    """
    return _git(root, "rev-parse", "--short", "--verify", f"{revision}^{{commit}}")
