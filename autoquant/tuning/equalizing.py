"""Plans that equalize: a second model of the same layers, made and calibrated when the first of them comes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from autoquant.calibration.plan import Plan
from autoquant.model.layer import Layer
from autoquant.model.model import Model
from autoquant.quantization.equalize import VERSION
from autoquant.targets.base import Made, Maker, Parts, Target, nobody
from autoquant.tuning.calibrating import Calibrating
from autoquant.tuning.prepare import digest_of


@dataclass(frozen=True)
class MakerByPlan:
    """Makes INT8 files of a model, equalized where a plan says so; the first of those calls `open_equalized`."""

    plain: Maker
    open_equalized: Callable[[], Maker]

    def make(self, plan: Plan, path: Path, on_part: Parts = nobody) -> Made:
        """Write the model. Raises as `Maker.make`, and as what opens the equalized model."""
        return (self._equalized if plan.equalize else self.plain).make(plan, path, on_part)

    @cached_property
    def _equalized(self) -> Maker:
        return self.open_equalized()


def equalized(
    target: Target, model: Model, layers: Mapping[str, Layer], calibrating: Calibrating, batch_num: int
) -> Model:
    """The equalized model of an adopted one, with a digest of its own; the same where there is nothing to do.

    What it takes to absorb biases is seen in `batch_num` batches. Raises as `Target.equalized` and as
    `Calibrating.moments`.
    """
    made = target.equalized(model, layers, lambda axes: calibrating.moments(model, axes, batch_num))
    if made is model:
        return model
    seen = (calibrating.engine.version, calibrating.data.digest, calibrating.batch_size, batch_num)
    return replace(made, digest=digest_of("equalized", VERSION, model.digest, *seen))
