"""Lists of tensors that a loop fills, made for the converter, which wants to know the sizes of what they hold.

A Keras recurrence reserves a list for its results, with an element of (batch, units) for each step. Where the batch is
open the converter refuses to reserve it, but takes a list made from a tensor, of zeros, whose sizes are computed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tensorflow.python.framework import dtypes

from autoquant.model.graph import Graph
from autoquant.model.loops import LOOPS
from autoquant.model.nodes import INT32, AttrValue, make_const, make_node
from autoquant.model.operators import node_of

RESERVED, MADE = "TensorListReserve", "TensorListFromTensor"


def with_made_lists(graph: Graph) -> Graph:
    """The graph with every reserved list whose elements have open sizes made from zeros.

    Elements that were never set were zeros before.
    """
    for node in [node for node in graph.nodes.values() if node.op == RESERVED]:
        sizes = graph.constant(node.input[0])
        if sizes is not None and sizes.ndim == 1 and (sizes < 0).any():
            graph = _made(graph, node, [int(size) for size in sizes])
    return graph


def _made(graph: Graph, node: Any, sizes: list[int]) -> Graph:
    kind, int32 = node.attr["element_dtype"], AttrValue(type=INT32)
    put, parts = [], [node.input[1]]
    for axis, size in enumerate(sizes):
        name = graph.free_name(f"{node.name}/size_{axis}")
        put += [make_const(name, np.array(size, np.int32))] if size >= 0 else _size(graph, node, axis, name)
        parts.append(name)
    shape, zero, zeros = (graph.free_name(f"{node.name}/{part}") for part in ("shape", "zero", "zeros"))
    put += [
        make_node(shape, "Pack", parts, T=int32, N=len(parts), axis=0),
        make_const(zero, np.zeros((), dtypes.as_dtype(kind.type).as_numpy_dtype)),
        make_node(zeros, "Fill", [shape, zero], T=kind, index_type=int32),
        make_node(node.name, MADE, [zeros, node.input[0]], element_dtype=kind, shape_type=node.attr["shape_type"]),
    ]
    return graph.edit(put=put)


def _size(graph: Graph, node: Any, axis: int, name: str) -> list[Any]:
    """Nodes for one size of a list's elements, a number called `name`."""
    source, kind, place = _like(graph, node, axis)
    int32, names = AttrValue(type=INT32), [f"{name}/{part}" for part in ("shape", "begin", "end", "step")]
    return [
        make_node(names[0], "Shape", [source], T=kind, out_type=int32),
        *(
            make_const(part, np.array([at], np.int32))
            for part, at in zip(names[1:], (place, place + 1, 1), strict=True)
        ),
        make_node(name, "StridedSlice", names, T=int32, Index=int32, shrink_axis_mask=1),
    ]


def _like(graph: Graph, node: Any, axis: int) -> tuple[str, Any, int]:
    """A tensor with the size that an axis of a list's elements has, its type, and the axis there.

    What a loop reads step by step has the batch of what it writes; without such, it is that of the model's input.
    """
    loops = (graph.nodes[reader] for reader in graph.consumers[node.name])
    others = (graph.nodes[node_of(edge)] for loop in loops if loop.op in LOOPS for edge in loop.input)
    read = next((other for other in others if other.op == MADE and not _is_zeros(graph, other)), None)
    if read is not None:
        return read.input[0], read.attr["element_dtype"], axis + 1
    return graph.inputs[0], graph.nodes[graph.inputs[0]].attr["dtype"], axis


def _is_zeros(graph: Graph, made: Any) -> bool:
    return bool(graph.nodes[node_of(made.input[0])].op == "Fill")
