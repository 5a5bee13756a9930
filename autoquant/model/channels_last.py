"""Graphs with channels first (NCHW), as training on a GPU leaves them, with channels last, which is what a CPU runs.

TensorFlow's own layout optimizer does it: it carries the layout through whatever lies between, and leaves transposes at
the edges, so that inputs and outputs stay as they are. Here is what it needs, and what it leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2, rewriter_config_pb2

from autoquant.array import Array
from autoquant.errors import ModelError
from autoquant.model.folding import fold_constants
from autoquant.model.graph import Graph
from autoquant.model.nodes import (
    INT32,
    AttrValue,
    attr_of,
    changed_node,
    channels_first,
    data_format,
    make_const,
    make_node,
    with_inputs,
)
from autoquant.model.operators import OPERATORS, node_of
from autoquant.model.shapes import import_shapes, static_shape, tensor_of
from autoquant.model.sources import BATCH_NORMS
from autoquant.quiet import stderr_held_back

NOTE = "channels first (NCHW), which a CPU does not run, became channels last, with transposes at inputs and outputs"
SPATIAL = BATCH_NORMS | {name for name, operator in OPERATORS.items() if operator.rank in (4, 5)}
LAYOUT = SPATIAL | {"AvgPool3D", "Conv3DBackpropInputV2", "DepthToSpace", "MaxPool3D", "MaxPoolV2", "SpaceToDepth"}
"""Operators that TensorFlow's kernels for a CPU have with channels last alone."""
BROADCASTING = frozenset({"Add", "AddV2", "Div", "Maximum", "Minimum", "Mul", "RealDiv", "Sub", "SquaredDifference"})
UNMOVED = frozenset({"Const", "Identity", "Placeholder"}) | (OPERATORS.keys() - SPATIAL - {"Add", "AddV2"})
"""Operators whose layout never changes."""
INNER = "/channels_last"
DEVICE = "/job:localhost/replica:0/task:0/device:CPU:0"
"""The optimizer looks at placed nodes alone."""


def has_channels_first(graph: Graph) -> bool:
    """Whether an operator has channels first that a CPU does not run so."""
    return _first(graph.nodes.values()) is not None


def channels_last(graph: Graph) -> Graph:
    """The graph with channels last; what it takes and gives stays as it is, and operators keep their names.

    An operator that is itself an output leaves it its name, and is called `<name>/channels_last`. Raises ModelError for
    operators that stay as they are, because they are in a function, or their shapes are not known.
    """
    if has_channels_first(graph):
        graph = fold_constants(graph)
        tf_graph = import_shapes(graph)
        graph = _optimized(_with_named_outputs(_with_full_ranks(graph, tf_graph), tf_graph))
        for node in list(graph.nodes.values()):
            if node.op == "DataFormatVecPermute":
                graph = _permuted(graph, node)
        graph = graph.pruned()
    inside = [] if graph.library is None else [node for one in graph.library.function for node in one.node_def]
    for node, place in ((_first(graph.nodes.values()), ""), (_first(inside), " inside a function or loop")):
        if node is not None:
            layout = data_format(node).decode()
            what = f"has channels first ({layout}){place}, which a CPU does not run, and which cannot be converted"
            hint = f"export the model with channels last ({'NDHWC' if len(layout) == 5 else 'NHWC'})"
            raise ModelError(f"{node.name.removesuffix(INNER)} ({node.op})", what, hint=hint)
    return graph


def _first(nodes: Any) -> Any | None:
    return next((node for node in nodes if node.op in LAYOUT and channels_first(node)), None)


def _with_named_outputs(graph: Graph, tf_graph: Any) -> Graph:
    """Let every output be an Identity, so that the optimizer may change the layout of what it reads."""
    for tensor in graph.outputs:
        node = graph.nodes[node_of(tensor)]
        if tensor == node.name and node.op not in UNMOVED:
            inner = graph.free_name(tensor + INNER)
            kind = AttrValue(type=tensor_of(tf_graph, tensor).dtype.as_datatype_enum)
            end = make_node(tensor, "Identity", [inner], T=kind)
            graph = graph.edit(put=[changed_node(node, name=inner)], redirect={tensor: inner}).edit(put=[end])
    return graph


