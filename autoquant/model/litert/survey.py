"""Finds the layers of a .tflite: operators that can be INT8 in LiteRT, and those that look like it but cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from autoquant.model.layer import Layer, Rejected, Survey, no_layers
from autoquant.model.litert.balance import balance_way
from autoquant.model.litert.flatbuffer import input_of
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.interpreter import stated_shapes, tensor_shapes
from autoquant.model.litert.kinds import KINDS, UNSUPPORTED, Kind, output_axis
from autoquant.model.litert.multiply_adds import loop_iterations, multiply_adds
from autoquant.model.model import Shape, stated_batch


def survey_lite(lite: LiteGraph, input_shapes: Mapping[str, tuple[int, ...]] = MappingProxyType({})) -> Survey:
    """The layers of a float .tflite in the order of its operators, and what looks like one but cannot be INT8.

    Activations, weight and bias are names of tensors (`LiteGraph.tensors`), weights have the layout of the file.
    `input_shapes` gives the shape of one sample, or of a batch, for inputs whose sizes the file leaves open. Raises
    ModelError if nothing can be quantized.
    """
    shapes = tensor_shapes(lite, input_shapes)
    batch = stated_batch(stated_shapes(lite))
    layers: list[Layer] = []
    rejected = [Rejected(name, lite.ops.get(name, "?"), reason) for name, reason in lite.missing.items()]
    iterations = loop_iterations(lite, input_shapes)
    names = {index: name for name, index in lite.layers.items()}
    for index, op in enumerate(lite.operators):
        kind = lite.kind(index)
        name = names.get(index) or lite.name_of(op.outputs[0])
        reason = UNSUPPORTED.get(kind)
        if index in names:
            reason = reason or _objection(lite, op, KINDS[kind]) or lite.float_only.get(index)
        if reason is not None:
            macs = multiply_adds(lite.model, op, shapes, iterations)
            own = None if macs is None else macs // batch
            rejected.append(Rejected(name, lite.ops.get(name, kind), reason, own, _parameters(lite, op)))
        elif index in names:
            layers.append(_layer(lite, name, op, shapes, batch))
    if not layers:
        raise no_layers("model", "has no layer that can be INT8 in LiteRT", rejected, KINDS, again="convert")
    return Survey(tuple(layers), (), tuple(rejected))


def _layer(lite: LiteGraph, name: str, op: Any, shapes: Sequence[Shape], batch: int) -> Layer:
    operator = lite.layers[name]
    kind = KINDS[lite.kind(operator)]
    weight, bias = input_of(op, kind.weight), input_of(op, kind.bias)
    if weight is not None and lite.value_of(weight) is None:
        weight = None  # a product of two activations
    weight_shape = () if weight is None else lite.shape_of(weight)
    data = [op.inputs[kind.data]] if weight is not None or kind.weight is None else [op.inputs[0], op.inputs[1]]
    macs = multiply_adds(lite.model, op, shapes)
    return Layer(
        name=name,
        op=lite.ops.get(name, kind.op),
        activations=tuple(map(lite.name_of, data)),
        data_axis=-1,
        weight=None if weight is None else lite.name_of(weight),
        weight_shape=tuple(size or 0 for size in weight_shape),
        channel_axes=() if weight is None else (output_axis(lite.kind(operator), op) % len(weight_shape),),
        bias=None if bias is None else lite.name_of(bias),
        output_shape=shapes[op.outputs[0]],
        macs=None if macs is None else macs // batch,
        groups=_groups(op, kind, shapes),
        abilities=kind.abilities(balanceable=weight is not None and balance_way(lite, operator) is not None),
    )


def _parameters(lite: LiteGraph, op: Any) -> int:
    """The values of the constant matrices, kernels and the like that an operator reads."""
    values = [value for index in op.inputs if index >= 0 and (value := lite.value_of(index)) is not None]
    return sum(value.size for value in values if value.ndim > 1 and value.dtype.kind == "f")


def _objection(lite: LiteGraph, op: Any, kind: Kind) -> str | None:
    """Why an operator that is a layer by its kind cannot be INT8; None where it can."""
    if kind.weight is None:
        return None
    weight = op.inputs[kind.weight]
    name, value = lite.name_of(weight), lite.value_of(weight)
    if kind.op == "BatchMatMulV2":
        if lite.value_of(op.inputs[0]) is not None:
            return "its first factor is constant, where LiteRT expects data"
    elif value is None:
        maker = lite.makers.get(int(weight))
        source = "it is an input of the model" if maker is None else f"{lite.kind(maker)} makes it"
        return f"its weight '{name}' is not constant: {source}"
    if value is not None and not np.isfinite(value).all():
        return f"its weight '{name}' holds NaN or infinity"
    return None


def _groups(op: Any, kind: Kind, shapes: Sequence[Shape]) -> int:
    """Groups of input channels of a convolution; 1 where the channels of its data are not known."""
    if kind.op != "Conv2D":
        return 1
    channels, own = shapes[op.inputs[kind.data]][-1], shapes[op.inputs[1]][-1]
    return channels // own if channels and own else 1
