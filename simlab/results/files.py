"""Files that appear whole or not at all: written in a hidden folder beside their place, then renamed into it."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from simlab.errors import OutputError


def output_error(place: Path, error: OSError) -> OutputError:
    """What stopped a file from being written, and how to repair it."""
    remedies = {
        errno.ENOSPC: "the disk is full: free some space or name a folder on another disk",
        errno.EDQUOT: "the disk quota is used up: free some space or name a folder on another disk",
        errno.EACCES: "permission denied: name a folder you may write to",
        errno.EPERM: "permission denied: name a folder you may write to",
        errno.EROFS: "the file system is read-only: name a folder you may write to",
        errno.ENOTDIR: "a part of this path is a file: name a folder",
        errno.EEXIST: "a file of this name is in the way: name a folder",
        errno.EISDIR: "a folder of this name is in the way: name a file",
    }
    reason = remedies.get(error.errno or 0, f"{error.strerror or error}: name another place")
    return OutputError(f"{place}: cannot be written: {reason}")


@contextmanager
def output_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder in `folder` to write into; on leaving, everything in it is renamed into `folder`.

    When anything goes wrong nothing is left behind, not even `folder` if it was not there before.

    Raises:
        OutputError: when the folder cannot be made or written to, or the disk is full.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    staging: Path | None = None
    done = False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".simlab-", dir=folder))
        yield staging
        for path in sorted(staging.iterdir()):
            path.replace(folder / path.name)
        done = True
    except OSError as error:
        if error.filename is not None and not Path(error.filename).is_relative_to(folder) and staging is not None:
            raise  # An error of something else than writing here.
        raise output_error(folder, error) from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
        if not done:
            for path in missing:
                with suppress(OSError):
                    path.rmdir()
