"""The user's evaluator: what it overrides, and what it says of the float model and of others compared with that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import numpy as np

from autoquant.amct.arguments import check_object, not_overridden
from autoquant.errors import AutoquantError, DataError
from autoquant.evaluation.metrics.metric import OnProgress, Score
from autoquant.evaluation.scoring.stopping import SequentialScore, StoppingRules
from autoquant.targets.base import OnStep
from autoquant.tuning.study.trial import Trial
from autoquant.tuning.trial_steps import order_of

if TYPE_CHECKING:
    from autoquant.amct.live_graph import Probes

METHODS = ("calibration", "evaluate", "metric_eval")
HINT = "override it in the evaluator's class"


class AutoCalibrationEvaluatorBase:
    """What a user's evaluator overrides (AMCT, section 5 of its interface).

    `graph` is a tf.Graph with the names of the model file, `outputs` are the names of its output tensors, as given.
    """

    def calibration(self, graph: Any, outputs: Sequence[str]) -> None:
        """Run the outputs in a session, once for each batch of calibration data."""
        raise not_overridden(self, "calibration(graph, outputs)", hint=HINT)

    def evaluate(self, graph: Any, outputs: Sequence[str]) -> Any:
        """The metric of the graph on the evaluation data; any object that `metric_eval` understands."""
        raise not_overridden(self, "evaluate(graph, outputs)", hint=HINT)

    def metric_eval(self, original_metric: Any, new_metric: Any) -> tuple[bool, Any]:
        """Whether the new metric satisfies the requirement, and the loss against the original one, a number."""
        raise not_overridden(self, "metric_eval(original_metric, new_metric)", hint=HINT)


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


class EvaluatorError(Exception):
    """Carries an error of the evaluator past the trial loop, which would take it for a failure of the plan."""

    def __init__(self, raised: Exception) -> None:
        super().__init__(raised)
        self.raised = raised


@dataclass(frozen=True)
class Judge:
    """An evaluator, the outputs that it is to run, and the metric of the float model; scores trials for a session."""

    evaluator: Any
    outputs: tuple[str, ...]
    original: Any = field(repr=False)
    _judgements: dict[int, Judgement] = field(default_factory=dict)

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

    def calibrate(self, graph: Any, probes: Probes) -> None:
        """Let the evaluator run a graph. What it raises is raised as it is, but errors of probes are their own."""
        try:
            self.evaluator.calibration(graph, list(self.outputs))
        except Exception as error:
            probes.raise_error(error)
            raise
        probes.raise_error()

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

    def score(self, path: Path, rules: StoppingRules, on_step: OnStep, on_progress: OnProgress) -> SequentialScore:
        """As Scorer has it; the score is the loss, the drop how far the model is from satisfying.

        What the evaluator raises is raised in an EvaluatorError, where the trial loop would catch it.
        """
        graph = load_saved(path)
        on_step("load")
        try:
            judgement = self.evaluate(graph)
        except (AutoquantError, MemoryError) as error:
            raise EvaluatorError(error) from error
        on_step("score")
        self._judgements[rules.order] = judgement
        drop = judgement.violation
        score = Score(drop if judgement.number is None else judgement.number, np.zeros(0))
        return SequentialScore(1, score, drop, drop, drop, judgement.satisfied, (), 0)

    def judgement_of(self, trial: Trial) -> Judgement:
        """What the evaluator said of a trial that ended."""
        return self._judgements.get(order_of(trial.plan), FAILED)


def load_saved(path: Path) -> Any:
    """A saved .pb as a tf.Graph. Raises TrialError."""
    from autoquant.evaluation.engines.tensorflow import tf_graph_of
    from autoquant.model.graph import GraphDef

    return tf_graph_of(GraphDef.FromString(path.read_bytes()), path.name)


def in_short(metric: Any) -> str:
    """A metric of any kind in one line that is not too long."""
    return shorten(str(metric), 100)
