"""Multiply-adds of the operators of a .tflite, those that are no layers included, and those in bodies of loops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from types import MappingProxyType
from typing import Any

from autoquant.model.layer import product
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.functions import RUN
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.interpreter import values_on_zeros
from autoquant.model.litert.kinds import KINDS, RECURRENT, Kind
from autoquant.model.model import Shape

BRANCHES: Mapping[str, tuple[str, ...]] = MappingProxyType({"IF": RUN["IF"], "WHILE": RUN["WHILE"][1:]})
"""Operator -> the options that number the subgraphs of which it runs one."""


def multiply_adds(
    model: Any, op: Any, shapes: Sequence[Shape], iterations: Mapping[int, int] = MappingProxyType({})
) -> int | None:
    """Multiply-adds of an operator (OperatorT) for the whole batch, of a pooling its additions.

    0 of one that does neither; None where they depend on a shape that is not known. `iterations` gives those of a loop
    by its first result: it is taken to have one where it is not there. In bodies, sizes that are open are taken for 1.
    """
    kind = flatbuffer.op_name(model, op)
    if kind in KINDS:
        return _of_layer(op, KINDS[kind], shapes)
    if kind in (
        "CONV_3D",
        "CONV_3D_TRANSPOSE",
    ):  # every value of the result, or of the data, meets those of its channel
        values, weight = shapes[op.outputs[0] if kind == "CONV_3D" else op.inputs[2]], shapes[op.inputs[1]]
        return None if None in weight else product(values, prod(size or 0 for size in weight[:-1]))
    if kind in RECURRENT:
        weights = [shapes[index] for index in op.inputs[1:] if index >= 0 and len(shapes[index]) == 2]
        return product(shapes[op.inputs[0]][:-1], sum(prod(size or 0 for size in weight) for weight in weights))
    branches = [_of_subgraph(model, int(getattr(op.builtinOptions, name))) for name in BRANCHES.get(kind, ())]
    return max(branches, default=0) * iterations.get(int(op.outputs[0]) if len(op.outputs) else -1, 1)


def loop_iterations(lite: LiteGraph, input_shapes: Mapping[str, tuple[int, ...]]) -> Mapping[int, int]:
    """How often loops run on zeros, by their first result, which is that number as TensorFlow writes them."""
    loops = [index for index in range(len(lite.operators)) if lite.kind(index) == "WHILE"]
    values = values_on_zeros(lite, input_shapes, [int(lite.operators[index].outputs[0]) for index in loops])
    counts = {tensor: value for tensor, value in values.items() if value.size == 1 and value.dtype.kind == "i"}
    return {tensor: max(1, int(value.item())) for tensor, value in counts.items()}


def _of_subgraph(model: Any, number: int) -> int:
    graph = model.subgraphs[number]
    shapes = [tuple(1 if size is None else size for size in flatbuffer.shape_of(tensor)) for tensor in graph.tensors]
    return sum(multiply_adds(model, op, shapes) or 0 for op in graph.operators)


def _of_layer(op: Any, kind: Kind, shapes: Sequence[Shape]) -> int | None:
    result, data = shapes[op.outputs[0]], shapes[op.inputs[kind.data]]
    if kind.weight is None:
        return product(result, op.builtinOptions.filterHeight * op.builtinOptions.filterWidth)
    if kind.op == "BatchMatMulV2":
        shared = data[-2 if op.builtinOptions.adjX else -1]
        return None if shared is None else product(result, shared)
    weight = shapes[op.inputs[kind.weight]]
    if None in weight or 0 in weight:
        return None if None in weight else 0
    known = [size or 0 for size in weight]
    if kind.op == "Conv2DBackpropInput":  # every value of the data meets every weight of its channel
        return product(data, prod(known[:-1]))
    # Each value of the result takes as many as its channel has weights.
    return product(result, prod(known) // known[kind.output_axis])
