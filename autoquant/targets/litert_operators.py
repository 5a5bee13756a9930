"""Operators of a .tflite that can be INT8, those that keep the scale of their input, and the tensors of data."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType

from autoquant.model.litert.flatbuffer import schema
from autoquant.model.litert.graph import LiteGraph
from autoquant.quantization.affine import Affine
from autoquant.targets.litert_library import keeps_input_scale, quantizes_weight, supports_int8

INT8_ENDS = "int8"
"""The type of inputs and outputs, where it is not float32."""
SHAPE_READERS = frozenset({"RANK", "SHAPE"})
"""Operators that read of a tensor only what shape it has: they take INT8 and float alike."""
FIXED_SCALES: Mapping[str, Affine] = MappingProxyType(
    {"LOGISTIC": Affine(1 / 256, -128), "SOFTMAX": Affine(1 / 256, -128), "TANH": Affine(1 / 128, 0)}
)
"""Operator -> scale and offset that its result has in INT8, whatever was calibrated: LiteRT's kernels know no other."""
MODELS = 4
"""Models of which answers are cached."""


@lru_cache(MODELS)
def quantizable(lite: LiteGraph) -> frozenset[int]:
    """Indices of the operators that can be INT8: LiteRT Quantizer can do them, they have float data, and may be.

    An operator with a weight must be one of the layers, because only plans quantize weights.
    """
    layers = frozenset(lite.layers.values())
    return frozenset(
        index
        for index, op in enumerate(lite.operators)
        if index not in lite.float_only
        and (index in layers or not quantizes_weight(lite.model, op))
        and supports_int8(lite.model, op)
        and not all_data(lite).isdisjoint(map(int, (*op.inputs, *op.outputs)))
    )


@lru_cache(MODELS)
def scale_keepers(lite: LiteGraph) -> frozenset[int]:
    """Indices of the operators whose results in INT8 have scale and offset of their only data input."""
    return frozenset(
        index
        for index, op in enumerate(lite.operators)
        if keeps_input_scale(lite.model, op) and len(data_of(lite, op.inputs)) == 1
    )


@lru_cache(MODELS)
def all_data(lite: LiteGraph) -> frozenset[int]:
    """Indices of the tensors that hold float32 and are no constant."""
    return frozenset(
        index
        for index, tensor in enumerate(lite.subgraph.tensors)
        if tensor.type == schema.TensorType.FLOAT32 and lite.value_of(index) is None
    )


def data_of(lite: LiteGraph, tensors: Iterable[int]) -> list[int]:
    """Those of the tensors that are data, each once, in their order."""
    known = all_data(lite)
    return list(dict.fromkeys(int(tensor) for tensor in tensors if int(tensor) in known))


def data_near(lite: LiteGraph, operators: Collection[int], io: str) -> list[int]:
    """Tensors that INT8 operators, and inputs and outputs if they are INT8, read or make; in order of index."""
    near = {int(t) for index in operators for op in [lite.operators[index]] for t in (*op.inputs, *op.outputs)}
    if io == INT8_ENDS:
        near.update(map(int, (*lite.subgraph.inputs, *lite.subgraph.outputs)))
    return sorted(data_of(lite, near))
