"""`simlab run`: simulate a scenario, say what it costs and how fast it is, and whether that is good enough."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from simlab.cli.options import ScenarioArgument, SetOption, VariantOption
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


def run_command(
    path: ScenarioArgument,
    variant: VariantOption = None,
    sets: SetOption = None,
    replications: Annotated[
        int, typer.Option("--replications", "-r", min=1, help="Independent runs; their spread gives the intervals.")
    ] = 5,
    seed: SeedOption = None,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="KEY[,KEY]",
            help="Also break it down by backend, feature, class, tenant, tier, route, prompt_version, provider, model, "
            "reason or outcome.",
        ),
    ] = None,
    calibration: CalibrationOption = "sampled",
    format_: FormatOption = Format.TABLE,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write JSON, Parquet tables and an HTML report there.")
    ] = None,
    log_requests: Annotated[
        bool, typer.Option("--log-requests", help="Also write every attempt to DIR/requests.parquet.")
    ] = False,
    workers: WorkersOption = None,
    quiet: QuietOption = False,
) -> None:
    """Simulate a scenario: latency, goodput, utilisation and cost, each with a 95% interval.

    Exit code 0: the plan holds its SLO and budget; 1: it misses one; 2: the scenario or the command is wrong.
    """
    if log_requests and out is None:
        raise typer.BadParameter("needs a folder to write to: add --out DIR", param_hint="--log-requests")
    keys = keys_of(by)
    from simlab.scenario import load

    scenario = load(path, variant=variant, sets=tuple(sets or ()))
    from simlab.report.folder import REQUEST_LOG, write_folder
    from simlab.results.files import output_folder
    from simlab.simulation import simulate

    # The folder is made first: that it cannot be written to should be known before a long run, not after it.
    with nullcontext() if out is None else output_folder(out) as staging:
        with progress_bar(quiet) as progress:
            result = simulate(
                scenario,
                replications=replications,
                seed=seed,
                workers=workers,
                progress=progress,
                calibration=calibration,
                log=staging / REQUEST_LOG if staging is not None and log_requests else None,
            )
        if staging is not None:
            write_folder(result, staging)
    from simlab.report.markdown import breakdown_csv, metrics_csv
    from simlab.report.view import page

    csv = (lambda: breakdown_csv(result, keys)) if keys else (lambda: metrics_csv(result))
    show(rendered(format_, lambda full: page(result, full=full, by=keys), result.to_json, csv))
    raise typer.Exit(result.verdict.exit_code)


def keys_of(by: str | None) -> list[str]:
    """The keys of ``--by``, in the order they were given.

    Raises:
        typer.BadParameter: one that a result cannot be broken down by.
    """
    if by is None:
        return []
    from simlab.names import nearest
    from simlab.results.keys import KEYS

    keys = [key.strip().replace("-", "_") for key in by.split(",") if key.strip()]
    for key in keys:
        if key not in KEYS:
            near = nearest(key, KEYS, count=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise typer.BadParameter(f"read {key!r}; {hint}allowed: {', '.join(KEYS)}", param_hint="--by")
    return list(dict.fromkeys(keys))
