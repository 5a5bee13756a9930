"""A live tf.Graph: read as a model, and watched while sessions run it, for what its INT8 layers read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from types import MappingProxyType
from typing import Any

import numpy as np

from autoquant.amct.live_sources import stand_ins, variables_of, with_fed_batches, with_values
from autoquant.array import Array
from autoquant.calibration.channels import ChannelCollector
from autoquant.calibration.distribution import Collector
from autoquant.calibration.plan import LayerPlan, Plan
from autoquant.calibration.statistics import Statistics, collector
from autoquant.errors import ModelError, TrialError, UsageError
from autoquant.model.graph import Graph
from autoquant.model.inference import inference_graph
from autoquant.model.interface import find_inputs, find_outputs
from autoquant.model.layer import Layer, Survey
from autoquant.model.model import EVERYTHING, Fusion
from autoquant.model.open import prepare_graph
from autoquant.model.operators import canonical, node_of
from autoquant.model.shapes import tensor_of
from autoquant.model.survey import survey_graph

CALIBRATED = "autoquant_calibrated"
"""The collection of a tf.Graph that holds the names of its calibration's probes."""
REMOVED = frozenset({"CheckNumerics", "Identity", "Mul", "RealDiv", "Select", "SelectV2", "Snapshot", "StopGradient"})
"""Operators that normalization bypasses: those that give what they read, and those of Dropout."""


@dataclass(frozen=True)
class LiveModel:
    """What a tf.Graph computes, normalized, and its layers; the tf.Graph is as it was.

    `variables` are the tensors that give the values of its variables, for which constants stand in `graph`; `renamed`
    says what tensors are called in the tf.Graph that have another name here.
    """

    graph: Graph
    survey: Survey
    variables: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    _source: Graph | None = None
    _fusion: Fusion = EVERYTHING

    def with_values(self, values: Mapping[str, Array]) -> LiveModel:
        """The same with these values of its variables."""
        if self._source is None or not values:
            return self
        graph = prepare_graph(with_values(self._source, values), outputs=self.graph.outputs, fusion=self._fusion)
        return replace(self, graph=graph, survey=survey_graph(graph))


def check_live(graph: Any) -> None:
    """Raise UsageError for what is not a tf.Graph, or one that is being calibrated."""
    import tensorflow as tf

    if not isinstance(graph, tf.Graph):
        what = f"expected a tf.Graph, got {type(graph).__name__}"
        raise UsageError("graph", what, hint="import the frozen .pb into a tf.Graph, and give that")
    if graph.get_collection(CALIBRATED):
        what = "quantize_model has been called on it already"
        raise UsageError("graph", what, hint="import the .pb into a new tf.Graph, and give that")


def read_live(graph: Any, *, fusion: Fusion = EVERYTHING, outputs: Sequence[str] = ()) -> LiveModel:
    """Read a tf.Graph: from its Placeholders to whatever nobody reads, and to `outputs` that are inside of it.

    A pipeline in the graph counts as a Placeholder, variables as constants whose values are not known yet. Raises as
    `check_live`, and otherwise as `open_model`: for variables that functions read, for batch norms in training mode,
    for quantized models, for layers in `fusion` that are none.
    """
    check_live(graph)
    loaded = inference_graph(graph.as_graph_def(), keep_calls=True)
    loaded, renamed = with_fed_batches(loaded, graph)
    loaded = replace(loaded, inputs=find_inputs(loaded))
    ends = find_outputs(loaded)
    if not ends:
        what = "none of its outputs depends on a Placeholder, or on a tf.data pipeline through a layer"
        raise ModelError("graph", what, hint="import the frozen .pb by itself into a new tf.Graph, and feed its inputs")
    if outputs:
        outputs = tuple(dict.fromkeys([*ends, *map(canonical, outputs)]))
    needed = [output for output in outputs or ends if node_of(output) in loaded.nodes]
    values = stand_ins(graph, variables_of(loaded, needed))
    normalized = prepare_graph(with_values(loaded, values), outputs=outputs, fusion=fusion)
    return LiveModel(normalized, survey_graph(normalized), tuple(values), renamed, loaded, fusion)


def live_activations(graph: Any, layer: Layer, renamed: Mapping[str, str] = MappingProxyType({})) -> list[Any]:
    """The tensors of a tf.Graph that a layer of it reads as data. Raises ModelError where one is not to be found.

    What normalization has removed before the layer is there: a session may be fed the result of a Dropout.
    """
    try:
        operator = graph.get_operation_by_name(layer.node)
        activations = [tensor_of(graph, renamed.get(tensor, tensor)) for tensor in layer.activations]
    except KeyError as error:
        what = f"what it reads was made by rewriting the graph ({error.args[0]})"
        hint = "switch quant_enable off for it, or add it to skip_fusion_layers"
        raise ModelError(layer.name, what, hint=hint) from None
    if operator.type != layer.op:  # normalization has put another in its place
        return activations
    inputs = [operator.inputs[place] for place in layer.places]
    return [own if _keeps(own, tensor) else tensor for own, tensor in zip(inputs, activations, strict=True)]


