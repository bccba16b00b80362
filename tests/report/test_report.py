"""Reports: the same numbers in every rendering, and pages that stand alone.

The golden text pins the layout; run with ``SIMLAB_REGENERATE=1`` to record it anew, and read the difference.
"""

from __future__ import annotations

import csv
import io
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
import synthetic_run

from simlab.report import figures, view
from simlab.report.html import html
from simlab.report.markdown import metrics_csv, page_markdown
from simlab.report.text import WIDTH, fitting, text
from simlab.results import Result, words

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "report.txt"

RESULT = synthetic_run.result(3, warmup_s=3600.0, drawn=True)
KINDS = {
    "three": RESULT,
    "one": synthetic_run.result(1, rate_rps=0.1),
    "empty": synthetic_run.result(2, empty=True),
    "short": synthetic_run.result(1, horizon_s=60.0, rate_rps=5.0, windows=6),
}


def test_text_is_as_recorded() -> None:
    found = text(RESULT)
    if os.environ.get("SIMLAB_REGENERATE") == "1":
        GOLDEN.write_text(found, encoding="utf-8")
    assert found == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", KINDS)
def test_text_begins_with_the_sentence_and_fits(kind: str) -> None:
    found = text(KINDS[kind])
    assert found.replace("\n", " ").startswith(KINDS[kind].headline)
    lines = found.splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert all(line == line.rstrip() for line in lines)
    for sentence in KINDS[kind].assumptions:
        assert sentence in " ".join(found.split())


def test_text_in_colour_says_the_same() -> None:
    coloured = text(RESULT, colour=True)
    assert "\x1b[" in coloured
    plain = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    assert [line.rstrip() for line in plain.splitlines()] == text(RESULT).splitlines()


def test_a_narrow_terminal_loses_no_name() -> None:
    narrow = text(RESULT, width=60)
    assert max(map(len, narrow.splitlines())) <= 60
    for table in view.tables(RESULT):
        if not table.left:
            for cell in (cell for row in table.rows for cell in row):
                assert re.search(rf"(?:^|\s){re.escape(cell.strip())}(?:\s|$)", narrow, re.MULTILINE), cell


def test_a_wide_table_goes_on_below_itself() -> None:
    table = view.Table("T", ("name", "one", "two", "three"), (("x", "11111", "22222", "33333"),))
    parts = fitting(table, 18)
    assert [part.columns for part in parts] == [("name", "one", "two"), ("name", "three")]
    assert [part.rows for part in parts] == [(("x", "11111", "22222"),), (("x", "33333"),)]
    assert [part.title for part in parts] == ["T", "… continued"]
    assert fitting(table, 25) == [table]


def test_summary_shows_value_and_interval_of_the_metric() -> None:
    rows = {row[0]: row[1:] for row in view.summary(RESULT).rows}
    found = RESULT["cost_per_success_usd"]
    assert rows["Cost per successful task"] == (words.number(found.value, found.unit), words.interval(found), "0%")
    assert RESULT["e2e_s_p50"].calibration_share > 0.5
    plain = {row[0]: row[1:] for row in view.summary(synthetic_run.result(3)).rows}
    assert plain["Cost per successful task"] == (words.number(found.value, found.unit), words.interval(found))
    assert rows["GPU hours billed"] == ("192 h", "", "")
    assert "Retries" not in rows


def test_many_tenants_are_cut_and_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "MOST_TENANTS", 2)
    table = view.groups(RESULT, "tenant")
    assert table.title == "Tenants (the 2 dearest of 5)"
    assert [row[0] for row in table.rows] == ["chat/t0", "summaries/t0"]


