from __future__ import annotations

from typing import Any

import pytest

from autoquant.errors import UsageError
from autoquant.evaluation.engines.table import ENGINES
from autoquant.formats.space_toml import presets
from autoquant.targets.table import TARGETS
from autoquant.tuning.objective import OBJECTIVES as BUILT
from autoquant.tuning.study.choices import (
    ENGINE_NAMES,
    IO_TYPES,
    OBJECTIVES,
    check_scoring,
    check_target,
    default_space,
)


@pytest.mark.parametrize("io", IO_TYPES)
@pytest.mark.parametrize("model", ["model.pb", "model.tflite", "MODEL.TFLITE", "folder"])
def test_litert_takes_every_model_and_type(model: str, io: str) -> None:
    check_target(model, target="litert", io=io)


def test_tensorflow_is_what_there_is_without_a_word() -> None:
    check_target("model.pb")
    check_target("model.keras", target="tensorflow", io="float32")


@pytest.mark.parametrize(
    ("model", "asked", "message"),
    [
        ("m.pb", {"target": "litrt"}, "--target: unknown 'litrt'; did you mean 'litert'?"),
        ("m.pb", {"target": "onnx"}, "--target: unknown 'onnx'; it can be litert, tensorflow"),
        ("m.pb", {"target": "litert", "io": "int"}, "--io: unknown 'int'; did you mean 'int8'?"),
        ("m.pb", {"target": "litert", "io": "uint16"}, "--io: unknown 'uint16'; did you mean"),
        (
            "m.pb",
            {"io": "int8"},
            "--io int8: is not offered for --target tensorflow; leave it out, or give --target litert",
        ),
        (
            "a/m.tflite",
            {},
            "a/m.tflite: is a .tflite, of which --target tensorflow can make nothing; "
            "give --target litert, or the TensorFlow model it was converted from",
        ),
        ("m.TFLITE", {"target": "tensorflow"}, "m.TFLITE: is a .tflite"),
    ],
)
def test_targets_that_cannot_be(model: str, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_target(model, **asked)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("engine", ENGINE_NAMES)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_which_engines_and_objectives_a_target_has(target: str, engine: str, objective: str) -> None:
    """A .tflite runs on LiteRT alone; what the TensorFlow target saves is for another machine than this."""
    possible = engine != "tensorflow" if target == "litert" else objective != "latency"
    if possible:
        check_scoring(target=target, engine=engine, objective=objective)
    else:
        with pytest.raises(UsageError):
            check_scoring(target=target, engine=engine, objective=objective)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"target": "litert", "engine": "tensorflow"},
            "--engine tensorflow: cannot run what --target litert saves; leave it out, or give --target tensorflow",
        ),
        (
            {"objective": "latency"},
            "--objective latency: is measured on this machine, for which --target tensorflow saves nothing; "
            "give macs or bytes, or --target litert",
        ),
        ({"engine": "lite"}, "--engine: unknown 'lite'; did you mean 'litert'?"),
        ({"engine": "gpu"}, "--engine: unknown 'gpu'; it can be auto, litert, tensorflow"),
        ({"objective": "mac"}, "--objective: unknown 'mac'; did you mean 'macs'?"),
        ({"objective": "watts"}, "--objective: unknown 'watts'; "),
    ],
)
def test_scoring_that_cannot_be(asked: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_scoring(**{"target": "tensorflow", "engine": "auto", "objective": "macs", **asked})
    assert str(caught.value).startswith(message)


def test_every_engine_and_objective_can_be_asked_for() -> None:
    assert set(ENGINE_NAMES) == {"auto", *ENGINES}
    assert set(OBJECTIVES) == set(BUILT)


def test_the_space_where_none_is_given() -> None:
    assert {target: default_space(target) for target in TARGETS} == {"litert": "litert", "tensorflow": "default"}
    assert {default_space(target) for target in TARGETS} <= set(presets())
