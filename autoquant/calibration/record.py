"""What was measured under a plan: scale and offset of every INT8 layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from autoquant.calibration.plan import LayerPlan, Plan, check_plan
from autoquant.calibration.ranges import RangeAlgorithm
from autoquant.calibration.statistics import Statistics
from autoquant.errors import TrialError
from autoquant.model.graph import Graph
from autoquant.model.layers import Layer
from autoquant.quantization.affine import Affine, Range, asymmetric, symmetric
from autoquant.quantization.weights import weight_scales


@dataclass(frozen=True, slots=True)
class LayerRecord:
    """Scale and offset of a layer's input (`_d`) and of its weight (`_w`, one for all or one per output channel).

    Scales are real units a step, exact in float32; the weight's offsets are 0.
    """

    activation: Affine
    scale_w: tuple[float, ...]

    def __post_init__(self) -> None:
        with np.errstate(over="ignore"):
            exact = np.array(self.scale_w, np.float32)
        if (
            not self.scale_w
            or not np.array_equal(exact, self.scale_w)
            or not (0.0 < exact.min() <= exact.max() < np.inf)
        ):
            raise ValueError("scale_w must hold positive finite float32 numbers")


Record = Mapping[str, LayerRecord]


class Calibrator:
    """Turns plans into records from statistics alone; what two plans have in common is computed once."""

    def __init__(self, graph: Graph, layers: Mapping[str, Layer], statistics: Statistics) -> None:
        self._graph = graph
        self._layers = layers
        self._statistics = statistics
        self._ranges: dict[tuple[str, int, RangeAlgorithm, bool], Range] = {}
        self._weights: dict[tuple[str, bool], tuple[float, ...]] = {}

    def record(self, plan: Plan) -> Record:
        """Scale and offset of every INT8 layer of the plan.

        Raises PlanError where the model cannot follow the plan or the statistics lack what it wants, and TrialError
        where a layer's values have no scale.
        """
        check_plan(plan, self._layers)
        record = {}
        for name in self._layers:  # in graph order, whatever the order of the plan
            settings = plan.layers.get(name)
            if settings is None:
                continue
            record[name] = LayerRecord(
                self._activation(name, settings, plan.batch_num), self._scales(name, settings.channel_wise)
            )
        return record

    def _activation(self, name: str, settings: LayerPlan, batch_num: int) -> Affine:
        symmetric_wanted = not settings.asymmetric
        tensor = self._layers[name].activation
        key = (tensor, batch_num, settings.activation, symmetric_wanted)
        if key not in self._ranges:
            seen = self._statistics.sketch(tensor, batch_num)
            hint = "leave the layer in float, or repair the calibration data"
            if seen.nonfinite:
                raise TrialError(name, f"its input held {seen.nonfinite} NaN or infinite values", hint=hint)
            if not seen.count:
                raise TrialError(name, "its input was empty in every calibration batch", hint=hint)
            self._ranges[key] = settings.activation(seen, symmetric=symmetric_wanted)
        try:
            return (symmetric if symmetric_wanted else asymmetric)(self._ranges[key])
        except ValueError as error:
            raise TrialError(name, f"calculate scale failed: {error}", hint="leave the layer in float") from error

    def _scales(self, name: str, channel_wise: bool) -> tuple[float, ...]:
        layer = self._layers[name]
        if (name, channel_wise) not in self._weights:
            weight = self._graph.constant(layer.weight)
            assert weight is not None, name
            axes = layer.channel_axes if channel_wise else None
            self._weights[name, channel_wise] = tuple(map(float, weight_scales(name, weight, axes)))
        return self._weights[name, channel_wise]
