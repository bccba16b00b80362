"""Options that several commands take, so that they are spelt and explained alike."""

from __future__ import annotations

from typing import Annotated

import typer

ScenarioArgument = Annotated[
    str, typer.Argument(metavar="SCENARIO", help="A scenario file, or the name of a bundled one (see `simlab new`).")
]
VariantOption = Annotated[
    str | None, typer.Option("--variant", metavar="NAME", help="One of the scenario's variants.", show_default=False)
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Change one value, e.g. --set workload.chat.arrivals.rate=20/s; may be repeated.",
        show_default=False,
    ),
]
