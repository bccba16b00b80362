"""Imports point one way, as docs/design.md has it under "Rooms"."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "simlab"

LEAVES = {"errors", "names", "draws"}
"""Rooms that any room may import, and that import no room but `errors`."""

MAY_IMPORT = {
    "errors": set(),
    "names": {"errors"},
    "draws": set(),
    "scenario": LEAVES,
    "profiles": LEAVES | {"scenario"},
    "prices": LEAVES | {"scenario", "profiles"},
    "workload": LEAVES | {"scenario"},
    "engine": {"draws"},
    "control": set(),
    "results": LEAVES,
    "policies": LEAVES | {"scenario", "prices", "engine", "results"},
    "assemble": LEAVES | {"scenario", "profiles", "prices", "workload", "engine", "results", "policies"},
    "simulation": LEAVES | {"scenario", "engine", "control", "results", "assemble", "recording"},
    "recording": {"engine", "results"},
    "one_replica": LEAVES | {"engine"},
    "lint": LEAVES | {"scenario", "profiles", "prices", "workload", "policies", "assemble"},
    "calibrate": LEAVES | {"scenario", "profiles", "engine", "assemble", "simulation"},
    "decide": LEAVES | {"scenario", "workload", "results", "assemble", "simulation"},
    "report": LEAVES | {"workload", "profiles", "results", "calibrate", "decide"},
    "cli": LEAVES
    | {"scenario", "workload", "profiles", "results", "simulation", "lint", "calibrate", "decide", "report"},
}
"""What each room may import, whether at run time or for types alone."""


def room_of(module: str) -> str | None:
    """The room a dotted module name lies in; None outside simlab, "" for the package itself."""
    parts = module.split(".")
    return None if parts[0] != "simlab" else parts[1] if len(parts) > 1 else ""


def imported(path: Path) -> set[str]:
    """Rooms that a file imports; the package itself only where it is asked for more than a room or its version."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {room_of(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            rooms = {room_of(f"simlab.{alias.name}") for alias in node.names if alias.name != "__version__"}
            found |= rooms if node.module == "simlab" else {room_of(node.module or "")}
    return {room for room in found if room}


def rooms() -> dict[str, list[Path]]:
    """Files by room."""
    found: dict[str, list[Path]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if path != PACKAGE / "__init__.py":
            found.setdefault(path.relative_to(PACKAGE).parts[0].removesuffix(".py"), []).append(path)
    return found


def test_every_room_has_its_rule() -> None:
    assert set(rooms()) == set(MAY_IMPORT)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    wrong = {
        f"{path.relative_to(PACKAGE)} imports {other}"
        for path in rooms()[room]
        for other in imported(path) - MAY_IMPORT[room] - {room}
    }
    assert not wrong


def test_rules_have_no_circle() -> None:
    left = {room: allowed - {room} for room, allowed in MAY_IMPORT.items()}
    while left:
        bottom = {room for room, allowed in left.items() if not allowed & set(left)}
        assert bottom, f"these import each other: {sorted(left)}"
        left = {room: allowed for room, allowed in left.items() if room not in bottom}


def test_the_reader_of_imports_sees_all_forms(tmp_path: Path) -> None:
    file = tmp_path / "some.py"
    file.write_text(
        "import simlab\nimport simlab.engine.loop\nfrom simlab import __version__, assemble\n"
        "def f():\n    from simlab.cli.main import app\n",
        encoding="utf-8",
    )
    assert imported(file) == {"engine", "assemble", "cli"}
