"""Plans that equalize: a second model of the same layers, made and calibrated when the first of them comes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

from autoquant.cache import digest_of
from autoquant.calibration.plan import Plan
from autoquant.evaluation.passes import CalibrationRunner
from autoquant.model.layer import Layer
from autoquant.model.model import Model
from autoquant.quantization.equalize import VERSION
from autoquant.targets.base import Compiler, Target


class Prepared(NamedTuple):
    """A calibrated model in the form that the target lowered, equalized or not, and what makes INT8 files of it."""

    model: Model
    compiler: Compiler


class PreparedByPlan:
    """What a plan quantizes: the model as it is, or equalized; each is prepared when the first plan needs it."""

    def __init__(self, prepare: Callable[[bool], Prepared]) -> None:
        """`prepare` is told whether to equalize."""
        self._prepare = prepare
        self._ready: dict[bool, Prepared] = {}

    def __call__(self, plan: Plan) -> Prepared:
        """What the plan quantizes. Raises as what prepares it."""
        if plan.equalize not in self._ready:
            self._ready[plan.equalize] = self._prepare(plan.equalize)
        return self._ready[plan.equalize]


def equalized(
    target: Target, model: Model, layers: Mapping[str, Layer], calibrating: CalibrationRunner, batch_num: int
) -> Model:
    """The equalized model of a lowered one, with a digest of its own; the same where there is nothing to do.

    What it takes to absorb biases is seen in `batch_num` batches. Raises as `Target.equalized` and as
    `CalibrationRunner.moments`.
    """
    made = target.equalized(model, layers, lambda axes: calibrating.moments(model, axes, batch_num))
    if made is model:
        return model
    seen = (calibrating.engine.version, calibrating.data.digest, calibrating.batch_size, batch_num)
    return replace(made, digest=digest_of("equalized", VERSION, model.digest, *seen))
