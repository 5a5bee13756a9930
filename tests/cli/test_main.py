from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

import autoquant
from autoquant.cli import export
from autoquant.cli.main import COMMANDS, main


def test_help_lists_all_commands_and_imports_nothing_heavy(python: Callable[..., Any]) -> None:
    code = """
import sys
from autoquant.cli.main import main
code = main(["--help"])
heavy = {"numpy", "scipy", "tensorflow", "keras", "optuna", "rich", "sklearn", "asyncio"} & set(sys.modules)
sys.exit(f"imports {heavy}" if heavy else code)
"""
    done = python("-c", code)
    assert (done.returncode, done.stderr) == (0, "")
    for name, what in COMMANDS.items():
        assert f"{name} " in done.stdout
        assert what in done.stdout


def test_help_of_a_command_and_reading_a_search_space_do_not_wait_for_tensorflow(python: Callable[..., Any]) -> None:
    code = """
import sys
from autoquant.cli import arguments
from autoquant.cli.main import COMMANDS, main
from autoquant.formats.space_toml import presets
for command in COMMANDS:
    main([command, "--help"])
for preset in presets():
    arguments.space(preset)
sys.exit(",".join({"tensorflow", "keras", "optuna", "rich"} & set(sys.modules)) or 0)
"""
    done = python("-c", code)
    assert (done.returncode, done.stderr) == (0, "")


def test_module_runs_as_the_script_does(python: Callable[..., Any]) -> None:
    done = python("-m", "autoquant", "--version")
    assert done.stdout == f"autoquant {autoquant.__version__}\n"


def test_a_reader_that_left_is_no_error(python: Callable[..., Any]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = python("-m", "autoquant", "--help", stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_arguments_help_is_shown_and_the_exit_code_says_that_nothing_was_done(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == 2
    assert capsys.readouterr().out.startswith("usage: autoquant COMMAND")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sarch"], "autoquant: error: sarch: is not a command; did you mean 'search'?\n"),
        (["xyz"], "autoquant: error: xyz: is not a command; `autoquant --help` lists them\n"),
        (["--bogus"], "autoquant: error: autoquant: unrecognized arguments: --bogus; see `autoquant --help`\n"),
        (
            ["resume"],
            "autoquant: error: resume: the following arguments are required: RUN; see `autoquant resume --help`\n",
        ),
    ],
)
def test_wrong_words_are_named(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", message)


def test_help_of_a_command_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--help"]) == 0
    assert "--to DIR" in capsys.readouterr().out


def test_a_bug_is_one_line_and_with_verbose_a_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(args: object) -> int:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(export, "run", broken)
    assert main(["export", "run", "--to", "x"]) == 70
    assert capsys.readouterr().err == (
        "autoquant: internal error: ZeroDivisionError: by zero, this is a bug in autoquant; "
        "run again with --verbose for the traceback\n"
    )
    assert main(["export", "run", "--to", "x", "--verbose"]) == 70
    error = capsys.readouterr().err
    assert error.startswith("Traceback")
    assert error.endswith("autoquant: internal error: ZeroDivisionError: by zero, this is a bug in autoquant\n")


@pytest.mark.parametrize("code", [0, 3, "enough"])
def test_a_function_of_the_users_own_that_ends_the_process_is_no_success(
    code: int | str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def leaving(args: object) -> int:
        raise SystemExit(code)

    monkeypatch.setattr(export, "run", leaving)
    assert main(["export", "run", "--to", "x"]) == 2
    assert capsys.readouterr().err.startswith(f"autoquant: error: export: raised SystemExit: {code}")


def test_an_interruption_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(args: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "run", interrupted)
    assert main(["export", "run", "--to", "x"]) == 130
    assert capsys.readouterr().err == "autoquant: interrupted\n"
