from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autoquant.cli.output import complain, wrapped

FULL = Path("/dev/full")
SAY = "import sys\nfrom autoquant.cli.output import note, say\n"


def test_lines_are_wrapped_between_words_and_paths_stay_whole() -> None:
    path = "/a/folder-with-hyphens/and a space/" + "x" * 40
    lines = wrapped(f"autoquant: error: {path}: is not a model; give one", 40).splitlines()
    assert lines[0] == "autoquant: error: /a/folder-with-hyphens/and a space/"[: len(lines[0])]
    assert all(line.startswith("    ") for line in lines[1:])
    assert "    space/" + "x" * 40 + ":" in lines
    assert " ".join(line.strip() for line in lines) == f"autoquant: error: {path}: is not a model; give one"


def test_short_lines_and_logs_are_left_alone() -> None:
    assert wrapped("a b c", 5) == "a b c"
    assert wrapped("a b c " * 100, None) == "a b c " * 100


def test_complaints_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    complain("autoquant: error: " + "long " * 50)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "autoquant: error: " + "long " * 50 + "\n"


@pytest.mark.parametrize(("stream", "fd"), [("say", 1), ("note", 2)])
def test_a_reader_that_left_is_no_error(stream: str, fd: int, python: Callable[..., Any]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    code = f"{SAY}{stream}('x' * 100000); {stream}('more'); sys.exit(7)"
    done = python("-c", code, **{{1: "stdout", 2: "stderr"}[fd]: writer})
    os.close(writer)
    assert done.returncode == 7
    assert not done.stdout
    assert not done.stderr


@pytest.mark.skipif(not FULL.exists(), reason="there is no disk that is always full")
def test_a_result_that_cannot_be_written_is_an_error(python: Callable[..., Any]) -> None:
    code = f"""{SAY}
from autoquant.errors import UsageError
try:
    say("x")
except UsageError as error:
    note(str(error))
"""
    with FULL.open("w") as full:
        done = python("-c", code, stdout=full)
    assert done.stderr.startswith("standard output: cannot be written (No space left on device); free the disk")
    assert done.returncode == 0
