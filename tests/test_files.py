from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from autoquant.errors import RunError
from autoquant.files import write_text, written_whole


def test_a_new_file_and_a_replaced_one(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "first")
    write_text(tmp_path / "a.txt", "größer")
    assert (tmp_path / "a.txt").read_bytes() == "größer".encode()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_who_reads_the_old_file_goes_on_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old and long")
    with path.open("rb", buffering=0) as reader:
        assert reader.read(3) == b"old"
        write_text(path, "new")
        assert reader.read() == b" and long"
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(error), written_whole(path) as temporary:
        temporary.write_text("half of the n")
        assert path.read_text() == "old"
        raise error
    assert path.read_text() == "old"
    assert [left.name for left in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize(
    ("size", "told"),
    [(0, ""), (2_500_000, "it takes 2.5 MB, and "), (4_000, "it takes 4.0 kB, and ")],
)
def test_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, size: int, told: str) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=1_234_000))
    with pytest.raises(RunError) as caught, written_whole(path, size=size) as temporary:
        temporary.write_text("half")
        raise OSError(number, os.strerror(number))
    assert str(caught.value) == (
        f"{path}: cannot be written ({os.strerror(number)}); "
        f"{told}1.2 MB are free: free the disk, or choose another folder"
    )
    assert path.read_text() == "old"


def test_an_error_without_a_number_is_told_all_the_same(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be written \\(the archive is closed\\)"), written_whole(tmp_path / "a"):
        raise OSError("the archive is closed")


@pytest.mark.parametrize("path", ["missing/a.txt", "folder", "file/a.txt"])
def test_places_that_cannot_be_written(tmp_path: Path, path: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be written"):
        write_text(tmp_path / path, "text")
    assert sorted(left.name for left in tmp_path.iterdir()) == ["file", "folder"]
