"""Finds the layers of a .tflite: operators that can be INT8 in LiteRT, and those that look like it but cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np

from autoquant.errors import ModelError
from autoquant.model.layer import Layer, Rejected, Survey
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.balance import balance_way
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.interpreter import tensor_shapes
from autoquant.model.litert.kinds import KINDS, UNSUPPORTED, Kind
from autoquant.model.model import Shape


def survey_lite(lite: LiteGraph, input_shapes: Mapping[str, tuple[int, ...]] = MappingProxyType({})) -> Survey:
    """The layers of a float .tflite in the order of its operators, and what looks like one but cannot be INT8.

    Activations, weight and bias are names of tensors (`LiteGraph.tensors`), weights have the layout of the file.
    `input_shapes` gives the shape of one sample, or of a batch, for inputs whose sizes the file leaves open. Raises
    ModelError if nothing can be quantized.
    """
    shapes = tensor_shapes(lite, input_shapes)
    batch = _fixed_batch(lite)
    layers: list[Layer] = []
    rejected = [Rejected(name, lite.ops.get(name, "?"), reason) for name, reason in lite.missing.items()]
    names = {index: name for name, index in lite.layers.items()}
    for index, op in enumerate(lite.subgraph.operators):
        kind = flatbuffer.op_name(lite.model, op)
        name = names.get(index) or flatbuffer.tensor_name(lite.subgraph.tensors[op.outputs[0]])
        reason = UNSUPPORTED.get(kind) or (_objection(lite, op, KINDS[kind]) if index in names else None)
        if reason is not None:
            rejected.append(Rejected(name, lite.ops.get(name, kind), reason))
        elif index in names:
            layers.append(_layer(lite, name, op, shapes, batch))
    if not layers:
        raise ModelError(
            "model", "has no layer that can be INT8 in LiteRT" + _listed(rejected), hint=_way_out(rejected)
        )
    return Survey(tuple(layers), (), tuple(rejected))


def _layer(lite: LiteGraph, name: str, op: Any, shapes: Sequence[Shape], batch: int) -> Layer:
    graph = lite.subgraph
    kind = KINDS[flatbuffer.op_name(lite.model, op)]
    weight = _constant_weight(lite, op, kind)
    weight_shape = () if weight is None else flatbuffer.shape_of(graph.tensors[weight])
    data = [op.inputs[kind.data]] if weight is not None or kind.weight is None else [op.inputs[0], op.inputs[1]]
    bias = _input(op, kind.bias)
    macs = _macs(op, kind, shapes)
    balanceable = weight is not None and balance_way(lite, lite.layers[name]) is not None
    return Layer(
        name=name,
        op=lite.ops.get(name, kind.op),
        activations=tuple(flatbuffer.tensor_name(graph.tensors[index]) for index in data),
        data_axis=-1,
        weight=None if weight is None else flatbuffer.tensor_name(graph.tensors[weight]),
        weight_shape=tuple(size or 0 for size in weight_shape),
        channel_axes=() if weight is None else (_output_axis(op, kind, len(weight_shape)),),
        bias=None if bias is None else flatbuffer.tensor_name(graph.tensors[bias]),
        output_shape=shapes[op.outputs[0]],
        macs=None if macs is None else macs // batch,
        groups=_groups(op, kind, shapes),
        abilities=kind.abilities(balanceable=balanceable),
    )


def _objection(lite: LiteGraph, op: Any, kind: Kind) -> str | None:
    """Why an operator that is a layer by its kind cannot be INT8; None where it can."""
    if kind.weight is None:
        return None
    graph = lite.subgraph
    weight = graph.tensors[op.inputs[kind.weight]]
    name = flatbuffer.tensor_name(weight)
    value = flatbuffer.value_of(lite.model, weight)
    if kind.op == "BatchMatMulV2":
        if flatbuffer.value_of(lite.model, graph.tensors[op.inputs[0]]) is not None:
            return "its first factor is constant, where LiteRT expects data"
    elif value is None:
        return f"its weight '{name}' is not constant: {_made_by(lite, op.inputs[kind.weight])}"
    if value is not None and not np.isfinite(value).all():
        return f"its weight '{name}' holds NaN or infinity"
    return None


def _made_by(lite: LiteGraph, tensor: int) -> str:
    for op in lite.subgraph.operators:
        if tensor in op.outputs:
            return f"{flatbuffer.op_name(lite.model, op)} makes it"
    return "it is an input of the model"


def _constant_weight(lite: LiteGraph, op: Any, kind: Kind) -> int | None:
    """Index of the weight's tensor; None for a pooling, and for a product of two activations."""
    index = _input(op, kind.weight)
    return (
        index
        if index is not None and flatbuffer.value_of(lite.model, lite.subgraph.tensors[index]) is not None
        else None
    )


def _input(op: Any, place: int | None) -> int | None:
    """Index of the tensor that an operator has as this input; None where it has none."""
    if place is None or place >= len(op.inputs) or op.inputs[place] < 0:
        return None
    return int(op.inputs[place])


def _output_axis(op: Any, kind: Kind, rank: int) -> int:
    if kind.op == "BatchMatMulV2":
        return rank - 2 if op.builtinOptions.adjY else rank - 1
    return kind.output_axis


def _groups(op: Any, kind: Kind, shapes: Sequence[Shape]) -> int:
    """Groups of input channels of a convolution; 1 where the channels of its data are not known."""
    if kind.op != "Conv2D":
        return 1
    channels, own = shapes[op.inputs[kind.data]][-1], shapes[op.inputs[1]][-1]
    return channels // own if channels and own else 1


def _macs(op: Any, kind: Kind, shapes: Sequence[Shape]) -> int | None:
    """Multiply-adds for the whole batch, of a pooling its additions."""
    result, data = shapes[op.outputs[0]], shapes[op.inputs[kind.data]]
    if kind.weight is None:
        return _product(result, op.builtinOptions.filterHeight * op.builtinOptions.filterWidth)
    if kind.op == "BatchMatMulV2":
        shared = data[-2 if op.builtinOptions.adjX else -1]
        return None if shared is None else _product(result, shared)
    weight = tuple(size or 0 for size in shapes[op.inputs[kind.weight]])
    if kind.op == "Conv2DBackpropInput":  # every value of the data meets every weight of its channel
        return _product(data, prod(weight[:-1]))
    # Each value of the result takes as many as its channel has weights.
    return _product(result, prod(weight) // weight[kind.output_axis])


def _product(shape: Shape, factor: int) -> int | None:
    return None if None in shape else prod(size or 0 for size in shape) * factor


def _fixed_batch(lite: LiteGraph) -> int:
    """The batch size where the file fixes it, else 1: the first dimension of the first input that has several."""
    shapes = (flatbuffer.shape_of(lite.subgraph.tensors[index]) for index in lite.subgraph.inputs)
    return next((shape[0] or 1 for shape in shapes if len(shape) > 1), 1)


def _listed(rejected: Sequence[Rejected]) -> str:
    shown = "; ".join(f"'{one.name}' ({one.op}): {one.reason}" for one in rejected[:5])
    more = f"; and {len(rejected) - 5} more" if len(rejected) > 5 else ""
    return f": {shown}{more}" if rejected else f": it has no {', '.join(KINDS)}"


def _way_out(rejected: Sequence[Rejected]) -> str:
    return "change what the reasons name, and convert again" if rejected else "is this the whole model?"
