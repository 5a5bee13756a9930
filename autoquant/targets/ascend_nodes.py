"""AMCT's operators as nodes, and the constants that they read, from a record: for writing a graph and checking one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.errors import TrialError
from autoquant.model.nodes import FLOAT, INT32, AttrValue, channels_first, make_node, sizes
from autoquant.model.operators import OPERATORS
from autoquant.quantization.affine import Affine, spread
from autoquant.targets.attributes import cast, type_attr


def quant_node(name: str, source: str, affine: Affine) -> Any:
    """AscendQuant; its scale is 1 / scale_d, in float32."""
    scale = float(np.float32(1.0) / np.float32(affine.scale))
    attributes = {"quant_bits": 8, "scale": scale, "offset": float(affine.offset)}
    return make_node(name, "AscendQuant", [source], T=type_attr(FLOAT), **attributes)


def anti_quant_node(name: str, source: str, affine: Affine) -> Any:
    """AscendAntiQuant; the operator of CANN adds its offset, so that is minus offset_d."""
    attributes = {"scale": affine.scale, "offset": float(-affine.offset)}
    return make_node(name, "AscendAntiQuant", [source], T=type_attr(FLOAT), **attributes)


def weight_quant_node(name: str, weight: str, offset_w: str) -> Any:
    """AscendWeightQuant of an INT8 weight."""
    return make_node(name, "AscendWeightQuant", [weight, offset_w], T=type_attr(FLOAT))


def bias_cast_node(name: str, bias: str) -> Any:
    """The Cast that lets an INT32 bias be added to sums in float."""
    return cast(name, bias, INT32, FLOAT)


def balance_node(name: str, source: str, factors: str) -> Any:
    """The Mul that divides an activation by its balance factors."""
    return make_node(name, "Mul", [source, factors], T=type_attr(FLOAT))


def dequant_node(name: str, source: str, deq_scale: str, operator: Any) -> Any:
    """AscendDequant of what an operator computes; of a pooling, ksize is its window."""
    window = sizes(operator, "ksize") or (1, 1)
    return make_node(
        name,
        "AscendDequant",
        [source, deq_scale],
        T=type_attr(FLOAT),
        ksize=AttrValue(list=AttrValue.ListValue(i=window)),
        data_format=b"NCHW" if channels_first(operator) else b"NHWC",
    )


def deq_scales(layer: str, inputs: Sequence[Affine], scale_w: Sequence[float], shift_bit: Sequence[int]) -> Array:
    """One uint64 a channel, or one for all: bits 31:0 the float32 product of the scales, 39:32 the shift.

    The scales are those of the activations, and of the weight where there is one. Bits 47:40, offset_w, are 0. Raises
    TrialError where a product is not a normal float32 number: TensorFlow takes smaller ones for 0.
    """
    with np.errstate(over="ignore", under="ignore"):
        products = np.prod([np.float32(affine.scale) for affine in inputs], dtype=np.float32) * np.array(
            scale_w or [1.0], np.float32
        )
    if not (np.isfinite(products) & (products >= np.finfo(np.float32).tiny)).all():
        raise TrialError(layer, "the product of its scales is beyond float32", hint="leave the layer in float")
    return products.view(np.uint32).astype(np.uint64) | np.array(shift_bit or [0], np.uint64) << np.uint64(32)


def zero_offsets(scale_w: Sequence[float], shape: Sequence[int], channel_axes: Sequence[int]) -> Array:
    """The int8 offset_w, all 0, one for every scale, with the rank of the weight.

    AMCT tells the weight of a transposed convolution by an axis 2 that is longer than 1.
    """
    return spread(np.zeros(len(scale_w), np.int8), len(shape), shape, channel_axes)


def inverse_factors(balance: Sequence[float], operator: Any) -> Array:
    """1 / f in float32, in a shape that meets the channels of an operator's data."""
    inverse = np.float32(1.0) / np.array(balance, np.float32)
    rank = OPERATORS[operator.op].rank
    return inverse.reshape(-1, *[1] * (rank - 2)) if rank and channels_first(operator) else inverse
