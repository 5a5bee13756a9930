"""Converts a graph of TensorFlow to a float .tflite, once a run, and finds its layers again among the operators."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from autoquant.errors import ModelError
from autoquant.memory import release_memory
from autoquant.messages import reason
from autoquant.model.graph import Graph
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.cuts import cut, join
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.lists import with_made_lists
from autoquant.model.litert.matching import match
from autoquant.model.litert.put_back import put_back
from autoquant.model.litert.stand_ins import with_stand_ins
from autoquant.model.litert.tidy import tidy
from autoquant.model.model import Shape
from autoquant.model.nodes import channels_first, const_shape
from autoquant.model.operators import OPERATORS, node_of
from autoquant.model.shapes import import_shapes, make_placeholder, placeholder_shape, tensor_of
from autoquant.quiet import stderr_held_back

ANOTHER_TARGET = "or choose --target tensorflow"
SAME_SHAPE = frozenset(
    {"Add", "AddV2", "BiasAdd", "Cast", "Identity", "Maximum", "Minimum", "Mul", "RealDiv", "Relu", "Relu6", "Sub"}
)
"""Operators whose result has the shape of their data, where they have no other operand or a number or a vector."""


def convert(graph: Graph, *, cuts: Iterable[str] = ()) -> LiteGraph:
    """Convert a normalized graph to a float .tflite with the same inputs and outputs, the batch left open.

    Inputs of unknown rank get the one that the layers behind them need. Across the tensors in `cuts` the converter
    joins no operators. Raises ModelError, with the operator, where the converter refuses.
    """
    parts = cut(with_made_lists(_with_ranks(graph)), cuts)
    model = _converted(parts.graph)
    _put_in_order(model, parts.graph)
    join(model, graph, parts)
    flatbuffer.add_signature(model, graph.inputs, graph.outputs)
    tidy(model)
    found = match(graph, model)
    release_memory(4 * graph.size)  # the converter takes more than the weights of a small network
    return LiteGraph(flatbuffer.write(model), graph.inputs, graph.outputs, found.layers, found.missing, found.ops)


def _converted(graph: Graph) -> Any:
    """What TensorFlow's converter makes of a frozen graph (ModelT), of numbers for its weights where that will do."""
    stand_ins = with_stand_ins(graph)
    if stand_ins.weights:
        try:
            model = flatbuffer.read(_content(stand_ins.graph, unfold_large_splat_constant=True))
        except ModelError:  # said of the graph itself
            model = None
        if model is not None and put_back(model, stand_ins):
            return model
    content = _content(graph)
    release_memory(len(content))
    return flatbuffer.read(content)


def _content(graph: Graph, **options: Any) -> bytes:
    """The bytes that the converter makes.

    `tf.lite.TFLiteConverter` calls the same function, but freezes, copies and optimizes the graph again before, which
    takes three times as long and three times the memory, and changes no operator of a normalized graph.
    """
    import tensorflow as tf
    from tensorflow.lite.python.convert import ConverterError, convert_graphdef

    known = import_shapes(graph)
    inputs, outputs = ([tensor_of(known, name) for name in names] for names in (graph.inputs, graph.outputs))
    builtin = [tf.lite.OpsSet.TFLITE_BUILTINS]
    try:
        with stderr_held_back():  # the exception says it again
            return bytes(convert_graphdef(graph.to_graph_def(), inputs, outputs, target_ops=builtin, **options))
    except (ConverterError, RuntimeError, ValueError) as error:
        raise _refusal(graph, str(error)) from error


def _refusal(graph: Graph, message: str) -> ModelError:
    """What the converter refuses, from its message."""
    listed = re.findall(r"^(?:TF Select|Custom) ops: (.+)$", message, re.MULTILINE)
    named = re.findall(r"error: '(?:tf|tfl)\.(\w+)' op (.+)$", message, re.MULTILINE)
    ops = sorted({op.strip() for line in listed for op in line.split(",")} or {op for op, _ in named})
    if not ops:
        return ModelError("converter", f"refuses the model: {reason(message)}", hint=f"change that, {ANOTHER_TARGET}")
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


def _with_ranks(graph: Graph) -> Graph:
    """Inputs of unknown rank take as many dimensions as the layers that read them, and their channels; sizes stay open.

    The converter needs that much. Inputs of which no layer tells are left as they are. Raises ModelError where one is
    multiplied by a matrix, which takes any rank.
    """
    nodes = [graph.nodes[name] for name in graph.inputs]
    shapes = {node.name: _needed(graph, node.name) for node in nodes if placeholder_shape(node) is None}
    for name in (name for name, shape in shapes.items() if shape is None):
        if any(graph.nodes[reader].op in ("BatchMatMul", "BatchMatMulV2") for reader in graph.consumers[name]):
            hint = f"export the model with a shape of its inputs, such as tf.TensorSpec((None, 8)), {ANOTHER_TARGET}"
            raise ModelError(name, "is an input whose rank the model does not say, and LiteRT must know it", hint=hint)
    known = [(graph.nodes[name], shape) for name, shape in shapes.items() if shape is not None]
    return graph.edit(put=[make_placeholder(node.name, node.attr["dtype"].type, shape) for node, shape in known])


def _needed(graph: Graph, name: str) -> Shape | None:
    """The shape that the first layer behind a node needs there, through operators that keep it."""
    for reader in (graph.nodes[reader] for reader in graph.consumers[name]):
        operator = OPERATORS.get(reader.op)
        if operator is not None and operator.rank is not None and node_of(reader.input[operator.data]) == name:
            return _data_shape(graph, reader)
        if reader.op in SAME_SHAPE and all(_small(graph, edge) for edge in reader.input if node_of(edge) != name):
            found = _needed(graph, reader.name)
            if found is not None:
                return found
    return None


def _data_shape(graph: Graph, node: Any) -> Shape:
    operator = OPERATORS[node.op]
    channels = None
    if operator.weight is not None:
        weight = graph.nodes[node_of(node.input[operator.weight])]
        channels = const_shape(weight)[operator.input_axis] if weight.op == "Const" else None
    open_sizes = (None,) * ((operator.rank or 0) - 2)
    return (None, channels, *open_sizes) if channels_first(node) else (None, *open_sizes, channels)


def _small(graph: Graph, edge: str) -> bool:
    value = graph.constant(edge)
    return value is not None and value.ndim <= 1
