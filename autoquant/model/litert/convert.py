"""A graph of TensorFlow becomes a float .tflite, once a run; its layers are found again among the operators."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from autoquant.errors import ModelError
from autoquant.model.graph import Graph
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.matching import match
from autoquant.model.litert.placeholders import with_ranks
from autoquant.model.litert.tidy import tidy
from autoquant.model.shapes import tensor_name
from autoquant.quiet import stderr_held_back

ANOTHER_TARGET = "or choose --target tensorflow"


def convert(graph: Graph) -> LiteGraph:
    """Convert a normalized graph to a float .tflite with the same inputs and outputs, the batch left open.

    Inputs of unknown rank get the one that the layers behind them need. Raises ModelError, with the operator, where the
    converter refuses.
    """
    model = flatbuffer.read(_converted(with_ranks(graph)))
    _put_in_order(model, graph)
    flatbuffer.add_signature(model, graph.inputs, graph.outputs)
    tidy(model)
    found = match(graph, model)
    return LiteGraph(flatbuffer.write(model), graph.inputs, graph.outputs, found.layers, found.missing, found.ops)


def _converted(graph: Graph) -> bytes:
    import tensorflow as tf
    from tensorflow.lite.python.convert import ConverterError

    graph_def = graph.to_graph_def()

    def build() -> None:
        tf.graph_util.import_graph_def(graph_def, name="")

    wrapped = tf.compat.v1.wrap_function(build, [])
    function = wrapped.prune(
        [wrapped.graph.get_tensor_by_name(tensor_name(name)) for name in graph.inputs],
        [wrapped.graph.get_tensor_by_name(tensor_name(name)) for name in graph.outputs],
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], wrapped)
    try:
        with stderr_held_back():  # the exception says it again
            return bytes(converter.convert())
    except (ConverterError, RuntimeError, ValueError) as error:
        raise _refusal(graph, str(error)) from error


def _refusal(graph: Graph, message: str) -> ModelError:
    """What the converter refuses, from its message."""
    listed = re.findall(r"^(?:TF Select|Custom) ops: (.+)$", message, re.MULTILINE)
    named = re.findall(r"error: '(?:tf|tfl)\.(\w+)' op (.+)$", message, re.MULTILINE)
    ops = sorted({op.strip() for line in listed for op in line.split(",")} or {op for op, _ in named})
    if not ops:
        first = next(iter(message.strip().splitlines()), "it says no reason")
        return ModelError("converter", f"refuses the model: {first}", hint=f"change that, {ANOTHER_TARGET}")
    nodes = [node.name for node in graph.ordered() if node.op in ops]
    where = f"'{nodes[0]}'" + (f" and {len(nodes) - 1} more" if len(nodes) > 1 else "") if nodes else "the model"
    what = "LiteRT has no operator for it" if listed else "; ".join(sorted({reason for _, reason in named}))
    without = f"without {' and '.join(ops)}, cut it off with --inputs or --outputs"
    if any(op.startswith("TensorList") for op in ops):
        without = "with its loop over time steps unrolled (unroll=True in Keras)"
    hint = f"export the model {without}, {ANOTHER_TARGET}"
    return ModelError(f"{where} ({', '.join(ops)})", f"the converter refuses it: {what}", hint=hint)


def _put_in_order(model: Any, graph: Graph) -> None:
    """Let inputs and outputs of the first subgraph stand in the order of the graph's, where their names tell it."""
    lite = model.subgraphs[0]
    lite.inputs = _ordered(lite, lite.inputs, graph.inputs)
    lite.outputs = _ordered(lite, lite.outputs, graph.outputs)


def _ordered(lite: Any, tensors: Sequence[int], names: Sequence[str]) -> list[int]:
    by_name = {flatbuffer.tensor_name(lite.tensors[index]): int(index) for index in tensors}
    return [by_name[name] for name in names] if by_name.keys() == set(names) else [int(index) for index in tensors]