def _with_full_ranks(graph: Graph, tf_graph: Any) -> Graph:
    """Let constants that are broadcast have all axes of what they are combined with: the optimizer turns only those."""
    for node in [node for node in graph.nodes.values() if node.op in BROADCASTING]:
        rank = len(static_shape(tensor_of(tf_graph, node.name)) or ())
        for index, edge in enumerate(node.input):
            value = graph.constant(edge)
            if rank in (4, 5) and value is not None and 0 < value.ndim < rank:
                name = graph.free_name(f"{node.name}/{node_of(edge)}")
                wide = make_const(name, value.reshape((1,) * (rank - value.ndim) + value.shape))
                graph = graph.edit(put=[wide, with_inputs(graph.nodes[node.name], {index: name})])
    return graph.pruned()


def _optimized(graph: Graph) -> Graph:
    """The graph after TensorFlow's layout optimizer."""
    import tensorflow as tf
    from tensorflow.python.grappler import tf_optimizer

    meta = meta_graph_pb2.MetaGraphDef(graph_def=graph.to_graph_def())
    for node in meta.graph_def.node:
        node.device = DEVICE
    wanted = [*graph.inputs, *(node_of(tensor) for tensor in graph.outputs)]
    meta.collection_def["train_op"].node_list.value.extend(wanted)
    config = config_pb2.ConfigProto()
    rewriting = config.graph_options.rewrite_options
    rewriting.optimizers.append("layout")
    rewriting.cpu_layout_conversion = rewriter_config_pb2.RewriterConfig.NCHW_TO_NHWC
    rewriting.min_graph_nodes = -1  # small ones too
    rewriting.meta_optimizer_iterations = rewriter_config_pb2.RewriterConfig.ONE
    rewriting.fail_on_optimizer_errors = True
    try:
        with stderr_held_back():  # the exception says it again
            optimized = tf_optimizer.OptimizeGraph(config, meta)
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        said = next(iter(str(error).splitlines()), type(error).__name__)
        what = f"has channels first (NCHW), which a CPU does not run, and which cannot be converted: {said}"
        raise ModelError("graph", what, hint="export the model with channels last (NHWC)") from error
    return Graph.from_graph_def(optimized, inputs=graph.inputs, outputs=graph.outputs)


def _permuted(graph: Graph, node: Any) -> Graph:
    """The graph without a permutation of sizes, for which LiteRT has no operator.

    Single sizes that are read of a shape are read from where they are, a list of sizes is put together in another
    order; what is left becomes a Gather.
    """
    source, target = ((attr_of(node, key).s or b"NHWC").decode() for key in ("src_format", "dst_format"))
    order = np.array([source.index(axis) for axis in target], np.int32)
    made_by = graph.nodes[node_of(node.input[0])]
    if made_by.op == "Pack" and len(made_by.input) == len(order):
        pack = changed_node(made_by, name=node.name, inputs=[made_by.input[i] for i in order])
        return graph.edit(put=[pack])
    for reader in [graph.nodes[name] for name in graph.consumers[node.name]]:
        place = _one_element(graph, reader, node.name)
        if place is not None and place < len(order):
            graph = _reading(graph, reader, node.input[0], int(order[place]))
    if not graph.consumers[node.name] and node.name not in graph.output_nodes:
        return graph.edit(drop=[node.name])
    indices = make_const(graph.free_name(f"{node.name}/order"), order)
    axis = make_const(graph.free_name(f"{node.name}/axis"), np.array(0, np.int32))
    types = {"Tparams": attr_of(node, "T"), "Tindices": AttrValue(type=INT32), "Taxis": AttrValue(type=INT32)}
    gather = make_node(node.name, "GatherV2", [node.input[0], indices.name, axis.name], **types)
    return graph.edit(put=[indices, axis, gather])


def _one_element(graph: Graph, reader: Any, shape: str) -> int | None:
    """Which element of `shape` a StridedSlice gives as a number, None where it is not one."""
    if reader.op != "StridedSlice" or node_of(reader.input[0]) != shape or attr_of(reader, "shrink_axis_mask").i != 1:
        return None
    if attr_of(reader, "begin_mask").i:
        return None
    begin = _ints(graph.constant(reader.input[1]))
    return begin[0] if len(begin) == 1 and begin[0] >= 0 else None


def _ints(value: Array | None) -> Sequence[int]:
    return [] if value is None else [int(one) for one in value.ravel()]


def _reading(graph: Graph, reader: Any, shape: str, place: int) -> Graph:
    """The graph with a StridedSlice that reads element `place` of `shape`."""
    kind = graph.constant(reader.input[1])
    assert kind is not None, reader.name
    ends = [
        make_const(graph.free_name(f"{reader.name}/{name}"), np.array([at], kind.dtype))
        for name, at in (("begin", place), ("end", place + 1))
    ]
    return graph.edit(put=[*ends, with_inputs(reader, {0: shape, 1: ends[0].name, 2: ends[1].name})])
