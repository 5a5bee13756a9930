from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from autoquant.cli.output import Table, complain, labelled, note, page, say, wrapped
from autoquant.cli.screen import live_screen
from autoquant.tuning.events import Warned

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


NASTY = "conv\x1b[2J\x1b]0;title\x07\x9b31m\r\x08\x7f\u202egnp.exe\u2066"
SAFE = r"conv\u001b[2J\u001b]0;title\u0007\u009b31m\u000d\u0008\u007f\u202egnp.exe\u2066"
BY_RICH = SAFE.replace(r"\u0007", "").replace(r"\u000d\u0008", "")  # which it leaves out


def test_names_from_strangers_reach_no_terminal_raw(capsys: pytest.CaptureFixture[str]) -> None:
    say(NASTY)
    note(NASTY)
    complain(f"autoquant: error: {NASTY}: [/red] is no \ttensor")
    captured = capsys.readouterr()
    assert captured.out == f"{SAFE}\n"
    assert captured.err == f"{SAFE}\nautoquant: error: {SAFE}: [/red] is no \ttensor\n"
    say(json.dumps({"name": NASTY}))
    assert json.loads(capsys.readouterr().out) == {"name": NASTY}


def test_pages_keep_colours_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    table = Table(("layer", "op"), [(NASTY, "[bold]Conv2D")])
    written = page([[table], labelled([("met", NASTY)]), [NASTY]], columns=None)
    assert written.count(BY_RICH) == 3
    assert "[bold]Conv2D" in written
    assert re.sub("\x1b\\[[0-9;]*m", "", written).isprintable() is False  # its line ends
    assert all(line.isprintable() for line in re.sub("\x1b\\[[0-9;]*m", "", written).splitlines())
    assert "\x1b[1;32mmet\x1b[0m" in written


def test_the_live_screen_is_printable_and_takes_no_markup() -> None:
    file = io.StringIO()
    console = Console(file=file, width=300, force_terminal=True, markup=False)
    with live_screen(console, lambda: 0.0) as listener:
        listener(Warned(f"{NASTY} [/nothing]"))
    plain = re.sub("\x1b\\[\\??[0-9;]*[a-zA-Z]", "", file.getvalue())
    assert f"warning: {BY_RICH} [/nothing]" in plain
    assert not re.search("[\x1b\x07\x9b\x7f\u202e]", plain)
