"""The answers of evaluators, and whose error is raised."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from autoquant.amct.evaluator import AutoCalibrationEvaluatorBase, Judge, Judgement, RequirementError
from autoquant.amct.live_graph import Probes
from autoquant.errors import DataError, UsageError


class Evaluator:
    """Judges a number: `answer` is what it says of one that is not the original."""

    def __init__(self, answer: Any = None, error: Exception | None = None) -> None:
        self.answer = answer
        self.error = error

    def calibration(self, graph: Callable[..., Any], outputs: list[Any]) -> None:
        graph()
        if self.error:
            raise self.error

    def evaluate(self, graph: int, outputs: list[str]) -> int:
        return graph

    def metric_eval(self, original_metric: int, new_metric: int) -> Any:
        return (True, 0.0) if original_metric == new_metric else self.answer


@pytest.mark.parametrize("answer", [True, (1.0, 0.5), None, (True, 0.0, 0.0), (1, 0.0)])
def test_an_answer_that_does_not_say_whether_it_is_satisfied(answer: Any) -> None:
    judge = Judge.of(Evaluator(answer), ("y:0",), 1)
    with pytest.raises(DataError, match=r"Evaluator: metric_eval\(\) returned .*; it must return \(satisfied, loss\)"):
        judge.evaluate(2)


LOSSES = [
    (False, 0.25, 0.25, 0.25),
    (False, np.float32(0.5), 0.5, 0.5),
    (False, np.array(0.5), 0.5, 0.5),
    (np.False_, -0.5, -0.5, 1.0),
    (False, math.nan, None, 1.0),
    (False, math.inf, None, 1.0),
    (False, "much", None, 1.0),
    (False, np.zeros(3), None, 1.0),
    (True, 0.75, 0.75, 0.0),
    (np.True_, None, None, 0.0),
]


@pytest.mark.parametrize(("satisfied", "loss", "number", "violation"), LOSSES, ids=[str(row[:2]) for row in LOSSES])
def test_a_loss_of_any_kind(satisfied: Any, loss: Any, number: float | None, violation: float) -> None:
    judgement = Judge.of(Evaluator((satisfied, loss)), (), 1).evaluate(2)
    assert (judgement.satisfied, judgement.number, judgement.violation) == (bool(satisfied), number, violation)
    assert str(judgement).startswith("satisfies, loss" if satisfied else "does not satisfy, loss")


def test_objects_that_are_no_evaluator() -> None:
    with pytest.raises(UsageError, match=r"evaluator: object has no method calibration\(\); derive it from"):
        Judge.of(object(), (), 1)
    with pytest.raises(UsageError, match=r"evaluator: Evaluator is a class; give an object of it: Evaluator\(\)"):
        Judge.of(Evaluator, (), 1)


def test_the_original_must_satisfy() -> None:
    class Never(Evaluator):
        def metric_eval(self, original_metric: int, new_metric: int) -> tuple[bool, float]:
            return False, 0.0

    with pytest.raises(RequirementError, match="Compare between original_accuracy and original_accuracy") as caught:
        Judge.of(Never(), (), 1)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("error", [RuntimeError("TensorFlow's"), None])
def test_the_first_error_of_a_probe_is_the_one_that_is_raised(error: Exception | None) -> None:
    """Whatever else the evaluator raises, or swallows."""
    probes = Probes()

    def fail(number: int) -> None:
        raise ZeroDivisionError(f"mine {number}")

    def graph() -> None:
        for number in range(3):
            with suppress(ZeroDivisionError):
                probes.call(fail, number)

    with pytest.raises(ZeroDivisionError, match="mine 0"):
        Judge(Evaluator(error=error), (), 1).calibrate(graph, probes)


def test_an_error_of_the_evaluator_is_raised_as_it_is() -> None:
    with pytest.raises(KeyError, match="theirs"):
        Judge(Evaluator(error=KeyError("theirs")), (), 1).calibrate(lambda: None, Probes())


def test_a_judgement_in_words() -> None:
    assert str(Judgement(True, 0.1234567891)) == "satisfies, loss 0.123457"
    assert len(str(Judgement(False, np.zeros(1000)))) < 130


def test_a_base_that_is_not_overridden() -> None:
    base = AutoCalibrationEvaluatorBase()
    for method, arguments in (("calibration", (None, [])), ("evaluate", (None, [])), ("metric_eval", (1, 1))):
        with pytest.raises(UsageError, match=rf"AutoCalibrationEvaluatorBase: has no {method}\(.*; override it"):
            getattr(base, method)(*arguments)
