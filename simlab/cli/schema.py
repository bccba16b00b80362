"""`simlab schema`: what a scenario may hold, for editors and for people."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer


def schema_command(
    output: Annotated[
        Literal["json", "md"], typer.Option("--format", help="JSON Schema, or the reference page in Markdown.")
    ] = "json",
) -> None:
    """Print the JSON Schema of scenario files."""
    from simlab.scenario import json_schema
    from simlab.scenario.reference import reference

    schema = json_schema()
    if output == "json":
        typer.echo(json.dumps(schema, indent=2, ensure_ascii=False))
    else:
        typer.echo(reference(schema), nl=False)
