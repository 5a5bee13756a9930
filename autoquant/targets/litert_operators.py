"""Operators of a .tflite that can be INT8 or INT16, those that keep the scale of their input, and tensors of data."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType

from autoquant.model.litert.flatbuffer import schema
from autoquant.model.litert.graph import LiteGraph
from autoquant.quantization.affine import Affine
from autoquant.targets.litert_kernels import KERNELS
from autoquant.targets.litert_library import keeps_input_scale, quantizes_weight, supports

INT8_ENDS = "int8"
"""The type of inputs and outputs, where it is not float32."""
SHAPE_READERS = frozenset({"RANK", "SHAPE"})
"""Operators that read of a tensor only what shape it has: they take INT8 and float alike."""
FIXED_SCALES: Mapping[str, Affine] = MappingProxyType(
    {"LOGISTIC": Affine(1 / 256, -128), "SOFTMAX": Affine(1 / 256, -128), "TANH": Affine(1 / 128, 0)}
)
"""Operator -> scale and offset that its result has in INT8, whatever was calibrated: LiteRT's kernels know no other."""
FIXED_WIDE = Affine(1 / 32768, 0, 16)
"""That of all their results in INT16."""
MODELS = 4
"""Models of which answers are cached."""


@lru_cache(MODELS)
def quantizable(lite: LiteGraph) -> frozenset[int]:
    """Indices of the operators that can be INT8: LiteRT Quantizer or we can do them, they have float data, and may be.

    An operator with a weight must be one of the layers, because only plans quantize weights.
    """
    layers = frozenset(lite.layers.values())
    return frozenset(
        index
        for index, op in enumerate(lite.operators)
        if index not in lite.float_only
        and (index in layers or not quantizes_weight(lite.model, op))
        and _supports(lite, index, 8)
        and not all_data(lite).isdisjoint(map(int, (*op.inputs, *op.outputs)))
    )


@lru_cache(MODELS)
def widenable(lite: LiteGraph) -> frozenset[int]:
    """Indices of the operators that can be INT8, and can have activations of 16 bits instead."""
    possible = quantizable(lite) - lite.int8_only
    return frozenset(index for index in possible if _supports(lite, index, 16))


def _supports(lite: LiteGraph, index: int, bits: int) -> bool:
    """Whether LiteRT Quantizer, or what we do behind it, can give an operator activations of so many bits."""
    kernel = KERNELS.get(lite.kind(index))
    if kernel is None:
        return supports(lite.model, lite.operators[index], bits)
    alone = len(data_of(lite, lite.operators[index].inputs)) == 1
    return bits in kernel.bits and (alone or not kernel.keeps_scale)


@lru_cache(MODELS)
def scale_keepers(lite: LiteGraph) -> frozenset[int]:
    """Indices of the operators whose results in integers have scale and offset of their only data input."""
    return frozenset(
        index
        for index, op in enumerate(lite.operators)
        if _keeps_scale(lite, index) and len(data_of(lite, op.inputs)) == 1
    )


def _keeps_scale(lite: LiteGraph, index: int) -> bool:
    kernel = KERNELS.get(lite.kind(index))
    return keeps_input_scale(lite.model, lite.operators[index]) if kernel is None else kernel.keeps_scale


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
    """Tensors that these operators, and inputs and outputs if they are INT8, read or make; in order of index."""
    near = {int(t) for index in operators for op in [lite.operators[index]] for t in (*op.inputs, *op.outputs)}
    if io == INT8_ENDS:
        near.update(map(int, (*lite.subgraph.inputs, *lite.subgraph.outputs)))
    return sorted(data_of(lite, near))
