"""`simlab validate`: a scenario's errors, and what can be told about the plan before simulating it."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from simlab.cli.options import ScenarioArgument, SetOption, VariantOption
from simlab.errors import Problem, ScenarioError

if TYPE_CHECKING:
    from simlab.lint import Finding


def validate_command(
    scenario: ScenarioArgument,
    variant: VariantOption = None,
    sets: SetOption = None,
    output: Annotated[Literal["text", "json"], typer.Option("--format", help="How findings are printed.")] = "text",
) -> None:
    """Check a scenario and all its variants without simulating them.

    Exit code 0: nothing to say but notes; 1: it will miss an objective, a budget or its capacity; 2: it cannot run.
    """
    from simlab.lint import lint
    from simlab.scenario import load, variants_of

    names: list[str | None] = [variant] if variant is not None else [None, *variants_of(scenario)]
    problems: dict[Problem, None] = {}
    found: list[tuple[str | None, str, Finding]] = []
    for name in names:
        try:
            read = load(scenario, variant=name, sets=sets or ())
            found += [(name, read.place(finding.path) or scenario, finding) for finding in lint(read)]
        except ScenarioError as error:
            problems.update(dict.fromkeys(error.problems))
    if problems:
        raise ScenarioError(list(problems))
    if output == "json":
        rows = [{"variant": name, "where": where, **finding.as_dict()} for name, where, finding in found]
        typer.echo(json.dumps({"scenario": scenario, "variants": names, "findings": rows}, indent=2))
    else:
        _print(scenario, names, found)
    severities = {finding.severity for _, _, finding in found}
    raise typer.Exit(2 if "error" in severities else 1 if "warning" in severities else 0)


def _print(scenario: str, names: list[str | None], found: list[tuple[str | None, str, Finding]]) -> None:
    """Each finding once, with the variants it is about when it is not about all of them."""
    about: dict[Finding, dict[str, str]] = {}
    for name, where, finding in found:
        about.setdefault(finding, {})[name or "as written"] = where
    for finding, places in about.items():
        only = f" [{', '.join(places)}]" if len(places) < len(names) else ""
        where = next(iter(places.values()))
        typer.echo(f"{where}: {finding.severity}: {finding.path}: {finding.message}{only}")
    counts = Counter(finding.severity for finding in about)
    told = ", ".join(f"{counts[severity]} {severity}{'s' * (counts[severity] > 1)}" for severity in counts) or "ok"
    checked = ", ".join(name or "as written" for name in names)
    typer.echo(f"{scenario}: {told} (checked: {checked})")
