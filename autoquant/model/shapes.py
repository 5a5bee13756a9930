"""TensorFlow's own view of a graph: whether it is sound, and the shapes and types of its tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
from tensorflow.python.framework import dtypes, op_def_registry

from autoquant.array import Array
from autoquant.errors import ModelError
from autoquant.messages import reason
from autoquant.model.graph import Graph
from autoquant.model.model import InputSpec, OutputSpec, Shape, one_sample_shapes
from autoquant.model.nodes import STRING, AttrValue, attr_of, calls_functions, is_large, make_node, with_zeros
from autoquant.model.operators import node_of

LONGEST = 10_000
"""Milliseconds that a graph runs to tell its shapes."""


def tensor_name(tensor: str) -> str:
    """TensorFlow's spelling: 'a' becomes 'a:0'."""
    return tensor if ":" in tensor else f"{tensor}:0"


def import_graph(graph: Graph) -> Any:
    """A tf.Graph of the same nodes; raises ModelError where TensorFlow refuses them."""
    return _imported(graph)


def import_shapes(graph: Graph) -> Any:
    """The same with zeros for weights: types and shapes are the same, at a fraction of the memory and time."""
    weights = [node for node in graph.nodes.values() if is_large(node)]
    return _imported(graph.edit(put=map(with_zeros, weights)))


def _imported(graph: Graph) -> Any:
    import tensorflow as tf

    check_operators(graph)
    tf_graph = tf.Graph()
    with tf_graph.as_default():
        try:
            tf.graph_util.import_graph_def(graph.to_graph_def(), name="")
        except (ValueError, TypeError, RuntimeError, tf.errors.OpError) as error:
            hint = "is the file whole, and does TensorFlow run it?"
            raise ModelError("graph", f"TensorFlow refuses it: {reason(error)}", hint=hint) from error
    return tf_graph


def check_operators(graph: Graph) -> None:
    """Raise ModelError for an operator that is neither TensorFlow's nor a function of the graph."""
    functions = set() if graph.library is None else {f.signature.name for f in graph.library.function}
    for node in graph.nodes.values():
        if node.op not in functions and op_def_registry.get(node.op) is None:
            hint = "custom operators cannot be opened: export the model without it"
            raise ModelError(node.name, f"TensorFlow has no operator '{node.op}'", hint=hint)


def tensor_of(tf_graph: Any, tensor: str) -> Any:
    """The tf.Tensor of a name in our spelling, where 'a' stands for 'a:0'. Raises KeyError where there is none."""
    return tf_graph.get_tensor_by_name(tensor_name(tensor))


def traced_tensor(graph: Graph, tensor: str) -> Any:
    """The tf.Tensor of a graph cut down to what makes it. Raises KeyError where its node has no such output."""
    return tensor_of(import_shapes(replace(graph, inputs=(), outputs=(node_of(tensor),)).pruned()), tensor)


def static_shape(tensor: Any) -> Shape | None:
    """The shape of a tf.Tensor as a tuple; None for an unknown rank."""
    return None if tensor.shape.rank is None else tuple(tensor.shape.as_list())


def sample_shapes(graph: Graph, tensors: Iterable[str]) -> Mapping[str, Shape | None]:
    """Shapes of tensors of a graph whose inputs are of one sample (`for_one_sample`); sizes that are open are None.

    Functions, such as the body of a loop, and operators on text leave sizes open that are known once the graph runs:
    where all inputs have sizes, it runs on zeros and empty text, for LONGEST at most.
    """
    tf_graph = import_shapes(graph)
    found = {tensor: static_shape(tensor_of(tf_graph, tensor)) for tensor in tensors}
    unknown = [tensor for tensor, shape in found.items() if shape is None or None in shape]
    fed = stated_shapes(graph)
    text = any(graph.nodes[name].attr["dtype"].type == STRING for name in graph.inputs)
    if not unknown or not (text or any(map(calls_functions, graph.nodes.values()))):
        return found
    if any(shape is None or None in shape for shape in fed.values()):
        return found
    return found | _run_shapes(tf_graph, unknown, list(fed))


def _run_shapes(tf_graph: Any, tensors: Sequence[str], inputs: Sequence[str]) -> dict[str, Shape]:
    """Shapes of tensors in a run on zeros; of none where that fails."""
    import tensorflow as tf

    with tf_graph.as_default():
        shapes = {tensor: tf.shape(tensor_of(tf_graph, tensor)) for tensor in tensors}
    return {name: tuple(map(int, shape)) for name, shape in _run_on_zeros(tf_graph, shapes, inputs).items()}


