"""What a model's layers cost, and what of that a search minimizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from autoquant.calibration.plan import Plan
from autoquant.evaluation.data.dataset import Dataset
from autoquant.model.layer import Layer
from autoquant.model.model import Model
from autoquant.targets.base import Target
from autoquant.tuning.study.trial import count_layers

MACS = "multiply-adds"


@dataclass(frozen=True)
class Workload:
    """All that a plan may name, and what it costs: multiply-adds for one sample; an operator's input costs nothing.

    Where not all multiply-adds are known, parameters stand for them, and layers where there are none; `unit` says what.
    """

    layers: Mapping[str, Layer]
    costs: Mapping[str, int]
    unit: str

    @classmethod
    def of(cls, target: Target, model: Model, data: Dataset) -> Workload:
        """Look at a lowered model with the shapes of the data's first sample. Raises ModelError without any layer."""
        sample = next(data.batches(1))
        shapes = {name: array.shape for name, array in sample.inputs.items()}
        return cls.from_layers(target.survey(model, shapes).by_name)

    @classmethod
    def from_layers(cls, layers: Mapping[str, Layer]) -> Workload:
        """What these layers cost."""
        macs = {name: layer.macs for name, layer in layers.items() if layer.macs is not None}
        if len(macs) == len(layers) and any(macs.values()):
            return cls(layers, macs, MACS)
        parameters = {name: layer.parameters for name, layer in layers.items()}
        if any(parameters.values()):
            return cls(layers, parameters, "parameters")
        return cls(layers, {name: int(not layer.tensor_only) for name, layer in layers.items()}, "layers")

    @property
    def size(self) -> int:
        """Number of layers."""
        return count_layers(self.layers)

    def int8_share(self, plan: Plan) -> float:
        """Share of the cost of all layers that a plan puts into INT8, in [0, 1]."""
        return sum(self.costs[name] for name in plan.int8) / sum(self.costs.values())


class Objective(Protocol):
    """What is minimized. `lowest` is what no plan of the search can go below."""

    @property
    def name(self) -> str:
        """What `--objective` calls it."""
        ...

    @property
    def lowest(self) -> float:
        """No plan of the space has less; whether one has just that is not said."""
        ...

    def __call__(self, plan: Plan) -> float:
        """The value of a plan."""
        ...
