from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoquant.errors import RunError, UsageError
from autoquant.evaluation.statistics.tolerance import Tolerance
from autoquant.tuning.study.places import IN_MEMORY
from autoquant.tuning.study.request import SearchRequest
from autoquant.tuning.study.run_toml import toml_text

FULL = SearchRequest(
    model="model.pb",
    data="module:function",
    calibration="calibration.npz",
    preprocess="tf",
    scale="1/255",
    mean="0.5,0.5,0.5",
    std="2",
    label_offset=1,
    image_size=(224, 192),
    batch_size=7,
    inputs=("in:0", "other"),
    outputs=("out",),
    signature="serve",
    feed=("is_training=false", "keep_prob=1.0"),
    target="litert",
    engine="litert",
    io="int8",
    profile="edgetpu",
    objective="latency",
    metric="top5",
    tolerance=Tolerance.parse("0.123456789%"),
    space="quick",
    max_trials=3,
    timeout=2.5,
    seed=9,
    stop_on_target=True,
    keep_all_models=True,
    keep_models=4,
    min_baseline=0.5,
    min_speedup=1.5,
    junit=str(Path("out.xml").absolute()),
)


def read(table: dict[str, Any], **changed: Any) -> SearchRequest:
    """Through the text of run.toml, as a run does it."""
    return SearchRequest.from_table(tomllib.loads(toml_text({"request": table}))["request"], "run.toml", **changed)


@pytest.mark.parametrize("request_", [FULL, SearchRequest(model="m", data="d")], ids=["all set", "defaults"])
def test_written_and_read(request_: SearchRequest) -> None:
    assert read(request_.as_table()) == request_


def test_defaults() -> None:
    request = SearchRequest(model="m", data="d")
    assert (request.timeout, request.tolerance, request.seed) == (math.inf, Tolerance(0.01, relative=True), 0)
    assert not {"timeout", "calibration", "inputs", "image_size"} & set(request.as_table())
    asked = (request.target, request.engine, request.io, request.objective, request.signature)
    assert asked == ("tensorflow", "auto", "float32", "macs", "")


def test_values_that_are_fed_are_written_as_a_command_has_them() -> None:
    request = SearchRequest(model="m", data="d", feed={"is_training": False, "keep_prob": np.float32(1)})
    assert request.as_table()["feed"] == ["is_training=false", "keep_prob=1.0"]
    assert read(request.as_table()) == request


@pytest.mark.parametrize(
    ("asked", "space"),
    [
        ({}, "default"),
        ({"target": "litert"}, "litert"),
        ({"target": "litert", "space": "default"}, "default"),
        ({"space": Path("mine.toml")}, Path("mine.toml")),
    ],
)
def test_the_space_where_none_is_given_is_that_of_the_target(asked: dict[str, Any], space: str | Path) -> None:
    request = SearchRequest(model="m", data="d", **asked)
    assert request.space == space
    assert request.as_table()["space"] == str(space)


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("model.pb", "x.npz", "x.csv", "mine.py"):
        Path(name).touch()
    metric = "mine.py:f@output=Identity:1"
    given: dict[str, Any] = {"calibration": "missing.npz", "certify": "x.csv@label=a"}
    table = SearchRequest(model=Path("model.pb"), data="x.npz", metric=metric, **given).as_table()
    assert table["metric"] == f"{tmp_path}/{metric}"
    assert (table["model"], table["data"]) == (str(tmp_path / "model.pb"), str(tmp_path / "x.npz"))
    assert (table["calibration"], table["certify"]) == ("missing.npz", f"{tmp_path}/x.csv@label=a")


def test_words_are_no_paths_whatever_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("demo", "none", "tf", "mine"):
        Path(name).mkdir()
    words: dict[str, Any] = {"space": "demo", "certify": "none", "preprocess": "tf"}
    table = SearchRequest(model="m", data="mine", **words).as_table()
    assert {name: table[name] for name in words} == words
    assert table["data"] == str(tmp_path / "mine")


