"""`simlab new`: a scenario of one's own from a bundled example."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from simlab.errors import OutputError, Problem, ScenarioError

_DEFAULT = "quickstart"


def new_command(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="What to call it: NAME.yaml is written.", show_default=False)
    ] = None,
    example: Annotated[
        str | None,
        typer.Option("--from", metavar="EXAMPLE", help="Which bundled example; default: NAME's, else quickstart."),
    ] = None,
) -> None:
    """Write a new scenario, copied from a bundled example; without NAME, list the examples."""
    from simlab.scenario import bundled

    examples = bundled()
    if name is None:
        for known, path in examples.items():
            typer.echo(f"{known:<20} {_described(path)}")
        return
    target = Path(name if name.endswith((".yaml", ".yml")) else f"{name}.yaml")
    chosen = example or (target.stem if target.stem in examples else _DEFAULT)
    if chosen not in examples:
        from simlab.scenario.outline import suggest

        raise ScenarioError([Problem("--from", "", f"unknown example {chosen!r}; {suggest(chosen, list(examples))}")])
    for written in copy_example(examples[chosen], target):
        typer.echo(f"wrote {written}")
    typer.echo(f"next: simlab run {target}", err=True)


def copy_example(source: Path, target: Path) -> list[Path]:
    """Copies a bundled scenario, and beside it those it extends.

    Args:
        source: the example.
        target: the file to write; its stem becomes the scenario's name.

    Returns:
        The files that were written; a base that is already there is left as it is.

    Raises:
        OutputError: the target exists, or cannot be written.
    """
    text = source.read_text(encoding="utf-8")
    own = re.sub(r"(?m)^name: .*$", f"name: {target.stem}", text, count=1)
    own = own.replace(f"scenarios/{source.name}", str(target))
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(own)
    except FileExistsError:
        raise OutputError(f"{target}: is already there and is not overwritten; give another name") from None
    except OSError as error:
        raise OutputError(f"{target}: cannot be written: {(error.strerror or str(error)).lower()}") from None
    written = [target]
    base = re.search(r"(?m)^extends: *(\S+)", text)
    if base is not None and not (target.parent / base[1]).exists():
        written += copy_example(source.parent / base[1], target.parent / base[1])
    return written


def _described(path: Path) -> str:
    match = re.search(r"(?m)^description: *(.*)$", path.read_text(encoding="utf-8"))
    return match[1] if match else ""
