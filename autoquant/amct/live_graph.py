"""A live tf.Graph: read as a model, and watched while sessions run it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

from autoquant.errors import ModelError, UsageError
from autoquant.model.graph import Graph
from autoquant.model.interface import found_inputs, found_outputs, select_interface
from autoquant.model.layer import Layer, Survey
from autoquant.model.layers import survey
from autoquant.model.model import EVERYTHING, Fusion
from autoquant.model.open import prepare_graph
from autoquant.model.operators import canonical
from autoquant.model.shapes import tensor_name

CALIBRATED = "autoquant_calibrated"
"""The collection of a tf.Graph that holds the names of its calibration's probes."""


@dataclass(frozen=True)
class LiveModel:
    """What a tf.Graph computes, normalized, and its layers; the tf.Graph is as it was."""

    graph: Graph
    survey: Survey


def read_live(graph: Any, *, fusion: Fusion = EVERYTHING, outputs: Sequence[str] = ()) -> LiveModel:
    """Read a tf.Graph: from its Placeholders to whatever nobody reads, and to `outputs` that are inside of it.

    Raises UsageError for what is not a tf.Graph, or one that is being calibrated, and otherwise as `open_model`: for
    variables, for batch norms in training mode, for quantized models, for layers in `fusion` that are none.
    """
    import tensorflow as tf

    if not isinstance(graph, tf.Graph):
        what = f"expected a tf.Graph, got {type(graph).__name__}"
        raise UsageError("graph", what, hint="import the frozen .pb into a tf.Graph, and give that")
    if graph.get_collection(CALIBRATED):
        what = "quantize_model has been called on it already"
        raise UsageError("graph", what, hint="import the .pb into a new tf.Graph, and give that")
    loaded = Graph.from_graph_def(graph.as_graph_def(), inputs=(), outputs=())
    loaded = replace(loaded, inputs=found_inputs(loaded))
    if not found_outputs(loaded):
        what = "none of its outputs depends on a Placeholder"
        hint = "import the frozen .pb by itself into a new tf.Graph, and feed its inputs, without a tf.data pipeline"
        raise ModelError("graph", what, hint=hint)
    if outputs:
        outputs = tuple(dict.fromkeys([*select_interface(loaded).outputs, *map(canonical, outputs)]))
    normalized = prepare_graph(loaded, outputs=outputs, fusion=fusion)
    return LiveModel(normalized, survey(normalized))


def live_activations(graph: Any, layer: Layer) -> list[Any]:
    """The tensors of a tf.Graph that a layer of it reads as data. Raises ModelError where one is not to be found."""
    try:
        graph.get_operation_by_name(layer.node)
        return [graph.get_tensor_by_name(tensor_name(tensor)) for tensor in layer.activations]
    except KeyError as error:
        what = f"what it reads was made by rewriting the graph ({error.args[0]})"
        hint = "switch quant_enable off for it, or add it to skip_fusion_layers"
        raise ModelError(layer.name, what, hint=hint) from None


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

        def call(*arrays: Any) -> None:
            self.call(read, *arrays)

        with graph.as_default():
            probe = tf.numpy_function(call, list(tensors), [], name=name)
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
