"""What a model's layers cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autoquant.calibration.plan import Plan
from autoquant.evaluation.data import Dataset
from autoquant.model.layers import Layer, survey
from autoquant.model.model import Model

MACS = "multiply-adds"


@dataclass(frozen=True)
class Workload:
    """Layers by name, and the cost of each: multiply-adds for one sample.

    Where not all multiply-adds are known, parameters stand for them; `unit` says which.
    """

    layers: Mapping[str, Layer]
    costs: Mapping[str, int]
    unit: str

    @classmethod
    def of(cls, model: Model, data: Dataset) -> Workload:
        """Look at the model with the shapes of the data's first sample. Raises ModelError without any layer."""
        sample = next(data.batches(1))
        shapes = {name: array.shape for name, array in sample.inputs.items()}
        layers = {layer.name: layer for layer in survey(model.graph, input_shapes=shapes).layers}
        macs = {name: layer.macs for name, layer in layers.items() if layer.macs is not None}
        if len(macs) == len(layers):
            return cls(layers, macs, MACS)
        return cls(layers, {name: layer.parameters for name, layer in layers.items()}, "parameters")

    def int8_share(self, plan: Plan) -> float:
        """Share of the cost of all quantizable layers that a plan puts into INT8, in [0, 1]."""
        return sum(self.costs[name] for name in plan.int8) / sum(self.costs.values())
