"""The scripts that complete a command line, as the shells carry them out."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
from pathlib import Path

import pytest

from autoquant.cli.completion import SHELLS, script
from autoquant.cli.main import COMMANDS, main

CASES = [
    ("autoquant res", {"resume"}),
    ("autoquant search --max-tr", {"--max-trials"}),
    ("autoquant search net.pb --target li", {"litert"}),
    ("autoquant search net.pb --metric mi", {"miou"}),
    ("autoquant search net.pb --space qu", {"quick"}),
    ("autoquant search net", {"net.pb", "nets/"}),
    ("autoquant search --config net", {"net.pb", "nets/"}),
    ("autoquant guide saf", {"safety"}),
]
"""What is typed, and what can follow."""


@pytest.fixture(autouse=True)
def _files() -> None:
    Path("net.pb").touch()
    Path("nets").mkdir()


@pytest.mark.parametrize("shell", SHELLS)
def test_every_command_is_in_it(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)
    assert "--keep-models" in text


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "tcsh"]) == 2
    assert "invalid choice: 'tcsh' (choose from" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(("typed", "found"), CASES)
def test_bash_completes(typed: str, found: set[str]) -> None:
    Path("script").write_text(script("bash"), encoding="utf-8")
    words = typed.split(" ")
    ask = f"source ./script; COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; _shtab_autoquant"
    lines = subprocess.run(
        ["bash", "-c", f'{ask}; printf "%s\\n" "${{COMPREPLY[@]}}"'], check=True, capture_output=True, text=True
    ).stdout.split()
    assert set(lines) == {word.rstrip("/") for word in found}  # the slash comes with `compopt -o filenames`


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
@pytest.mark.parametrize(("typed", "found"), CASES)
def test_fish_completes(typed: str, found: set[str]) -> None:
    Path("script").write_text(script("fish"), encoding="utf-8")
    ask = ["fish", "--no-config", "-c", f"source ./script; complete -C '{typed}'"]
    lines = subprocess.run(ask, check=True, capture_output=True, text=True).stdout.splitlines()
    assert {line.partition("\t")[0] for line in lines} == found


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
@pytest.mark.parametrize(("typed", "found"), [case for case in CASES if len(case[1]) == 1])
def test_zsh_completes(typed: str, found: set[str]) -> None:
    Path("_autoquant").write_text(script("zsh"), encoding="utf-8")
    start = "PROMPT='ready> '; fpath=($PWD $fpath); autoload -U compinit; compinit -u -D; print star''ted\n"
    leader, follower = pty.openpty()
    shell = subprocess.Popen(["zsh", "-f", "-i"], stdin=follower, stdout=follower, stderr=follower, close_fds=True)
    try:
        os.write(leader, start.encode())
        _read_until(leader, "started")
        os.write(leader, f"{typed}\t".encode())
        _read_until(leader, found.copy().pop())
    finally:
        shell.kill()
        shell.wait()
        os.close(leader)
        os.close(follower)


def _read_until(terminal: int, wanted: str) -> None:
    """Read until the terminal shows a word; fails where nothing more comes."""
    shown = ""
    while wanted not in shown:
        assert select.select([terminal], [], [], 30)[0], f"'{wanted}' does not come after {shown!r}"
        shown += os.read(terminal, 4096).decode(errors="replace")