def _keeps(tensor: Any, source: Any) -> bool:
    """Whether a tf.Tensor is another one, or that with nothing but what normalization removes in between."""
    stack, seen = [tensor], set()
    while stack:
        one = stack.pop()
        if one.name == source.name:
            return True
        if one.name not in seen and one.op.type in REMOVED:
            seen.add(one.name)
            stack.extend(one.op.inputs)
    return False


class Probes:
    """Python functions that read tensors of a tf.Graph whenever sessions run operators of it.

    `error` is the first that one of them raised: TensorFlow turns it into an error of its own, which a user's evaluator
    may swallow.
    """

    def __init__(self) -> None:
        self.error: Exception | None = None
        self._lock = Lock()

    def attach(self, graph: Any, node: str, tensors: Sequence[Any], read: Callable[..., None], *, name: str) -> Any:
        """Call `read` with the values of `tensors` before each run of the operator `node` of a tf.Graph.

        No tensor of the graph gets another name or another reader, so whatever the user runs keeps working. `tensors`
        must not depend on `node`. `read` gets one array each, which is TensorFlow's own memory: copy what is kept. No
        two probes are called at the same time, whatever number of threads run sessions. What `read` raises ends the
        session's run, whose error then holds the message. Sessions that ran `node` before do not notice the change:
        TensorFlow runs the graph that it knows.

        Returns the tf.Operation, called `name`.
        """
        import tensorflow as tf

        with graph.as_default():
            probe = tf.numpy_function(lambda *arrays: self.call(read, *arrays), list(tensors), [], name=name)
        graph.get_operation_by_name(node)._add_control_input(probe)
        return probe

    def call(self, read: Callable[..., None], *arrays: Any) -> None:
        """Call a function as its probe does."""
        with self._lock:
            try:
                read(*arrays)
            except Exception as error:
                self.error = self.error or error
                raise

    def raise_error(self, cause: Exception | None = None) -> None:
        """Raise the first error of a probe, if there is one, in place of what became of it."""
        if self.error is not None:
            raise self.error from cause


class LayerInputs:
    """Collects what the INT8 layers of a plan read, of each in its first `batch_num` passes.

    What several of them read is collected once, from the first of them. All values of a tensor are kept where one of
    its layers has an algorithm that wants them, unless the plan says otherwise (`exact` False). Where channels are
    balanced, each of them is collected by itself.
    """

    def __init__(self, plan: Plan, layers: Mapping[str, Layer], *, refuse_nan: bool = False) -> None:
        """`refuse_nan` raises for NaN and infinity at once, not only when scales are computed."""
        self.passes: dict[str, set[int]] = {name: set() for name in layers if name in plan.int8}
        self._batch_num = plan.batch_num
        self._refuse_nan = refuse_nan
        self._exact = {
            tensor
            for name in plan.int8.keys() - plan.sketched
            for tensor in layers[name].activations
            if plan.exact is not False
        }
        self._tensors: dict[str, Collector] = {}
        self._channels: dict[tuple[str, int], ChannelCollector] = {}
        self._collectors = {name: list(self._new(layers[name], settings)) for name, settings in plan.int8.items()}

    def add(self, name: str, *activations: Array, number: int | None = None) -> None:
        """Take in what a layer reads in one pass, which has this number, or else the next one.

        Raises TrialError where it is too large to keep all values.
        """
        passes = self.passes[name]
        if len(passes) == self._batch_num:
            return
        passes.add(len(passes) if number is None else number)
        if self._refuse_nan:
            wrong = sum(values.size - int(np.count_nonzero(np.isfinite(values))) for values in activations)
            if wrong:
                what = f"its input holds {wrong} NaN or infinite values in pass {len(passes)}"
                hint = "leave the layer in float (quant_enable false), or repair the data or model"
                raise TrialError(name, what, hint=hint)
        for index, taker in self._collectors[name]:
            taker.add(activations[index])

    @property
    def waiting(self) -> Mapping[str, int]:
        """The layers that have not read all passes, and how many they have."""
        return {name: len(passes) for name, passes in self.passes.items() if len(passes) < self._batch_num}

    def statistics(self) -> Statistics:
        """What has been collected, which it lets go of. Raises TrialError where there is no memory to sort values."""
        tensors = {tensor: one.distribution() for tensor, one in self._tensors.items()}
        channels = {place: one.channels() for place, one in self._channels.items()}
        for collectors in (self._tensors, self._channels, self._collectors):
            collectors.clear()
        return Statistics("live", {self._batch_num: tensors}, {self._batch_num: channels})

    def _new(self, layer: Layer, settings: LayerPlan) -> Iterator[tuple[int, Collector | ChannelCollector]]:
        """Collectors for those inputs of a layer that have none yet, each with the number of the input."""
        if settings.dmq is not None:
            place = layer.activations[0], layer.data_axis
            if place not in self._channels:
                exact = place[0] in self._exact
                self._channels[place] = ChannelCollector(layer.name, layer.data_axis, exact=exact)
                yield 0, self._channels[place]
            return
        for index, tensor in enumerate(layer.activations):
            if tensor not in self._tensors:
                self._tensors[tensor] = collector(layer.name, exact=tensor in self._exact)
                yield index, self._tensors[tensor]
