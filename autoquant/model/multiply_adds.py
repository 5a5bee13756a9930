"""Multiply-adds of operators of TensorFlow that are no layers: what a model computes is more than can be quantized."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import prod
from types import MappingProxyType
from typing import Any

from autoquant.model.graph import Graph
from autoquant.model.layer import product
from autoquant.model.loops import LOOPS
from autoquant.model.model import Shape
from autoquant.model.nodes import attr_of, sizes
from autoquant.model.operators import canonical
from autoquant.model.shapes import import_shapes, run_on_zeros, static_shape, tensor_of, traced_function

ShapeOf = Callable[[str], Shape | None]
CALLS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    dict.fromkeys(("If", "StatelessIf"), ("then_branch", "else_branch"))
    | dict.fromkeys(("Case", "StatelessCase"), ("branches",))
    | dict.fromkeys(("While", "StatelessWhile"), ("body",))
    | dict.fromkeys(("PartitionedCall", "StatefulPartitionedCall"), ("f",))
)
"""Operator -> the attributes that name the functions which it runs; of several it runs one."""


def multiply_adds(node: Any, shape_of: ShapeOf) -> int | None:
    """Multiply-adds of an operator for the whole batch, of a pooling its additions; 0 of one that does neither.

    None where they depend on a shape that is not known. Those inside functions are not counted.
    """
    op = node.op.removeprefix("_Fused")
    if op in ("Conv2D", "Conv3D", "DepthwiseConv2dNative"):
        channels = -2 if op.startswith("Depthwise") else -1
        return _times(shape_of(node.name), shape_of(node.input[1]), channels)
    if op in ("Conv2DBackpropInput", "Conv3DBackpropInputV2"):  # every value of the data meets those of its channel
        return _times(shape_of(node.input[2]), shape_of(node.input[1]), -1)
    if op in ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"):
        transposed = attr_of(node, "transpose_a" if op == "MatMul" else "adj_x").b
        data = shape_of(node.input[0]) or (None, None)
        return _times(shape_of(node.name), (data[-2 if transposed else -1], None), -1)
    if op in ("AvgPool", "AvgPool3D"):
        return product(shape_of(node.name), prod(sizes(node, "ksize")))
    return _einsum(node, shape_of) if op == "Einsum" else 0


def _times(values: Shape | None, weight: Shape | None, end: int) -> int | None:
    """The number of values times that of the weights that each of them meets, which have the first axes."""
    if weight is None or None in weight[:end]:
        return None
    return product(values, prod(size or 0 for size in weight[:end]))


def _einsum(node: Any, shape_of: ShapeOf) -> int | None:
    """Each value of the result sums over the labels that it does not have."""
    factors, result = attr_of(node, "equation").s.decode().replace(" ", "").split("->")
    if "," not in factors:
        return 0
    summed: dict[str, int | None] = {}
    for labels, edge in zip(factors.split(","), node.input, strict=True):
        shape = shape_of(edge)
        before, _, behind = labels.partition("...")
        ends = [(label, place) for place, label in enumerate(before)]
        ends += [(label, place - len(behind)) for place, label in enumerate(behind)]
        summed |= {label: None if shape is None else shape[place] for label, place in ends if label not in result}
    return _times(shape_of(node.name), (*summed.values(), None), -1)


def multiply_adds_of_calls(sample: Graph, calls: Iterable[Any]) -> Mapping[str, int]:
    """Multiply-adds inside the functions that nodes run, of a graph whose inputs are of one sample.

    A size that stays open in a function is taken for 1, as it is of the batch, and so are the iterations of a loop
    where the graph does not tell them by a run on zeros: it is no less than this. Of functions of which one runs, the
    one with most counts.
    """
    nodes = list(calls)
    if not nodes:
        return {}
    tf_graph = import_shapes(sample)
    loops = [node.name for node in nodes if node.op in LOOPS]
    counts = {name: _count(value) for name, value in run_on_zeros(sample, tf_graph, loops).items()}

    def shape_of(tensor: str) -> Shape | None:
        return static_shape(tensor_of(tf_graph, tensor))

    return {node.name: counts.get(node.name, 1) * _of_call(sample.library, node, shape_of) for node in nodes}


def _count(value: Any) -> int:
    """The number of iterations, which is the first value of a loop as TensorFlow writes it."""
    return max(1, int(value)) if value.ndim == 0 and value.dtype.kind == "i" else 1


def _of_call(library: Any, node: Any, shape_of: ShapeOf) -> int:
    attributes = [attr_of(node, name) for name in CALLS[node.op]]
    functions = [one for each in attributes for one in (each.list.func or [each.func])]
    given = node.input[1:] if node.op.endswith(("If", "Case")) else node.input
    shapes = [shape_of(edge) for edge in given]
    return max((_of_function(library, one.name, shapes) for one in functions), default=0)


def _of_function(library: Any, name: str, shapes: list[Shape | None]) -> int:
    definition = next((one for one in library.function if one.signature.name == name), None)
    if definition is None:
        return 0
    body = traced_function(library, definition, shapes)
    known = {canonical(t.name): static_shape(t) for op in body.get_operations() for t in op.outputs}

    def shape_of(tensor: str) -> Shape | None:
        shape = known.get(canonical(tensor))
        return None if shape is None else tuple(1 if size is None else size for size in shape)

    nodes = [op.node_def for op in body.get_operations()]
    found = (_of_call(library, node, shape_of) if node.op in CALLS else multiply_adds(node, shape_of) for node in nodes)
    return sum(macs or 0 for macs in found)
