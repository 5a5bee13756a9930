"""A live tf.Graph, read as a model: normalized, with its layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from autoquant.calibration.plan import Plan
from autoquant.errors import ModelError, PlanError, UsageError
from autoquant.model.fusion import EVERYTHING, Fusion
from autoquant.model.graph import Graph
from autoquant.model.interface import chosen, found_inputs, found_outputs
from autoquant.model.layer import Layer, Survey
from autoquant.model.layers import survey
from autoquant.model.names import canonical
from autoquant.model.opening import prepared
from autoquant.model.shapes import tensor_name

CALIBRATED = "autoquant_calibrated"
"""The collection of a tf.Graph that holds the names of its probes."""


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
        outputs = tuple(dict.fromkeys([*chosen(loaded).outputs, *map(canonical, outputs)]))
    normalized = prepared(loaded, outputs=outputs, fusion=fusion)
    return LiveModel(normalized, survey(normalized))


def check_no_correction(plan: Plan) -> None:
    """Raise PlanError where biases are to be corrected, which takes data beyond what a graph calibrates itself with."""
    if plan.bias_correction != "none":
        what = f"biases corrected ({plan.bias_correction}) are not supported for graphs that calibrate themselves"
        raise PlanError("autoquant.bias_correction", what, hint="remove it, or give the config to `autoquant quantize`")


def live_activations(graph: Any, layer: Layer) -> list[Any]:
    """The tensors of a tf.Graph that a layer of it reads as data. Raises ModelError where one is not to be found."""
    try:
        graph.get_operation_by_name(layer.node)
        return [graph.get_tensor_by_name(tensor_name(tensor)) for tensor in layer.activations]
    except KeyError as error:
        what = f"what it reads was made by rewriting the graph ({error.args[0]})"
        hint = "switch quant_enable off for it, or add it to skip_fusion_layers"
        raise ModelError(layer.name, what, hint=hint) from None