def run_on_zeros(graph: Graph, tf_graph: Any, tensors: Iterable[str]) -> Mapping[str, Any]:
    """Values of tensors of a graph, imported as `tf_graph`, in a run on zeros; of none where that is not possible."""
    fetched = {name: tensor_of(tf_graph, name) for name in tensors}
    if not fetched or any(shape is None or None in shape for shape in stated_shapes(graph).values()):
        return {}
    return _run_on_zeros(tf_graph, fetched, graph.inputs)


def _run_on_zeros(tf_graph: Any, fetched: Mapping[str, Any], inputs: Sequence[str]) -> Mapping[str, Any]:
    import tensorflow as tf

    placeholders = [tensor_of(tf_graph, name) for name in inputs]
    zeros = {one: _zeros(one.shape.as_list(), np.dtype(one.dtype.as_numpy_dtype)) for one in placeholders}
    with tf.compat.v1.Session(graph=tf_graph) as session:
        try:
            found: Mapping[str, Any] = session.run(
                fetched, zeros, options=tf.compat.v1.RunOptions(timeout_in_ms=LONGEST)
            )
        except tf.errors.OpError:  # zeros are no data: whether the model runs is found out with those
            return {}
    return found


def _zeros(shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
    return np.full(shape, b"", object) if dtype.hasobject else np.zeros(shape, dtype)


def traced_function(library: Any, definition: Any, shapes: Sequence[Shape | None]) -> Any:
    """The tf.Graph of a function (FunctionDef) of a library, for inputs of these shapes."""
    import tensorflow as tf
    from tensorflow.python.framework.function_def_to_graph import function_def_to_graph_def

    with tf.Graph().as_default() as tf_graph:
        # Functions that it calls are looked up here.
        tf.graph_util.import_graph_def(tf.compat.v1.GraphDef(library=library), name="")
        graph_def, _ = function_def_to_graph_def(definition)
        for node, shape in zip(graph_def.node, shapes, strict=False):  # its inputs come first
            node.attr["shape"].CopyFrom(shape_value(shape))
            node.attr.pop("_output_shapes", None)
        tf.graph_util.import_graph_def(graph_def, name="")
    return tf_graph


def placeholder_shape(node: Any) -> Shape | None:
    """The shape that a Placeholder states; None for an unknown rank."""
    shape = attr_of(node, "shape").shape
    if "shape" not in node.attr or shape.unknown_rank:
        return None
    return tuple(None if dim.size < 0 else dim.size for dim in shape.dim)


def placeholder_dtype(node: Any) -> np.dtype[Any]:
    """The type of what a Placeholder takes."""
    found: np.dtype[Any] = np.dtype(dtypes.as_dtype(attr_of(node, "dtype").type).as_numpy_dtype)
    return found


def input_spec(node: Any) -> InputSpec:
    """What a Placeholder takes."""
    return InputSpec(node.name, placeholder_dtype(node), placeholder_shape(node))


def make_placeholder(name: str, dtype: int, shape: Shape | None) -> Any:
    """A Placeholder node; `dtype` is the number of TensorFlow's DataType."""
    return make_node(name, "Placeholder", dtype=AttrValue(type=dtype), shape=shape_value(shape))


def shape_value(shape: Shape | None) -> Any:
    """An attribute that holds a shape."""
    value = AttrValue()
    if shape is None:
        value.shape.unknown_rank = True
    for size in shape or ():
        value.shape.dim.add(size=-1 if size is None else size)
    value.shape.SetInParent()
    return value


def for_one_sample(graph: Graph, input_shapes: Mapping[str, tuple[int, ...]] = MappingProxyType({})) -> Graph:
    """The graph with open batches set to 1, and inputs of the shapes given.

    A shape in `input_shapes` is that of one sample or of a batch, whose size does not count. Raises ModelError where it
    contradicts the file's.
    """
    nodes = {name: graph.nodes[name] for name in graph.inputs}
    shapes = one_sample_shapes(stated_shapes(graph), input_shapes)
    return graph.edit(put=[make_placeholder(name, nodes[name].attr["dtype"].type, shapes[name]) for name in nodes])


def stated_shapes(graph: Graph) -> dict[str, Shape | None]:
    """The shapes that the inputs of a graph state."""
    return {name: placeholder_shape(graph.nodes[name]) for name in graph.inputs}


def input_specs(graph: Graph) -> tuple[InputSpec, ...]:
    """What the inputs of a graph take."""
    return tuple(input_spec(graph.nodes[name]) for name in graph.inputs)


def output_specs(graph: Graph) -> tuple[OutputSpec, ...]:
    """What the outputs of a graph give, as far as TensorFlow knows before it runs."""
    tf_graph = import_shapes(graph)
    tensors = [tensor_of(tf_graph, name) for name in graph.outputs]
    found = zip(graph.outputs, tensors, strict=True)
    return tuple(OutputSpec(name, tensor.dtype.name, static_shape(tensor)) for name, tensor in found)
