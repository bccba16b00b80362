"""`simlab profiles`: which profiles there are, what they say, and estimates where nothing was measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from simlab.cli.output import Format, FormatOption, rendered, show

if TYPE_CHECKING:
    from simlab.profiles import Profile

app = typer.Typer(
    help="Look into speed profiles, and estimate where nothing was measured.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_FIGURES = (".png", ".svg", ".pdf")

OutOption = Annotated[
    Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write it there instead of printing it.")
]
NamesArgument = Annotated[
    list[str], typer.Argument(metavar="NAME|FILE…", help="Profiles: bundled names, or files that end in .json.")
]


@app.callback()
def _group() -> None:
    """Look into speed profiles, and estimate where nothing was measured."""


@app.command("list")
def list_command(
    gpu: Annotated[str | None, typer.Option(metavar="NAME", help="Only of this GPU.", show_default=False)] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Only of this model.", show_default=False)] = None,
    kind: Annotated[
        Literal["measured", "estimated"] | None, typer.Option(help="Only of this kind.", show_default=False)
    ] = None,
    format_: FormatOption = Format.TABLE,
    out: OutOption = None,
) -> None:
    """List the profiles that come with simlab, with what each is known to miss by."""
    from simlab.profiles import gpu as find_gpu
    from simlab.profiles import model as find_model
    from simlab.profiles import profiles
    from simlab.report.profiles import list_csv, list_json, list_page

    card = find_gpu(gpu).name if gpu else None
    architecture = find_model(model).name if model else None
    found = [
        one
        for one in profiles().values()
        if card in {None, one.gpu} and architecture in {None, one.model} and kind in {None, one.kind}
    ]
    _print(rendered(format_, lambda full: list_page(found), lambda: list_json(found), lambda: list_csv(found)), out)


@app.command("show")
def show_command(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A bundled profile's name, or a .json file.")],
    format_: FormatOption = Format.TABLE,
    out: OutOption = None,
) -> None:
    """Show where a profile is from, its coefficients and how well they are known, its errors, and its step times."""
    from simlab.profiles import profile
    from simlab.report.profiles import show_csv, show_json, show_page

    one = profile(name)
    _print(rendered(format_, lambda full: show_page(one), lambda: show_json(one), lambda: show_csv(one)), out)


@app.command("compare")
def compare_command(
    names: NamesArgument,
    format_: FormatOption = Format.TABLE,
    out: OutOption = None,
) -> None:
    """Compare step times of two or more profiles over batch, context and prompt tokens."""
    if len(names) < 2:
        raise typer.BadParameter("name two profiles or more", param_hint="NAME|FILE…")
    from simlab.report.profiles import compare_csv, compare_json, compare_page

    found = _profiles(names)
    _print(
        rendered(format_, lambda full: compare_page(found), lambda: compare_json(found), lambda: compare_csv(found)),
        out,
    )


@app.command("plot")
def plot_command(
    names: NamesArgument,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The figure (.png, .svg or .pdf).")],
) -> None:
    """Draw step times against batch, context and prompt tokens, with the 90% band of each profile."""
    if out.suffix.lower() not in _FIGURES:
        raise typer.BadParameter(f"read {out.name!r}; its name must end in {', '.join(_FIGURES)}", param_hint="--out")
    from simlab.report.profile_figure import write_profile_figure

    write_profile_figure(_profiles(names), out)
    show(f"{out}\n")


@app.command("estimate")
def estimate_command(
    model: Annotated[str, typer.Option(metavar="NAME", help="A model of the table, or its Hugging Face name.")],
    gpu: Annotated[str, typer.Option(metavar="NAME", help="A GPU of the table.")],
    tp: Annotated[int, typer.Option("--tp", min=1, help="GPUs of a tensor-parallel group.")] = 1,
    precision: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of the weights: bf16, fp8, fp4, int4; default: as published."),
    ] = None,
    dp: Annotated[int, typer.Option("--dp", min=1, help="Data-parallel ranks.")] = 1,
    expert_parallel: Annotated[
        bool, typer.Option("--expert-parallel", help="Experts are spread over all ranks.")
    ] = False,
    kv_precision: Annotated[Literal["bf16", "fp8"], typer.Option(help="Of the KV cache.")] = "bf16",
    format_: FormatOption = Format.TABLE,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE.json", help="Also write the profile there.")
    ] = None,
) -> None:
    """Estimate a set-up that nobody measured, with the 90% interval of its step times.

    A roofline over the model's architecture and the GPU's data sheet, at the shares of it that measured profiles reach;
    the interval is as wide as estimates were off on GPUs and models left out. A measurement, where there is one, is
    shown by `simlab profiles show`.

    Exit code 0: estimated; 2: no table knows the model or the GPU.
    """
    if out is not None and out.suffix.lower() != ".json":
        raise typer.BadParameter(f"read {out.name!r}; its name must end in .json", param_hint="--out")
    from simlab.errors import InputError
    from simlab.profiles import estimate, kv_blocks
    from simlab.report.profiles import estimate_page, show_csv, show_json

    one = estimate(model, gpu, tp, precision, dp=dp, expert_parallel=expert_parallel, kv_precision=kv_precision)
    try:
        blocks: int | None = kv_blocks(
            one.model, one.gpu, tp, one.precision, kv_precision=kv_precision, dp=dp, expert_parallel=expert_parallel
        )
    except InputError:
        blocks = None
    if out is not None:
        one.save(out)
    show(
        rendered(
            format_, lambda full: estimate_page(one, blocks), lambda: show_json(one, blocks), lambda: show_csv(one)
        )
    )


def _profiles(names: list[str]) -> list[Profile]:
    """The profiles of those names, each once.

    Raises:
        InputError: one is not known or broken.
    """
    from simlab.profiles import profile

    return [profile(name) for name in dict.fromkeys(names)]


def _print(text: str, out: Path | None) -> None:
    """Prints a text, or writes it into a file, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    if out is None:
        show(text)
        return
    from simlab.results.files import output_folder

    with output_folder(out.parent) as staging:
        (staging / out.name).write_text(text, encoding="utf-8")
