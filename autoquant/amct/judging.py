"""The user's evaluator at work: what it says of the float model, and of others compared with that."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Real
from textwrap import shorten
from typing import Any

import numpy as np

from autoquant.amct.objects import check_object
from autoquant.errors import DataError

METHODS = ("calibration", "evaluate", "metric_eval")


class RequirementError(DataError, ValueError):
    """The evaluator's requirement is one that not even the float model satisfies."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether a model satisfies the requirement, and its loss as the evaluator gives it, any object."""

    satisfied: bool
    loss: Any

    @property
    def number(self) -> float | None:
        """The loss, where it is a finite number."""
        loss = self.loss.item() if isinstance(self.loss, np.ndarray) and self.loss.ndim == 0 else self.loss
        return float(loss) if isinstance(loss, Real) and math.isfinite(loss) else None

    @property
    def violation(self) -> float:
        """0 where it is satisfied, else how far from it: the loss, or 1 where that is not a positive number."""
        number = self.number
        return 0.0 if self.satisfied else number if number is not None and number > 0.0 else 1.0

    def __str__(self) -> str:
        """In words."""
        loss = in_short(self.loss) if self.number is None else f"{self.number:.6g}"
        return f"{'satisfies' if self.satisfied else 'does not satisfy'}, loss {loss}"


FAILED = Judgement(False, math.inf)
"""Of what could not be built."""


@dataclass
class Guard:
    """Keeps the first error of probes: TensorFlow makes another of it, and a user's evaluator may swallow that."""

    error: Exception | None = None

    def watch(self, see: Callable[..., None]) -> Callable[..., None]:
        """The same function, which after an error of any does nothing more."""

        def look(*arrays: Any) -> None:
            if self.error is not None:
                return
            try:
                see(*arrays)
            except Exception as error:
                self.error = error
                raise

        return look


@dataclass(frozen=True)
class Judge:
    """An evaluator, the outputs that it is to run, and the metric of the float model."""

    evaluator: Any
    outputs: tuple[str, ...]
    original: Any = field(repr=False)

    @classmethod
    def of(cls, evaluator: Any, outputs: tuple[str, ...], graph: Any) -> Judge:
        """Evaluate the float model, a tf.Graph.

        Raises UsageError where the evaluator is none, and RequirementError where it does not take the float model for
        as good as itself.
        """
        check_object("evaluator", evaluator, METHODS, base="AutoCalibrationEvaluatorBase")
        judge = cls(evaluator, outputs, evaluator.evaluate(graph, list(outputs)))
        if not judge.compare(judge.original).satisfied:
            what = (
                "Compare between original_accuracy and original_accuracy can not satisfy the acc requirement, "
                "please check the metric_eval() function"
            )
            hint = "metric_eval(original, original) must return (True, loss): a model that loses nothing is good enough"
            raise RequirementError(type(evaluator).__name__, what, hint=hint)
        return judge

    def calibrate(self, graph: Any, guard: Guard) -> None:
        """Let the evaluator run a graph. What it raises is raised as it is, but errors of probes are their own."""
        try:
            self.evaluator.calibration(graph, list(self.outputs))
        except Exception as error:
            if guard.error is not None:
                raise guard.error from error
            raise
        if guard.error is not None:
            raise guard.error

    def evaluate(self, graph: Any) -> Judgement:
        """Evaluate a quantized model, a tf.Graph, and compare."""
        return self.compare(self.evaluator.evaluate(graph, list(self.outputs)))

    def compare(self, metric: Any) -> Judgement:
        """What the evaluator says of a metric. Raises DataError where that is not a pair of bool and loss."""
        answer = self.evaluator.metric_eval(self.original, metric)
        if not isinstance(answer, tuple | list) or len(answer) != 2 or not isinstance(answer[0], bool | np.bool_):
            what = f"metric_eval() returned {answer!r}"
            raise DataError(type(self.evaluator).__name__, what, hint="it must return (satisfied, loss), a bool first")
        return Judgement(bool(answer[0]), answer[1])


def in_short(metric: Any) -> str:
    """A metric of any kind in one line that is not too long."""
    return shorten(str(metric), 100)
