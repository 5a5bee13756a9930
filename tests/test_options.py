"""Options of public functions: what is read, and what is said of those that are wrong, of every function and option."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autoquant
from autoquant import options
from autoquant.errors import InputError, UsageError
from autoquant.options import READERS, NotOfThisKind, reads_options
from autoquant.tuning.benchmark import BenchmarkRequest
from autoquant.tuning.study.request import SearchRequest

FUNCTIONS = {
    "search": ("m.pb", "d.npz"),
    "resume": ("run",),
    "export": ("run", "to"),
    "explain": ("run",),
    "quantize": ("m.pb", "config.json", "d.npz", "to"),
    "inspect": ("m.pb",),
    "benchmark": ("m.pb",),
    "check": ("m.pb",),
}
UNREADABLE = object()


@pytest.mark.parametrize(
    ("name", "given", "read"),
    [
        ("timeout", "2h", 7200.0),
        ("timeout", 90, 90.0),
        ("trial_timeout", "10m", 600.0),
        ("cache", "2GB", 2_000_000_000),
        ("cache", "off", 0),
        ("cache", 5, 5),
        ("feed", "is_training=false", ("is_training=false",)),
        ("feed", {"is_training": False}, {"is_training": False}),
        ("inputs", "a, b", ("a", "b")),
        ("outputs", ["a"], ("a",)),
        ("max_trials", np.int64(3), 3),
        ("max_trials", "3", 3),
        ("confidence", "0.9", 0.9),
        ("isolate", np.bool_(True), True),
        ("image_size", "96,128", (96, 128)),
        ("image_size", [96, np.int32(128)], (96, 128)),
        ("scale", "1/255", "1/255"),
        ("mean", np.asarray([1.0, 2.0]), (1.0, 2.0)),
        ("accept_changed", "metric", ("metric",)),
    ],
)
def test_what_the_command_line_takes_is_read(name: str, given: Any, read: Any) -> None:
    found = READERS[name](given)
    assert found == read and type(found) is type(read)


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("max_trials", 2.5, "must be a whole number, got 2.5 (float)"),
        ("max_trials", True, "must be a whole number, got True (bool)"),
        ("max_trials", "many", "must be a whole number, got 'many' (str)"),
        ("confidence", [1], "must be a number, got [1] (list)"),
        ("timeout", [3], "must be seconds, or a time such as '90s', '30m' or '2h', got [3] (list)"),
        ("timeout", "2x", "--timeout: cannot read '2x'"),
        ("cache", 1.5, "must be a number of bytes, or a size such as '500MB', '8GB' or 'off', got 1.5 (float)"),
        ("isolate", "yes", "must be True or False, got 'yes' (str)"),
        ("target", 3, "must be a text, got 3 (int)"),
        ("run", 3, "must be a path, got 3 (int)"),
        ("inputs", [1], "must be a list of names, or a text such as 'a,b', got [1] (list)"),
        ("feed", 3, "must be a mapping such as {'is_training': False}, or texts such as 'is_training=false', got 3"),
        ("scale", {}, "must be a number, got {} (dict)"),
        ("image_size", 96, "must be height and width, such as (224, 224) or '224,224', got 96 (int)"),
        ("listener", 3, "must be a function, got 3 (int)"),
        ("metric", 3, "must be a name, or a function, got 3 (int)"),
        ("tolerance", [1], "must be a number such as 0.005, or a percentage such as '1%', got [1] (list)"),
        ("max_trials", np.zeros(100), "must be a whole number, got a value (ndarray)"),
    ],
)
def test_a_wrong_type_is_told(tensorflow: Any, name: str, given: Any, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        autoquant.search("m.pb", "d.npz", **{name: given})
    assert told in str(caught.value)
    assert str(caught.value).startswith((f"{name}: ", "--"))


@pytest.mark.parametrize(("function", "given"), FUNCTIONS.items())
def test_an_option_that_there_is_not(tensorflow: Any, function: str, given: tuple[Any, ...]) -> None:
    with pytest.raises(UsageError) as caught:
        getattr(autoquant, function)(*given, no_such_option_at_all=3)
    assert str(caught.value) == (
        f"autoquant.{function}(): there is no option no_such_option_at_all; see help(autoquant.{function})"
    )
    if function != "benchmark":
        with pytest.raises(UsageError, match=rf"autoquant\.{function}\(\): missing a required argument"):
            getattr(autoquant, function)()


@pytest.mark.parametrize(
    ("function", "option", "meant"),
    [
        ("search", "max_trial", "max_trials"),
        ("search", "time_out", "timeout"),
        ("resume", "trail_timeout", "trial_timeout"),
        ("export", "trail", "trial"),
        ("quantize", "batchsize", "batch_size"),
        ("inspect", "calibraton", "calibration"),
        ("benchmark", "thread", "threads"),
        ("check", "recrod", "record"),
    ],
)
def test_the_nearest_option_is_named(tensorflow: Any, function: str, option: str, meant: str) -> None:
    with pytest.raises(UsageError, match=f"there is no option {option}; did you mean '{meant}'"):
        getattr(autoquant, function)(*FUNCTIONS[function], **{option: 3})


def test_every_option_has_a_reader() -> None:
    """So that a wrong type is never a TypeError further on."""
    named = {*SearchRequest.__dataclass_fields__, *BenchmarkRequest.__dataclass_fields__}
    assert named <= set(READERS)


@pytest.mark.parametrize(("function", "given"), FUNCTIONS.items())
@pytest.mark.parametrize("value", [3, 2.5, "text", [1, 2], {"a": 1}, True, b"bytes", UNREADABLE])
def test_no_value_of_any_option_is_a_type_error(
    tensorflow: Any, function: str, given: tuple[Any, ...], value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a first argument or an option is, what is said of it is an error of ours: no file is there."""
    monkeypatch.chdir(tmp_path)
    call = getattr(autoquant, function)
    if isinstance(value, str) or function != "inspect":  # which would load TensorFlow for each
        with pytest.raises(InputError):
            call(value if function != "benchmark" else "text", *given[1:])
    for name in READERS:
        if name in ("model", "models", "listener", "clock"):
            continue
        with pytest.raises(InputError):
            call(*given, **{name: value})


def test_none_is_the_default() -> None:
    @reads_options()
    def f(*, timeout: float | None = 3.0, run: str = "here") -> tuple[float | None, str]:
        return timeout, run

    assert f(timeout=None, run=None) == (3.0, "here")  # type: ignore[arg-type]  # as a program may have it
    assert f.__name__ == "f"

    @reads_options(SearchRequest)
    def h(**changed: Any) -> dict[str, Any]:
        return changed

    assert h(certify=None, timeout=None) == {"certify": None}  # of data it is another thing than what was before

    @reads_options()
    def g(model: str, record: str | None = None) -> str | None:
        return record

    assert g("m.pb", None) is None
    with pytest.raises(NotOfThisKind):
        options.whole(None)
