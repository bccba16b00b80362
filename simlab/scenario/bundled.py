"""The example scenarios that come with simlab."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


def bundled_dir() -> Path:
    """The folder of bundled scenarios: inside the package when installed, top-level ``scenarios/`` in a checkout."""
    installed = _PACKAGE / "bundled_scenarios"
    return installed if installed.is_dir() else _PACKAGE.parent / "scenarios"


def bundled() -> dict[str, Path]:
    """The bundled scenarios by name, in alphabetical order."""
    return {path.stem: path for path in sorted(bundled_dir().glob("*.yaml"))}


def locate(path: str | Path) -> Path:
    """The file meant by what a user wrote: an existing file, else the bundled scenario of that bare name.

    A path that has a folder or a suffix is never a bundled name. The path is returned as it is when neither is there.
    """
    given = Path(path)
    if given.exists() or given.suffix or len(given.parts) != 1:
        return given
    return bundled().get(given.name, given)
