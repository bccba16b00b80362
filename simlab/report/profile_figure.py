"""Step times of profiles as a figure: against batch, context and prompt tokens, with their 90% bands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from simlab.profiles import Profile
from simlab.report.figures import PALETTE, figure_of, inked, tidy
from simlab.report.profiles import State, covered, interval_s
from simlab.results import words
from simlab.results.files import output_folder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CONTEXT, BATCH = 2048, 32
_BATCHES = tuple(int(size) for size in np.unique(np.geomspace(1, 512, 40).round()))
_CONTEXTS = tuple(int(size) for size in np.unique(np.geomspace(128, 131072, 40).round()))
_PROMPTS = tuple(int(size) for size in np.unique(np.geomspace(64, 16384, 60).round()))


def profile_figure(found: Sequence[Profile]) -> Figure:
    """Step time of each profile over sequences, context and prompt tokens.

    Lines are solid as far as the profile's runs covered, dotted beyond, and dashed where all is an estimate.
    """
    figure = figure_of(3.6)
    axes = figure.subplots(1, 3, sharey=True)
    panels = (
        (f"decoding sequences\nof {CONTEXT:,} tokens of context", [State(size, CONTEXT) for size in _BATCHES], "seqs"),
        (f"context, tokens\nof {BATCH} decoding sequences", [State(BATCH, size) for size in _CONTEXTS], "context"),
        ("prompt tokens in the step\n(a prompt alone)", [State(prompt=size) for size in _PROMPTS], "prompt"),
    )
    for axis, (label, states, across) in zip(axes, panels, strict=True):
        tidy(axis)
        for i, one in enumerate(found):
            _line(axis, one, states, across, PALETTE[i % len(PALETTE)])
        axis.set(xscale="log", yscale="log")
        axis.set_xlabel(label)
        _plain(axis)
    axes[0].set_ylabel("one step")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=min(2, len(labels)), frameon=False, fontsize=9)
    return inked(figure)


def _line(axis: Axes, one: Profile, states: Sequence[State], across: str, colour: str) -> None:
    at = np.array([getattr(state, across) for state in states], dtype=np.float64)
    low, middle, high = np.array([interval_s(one, state) for state in states]).T
    axis.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0)
    if one.kind == "estimated":
        axis.plot(at, middle, color=colour, linestyle="--", label=f"{one.name} (estimated)")
        return
    seen = np.array([covered(one, state) for state in states])
    axis.plot(at, middle, color=colour, linestyle=":", linewidth=1.2)
    axis.plot(at, np.where(seen, middle, np.nan), color=colour, linewidth=1.6, label=one.name)


def _plain(axis: Axes) -> None:
    """Ticks as people write them: 5 ms, 32, 4k."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.xaxis.set_major_locator(LogLocator(base=8 if axis.get_xlim()[1] < 1000 else 16, numticks=6))
    axis.xaxis.set_major_formatter(lambda value, _: f"{value / 1024:.0f}k" if value >= 1024 else f"{value:.0f}")
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
    axis.yaxis.set_major_formatter(lambda value, _: words.number(value, "s", 1))
    for side in (axis.xaxis, axis.yaxis):
        side.set_minor_formatter(NullFormatter())


def write_profile_figure(found: Sequence[Profile], path: Path) -> None:
    """Draws the figure into a file, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    import matplotlib as mpl

    drawn = profile_figure(found)
    drawn.patch.set_facecolor("white")
    plain = {"Date": None} if path.suffix.lower() == ".svg" else None
    with output_folder(path.parent) as staging, mpl.rc_context({"svg.hashsalt": "profiles"}):
        drawn.savefig(staging / path.name, dpi=144, metadata=plain)
