"""The `simlab` command: puts the commands together and turns errors into exit codes.

Exit codes: 0 fine; 1 the plan misses its objectives or budget, or got worse; 2 bad usage or scenario; 101 our bug.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated

import typer

from simlab import __version__
from simlab.cli.breakeven import breakeven_command
from simlab.cli.calibrate import app as calibrate_app
from simlab.cli.compare import compare_command
from simlab.cli.new import new_command
from simlab.cli.profiles import app as profiles_app
from simlab.cli.run import run_command
from simlab.cli.schema import schema_command
from simlab.cli.trace import app as trace_app
from simlab.cli.validate import validate_command
from simlab.errors import SimlabError

app = typer.Typer(
    name="simlab",
    help="What will an LLM deployment cost, how fast will it be, and what happens when something breaks?",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("run")(run_command)
app.command("compare")(compare_command)
app.command("breakeven")(breakeven_command)
app.command("validate")(validate_command)
app.command("schema")(schema_command)
app.command("new")(new_command)
app.add_typer(trace_app, name="trace")
app.add_typer(calibrate_app, name="calibrate")
app.add_typer(profiles_app, name="profiles")

_BUG = 101


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"simlab {__version__}")
        raise typer.Exit


def _debug(wanted: bool) -> None:
    if wanted:
        os.environ["SIMLAB_DEBUG"] = "1"


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_version, is_eager=True)
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error (also: SIMLAB_DEBUG=1).", callback=_debug)
    ] = False,
) -> None:
    del version, debug  # their callbacks have acted


def run() -> None:
    """Entry point of the console script: runs the command line and exits with its code."""
    try:
        app()
    except SimlabError as error:
        if _debugging():
            raise
        typer.echo(str(error), err=True)
        sys.exit(2)
    except Exception as error:
        if _debugging():
            raise
        limit = _limit_of_the_machine(error)
        if limit:
            typer.echo(limit, err=True)
            sys.exit(2)
        what = " ".join(str(error).split()) or "no message"
        typer.echo(
            f"simlab {__version__} failed; this is a bug of simlab, not of your input: {type(error).__name__}: {what}\n"
            "Please report it, with the command, the scenario, and what `SIMLAB_DEBUG=1` in front of it shows.",
            err=True,
        )
        sys.exit(_BUG)


def _limit_of_the_machine(error: Exception) -> str:
    """What to say of an error that is the machine's and nobody's bug; empty for any other."""
    if isinstance(error, MemoryError):
        return (
            "out of memory: more requests were in flight than memory holds; the traffic is far above what the plan can "
            "serve (see `simlab validate`), or give a shorter horizon or fewer --workers"
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error.filename or 'output'}: cannot be written: the disk is full: free some space"
    return ""


def _debugging() -> bool:
    return os.environ.get("SIMLAB_DEBUG", "") not in ("", "0")


if __name__ == "__main__":
    run()
