"""The command that repeats a search, read back by the command line's own parser."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from autoquant.cli import search
from autoquant.cli.arguments import Parser, search_options
from autoquant.evaluation.statistics.tolerance import Tolerance
from autoquant.reports.command import command_of, in_memory
from autoquant.tuning.study.request import SearchRequest


def read_back(command: str) -> SearchRequest:
    """The request that a command makes."""
    words = shlex.split(command)
    assert words[:2] == ["autoquant", "search"]
    parser = Parser(prog="autoquant search")
    search.add_arguments(parser)
    args = parser.parse_args(words[2:])
    return SearchRequest(**search_options(args))


def as_words(numbers: Any) -> str:
    return ",".join(map(repr, numbers)) if isinstance(numbers, list) else repr(numbers)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"calibration": "c.npz", "target": "litert", "io": "int8", "objective": "latency"},
        {"inputs": ("a", "b:0"), "outputs": ("y",), "feed": ("is_training=false", "keep=1.0"), "signature": "serve"},
        {"scale": (1 / 255,), "mean": (0.485, 0.456, 0.406), "std": (0.2, 0.2, 0.2), "label_offset": -1},
        {"image_size": (96, 128), "batch_size": 7, "max_trials": 3, "timeout": 5400.5, "seed": 4},
        {"stop_on_target": True, "keep_all_models": True, "allow_overlap": True, "cache": 0, "samples": 0},
        {"cache": 500_000_000, "certify": "none", "confidence": 0.9, "error_rate": 0.01},
        {"guard": "class", "guard_tolerance": Tolerance(0.05, relative=True), "sampler": "tpe", "metric": "top5"},
        {"keep_models": 3, "min_baseline": -1.5, "junit": "out.xml"},
        {"target": "litert", "min_speedup": 1.25, "min_baseline": 0.75},
        {"preprocess": "tf", "space": "thorough", "engine": "litert"},
    ],
)
def test_a_command_makes_the_request_that_it_is_of(options: dict[str, Any]) -> None:
    request = SearchRequest(
        model="a model's.pb", data="my data/$x.npz", tolerance=Tolerance(0.01, relative=True), **options
    )
    command = command_of(request.as_table())
    again = read_back(command)
    table = request.as_table()
    # Numbers of the preprocessing are read when it is opened.
    numbers: dict[str, str] = {name: as_words(table[name]) for name in ("scale", "mean", "std") if name in table}
    assert again.as_table() == {**table, **numbers}


def test_what_was_in_memory_is_named(tmp_path: Path) -> None:
    request = SearchRequest(model=tmp_path / "m.pb", data=([1.0], [1]), metric=lambda: None)
    assert set(in_memory(request.as_table())) == {"data", "metric"}
