"""The sensitivity of layers, by gradients where there are any, else measured; of all layers of a model at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from math import isfinite
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from autoquant.calibration.outliers import WideRange, wide_ranges
from autoquant.calibration.plan import LayerPlan, Plan, adapt_plan, layer_plan
from autoquant.calibration.ranges import Ifmr, MinMax, Percentile, RangeAlgorithm
from autoquant.calibration.record import Calibrator
from autoquant.errors import ModelError, TrialError
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.data.splits import CALIBRATION_SAMPLES
from autoquant.evaluation.engines.engine import of_bounded_outputs
from autoquant.evaluation.engines.table import open_engine
from autoquant.evaluation.metrics.divergence import cosine_similarity
from autoquant.evaluation.metrics.metric import OnProgress
from autoquant.evaluation.passes import CalibrationRunner, batches_in
from autoquant.model.layer import Layer
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.model import Model
from autoquant.model.operators import node_of
from autoquant.quiet import no_progress
from autoquant.targets.table import TARGETS, open_target
from autoquant.tuning.repairs.equalization import equalized
from autoquant.tuning.sensitivity.divergence import divergence
from autoquant.tuning.sensitivity.likelihoods import PLAIN, OutputReading
from autoquant.tuning.sensitivity.request import Candidates, Sensitivities, SensitivityRequest
from autoquant.tuning.study.workload import Workload

if TYPE_CHECKING:  # which loads TensorFlow
    from autoquant.model.graph import Graph

SETTINGS: Mapping[str, RangeAlgorithm] = MappingProxyType(
    {"ifmr": Ifmr(), "minmax": MinMax(), "percentile": Percentile()}
)
"""Range algorithms that an overview compares, the default first; all else is as `layer_plan` has it."""

BATCH = 64
FLOAT = "autoquant/float/"
"""What the names of a layer's float nodes begin with, beside its INT8 ones."""


def measure_sensitivity(request: SensitivityRequest) -> Sensitivities:
    """Sensitivity of every candidate by the way that is open, and why by that one.

    Raises ModelError, with both reasons, where none is, and PlanError where a layer cannot have the settings or the
    statistics lack what they want.
    """
    request.on_progress(0, 0)
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
    reading: OutputReading = PLAIN,
    equalize: bool = False,
    on_calibration: OnProgress = no_progress,
    on_progress: OnProgress = no_progress,
) -> SensitivityRequest:
    """A request for those candidates whose layers the model has, which is calibrated as it is given, or equalized.

    Layers are called as those of any target. `on_progress` is that of the request. Raises as
    `CalibrationRunner.statistics` and `equalized`.
    """
    target = open_target("litert" if isinstance(model.program, LiteGraph) else "tensorflow")
    engine = open_engine(TARGETS[target.name].runtime)
    layers = Workload.of(target, model, data).layers
    if equalize:
        model = equalized(model, layers, CalibrationRunner(engine, data, batch_size, on_calibration), batch_num)
    known = {name: each for name, each in candidates.items() if name in layers}
    statistics = CalibrationRunner(engine, data, batch_size, on_calibration).statistics(
        model,
        {name: layers[name] for name in known},
        [batch_num],
        tensors=target.tensors(model, layers),
        balanced=[name for name, each in known.items() if any(one.dmq is not None for one in each)],
    )
    return SensitivityRequest(
        model=model,
        layers=layers,
        candidates=known,
        statistics=statistics,
        data=data,
        reading=reading,
        on_progress=on_progress,
    )


def cosines(request: SensitivityRequest) -> Mapping[str, float]:
    """AMCT's ranking: the cosine of each layer's float and INT8 outputs, its first candidate, over all samples.

    For the layers of a TensorFlow graph. The INT8 output is that of the layer alone, from what it reads in float.
    In [-1, 1]; 1 where both have the same direction or the float output is all 0. A layer that cannot be quantized has
    -infinity, so that it is the first to stay in float; settings that AMCT has not become those that it has. Raises
    TrialError where the model does not run.
    """
    from autoquant.targets.tensorflow import quantize

    graph, data = request.model.graph, request.sample_subset
    calibrator, found = Calibrator(graph, request.layers, request.statistics), dict[str, float]()
    for done, (name, each) in enumerate(request.candidates.items()):
        request.on_progress(done, len(request.candidates))
        layer = request.layers[name]
        result = layer.bias or layer.node
        try:
            plan = adapt_plan(Plan({name: each[0]}, request.batches), request.layers).plan
            alone = quantize(graph, request.layers, calibrator.record(plan))
        except TrialError:
            found[name] = -np.inf
            continue
        both = replace(alone.edit(put=_float_nodes(graph, layer)), outputs=(result, FLOAT + result)).pruned()
        with closing(open_engine("tensorflow").open_graph(both, both.outputs)) as runner:
            outputs = map(
                runner, (batch.inputs for batch in of_bounded_outputs(runner, data.batches(BATCH), data.inputs))
            )
            found[name] = cosine_similarity((one[FLOAT + result], one[result]) for one in outputs)
    return found


def _float_nodes(graph: Graph, layer: Layer) -> Iterator[Any]:
    """The nodes of a layer once more, under other names, for a graph in which the layer is INT8."""
    from autoquant.model.nodes import changed_node

    own = graph.ancestors(layer.bias or layer.node).keys() - graph.ancestors(*layer.activations).keys()
    for node in map(graph.nodes.__getitem__, own):
        inputs = (FLOAT + edge if node_of(edge) in own else edge for edge in node.input)
        yield changed_node(node, name=FLOAT + node.name, inputs=inputs)


@dataclass(frozen=True)
class Overview:
    """Sensitivities by layer, one for each of SETTINGS; layers that have none are not there.

    `wide` are the ranges that a few calibration values decide.
    """

    found: Sensitivities
    wide: tuple[WideRange, ...] = ()

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


def measure_overview(
    model: Model,
    layers: Mapping[str, Layer],
    data: Dataset,
    *,
    batch_size: int,
    on_calibration: OnProgress = no_progress,
    on_progress: OnProgress = no_progress,
) -> Overview:
    """Calibrate a model as it is given, and find the sensitivity of those `layers` that it has.

    `layers` are those of any target, whose names are the same. Raises as `measure_sensitivity`.
    """
    batches = min(batches_in(data, batch_size), -(-CALIBRATION_SAMPLES // batch_size))
    candidates = {
        name: [layer_plan(layer, LayerPlan(one)) for one in SETTINGS.values()] for name, layer in layers.items()
    }
    request = calibrated_request(
        model,
        data,
        candidates,
        batch_size=batch_size,
        batch_num=batches,
        on_calibration=on_calibration,
        on_progress=on_progress,
    )
    wide = wide_ranges(request.statistics.tensors[batches], (request.layers[name] for name in request.candidates))
    return Overview(measure_sensitivity(request), wide)
