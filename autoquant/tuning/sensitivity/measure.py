"""The sensitivity of layers, by gradients where there are any, else measured; of all layers of a model at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from types import MappingProxyType

from autoquant.calibration.plan import LayerPlan, layer_plan
from autoquant.calibration.ranges import Ifmr, MinMax, Percentile, RangeAlgorithm
from autoquant.errors import ModelError, TrialError
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.data.splits import CALIBRATION_SAMPLES
from autoquant.evaluation.engines.table import open_engine
from autoquant.evaluation.metrics.metric import OnProgress
from autoquant.evaluation.passes import CalibrationRunner, batches_in
from autoquant.model.layer import Layer
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.model import Model
from autoquant.quiet import no_progress
from autoquant.targets.table import TARGETS, open_target
from autoquant.tuning.repairs.equalization import equalized
from autoquant.tuning.sensitivity.divergence import divergence
from autoquant.tuning.sensitivity.request import Candidates, Sensitivities, SensitivityRequest
from autoquant.tuning.study.workload import Workload

SETTINGS: Mapping[str, RangeAlgorithm] = MappingProxyType(
    {"ifmr": Ifmr(), "minmax": MinMax(), "percentile": Percentile()}
)
"""Range algorithms that an overview compares, the default first; all else is as `layer_plan` has it."""


def measure_sensitivity(request: SensitivityRequest) -> Sensitivities:
    """Sensitivity of every candidate by the way that is open, and why by that one.

    Raises ModelError, with both reasons, where none is, and PlanError where a layer cannot have the settings or the
    statistics lack what they want.
    """
    if isinstance(request.model.program, LiteGraph):
        reason = "a .tflite has no gradients"
    else:
        from autoquant.tuning.sensitivity.fisher import fisher

        try:
            return fisher(request)
        except (ModelError, TrialError) as error:
            reason = f"{error.where}: {error.what}"
    try:
        return divergence(request, reason=reason)
    except (ModelError, TrialError) as error:
        what = f"its sensitivity cannot be found: {reason}; on LiteRT, {error.where}: {error.what}"
        raise ModelError(request.model.name, what, hint=error.hint) from error


def calibrated_request(
    model: Model,
    data: Dataset,
    candidates: Candidates,
    *,
    batch_size: int,
    batch_num: int,
    of_classes: bool = True,
    equalize: bool = False,
    on_progress: OnProgress = no_progress,
) -> SensitivityRequest:
    """A request for those candidates whose layers the model has, which is calibrated as it is given, or equalized.

    Layers are called as those of any target. Raises as `CalibrationRunner.statistics` and `equalized`.
    """
    target = open_target("litert" if isinstance(model.program, LiteGraph) else "tensorflow")
    engine = open_engine(TARGETS[target.name].runtime)
    layers = Workload.of(target, model, data).layers
    if equalize:
        model = equalized(model, layers, CalibrationRunner(engine, data, batch_size), batch_num)
    known = {name: each for name, each in candidates.items() if name in layers}
    statistics = CalibrationRunner(engine, data, batch_size, on_progress).statistics(
        model,
        {name: layers[name] for name in known},
        [batch_num],
        tensors=target.tensors(model, layers),
        balanced=[name for name, each in known.items() if any(one.dmq is not None for one in each)],
    )
    return SensitivityRequest(
        model=model, layers=layers, candidates=known, statistics=statistics, data=data, of_classes=of_classes
    )


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


def measure_overview(model: Model, layers: Mapping[str, Layer], data: Dataset, *, batch_size: int) -> Overview:
    """Calibrate a model as it is given, and find the sensitivity of those `layers` that it has.

    `layers` are those of any target, whose names are the same. Raises as `measure_sensitivity`.
    """
    batches = min(batches_in(data, batch_size), -(-CALIBRATION_SAMPLES // batch_size))
    candidates = {
        name: [layer_plan(layer, LayerPlan(one)) for one in SETTINGS.values()] for name, layer in layers.items()
    }
    request = calibrated_request(model, data, candidates, batch_size=batch_size, batch_num=batches)
    return Overview(measure_sensitivity(request))
