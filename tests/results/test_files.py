"""Output folders: all of it or nothing."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from simlab.errors import OutputError
from simlab.results.files import output_error, output_folder


def test_files_appear_together_at_the_end(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    with output_folder(out) as staging:
        (staging / "one.txt").write_text("1")
        (staging / "two.txt").write_text("2")
        assert [path.name for path in out.iterdir()] == [staging.name]
    assert sorted(path.name for path in out.iterdir()) == ["one.txt", "two.txt"]


def test_what_was_there_is_replaced_file_by_file(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("old")
    (tmp_path / "other.txt").write_text("kept")
    with output_folder(tmp_path) as staging:
        (staging / "one.txt").write_text("new")
    assert (tmp_path / "one.txt").read_text() == "new"
    assert (tmp_path / "other.txt").read_text() == "kept"


def write_and_fail(folder: Path, error: BaseException) -> None:
    with output_folder(folder) as staging:
        (staging / "one.txt").write_text("half")
        raise error


@pytest.mark.parametrize("error", [RuntimeError("bug"), KeyboardInterrupt()], ids=repr)
def test_a_failure_leaves_nothing_not_even_the_folder(tmp_path: Path, error: BaseException) -> None:
    out = tmp_path / "a" / "b"
    with pytest.raises(type(error)):
        write_and_fail(out, error)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("old")
    with pytest.raises(OutputError, match="disk is full"):
        write_and_fail(tmp_path, OSError(errno.ENOSPC, "No space left on device"))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"one.txt": "old"}


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    for place in (tmp_path / "taken", tmp_path / "taken" / "below"):
        with pytest.raises(OutputError, match="name a folder"), output_folder(place):
            pytest.fail("must not get here")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_no_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="permission denied"), output_folder(tmp_path / "out"):
        pytest.fail("must not get here")
    tmp_path.chmod(0o700)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_really_full_device(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(OutputError, match="disk is full"), output_folder(out):
        Path("/dev/full").write_text("x" * 10_000)
    assert not out.exists()


def test_an_error_of_reading_is_not_called_one_of_writing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), output_folder(tmp_path / "out"):
        (tmp_path / "no such trace.csv").read_text()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EIO])
def test_every_reason_says_where_and_how_to_repair(code: int) -> None:
    text = str(output_error(Path("results"), OSError(code, os.strerror(code))))
    assert text.startswith("results: cannot be written: ")
    assert "name " in text
