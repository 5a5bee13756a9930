from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoquant.cli import arguments, calibration, check, convert, demo, export, inspect, quantize, resume, search
from autoquant.cli.arguments import Parser
from autoquant.errors import UsageError
from autoquant.evaluation.statistics.tolerance import Tolerance
from autoquant.options import image_size, names, seconds, size
from autoquant.tuning.study.request import SearchRequest

WHOLE = st.integers(0, 10**6)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90), ("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("1.5h", 5400), ("1h1m1s", 3661), ("0", 0)],
)
def test_times_are_read(text: str, expected: float) -> None:
    assert seconds(text) == expected


@given(hours=WHOLE, minutes=WHOLE, rest=WHOLE)
def test_parts_of_a_time_add_up(hours: int, minutes: int, rest: int) -> None:
    assert seconds(f"{hours}h{minutes}m{rest}s") == hours * 3600 + minutes * 60 + rest


@pytest.mark.parametrize("text", ["", "soon", "1h30", "30m1h", "-5", "1 h", "2d", "nan", "inf", "1e3", ".", "h"])
def test_invalid_times_are_named(text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"--timeout: cannot read '{text}'; give seconds, or")):
        seconds(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("off", 0),
        ("500MB", 500_000_000),
        ("8GB", 8_000_000_000),
        ("1.5 tb", 1_500_000_000_000),
        ("20g", 20_000_000_000),
    ],
)
def test_bytes_are_read(text: str, expected: int) -> None:
    assert size(text) == expected


@pytest.mark.parametrize("text", ["", "8", "8 gigabytes", "-1GB", "0GB", "on"])
def test_invalid_bytes_are_named(text: str) -> None:
    told = f"--cache: cannot read '{text}'; give for example 500MB or 8GB, or off"
    with pytest.raises(UsageError, match=re.escape(told)):
        size(text)


def test_names_and_sizes_are_read() -> None:
    assert names("a, b:0") == ("a", "b:0")
    assert image_size("96, 128") == (96, 128)


@pytest.mark.parametrize("text", ["96", "96x96", "0,96", "a,b", "1,2,3", "-1,5", ""])
def test_invalid_sizes_are_named(text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"--image-size: cannot read '{text}'")):
        image_size(text)


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(UsageError, match="a name is empty in 'a,'"):
        names("a,")


def test_options_not_given_are_left_to_the_request() -> None:
    parser = Parser(prog="autoquant search")
    search.add_arguments(parser)
    args = parser.parse_args(["m.pb", "--data", "d.npz", "--tolerance", "1%"])
    assert arguments.options_for(args, SearchRequest) == {
        "model": "m.pb",
        "data": "d.npz",
        "tolerance": Tolerance(0.01, relative=True),
    }


def test_everything_that_is_given_reaches_the_request() -> None:
    parser = Parser(prog="autoquant search")
    search.add_arguments(parser)
    words = (
        "m.pb --data d.npz --calibration c.npz --metric mse --tolerance 0.5 --max-trials 7 --timeout 2h --space quick "
        "--seed 3 --inputs a,b --outputs c --scale 1/255 --mean 0.5 --std 2 --label-offset -1 --image-size 8,9 "
        "--batch-size 4 --stop-on-target --target litert --io int8 --engine litert --objective bytes --signature serve "
        "--sampler nsgaii --error-rate 0.01 --certify e.npz --confidence 0.99 --guard class --guard-tolerance 5% "
        "--unit patient --allow-overlap --feed is_training=false --feed keep_prob=1"
    )
    assert arguments.options_for(parser.parse_args(words.split()), SearchRequest) == {
        "model": "m.pb",
        "data": "d.npz",
        "calibration": "c.npz",
        "metric": "mse",
        "tolerance": Tolerance(0.5),
        "max_trials": 7,
        "timeout": 7200.0,
        "space": "quick",
        "seed": 3,
        "inputs": ("a", "b"),
        "outputs": ("c",),
        "scale": "1/255",
        "mean": "0.5",
        "std": "2",
        "label_offset": -1,
        "image_size": (8, 9),
        "batch_size": 4,
        "stop_on_target": True,
        "target": "litert",
        "io": "int8",
        "engine": "litert",
        "objective": "bytes",
        "signature": "serve",
        "sampler": "nsgaii",
        "error_rate": 0.01,
        "certify": "e.npz",
        "confidence": 0.99,
        "guard": "class",
        "guard_tolerance": Tolerance(0.05, relative=True),
        "unit": "patient",
        "allow_overlap": True,
        "feed": ["is_training=false", "keep_prob=1"],
    }


def test_target_options_reach_quantize() -> None:
    parser = Parser(prog="autoquant quantize")
    quantize.add_arguments(parser)
    words = "m.tflite --config c.json --calibration c.npz --to out --target litert --io int8 --signature serve"
    given = arguments.options_for(parser.parse_args(words.split()), SearchRequest)
    target = {"target": "litert", "io": "int8", "signature": "serve"}
    assert given == {"model": "m.tflite", "calibration": "c.npz", **target}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("m.pb --data d --tolerance 1% --max-tri 3", "search: unrecognized arguments: --max-tri 3"),
        ("m.pb --data d --tolerance 1% --max-trials x", "search: argument --max-trials: invalid int value: 'x'"),
        ("m.pb --data d --tolerance 1x", "--tolerance: cannot read '1x'"),
        ("m.pb --data d --tolerance 1% --guard class --guard-tolerance 5x", "--tolerance: cannot read '5x'"),
        (
            "m.pb --data d --tolerance 1% --confidence high",
            "argument --confidence: invalid float value: 'high'",
        ),
        ("m.pb --data d --tolerance 1% --error-rate 5%", "argument --error-rate: invalid float value: '5%'"),
        ("m.pb --data d --tolerance 1% --quiet --verbose", "not allowed with argument"),
        ("m.pb --data d --tolerance 1% --keep-models none", "--keep-models: cannot read 'none'; give best"),
    ],
)
def test_wrong_arguments_are_usage_errors(words: str, message: str) -> None:
    parser = Parser(prog="autoquant search")
    search.add_arguments(parser)
    with pytest.raises(UsageError, match=re.escape(message)):
        parser.parse_args(words.split())


@pytest.mark.parametrize("command", [search, resume, demo, inspect, export, quantize, calibration, convert, check])
def test_every_command_explains_itself_and_offers_a_traceback(command: Any) -> None:
    parser = Parser(prog="autoquant command")
    command.add_arguments(parser)
    assert "--verbose" in parser.format_help()


def test_help_of_search_lists_presets_and_exit_codes() -> None:
    parser = Parser(prog="autoquant search")
    search.add_arguments(parser)
    text = " ".join(parser.format_help().split())
    assert "amct, default, demo, litert, quick, skip_only, thorough, or your own TOML file (default: " in text
    assert "where the INT8 model is to run: litert or tensorflow (default tensorflow)" in text
    assert "inputs and outputs of the INT8 .tflite: float32 or int8 (default float32)" in text
    assert "what chooses the plans: guided, tpe, random, nsgaii, amct (default guided)" in text
    assert "to score them: auto, litert, tensorflow (default auto" in text
    for code in (0, 1, 2, 3, 70, 130):
        assert re.search(rf"^  {code}\s+\w", parser.format_help(), re.MULTILINE)
