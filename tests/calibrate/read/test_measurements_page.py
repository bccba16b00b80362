"""The page on measurements says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from made_files import complaints, write

from simlab.calibrate import METRICS, ServerHints, read_runs
from simlab.calibrate.read.columns import sources, spellings
from simlab.calibrate.read.request_log import REQUEST_COLUMNS
from simlab.calibrate.read.step_log import STEP_COLUMNS

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "measurements.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("part", ["server", "load", "metrics", "totals", "other"])
def test_every_column_is_listed(part: str) -> None:
    for what, names in spellings(part).items():
        assert f"| {what} | {', '.join(f'`{name}`' for name in names)} |" in PAGE


def test_every_column_of_logs_every_source_and_every_metric_is_named() -> None:
    for columns in (STEP_COLUMNS, REQUEST_COLUMNS):
        for names in columns.values():
            assert " or ".join(f"`{name}`" for name in names) in PAGE
    for name in [*(source["name"] for source in sources()), *METRICS]:
        assert f"`{name}`" in PAGE


def test_the_example_table_is_read(tmp_path: Path) -> None:
    (example,) = re.findall(r"```csv\n(.*?)```", PAGE, re.DOTALL)
    (run,) = read_runs([write(tmp_path / "t.csv", example)])
    assert run.server.setup == "qwen3-8b.h200-sxm.tp1.bf16"
    assert run.measured == {
        "ttft_s_mean": pytest.approx(0.0612), "tpot_s_mean": pytest.approx(0.0074), "output_tokens_per_s": 950.0,
    }  # fmt: skip


def test_the_messages_on_tables_are_those_of_the_code(tmp_path: Path) -> None:
    (example,) = re.findall(r"```csv\n(.*?)```", PAGE, re.DOTALL)
    for old, new in ((",7.4,", ",0.0075,"), ("mean_ttft_ms", "ttft")):
        (found,) = complaints(write(tmp_path / "t.csv", example.replace(old, new)), hints=ServerHints())
        assert f"`{found}`" in PAGE
