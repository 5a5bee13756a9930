"""The sensitivities of all layers of a model, each with its default settings and with ranges chosen otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from types import MappingProxyType

from autoquant.calibration.plan import layer_plan
from autoquant.calibration.ranges import Ifmr, MinMax, Percentile, RangeAlgorithm
from autoquant.evaluation.data.splits import CALIBRATION_SAMPLES
from autoquant.evaluation.engines.table import open_engine
from autoquant.evaluation.passes import CalibrationRunner, batches_in
from autoquant.model.layer import Layer
from autoquant.model.model import Model, is_lite
from autoquant.targets.table import TARGETS, open_target
from autoquant.tuning.engine_choice import LITERT
from autoquant.tuning.samples import open_dataset
from autoquant.tuning.sensitivity.measure import measure_sensitivity
from autoquant.tuning.sensitivity.request import Sensitivities, SensitivityRequest
from autoquant.tuning.study.choices import TENSORFLOW
from autoquant.tuning.study.request import DataRequest
from autoquant.tuning.study.workload import Workload

SETTINGS: Mapping[str, RangeAlgorithm] = MappingProxyType(
    {"ifmr": Ifmr(), "minmax": MinMax(), "percentile": Percentile()}
)
"""Range algorithms that are compared, the default first; all else is as `layer_plan` has it."""


@dataclass(frozen=True)
class Overview:
    """Sensitivities by layer, one for each of SETTINGS; layers that have none are not there."""

    found: Sensitivities

    @property
    def default(self) -> Mapping[str, float]:
        """With default settings."""
        return {name: values[0] for name, values in self.found.values.items()}

    def best(self, layer: str) -> str | None:
        """The range algorithm with the lowest number, the first of several; None where it cannot be calibrated."""
        values = self.found.values[layer]
        return list(SETTINGS)[values.index(min(values))] if isfinite(min(values)) else None

    def share(self, layer: str) -> float | None:
        """Of the sum over all layers with default settings; None where it cannot be calibrated, or the sum is 0."""
        total = sum(value for value in self.default.values() if isfinite(value))
        value = self.default[layer]
        return value / total if total > 0 and isfinite(value) else None


def look_over(path: str, model: Model, layers: Mapping[str, Layer], request: DataRequest) -> Overview:
    """Calibrate a model as it is given, a file at `path`, and find the sensitivity of those `layers` that it has.

    `layers` are those of the target, whose names are the same. Raises as `measure_sensitivity`.
    """
    own = open_target(LITERT if is_lite(path) else TENSORFLOW)
    data = open_dataset(request, model, request.calibration)
    batches = min(batches_in(data, request.batch_size), -(-CALIBRATION_SAMPLES // request.batch_size))
    workload = Workload.of(own, model, data)
    known = {name: layer for name, layer in layers.items() if name in workload.layers}
    calibration = CalibrationRunner(open_engine(TARGETS[own.name].runtime), data, request.batch_size)
    wanted = {name: workload.layers[name] for name in known}
    statistics = calibration.statistics(model, wanted, [batches], tensors=own.tensors(model, workload.layers))
    candidates = {name: [layer_plan(layer, one) for one in SETTINGS.values()] for name, layer in known.items()}
    asked = SensitivityRequest(
        model=model, layers=workload.layers, candidates=candidates, statistics=statistics, data=data
    )
    return Overview(measure_sensitivity(asked))
