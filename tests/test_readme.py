"""The commands, options, presets and search space that the README shows exist."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest

from autoquant.cli.arguments import Parser
from autoquant.cli.main import COMMANDS
from autoquant.formats.space_toml import parse_space, presets
from autoquant.tuning.study.request import SearchRequest

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
SHOWN = [line.split("&& ")[-1] for line in re.findall(r"^\$ (.*autoquant .*)$", README, re.MULTILINE)]


@pytest.mark.parametrize("line", [line for line in SHOWN if line.startswith("autoquant ")])
def test_commands_are_understood(line: str) -> None:
    name, *words = shlex.split(line)[1:]
    parser = Parser(prog=name)
    importlib.import_module(f"autoquant.cli.{name}").add_arguments(parser)
    assert parser.parse_args(words)


def test_every_command_is_shown() -> None:
    assert {shlex.split(line)[1] for line in SHOWN if line.startswith("autoquant ")} == set(COMMANDS)


def test_presets_are_named() -> None:
    assert all(f"`{name}`" in README for name in presets() if name != "demo")


def test_the_search_space_is_one() -> None:
    example = re.search(r"```toml\n(.*?)```", README, re.DOTALL)
    assert example is not None
    space = parse_space(example[1], "README.md")
    assert space.whole["batch_num"] == (8, 1)
    assert space.whole["equalize"] == (True, False)
    assert space.whole["bias_correction"] == ("analytic", "empirical", "none")
    assert space.shared.channel_wise == (True, False)
    assert len(space.layer.activation) == 3


def test_python_options_are_fields_of_a_request() -> None:
    example = re.search(r"autoquant\.search\((.*?)\)\n", README)
    assert example is not None
    options = re.findall(r"(\w+)=", example[1])
    assert set(options) <= set(SearchRequest.__dataclass_fields__)
