"""The packages that scripts made for AMCT import, and the names that only TensorFlow 1 has."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import autoquant
from autoquant.amct.script import ALIASES
from autoquant.amct.tensorflow_1 import add_names
from autoquant.amct.unsupported import UNSUPPORTED
from autoquant.errors import DataError, UsageError


@pytest.fixture
def amct(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The package amct_tensorflow, gone again afterwards."""
    monkeypatch.syspath_prepend(str(ALIASES))
    yield importlib.import_module("amct_tensorflow")
    for name in [name for name in sys.modules if name.partition(".")[0].startswith("amct_tensorflow")]:
        del sys.modules[name]


@pytest.mark.usefixtures("tensorflow")
def test_its_functions_are_those_of_autoquant(amct: Any) -> None:
    for name in amct.__all__:
        if name != "accuracy_based_auto_calibration":
            assert getattr(amct, name) is getattr(autoquant, name)
    bases = amct.common.auto_calibration
    assert bases.AutoCalibrationEvaluatorBase is amct.AutoCalibrationEvaluatorBase
    assert all(getattr(bases, name) for name in bases.__all__)


@pytest.mark.usefixtures("tensorflow")
def test_automatic_calibration_is_a_module_and_a_function(amct: Any) -> None:
    module: Any = importlib.import_module("amct_tensorflow.accuracy_based_auto_calibration")
    assert module.accuracy_based_auto_calibration is autoquant.accuracy_based_auto_calibration
    for function in (amct.accuracy_based_auto_calibration, module):
        with pytest.raises(UsageError, match="no output is named"):
            function("net.pb", [], "record.txt", "config.json", "out/net", None)


def test_what_is_not_supported_can_be_imported_but_not_called(amct: Any) -> None:
    decompose = importlib.import_module("amct_tensorflow.tensor_decompose")
    online = importlib.import_module("amct_tensorflow_ascend")
    for name, (what, _) in UNSUPPORTED.items():
        home = next((module for module in (decompose, online) if name in vars(module)), amct)
        with pytest.raises(UsageError, match=f"{name}: {what}; "):
            getattr(home, name)("graph", config_defination=None)
    with pytest.raises(AttributeError, match="neither AMCT nor autoquant has 'quantise'"):
        _ = amct.quantise


def test_raw_data_is_read_as_evaluators_of_the_command_line_do(amct: Any, tensorflow: Any, tmp_path: Any) -> None:
    handler = importlib.import_module("amct_tensorflow.common.cmd_line_utils.data_handler")
    arrays = np.random.default_rng(0).normal(size=(3, 2, 4)).astype(np.float32)
    for name, array in zip(("b.bin", "c.bin", "a.bin"), arrays, strict=True):
        array.tofile(tmp_path / name)
    read = list(handler.load_data({"x:0": [2, 4]}, [str(tmp_path)], ["float32"], 2))
    assert [list(batch) for batch in read] == [["x:0"], ["x:0"]]
    np.testing.assert_array_equal([batch["x:0"] for batch in read], arrays[[2, 0]])
    with pytest.raises(DataError, match="holds 3 files, but batch_num is 4; give more files"):
        next(handler.load_data({"x:0": [2, 4]}, [str(tmp_path)], ["float32"], 4))


def module(name: str, **names: Any) -> Any:
    made = ModuleType(name)
    vars(made).update(names)
    return made


@pytest.mark.parametrize("behave", [True, False])
def test_names_of_tensorflow_1_are_added_and_none_is_changed(behave: bool) -> None:
    switched: list[None] = []
    old = module("v1", Session="session", matmul="old", disable_v2_behavior=lambda: switched.append(None))
    old.train = module("v1.train", Saver="saver")
    new = module("tensorflow", compat=SimpleNamespace(v1=old), matmul="new", train=module("train", Feature="feature"))
    add_names(new, behave=behave)
    assert (new.matmul, new.train.Feature) == ("new", "feature")
    assert not hasattr(new, "nothing")
    assert switched == []
    assert (new.Session, new.Session, new.train.Saver) == ("session", "session", "saver")
    assert switched == [None, None] * behave
    for one in (new, new.train):
        with pytest.raises(AttributeError, match=f"module '{one.__name__}' has no attribute 'nothing'"):
            _ = one.nothing
