"""`simlab calibrate bench`: measure a real vLLM server over a designed grid, to fit a profile to it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from simlab.cli.output import Format, QuietOption, progress_bar, rendered, show

_INTERRUPTED = 128
"""Added to a signal's number, as shells do."""


def bench_command(
    model: Annotated[str, typer.Option("--model", metavar="NAME", help="Model to serve: its name or folder.")],
    flags: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="-- VLLM_FLAGS",
            help="Flags of `vllm serve`, handed on as they are; with --url those the server was started with, for the "
            "record.",
            show_default=False,
        ),
    ] = None,
    plan: Annotated[
        str,
        typer.Option(metavar="quick|full|FILE.json", help="What to measure: 10 to 15 minutes, an hour, or your own."),
    ] = "quick",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Folder for the results; default: bench-MODEL. What is there is not measured again.",
            show_default=False,
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(metavar="http://HOST:PORT", help="Measure this running server, start none.", show_default=False),
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The GPU, where this machine does not tell it.", show_default=False),
    ] = None,
    vllm: Annotated[
        str,
        typer.Option(
            metavar="PATH", help="The program; several words are fine: e.g. 'python -m vllm.entrypoints.cli.main'."
        ),
    ] = "vllm",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where a started server listens.")] = 8000,
    start_timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=1, help="How long it may take to become ready.")
    ] = 1800.0,
    seed: Annotated[int, typer.Option(min=0, help="Of prompts, lengths and arrivals.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the commands and minutes, run nothing.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Measure a vLLM server, to fit a profile to it.

    Starts `vllm serve MODEL` with the flags after `--`, waits until it is ready, runs `vllm bench serve` point by
    point, the most telling for the fewest minutes first, and ends the server whatever happens. Cut short, the same
    command goes on where it was. Prints the command that fits a profile to the results.

    Exit code 0: measured; 2: no vLLM, the server or a benchmark failed, or the folder has something else in it.
    """  # fmt: skip
    words = tuple(flags or ())
    if words and not words[0].startswith("-"):
        message = f"read {words[0]!r}; flags of `vllm serve` begin with -, after a -- of their own"
        raise typer.BadParameter(message, param_hint="VLLM_FLAGS")
    from simlab.calibrate.bench.grid import plan as plan_of
    from simlab.calibrate.bench.session import Session, foreseen, run
    from simlab.calibrate.bench.signals import Interrupted
    from simlab.report.bench import commands_text, page

    session = Session(
        model=model,
        plan=plan_of(plan, seed),
        out=out or Path(f"bench-{default_name(model)}"),
        flags=words,
        url=url,
        vllm=vllm,
        gpu=gpu,
        seed=seed,
        port=port,
        start_limit_s=start_timeout,
    )
    if dry_run:
        show(commands_text(foreseen(session)))
        return
    try:
        with progress_bar(quiet) as progress:
            answer = run(session, progress)
    except Interrupted as stop:
        typer.echo(f"{stop}: the server has been ended; the same command goes on where this one was", err=True)
        raise typer.Exit(_INTERRUPTED + stop.number) from None
    show(rendered(Format.TABLE, lambda full: page(answer), str, str))
    show(f"\nFit a profile to it:\n{answer.fit_command}\n")


def default_name(model: str) -> str:
    """A model's name as part of a folder's.

    >>> default_name("meta-llama/Llama-3.1-8B-Instruct/")
    'llama-3.1-8b-instruct'
    """
    return re.sub(r"[^a-z0-9.]+", "-", model.lower().rstrip("/").rsplit("/", 1)[-1]).strip("-.") or "model"
