"""`autoquant completion`: a script that completes commands, options and their values in a shell."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterable, Mapping

from autoquant.cli import arguments
from autoquant.cli.output import say

SHELLS = ("bash", "zsh", "fish")
FILES = ("MODEL", "DATA", "FILE", "RUN", "P", "M", "S")
"""Metavars of what can be a file."""
FOLDERS = ("DIR",)
HOW = """\
to complete in every new shell:
  bash  autoquant completion bash > ~/.local/share/bash-completion/completions/autoquant
  zsh   autoquant completion zsh > ~/.zfunc/_autoquant    with ~/.zfunc in fpath, before compinit
  fish  autoquant completion fish > ~/.config/fish/completions/autoquant.fish
the folder must be there (mkdir -p); or, in this bash alone:  source <(autoquant completion bash)"""


def add_arguments(parser: arguments.Parser) -> None:
    """The shell."""
    parser.epilog = HOW
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    say(script(args.shell))
    return 0


def script(shell: str) -> str:
    """The script for a shell, which is complete in itself: completing starts no Python."""
    import shtab

    return str(shtab.complete(_parser(), shell))


def _parser() -> argparse.ArgumentParser:
    """One parser with all commands, whose arguments know their values, and which of them are files."""
    import shtab

    from autoquant.cli.main import COMMANDS

    root = argparse.ArgumentParser(prog="autoquant", allow_abbrev=False)
    root.add_argument("--version", action="store_true", help="show the version")
    commands = root.add_subparsers(parser_class=arguments.Parser)
    words = _words()
    for name, what in COMMANDS.items():
        command: arguments.Parser = commands.add_parser(name, help=what, description=what)
        importlib.import_module(f"autoquant.cli.{name}").add_arguments(command)
        for action in command._actions:  # which argparse shows nowhere else
            if action.dest in words and action.choices is None:
                action.choices = list(words[action.dest])
            elif action.metavar in (*FILES, *FOLDERS):
                action.complete = shtab.DIRECTORY if action.metavar in FOLDERS else shtab.FILE  # type: ignore[attr-defined]
    return root


def _words() -> Mapping[str, Iterable[str]]:
    """The values of arguments that have names."""
    from autoquant.evaluation.data.preprocessing import KERAS
    from autoquant.evaluation.metrics.table import METRICS
    from autoquant.formats.space_toml import presets
    from autoquant.guide import TOPICS
    from autoquant.targets.profiles.table import PROFILES
    from autoquant.targets.table import TARGETS
    from autoquant.tuning.study.choices import ENGINE_NAMES, IO_TYPES, OBJECTIVES, SAMPLERS

    return {
        "target": TARGETS,
        "engine": ENGINE_NAMES,
        "objective": OBJECTIVES,
        "io": IO_TYPES,
        "profile": PROFILES,
        "metric": METRICS,
        "sampler": SAMPLERS,
        "space": presets(),
        "preprocess": KERAS,
        "topic": TOPICS,
    }
