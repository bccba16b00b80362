"""Traces that say which question each request asks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from simlab.errors import TraceError
from simlab.scenario import TraceFormat
from simlab.workload.reader import TraceReader
from simlab.workload.replay import Cut, TraceReplay

COLUMNS = {"arrival": "t", "prompt_tokens": "p", "output_tokens": "o", "query": "q"}


def questions(path: Path, cut: Cut | None = None, **columns: str) -> list[int]:
    source = TraceReplay(
        TraceReader(path, TraceFormat(**{**COLUMNS, **columns})), cut or Cut(), seed=1, index=0, horizon_s=1e9
    )  # type: ignore[arg-type]
    found: list[int] = []
    while (chunk := source.next_chunk()) is not None:
        assert chunk.query is not None
        assert chunk.query.dtype == np.int64
        assert len(chunk.query) == len(chunk)
        found += chunk.query.tolist()
    return found


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "t.csv"
    path.write_text("t,p,o,q\n0,1,1,7\n1,1,1,how much?\n2,1,1,7\n3,1,1,how much?\n4,1,1,9\n")
    return path


def test_equal_values_are_the_same_question(trace: Path) -> None:
    a, b, c, d, e = questions(trace)
    assert (a, c, e) == (7, 7, 9)
    assert b == d
    assert 0 <= b < 2**62


def test_a_cut_takes_its_own(trace: Path) -> None:
    assert questions(trace, Cut(from_s=2.0, to_s=4.5))[::2] == [7, 9]


def test_copies_and_repetitions_ask_questions_of_their_own(trace: Path) -> None:
    found = questions(trace, Cut(repeat=3))
    assert len(found) == 15
    assert len(set(found)) == 9
    doubled = questions(trace, Cut(rate_scale=2.0))
    assert len(doubled) == 10
    assert len(set(doubled)) == 6


def test_json_lines_and_blocks_beside(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    rows = [{"t": i, "p": 600, "o": 1, "h": [1, i], "q": f"q{i % 2}"} for i in range(4)]
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    found = questions(path, hash_ids="h")
    assert found[0] == found[2] != found[1] == found[3]


def test_a_missing_question_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"t": 0, "p": 1, "o": 1, "q": 3}\n{"t": 1, "p": 1, "o": 1, "q": null}\n')
    with pytest.raises(TraceError, match="q must hold whole numbers or texts"):
        questions(path)
