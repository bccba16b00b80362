"""`simlab compare`: plans under the same traffic and the same luck, and what changes between them."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from simlab.cli.options import SetOption
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


def compare_command(
    plans: Annotated[
        list[str],
        typer.Argument(metavar="PLAN", help="FILE or FILE:VARIANT, the baseline first; a file or a bundled name."),
    ],
    variants: Annotated[
        list[str] | None,
        typer.Option(
            "--variant", metavar="NAME", help="With one FILE: its variants to compare; repeat.", show_default=False
        ),
    ] = None,
    sets: SetOption = None,
    replications: Annotated[
        int, typer.Option("--replications", "-r", min=1, help="Independent runs of each; the same luck in all plans.")
    ] = 5,
    seed: SeedOption = None,
    calibration: CalibrationOption = "sampled",
    format_: FormatOption = Format.TABLE,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write JSON, CSV and an HTML report there.")
    ] = None,
    workers: WorkersOption = None,
    quiet: QuietOption = False,
) -> None:
    """Compare plans under the same traffic and luck.

    Every plan sees the same arrivals and draws; differences have 95% intervals and a verdict each.

    simlab compare plan.yaml:selfhost plan.yaml:api · simlab compare plan.yaml --variant selfhost --variant api ·
    simlab compare old.yaml new.yaml. One --variant alone is compared with the scenario as written.

    Exit code 0: no later plan breaks what the first keeps; 1: one misses an SLO or budget that the first keeps; 2: a
    scenario or the command is wrong.
    """  # fmt: skip
    chosen = targets(plans, variants or [])
    from simlab.scenario import load

    scenarios = [load(path, variant=variant, sets=tuple(sets or ())) for path, variant in chosen]
    from simlab.decide.compare import compare
    from simlab.report.comparison import metrics_csv, page
    from simlab.report.decisions import write_comparison
    from simlab.results.files import output_folder

    with nullcontext() if out is None else output_folder(out) as staging:
        with progress_bar(quiet) as progress:
            found = compare(
                scenarios,
                replications=replications,
                seed=seed,
                workers=workers,
                progress=progress,
                calibration=calibration,
            )
        if staging is not None:
            write_comparison(found, staging)
    show(rendered(format_, lambda full: page(found, full=full), found.to_json, lambda: metrics_csv(found)))
    raise typer.Exit(found.exit_code)


def targets(plans: list[str], variants: list[str]) -> list[tuple[str, str | None]]:
    """What to compare: (file or bundled name, variant or None).

    Raises:
        BadParameter: fewer than two plans, or variants of more than one file.
    """
    named = [_target(plan) for plan in plans]
    if variants:
        if len(named) > 1 or named[0][1] is not None:
            raise typer.BadParameter(
                "--variant goes with one FILE; write several plans as FILE:VARIANT", param_hint="--variant"
            )
        path = named[0][0]
        first: list[tuple[str, str | None]] = [(path, None)] if len(variants) == 1 else []
        return [*first, *((path, variant) for variant in variants)]
    if len(named) > 1:
        return named
    from simlab.scenario import variants_of

    known = variants_of(named[0][0])
    hint = f"; {named[0][0]} has the variants {', '.join(known)}: add --variant {known[0]}" if known else ""
    raise typer.BadParameter(f"needs at least two plans{hint}", param_hint="PLAN")


def _target(plan: str) -> tuple[str, str | None]:
    """A plan's file and variant; a colon that belongs to an existing file's name is left alone."""
    path, colon, variant = plan.rpartition(":")
    # After the colon of a Windows drive comes a path, which no variant looks like.
    if not colon or not path or Path(plan).exists() or variant.startswith(("/", "\\")):
        return plan, None
    return path, variant
