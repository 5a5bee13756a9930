from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autoquant.amct.logs import LOG, log, set_logging_level
from autoquant.errors import UsageError


def lines() -> list[str]:
    return LOG.read_text().splitlines() if LOG.exists() else []


def test_without_a_choice_info_is_shown_and_saved(capsys: pytest.CaptureFixture[str]) -> None:
    log().debug("a detail")
    assert not LOG.parent.exists()
    log().info("a step of %d", 3)
    assert [line.endswith("INFO - [autoquant]: a step of 3") for line in lines()] == [True]
    captured = capsys.readouterr()
    assert captured.err.endswith("INFO - [autoquant]: a step of 3\n")
    assert captured.out == ""


def test_screen_and_file_have_levels_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    set_logging_level(print_level="ERROR", save_level="debug")
    for level in ("debug", "info", "warning", "error"):
        getattr(log(), level)(f"at {level}")
    assert [line.rpartition("at ")[2] for line in lines()] == ["debug", "info", "warning", "error"]
    assert capsys.readouterr().err.endswith("ERROR - [autoquant]: at error\n")


def test_a_new_choice_replaces_the_old(capsys: pytest.CaptureFixture[str]) -> None:
    set_logging_level("debug", "debug")
    set_logging_level("error", "error")
    log().warning("unheard")
    assert lines() == []
    assert capsys.readouterr().err == ""
    log().error("heard once")
    assert len(lines()) == 1


def test_the_file_is_that_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log().info("here")
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    log().info("there")
    assert (
        len((tmp_path / LOG).read_text().splitlines()) == len((tmp_path / "there" / LOG).read_text().splitlines()) == 1
    )


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ({"print_level": "inf"}, "print_level: unknown level 'inf'; did you mean 'info'"),
        ({"save_level": "loud"}, "save_level: unknown level 'loud'; it can be debug, info, warning, error"),
        ({"save_level": 10}, "save_level: unknown level 10"),
    ],
)
def test_other_levels_are_refused(levels: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        set_logging_level(**levels)


def test_a_log_that_cannot_be_written_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    LOG.parent.write_text("a file where the folder should be")
    for number in (1, 2):
        log().info("step %d", number)
    lines = capsys.readouterr().err.splitlines()
    assert [line.rpartition(": ")[2] for line in lines] == ["step 1", "nothing more is saved there", "step 2"]