def test_csv_has_every_metric_at_full_precision() -> None:
    rows = list(csv.DictReader(io.StringIO(metrics_csv(RESULT))))
    assert [row["metric"] for row in rows] == list(RESULT.estimates)
    read = {row["metric"]: float(row["value"]) if row["value"] else None for row in rows}
    assert read == {name: found.value for name, found in RESULT.estimates.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_markdown_tables_are_rectangular(kind: str) -> None:
    found = page_markdown(view.page(KINDS[kind], full=True))
    blocks = re.findall(r"(?:^\|.*\|\n)+", found, re.MULTILINE)
    assert len(blocks) == len(view.tables(KINDS[kind], full=True))
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1
    assert not re.search(r"(?<!\\)\$", found)


class Page(HTMLParser):
    """Collects what a page refers to, and checks that its elements close."""

    VOID = frozenset({"meta", "br", "img", "link", "input", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.refers: list[str] = []
        self.said: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href"):
                self.refers.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said.append(data)


@pytest.mark.parametrize("kind", KINDS)
def test_html_stands_alone(kind: str) -> None:
    page = Page()
    source = html(KINDS[kind])
    page.feed(source)
    assert page.open == []
    assert all(reference.startswith("#") for reference in page.refers)
    assert "url(http" not in source
    assert "<script" not in source
    assert source.count("<svg") == 4
    assert len(set(page.ids)) == len(page.ids)
    assert {reference[1:] for reference in page.refers} <= set(page.ids)
    said = " ".join(" ".join(page.said).split())
    assert KINDS[kind].headline.split(": ", 1)[1][1:] in said


def test_html_is_the_same_every_time() -> None:
    assert html(KINDS["one"]) == html(synthetic_run.result(1, rate_rps=0.1))


def test_html_escapes_names() -> None:
    scenario = synthetic_run.Scenario(name="<b>bold</b> & co")
    page = html(Result(scenario, KINDS["one"].measurements, KINDS["one"].backends))
    assert "<b>bold" not in page
    assert "&lt;b&gt;bold&lt;/b&gt; &amp; co" in page


DRAWN = {kind: figures.figures(result) for kind, result in KINDS.items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["over_time", "latency", "load", "cost"])
def test_figures_have_labelled_axes_and_become_svg(kind: str, name: str) -> None:
    _, figure = DRAWN[kind][name]
    for axis in figure.axes:
        shares_y = name == "latency" and axis is not figure.axes[0]
        assert axis.get_ylabel() or shares_y
    assert figure.axes[-1].get_xlabel()
    root = ElementTree.fromstring(figures.svg(figure, f"{kind}-{name}"))
    assert root.tag.endswith("svg")


@pytest.mark.parametrize(
    ("horizon_s", "unit"), [(60.0, "s"), (7200.0, "min"), (86_400.0, "h"), (30 * 86_400.0, "days")]
)
def test_time_axes_suit_the_horizon(horizon_s: float, unit: str) -> None:
    result = synthetic_run.result(1, horizon_s=horizon_s, rate_rps=2000 / horizon_s)
    axis = figures.load(result).axes[-1]
    assert axis.get_xlabel() == f"time since start, {unit}"
    assert 24 <= axis.get_xlim()[1] <= 120


def test_cost_bars_add_up_to_the_month() -> None:
    backend, _ = figures.cost(RESULT).axes
    ends = {}
    for bar in backend.patches:
        ends[bar.get_y()] = max(ends.get(bar.get_y(), 0.0), bar.get_x() + bar.get_width())
    assert sum(ends.values()) == pytest.approx(RESULT["cost_usd_per_month"].value)


def test_distribution_curves_rise_to_all() -> None:
    for axis in figures.latency_distribution(RESULT).axes:
        curves = [line for line in axis.get_lines() if len(line.get_xdata()) > 2]
        assert len(curves) == 3
        assert all(curve.get_ydata()[-1] == pytest.approx(100.0) for curve in curves)


def test_an_api_whose_requests_nobody_counted_claims_none() -> None:
    measured = synthetic_run.result(1).measurements[0]
    for name in ("running_s", "waiting_s"):
        measured.windows[name][:, 1] = 0.0
    result = Result(synthetic_run.Scenario(), [measured], synthetic_run.FACTS)
    table = view.backends(result)
    api = dict(zip(table.columns, table.rows[1], strict=True))
    assert (api["in batches"], api["waiting"]) == (words.UNKNOWN, words.UNKNOWN)
    assert [line.get_label() for line in figures.load(result).axes[0].patches] == ["h100"]


def test_prices_name_their_sources_in_full_on_the_page_only() -> None:
    facts = [replace(one, price_source="median of 4 (folder/file @1234)") for one in synthetic_run.FACTS]
    result = Result(synthetic_run.Scenario(), RESULT.measurements, facts)
    assert {row[2] for row in view.prices(result).rows} == {"median of 4"}
    assert "folder/file @1234" in html(result)
    assert "folder/file" not in text(result)
