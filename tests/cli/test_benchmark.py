"""`autoquant benchmark`: what is shown, and that no TensorFlow is waited for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lite_models import Pair

from autoquant.cli.benchmark import text
from autoquant.cli.main import main
from autoquant.evaluation.latency.latency import Latency, ModelTime, OperatorTime, Spread
from autoquant.reports.words import milliseconds

FLOAT = ModelTime("net.tflite", Spread(0.002, 0.0019, 0.0021), Spread(1.0, 1.0, 1.0), 0.75)
INT8 = ModelTime("net_int8.tflite", Spread(0.0025, 0.00245, 0.00255), Spread(0.8, 0.75, 0.85), 0.7)
OPERATORS = (
    OperatorTime("relu;bias;conv", "CONV_2D", (0.0015, 0.00125)),
    OperatorTime("image_quantized", "QUANTIZE", (None, 0.0005)),
)
LATENCY = Latency(2, 1, 1200, (FLOAT, INT8), OPERATORS, "times varied by 50%")


def test_the_screen() -> None:
    assert [line.rstrip() for line in text(LATENCY).splitlines()] == [
        "model                         time of a batch                 speed",
        "net.tflite       2.00 ms (1.90 ms to 2.10 ms)                     1",
        "net_int8.tflite  2.50 ms (2.45 ms to 2.55 ms)  0.80x (0.75 to 0.85)",
        "batch 1, 2 threads, median of 1,200 rounds in turns, with quartiles",
        "",
        "slowest operators  kind            1         2  speed",
        "relu               CONV_2D   1.50 ms   1.25 ms  1.20x",
        "image_quantized    QUANTIZE        -  0.500 ms      -",
        "shortest times; all operators add up to 75.0%, 70.0% of the model's",
        "",
        "net_int8.tflite is not faster than net.tflite here, it is slower: 0.80 times the speed (0.75 to 0.85)",
        "unreliable: times varied by 50%; measure again on an idle machine",
    ]


def test_one_model_alone() -> None:
    alone = Latency(1, 4, 3, (FLOAT,), (OperatorTime("relu", "CONV_2D", (0.0015,)),))
    assert [line.rstrip() for line in text(alone).splitlines()] == [
        "model                    time of a batch  speed",
        "net.tflite  2.00 ms (1.90 ms to 2.10 ms)      1",
        "batch 4, 1 thread, median of 3 rounds in turns, with quartiles",
        "",
        "slowest operators  kind           1",
        "relu               CONV_2D  1.50 ms",
        "shortest times; all operators add up to 75.0% of the model's",
    ]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0, "0 ms"),
        (4.21e-8, "0.0000421 ms"),
        (0.000999, "0.999 ms"),
        (0.001, "1.00 ms"),
        (0.0123, "12.3 ms"),
        (12.3, "12300 ms"),
    ],
)
def test_times_have_three_digits(seconds: float, shown: str) -> None:
    assert milliseconds(seconds) == shown


@pytest.fixture
def lite_files(lite_pair: Pair, tmp_path: Path) -> list[str]:
    paths = tmp_path / "net.tflite", tmp_path / "net_int8.tflite"
    for path, content in zip(paths, (lite_pair.in_float, lite_pair.int8), strict=True):
        path.write_bytes(content)
    return [str(path) for path in paths]


def test_json_has_all(lite_files: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", *lite_files, "--repeat", "3", "--json"]) == 0
    facts = json.loads(capfd.readouterr().out)
    assert [model["name"] for model in facts["models"]] == ["net.tflite", "net_int8.tflite"]
    assert facts["models"][0]["speed"] == {"median": 1.0, "lower_quartile": 1.0, "upper_quartile": 1.0}
    assert facts["version"] == 1
    assert facts["threads"] == 1
    assert facts["batch_size"] == 1
    assert facts["rounds"] == 3
    assert {len(one["seconds"]) for one in facts["operators"]} == {2}
    assert len(facts["statements"]) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none.tflite"], "none.tflite: there is no such file"),
        (["none.pb"], "none.pb"),
        (["net.tflite", "--threads", "0"], "--threads: must be at least 1, got 0"),
        (["net.tflite", "--repeat", "x"], "--repeat"),
        ([], "MODEL"),
    ],
)
def test_bad_input_ends_with_2(words: list[str], said: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", *words]) == 2
    assert said in capfd.readouterr().err


def test_no_tensorflow_for_a_tflite(lite_files: list[str], python: Callable[..., Any]) -> None:
    code = (
        "import sys; from autoquant.cli.main import main\n"
        "assert main(['benchmark', *sys.argv[1:], '--repeat', '3']) == 0\n"
        "assert 'tensorflow' not in sys.modules"
    )
    done = python("-c", code, *lite_files)
    assert done.returncode == 0, done.stderr
    assert "net_int8.tflite" in done.stdout
