"""The request log: what is appended is read back, and a failure leaves nothing."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import synthetic_run

from simlab.errors import OutputError
from simlab.results import OUTCOMES, REQUEST_DTYPE, RequestLog, read_request_log
from simlab.results.groups import TaskGroups

GROUPS = (TaskGroups(("low", "high"), ("v1",), (("cheap", "dear"),)),)


def batch(n: int, first: int = 0) -> np.ndarray:
    rows = np.zeros(n, REQUEST_DTYPE)
    rows["task_id"] = np.arange(first, first + n)
    rows["backend"] = rows["task_id"] % 2
    rows["outcome"] = rows["task_id"] % len(OUTCOMES)
    rows["group"] = rows["task_id"] % 3 == 0
    rows["usd"] = rows["task_id"] * 1e-3
    rows["arrival_s"] = rows["task_id"] * 0.25
    rows["first_token_s"] = np.where(rows["outcome"] == 0, rows["arrival_s"] + 0.1, np.nan)
    return rows


def opened(path: Path) -> RequestLog:
    return RequestLog(path, class_names=("chat",), backends=synthetic_run.FACTS, features=["help"], groups=GROUPS)


def test_rows_come_back_in_order_with_names(tmp_path: Path) -> None:
    path = tmp_path / "requests.parquet"
    with opened(path) as log:
        for first in range(0, 30, 10):
            log.append(batch(10, first))
            assert not path.exists()
        log.append(batch(0))
    frame = read_request_log(path)
    assert log.rows == len(frame) == 30
    assert frame["task_id"].tolist() == list(range(30))
    assert frame["class"].unique().tolist() == ["chat"]
    assert frame["backend"].tolist() == ["h100", "frontier-api"] * 15
    assert frame["model"].tolist() == ["llama-3.1-70b", "frontier-large"] * 15
    assert frame["feature"].unique().tolist() == ["help"]
    assert frame["tier"].tolist() == ["high", "low", "low"] * 10
    assert frame["route"].tolist() == ["dear", "cheap", "cheap"] * 10
    assert frame["prompt_version"].unique().tolist() == ["v1"]
    assert frame["usd"].sum() == pytest.approx(sum(range(30)) * 1e-3)
    assert frame["outcome"].tolist() == [*OUTCOMES] * 5
    assert frame["first_token_s"].isna().sum() == 25
    assert pq.ParquetFile(path).num_row_groups == 3
    assert list(read_request_log(path, ["task_id"])) == ["task_id"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_old_log_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "requests.parquet"
    with opened(path) as log:
        log.append(batch(3))

    def fails() -> None:
        with opened(path) as log:
            log.append(batch(5))
            raise RuntimeError("the simulation broke")

    with pytest.raises(RuntimeError):
        fails()
    assert len(read_request_log(path)) == 3
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_said_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    log = opened(tmp_path / "requests.parquet")
    monkeypatch.setattr(log._writer, "write_table", full)
    with pytest.raises(OutputError, match=r"requests\.parquet: cannot be written: the disk is full"):
        log.append(batch(5))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        opened(tmp_path / "nowhere" / "requests.parquet")