@pytest.mark.parametrize(
    ("name", "value"),
    [("data", (np.zeros(2), None)), ("calibration", [np.zeros(2)]), ("preprocess", np.negative), ("metric", np.hypot)],
)
def test_arrays_and_functions_must_be_given_again(name: str, value: Any) -> None:
    table = SearchRequest(**{"model": "m", "data": "d", name: value}).as_table()
    assert table[name] == IN_MEMORY
    with pytest.raises(RunError) as caught:
        read(table)
    assert str(caught.value) == (
        f"run.toml: {name} was in memory when this run was started; "
        f"give it again in Python: autoquant.resume(run, {name}=...)"
    )
    assert getattr(read(table, **{name: value}), name) is value


@pytest.mark.parametrize("name", ["target", "engine", "io", "objective", "signature"])
def test_options_that_make_trials_comparable_cannot_be_changed(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name}: cannot change when a run is resumed"):
        read(FULL.as_table(), **{name: "litert"})


def test_values_given_anew() -> None:
    assert read(FULL.as_table(), max_trials=50, timeout=math.inf).max_trials == 50


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({**FULL.as_table(), "colour": "red"}, "run.toml: unknown key 'colour'; was it written by another version"),
        ({"model": "m", "tolerance": "1%"}, "run.toml: is incomplete (.*'data'"),
        ({"model": "m", "data": "d"}, "run.toml: is incomplete ('tolerance'); was it edited?"),
        ({**FULL.as_table(), "seed": "x"}, "run.toml: is incomplete ("),
        ({}, "run.toml: is incomplete ("),
    ],
    ids=["unknown key", "data missing", "tolerance missing", "wrong type", "empty"],
)
def test_a_file_that_was_edited(table: dict[str, Any], message: str) -> None:
    start = message.split(".*")[0]
    with pytest.raises(RunError) as caught:
        SearchRequest.from_table(table, "run.toml")
    assert str(caught.value).startswith(start)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 0}, "--batch-size: must be at least 1, got 0"),
        ({"max_trials": 0}, "--max-trials: must be at least 1, got 0"),
        ({"cache": -1}, "--cache: must be at least 0 bytes, got -1"),
        ({"timeout": 0.0}, "--timeout: must be above 0, got 0 s"),
        ({"timeout": math.nan}, "--timeout: must be above 0, got nan s"),
        ({"seed": -1}, "--seed: must be at least 0, got -1"),
        ({"target": "litrt"}, "--target: unknown 'litrt'"),
        ({"model": "m.tflite"}, "m.tflite: is a .tflite"),
        ({"io": "int8"}, "--io int8: is not offered for --target tensorflow"),
        ({"target": "litert", "engine": "tensorflow"}, "--engine tensorflow: cannot run"),
        ({"objective": "latency"}, "--objective latency: is measured on this machine"),
    ],
)
def test_out_of_range(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SearchRequest(**{"model": "m", "data": "d", **values})


def test_numbers_of_numpy_are_numbers() -> None:
    numbers: dict[str, Any] = {"batch_size": np.int64(20), "seed": np.int64(3)}
    numbers |= {"mean": np.array([0.5, 0.25]), "scale": np.float32(0.5)}
    asked = SearchRequest(model="m", data="d", **numbers)
    assert asked.batch_size == 20
    assert asked.seed == 3
    assert asked.mean == (0.5, 0.25)
    assert asked.scale == 0.5
    assert read(asked.as_table()) == asked


@pytest.mark.parametrize("name", ["model", "data", "metric", "space"])
def test_a_name_that_no_file_can_have(name: str) -> None:
    given: dict[str, Any] = {"model": "m.pb", "data": "d.npz", name: "1.5" * 5000}
    with pytest.raises(UsageError, match=rf"--{name}: is longer than a file's name can be: 1\.51\.5.*\.\.\.; is it"):
        SearchRequest(**given)
