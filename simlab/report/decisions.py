"""A comparison or a break-even as a folder of files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from simlab.report import break_even as of_break_even
from simlab.report import comparison as of_comparison
from simlab.report.html import page_html

if TYPE_CHECKING:
    from simlab.decide.answer import BreakEven
    from simlab.decide.compare import Comparison


def write_comparison(found: Comparison, folder: Path) -> None:
    """Writes ``comparison.json``, ``differences.csv`` and ``comparison.html``.

    Raises:
        OSError: when that fails.
    """
    page = page_html(of_comparison.page(found, full=True), of_comparison.figures(found))
    (folder / "comparison.json").write_text(found.to_json(), encoding="utf-8")
    (folder / "differences.csv").write_text(of_comparison.metrics_csv(found), encoding="utf-8")
    (folder / "comparison.html").write_text(page, encoding="utf-8")


def write_break_even(found: BreakEven, folder: Path) -> None:
    """Writes ``break_even.json``, ``break_even.csv``, ``break_even.html`` and the figure as SVG and PNG.

    Raises:
        OSError: when that fails.
    """
    import matplotlib as mpl

    figures = of_break_even.figures(found)
    (folder / "break_even.json").write_text(found.to_json(), encoding="utf-8")
    (folder / "break_even.csv").write_text(of_break_even.points_csv(found), encoding="utf-8")
    (folder / "break_even.html").write_text(page_html(of_break_even.page(found), figures), encoding="utf-8")
    for name, (_, figure) in figures.items():
        figure.patch.set_facecolor("white")
        with mpl.rc_context({"svg.hashsalt": name}):
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        figure.savefig(folder / f"{name}.png", dpi=144)
