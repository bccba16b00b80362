"""`simlab calibrate`: from benchmark runs of a real server to a profile, and how well it predicts others."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from simlab.cli.calibrate_bench import bench_command
from simlab.cli.output import Format, FormatOption, QuietOption, WorkersOption, progress_bar, rendered, show

if TYPE_CHECKING:
    from simlab.calibrate.read.hints import ServerHints

app = typer.Typer(
    help="Fit speed profiles to benchmark runs of real servers, and check them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_FIGURES = (".png", ".svg", ".pdf")


@app.callback()
def _group() -> None:
    """Fit speed profiles to benchmark runs of real servers, and check them."""


app.command("bench")(bench_command)


RunsArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUNS",
        help="Files or folders: `vllm bench` or GuideLLM results, step logs, request logs, tables of runs, a "
        "/metrics scrape.",
    ),
]
GpuOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The GPU, where the runs do not say; any name will do.", show_default=False),
]
ModelOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="The model; any name will do.", show_default=False)
]
TpOption = Annotated[int | None, typer.Option("--tp", min=1, help="--tensor-parallel-size.", show_default=False)]
PrecisionOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Of the weights: bf16, fp8, fp4, int4, fp32.", show_default=False)
]
DpOption = Annotated[int | None, typer.Option("--dp", min=1, help="--data-parallel-size.", show_default=False)]
ExpertParallelOption = Annotated[
    bool | None,
    typer.Option(
        "--expert-parallel/--no-expert-parallel", help="Whether experts are spread over GPUs.", show_default=False
    ),
]
EngineOption = Annotated[
    str | None, typer.Option(metavar="NAME", help='Engine and version, e.g. "vLLM 0.32.0".', show_default=False)
]
MaxNumSeqsOption = Annotated[
    int | None, typer.Option("--max-num-seqs", min=1, help="As vLLM's flag.", show_default=False)
]
MaxTokensOption = Annotated[
    int | None, typer.Option("--max-num-batched-tokens", min=1, help="As vLLM's flag.", show_default=False)
]
KvBlocksOption = Annotated[
    int | None,
    typer.Option("--kv-blocks", min=2, help="num_gpu_blocks, as vLLM's log says it at start.", show_default=False),
]
BlockSizeOption = Annotated[int | None, typer.Option("--block-size", min=1, help="As vLLM's flag.", show_default=False)]
MaxModelLenOption = Annotated[
    int | None, typer.Option("--max-model-len", min=1, help="As vLLM's flag.", show_default=False)
]
PrefixCachingOption = Annotated[
    bool | None,
    typer.Option(
        "--prefix-caching/--no-prefix-caching", help="Whether prefix caching was enabled.", show_default=False
    ),
]
PrefixOption = Annotated[
    str | None,
    typer.Option(
        "--prefix",
        metavar="TOKENS[xKINDS]",
        help="Tokens that prompts begin with in common, where the runs do not say: 512, or 5 kinds: 768x5.",
        show_default=False,
    ),
]


@app.command("fit")
def fit_command(
    context: typer.Context,
    runs: RunsArgument,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="FILE.json|DIR", help="The profile to write; a folder for runs of many set-ups."
        ),
    ],
    gpu: GpuOption = None,
    model: ModelOption = None,
    tp: TpOption = None,
    precision: PrecisionOption = None,
    dp: DpOption = None,
    expert_parallel: ExpertParallelOption = None,
    engine: EngineOption = None,
    max_num_seqs: MaxNumSeqsOption = None,
    max_num_batched_tokens: MaxTokensOption = None,
    kv_blocks: KvBlocksOption = None,
    block_size: BlockSizeOption = None,
    max_model_len: MaxModelLenOption = None,
    prefix_caching: PrefixCachingOption = None,
    prefix: PrefixOption = None,
    format_: Annotated[Literal["table", "json"], typer.Option("--format", "-f", help="What to print.")] = "table",
    workers: WorkersOption = None,
    quiet: QuietOption = False,
) -> None:
    """Fit a speed profile to benchmark runs.

    Runs of one server make one profile; files with many set-ups make one each in the folder of -o. Each benchmark is
    simulated as it was run, and the coefficients are those whose TTFT, ITL and throughput match over all runs at once;
    step logs and the token times of --save-detailed files are used as step times.

    Exit code 0: written; 2: the runs cannot be read, or none of their set-ups has enough of them.
    """  # fmt: skip
    hints = _hints(context)
    from simlab.calibrate.fit import fit
    from simlab.calibrate.read import read_runs
    from simlab.report.calibration import page

    read = read_runs(runs, server=hints)
    with progress_bar(quiet) as progress:
        found = fit(read, one=out.suffix.lower() == ".json", workers=workers, progress=progress)
    files = found.write(out)
    shown = Format.JSON if format_ == "json" else Format.TABLE
    show(rendered(shown, lambda full: page(found, files), lambda: found.to_json(files), str))


@app.command("validate")
def validate_command(
    context: typer.Context,
    profile: Annotated[
        str, typer.Argument(metavar="PROFILE", help="A profile: FILE.json, a folder of them, or a bundled name.")
    ],
    runs: RunsArgument,
    gpu: GpuOption = None,
    model: ModelOption = None,
    tp: TpOption = None,
    precision: PrecisionOption = None,
    dp: DpOption = None,
    expert_parallel: ExpertParallelOption = None,
    engine: EngineOption = None,
    max_num_seqs: MaxNumSeqsOption = None,
    max_num_batched_tokens: MaxTokensOption = None,
    kv_blocks: KvBlocksOption = None,
    block_size: BlockSizeOption = None,
    max_model_len: MaxModelLenOption = None,
    prefix_caching: PrefixCachingOption = None,
    prefix: PrefixOption = None,
    max_error: Annotated[
        str | None,
        typer.Option(
            metavar="LIMITS",
            help="Largest median error: 5% of every metric, or ttft_s_mean=10%,itl_s_mean=5%.",
            show_default=False,
        ),
    ] = None,
    format_: FormatOption = Format.TABLE,
    figure: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw measured against simulated there (.png, .svg or .pdf)."),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Also write JSON, CSV and the figure there.")] = None,
    workers: WorkersOption = None,
    quiet: QuietOption = False,
) -> None:
    """Compare what a profile predicts with benchmark runs.

    Each run is simulated as it was driven, with the profile of its set-up; set-ups of which a folder has none are
    estimated, and said to be. Every number is marked calibrated (the fit saw this operating point), between (the set-up
    was fitted on others) or estimated.

    Exit code 0: within --max-error, or none asked for; 1: above it; 2: the runs or the command are wrong.
    """  # fmt: skip
    if figure is not None and figure.suffix.lower() not in _FIGURES:
        message = f"read {figure.name!r}; its name must end in {', '.join(_FIGURES)}"
        raise typer.BadParameter(message, param_hint="--figure")
    limits = error_limits(max_error)
    hints = _hints(context)
    from simlab.calibrate.shelf import Shelf
    from simlab.calibrate.validate import validate
    from simlab.report.validation import page, rows_csv, write_figure, write_folder
    from simlab.results.files import output_folder

    shelf = Shelf.open(profile)
    read = shelf.read(runs, hints)
    with nullcontext() if out is None else output_folder(out) as staging:
        with progress_bar(quiet) as progress:
            found = validate(shelf, read, max_error=limits, workers=workers, progress=progress)
        if staging is not None:
            write_folder(found, staging)
    if figure is not None:
        write_figure(found, figure)
    show(rendered(format_, lambda full: page(found, full=full), found.to_json, lambda: rows_csv(found)))
    raise typer.Exit(found.exit_code)


def error_limits(text: str | None) -> dict[str, float]:
    """The limits of ``--max-error`` by metric; ``""`` is every metric that is not named.

    >>> error_limits("5%"), error_limits("ttft_s_mean=10%,itl_s_mean=0.05")
    ({'': 0.05}, {'ttft_s_mean': 0.1, 'itl_s_mean': 0.05})

    Raises:
        BadParameter: not a share, or no metric of that name.
    """
    from simlab.calibrate.judged import STEP_TOTAL
    from simlab.calibrate.run import METRICS

    known = (*METRICS, STEP_TOTAL)
    found: dict[str, float] = {}
    for item in text.split(",") if text else []:
        name, equals, share = item.strip().rpartition("=")
        if equals and name not in known:
            message = f"read {item.strip()!r}; metrics: {', '.join(known)}"
            raise typer.BadParameter(message, param_hint="--max-error")
        try:
            value = float(share.removesuffix("%")) / (100.0 if share.endswith("%") else 1.0)
        except ValueError:
            value = -1.0
        if not 0.0 < value < float("inf"):
            message = f"read {item.strip()!r}; write a share above 0 such as 5% or 0.05, or METRIC=5%"
            raise typer.BadParameter(message, param_hint="--max-error")
        found[name] = value
    return found


def _hints(context: typer.Context) -> ServerHints:
    """What the command line says of the server: its options are named as the fields."""
    from dataclasses import fields

    from simlab.calibrate.read.hints import ServerHints

    return ServerHints(**{field.name: context.params[field.name] for field in fields(ServerHints)})
