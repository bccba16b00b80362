"""`simlab breakeven`: from which traffic volume on self-hosting costs less than an API."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from simlab.cli.options import ScenarioArgument, SetOption
from simlab.cli.output import (
    CalibrationOption,
    Format,
    FormatOption,
    QuietOption,
    SeedOption,
    WorkersOption,
    progress_bar,
    rendered,
    show,
)


def breakeven_command(
    path: ScenarioArgument,
    between: Annotated[
        tuple[str, str],
        typer.Option(metavar="API SELFHOST", help="Two variants: one all on APIs, one all on one pool, in any order."),
    ] = ("api", "selfhost"),
    volumes: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Tokens a month to tabulate, e.g. 1G,10G,100G; default: around the answer.",
            show_default=False,
        ),
    ] = None,
    max_replicas: Annotated[int, typer.Option(min=1, help="The most replicas to try.")] = 12,
    sets: SetOption = None,
    replications: Annotated[
        int, typer.Option("--replications", "-r", min=1, help="Complete analyses; their spread gives the intervals.")
    ] = 5,
    seed: SeedOption = None,
    calibration: CalibrationOption = "sampled",
    format_: FormatOption = Format.TABLE,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write JSON, CSV, an HTML report and the figure there.")
    ] = None,
    workers: WorkersOption = None,
    quiet: QuietOption = False,
) -> None:
    """Find the volume from which self-hosting pays.

    At each volume the fewest replicas that meet the SLO at the traffic's peak, found by simulation, are paid for all
    month; the API is paid for the tokens. Says where self-hosting is first cheaper, and from where it stays so.

    Exit code 0: an answer, also "the API stays cheaper"; 1: no number of replicas meets the SLO; 2: the scenario or the
    command is wrong.
    """  # fmt: skip
    asked = _volumes(volumes)
    from simlab.scenario import load

    one, other = (load(path, variant=variant, sets=tuple(sets or ())) for variant in between)
    from simlab.decide.break_even import break_even
    from simlab.report.break_even import page, points_csv
    from simlab.report.decisions import write_break_even
    from simlab.results.files import output_folder

    with nullcontext() if out is None else output_folder(out) as staging:
        with progress_bar(quiet) as progress:
            found = break_even(
                one,
                other,
                volumes=asked,
                max_replicas=max_replicas,
                replications=replications,
                seed=seed,
                workers=workers,
                progress=progress,
                calibration=calibration,
            )
        if staging is not None:
            write_break_even(found, staging)
    show(rendered(format_, lambda full: page(found), found.to_json, lambda: points_csv(found)))
    raise typer.Exit(found.exit_code)


def _volumes(text: str | None) -> list[float]:
    """Volumes as people write them.

    Raises:
        BadParameter: one is not a number of tokens, or not positive.
    """
    from pydantic_core import PydanticCustomError

    from simlab.scenario.units import NOTATIONS

    found = []
    for item in text.split(",") if text else []:
        try:
            value = float(NOTATIONS["TokenCount"].parse(item.strip()))
        except PydanticCustomError as error:
            raise typer.BadParameter(f"read {item.strip()!r}: {error.message()}", param_hint="--volumes") from None
        if value <= 0:
            raise typer.BadParameter(f"read {item.strip()!r}: it must be above 0", param_hint="--volumes")
        found.append(value)
    return found
