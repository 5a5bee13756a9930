from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import autoquant as amct
from autoquant.amct.from_file import calibrate_with, open_evaluator
from autoquant.errors import DataError, TrialError, UsageError

FILE = Path("evaluator.py")
CLASS = """
from autoquant import AutoCalibrationEvaluatorBase

class Evaluator(AutoCalibrationEvaluatorBase):
    def calibration(self, graph, outputs):
        {body}

"""


def opened(text: str) -> Any:
    FILE.write_text(text)
    return open_evaluator(FILE)


def test_the_one_instance_of_a_file_is_found_under_any_name() -> None:
    found = opened(CLASS.format(body="graph.append(outputs)") + "judge = Evaluator()\nagain = judge\n")
    graph: list[Any] = []
    found.calibration(graph, ["y:0"])
    assert graph == [["y:0"]]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (CLASS.format(body="pass"), UsageError, r"evaluator.py: has no object with a method calibration\(graph, outp"),
        (
            CLASS.format(body="pass") + "a, b = Evaluator(), Evaluator()",
            UsageError,
            r"evaluator.py: has several objects \(a, b\) with a method calibration.*; make one instance",
        ),
        ("import nothing_of_this_name", DataError, r"evaluator.py: raised ModuleNotFoundError"),
    ],
)
def test_files_that_hold_no_evaluator(text: str, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        opened(text)


@pytest.mark.parametrize(("path", "error"), [("none.py", DataError), ("record.txt", UsageError)])
def test_paths_that_are_no_python_files(path: str, error: Any) -> None:
    with pytest.raises(error, match=path):
        open_evaluator(Path(path))


RUN = """import tensorflow as tf, numpy as np
        with tf.compat.v1.Session(graph=graph) as session:
            with graph.as_default():
                session.run(tf.compat.v1.global_variables_initializer())
            session.run(outputs, {feeds})"""


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        ("raise ValueError('no data')", DataError, r"Evaluator: raised ValueError: no data \(.*evaluator.py:6\)"),
        (
            RUN.replace("{feeds}", "{}"),
            DataError,
            "Evaluator: TensorFlow cannot run the model: You must feed a value for placeholder tensor 'image'.*; check",
        ),
        (
            RUN.replace("{feeds}", "{'image:0': np.full((1, 8, 8, 2), np.inf)}"),
            TrialError,
            "conv: its input holds 128 NaN or infinite values in pass 1; leave the layer in float",
        ),
    ],
)
def test_errors_in_an_evaluator_keep_their_kind(live: Any, body: str, error: Any, message: str) -> None:
    evaluator = opened(CLASS.format(body=body) + "evaluator = Evaluator()")
    amct.create_quant_config("config.json", live)
    amct.quantize_model(live, "config.json", "record.txt")
    with pytest.raises(error, match=message):
        calibrate_with(evaluator, live, ["scores:0"], Path("record.txt"))
