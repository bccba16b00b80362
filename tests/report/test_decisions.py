"""Comparisons and break-evens as pages, tables, figures and folders."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from plain_plan import plan

import simlab
from simlab.decide.answer import BreakEven
from simlab.decide.compare import Comparison
from simlab.decide.difference import SAME, Difference
from simlab.report import break_even as of_break_even
from simlab.report import comparison as of_comparison
from simlab.report.decisions import write_break_even, write_comparison
from simlab.report.figures import svg
from simlab.report.markdown import page_markdown
from simlab.report.text import WIDTH, page_text


@pytest.fixture(scope="module")
def compared() -> Comparison:
    return simlab.compare([plan("api"), plan("pool", "workload.chat.arrivals.rate=6")], replications=2, workers=1)


@pytest.fixture(scope="module")
def crossed() -> BreakEven:
    return simlab.break_even(plan("api"), plan("pool"), max_replicas=3, replications=2, workers=1)


def test_a_comparison_begins_with_its_sentence_and_fits(compared: Comparison) -> None:
    lines = page_text(of_comparison.page(compared)).splitlines()
    assert lines[0].startswith("pool costs $")
    assert max(map(len, lines)) <= WIDTH
    assert any(line.startswith("! pool does not see the traffic of api") for line in lines)
    assert any(line.startswith("✓ api: slo chat: met") for line in lines)
    assert any("✓ better" in line for line in lines)


def test_a_full_comparison_has_every_metric(compared: Comparison) -> None:
    few, every = (of_comparison.page(compared, full=full).tables[0] for full in (False, True))
    assert len(every.rows) > len(few.rows)
    assert {row[0] for row in few.rows} <= {row[0] for row in every.rows}
    assert "kv_utilization" in {row[0] for row in every.rows}


@pytest.mark.parametrize(
    ("change", "low", "high", "unit", "text"),
    [
        (-0.495, -0.51, -0.48, "s", "−495 ms (−510 to −480)"),
        (0.0, 0.0, 0.0, "s", "0"),
        (12.0, None, None, "USD/month", "+$12.00"),
        (0.00196, 0.00183, 0.00209, "ratio", "+0.196 points (+0.183 to +0.209)"),
    ],
)
def test_differences_in_words(change: float, low: float | None, high: float | None, unit: str, text: str) -> None:
    assert of_comparison.change(Difference("cost_usd", unit, 1.0, 2.0, change, low, high, SAME)) == text


def test_csv_has_every_metric_in_full(compared: Comparison) -> None:
    rows = list(csv.DictReader(io.StringIO(of_comparison.metrics_csv(compared))))
    assert len(rows) == len(compared.differences["pool"])
    by_name = {row["metric"]: row for row in rows}
    assert float(by_name["cost_usd"]["change"]) == compared.differences["pool"]["cost_usd"].change


def test_a_break_even_begins_with_its_sentence_and_fits(crossed: BreakEven) -> None:
    lines = page_text(of_break_even.page(crossed)).splitlines()
    assert lines[0].startswith("plain: pool becomes cheaper than api at 365M tokens a month")
    assert max(map(len, lines)) <= WIDTH
    assert any(line.startswith("✓ at the crossing api meets the SLO itself") for line in lines)
    assert page_markdown(of_break_even.page(crossed)).count("### ") == 4


def test_the_points_as_csv(crossed: BreakEven) -> None:
    rows = list(csv.DictReader(io.StringIO(of_break_even.points_csv(crossed))))
    assert [float(row["tokens_per_month"]) for row in rows] == crossed.volumes
    assert rows[0]["cheaper"] == "api"
    assert rows[-1]["replicas"] == "3"


def test_the_figure_marks_both_crossings(crossed: BreakEven) -> None:
    [axis] = of_break_even.cost_over_volume(crossed).axes
    notes = {text.get_text() for text in axis.texts}
    assert {"cheaper from 365M", "for good from 1.10G"} <= {note.replace("1.09G", "1.10G") for note in notes}
    assert axis.get_xlabel() == "tokens a month, prompt and output"
    assert axis.get_ylabel() == "USD a month"
    assert {"1", "2", "3"} <= notes


def test_figures_become_svg(compared: Comparison, crossed: BreakEven) -> None:
    figures = {**of_comparison.figures(compared), **of_break_even.figures(crossed)}
    assert set(figures) == {"cost", "break_even"}
    for name, (_, figure) in figures.items():
        assert ElementTree.fromstring(svg(figure, name)).tag.endswith("svg")


def test_folders(compared: Comparison, crossed: BreakEven, tmp_path: Path) -> None:
    write_comparison(compared, tmp_path)
    write_break_even(crossed, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("comparison.json", "differences.csv", "comparison.html"),
        *("break_even.json", "break_even.csv", "break_even.html", "break_even.svg", "break_even.png"),
    }
    for name in ("comparison.html", "break_even.html"):
        page = (tmp_path / name).read_text(encoding="utf-8")
        assert page.count("<svg") == 1
        assert "src=" not in page


def test_nothing_to_draw_without_a_plan_that_holds() -> None:
    hopeless = "slo.ttft=1ms"
    sides = (plan(side, hopeless) for side in ("api", "pool"))
    found = simlab.break_even(*sides, max_replicas=1, replications=1, workers=1)
    assert of_break_even.figures(found) == {}
    assert of_break_even.points_csv(found) == "tokens_per_month\n"
    assert "cannot meet the SLO" in page_text(of_break_even.page(found))


def test_every_field_of_the_json_is_documented(compared: Comparison, crossed: BreakEven) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "decisions.md").read_text(encoding="utf-8")
    of_first, of_second = (
        set(re.findall(r"`(\w+)`", page.split(f"### The JSON of a {what}\n")[1].split("\n#")[0]))
        for what in ("comparison", "break-even")
    )
    plain = compared.to_dict()
    assert of_first >= set(plain) | set(plain["differences"]["pool"]["cost_usd"])
    whole = crossed.to_dict()
    assert of_second >= set(whole) | set(whole["first"]) | set(whole["steps"][0]) | set(whole["points"][0])
