"""Operators of a .tflite as functions of TensorFlow, which have gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from autoquant.model.litert.flatbuffer import DTYPES, schema
from autoquant.model.litert.graph import LiteGraph

Inputs = Sequence[Any]
"""What an operator reads: tensors of TensorFlow, arrays where they are constants, None where there is nothing."""
Function = Callable[[Inputs, Any], Any]
"""From inputs and options (such as Conv2DOptionsT) to a result, or to a list of several."""


def _tf() -> Any:
    import tensorflow as tf

    return tf


def _activated(values: Any, options: Any) -> Any:
    """Behind the activation that an operator has joined."""
    tf, kinds = _tf(), schema.ActivationFunctionType
    kind = options.fusedActivationFunction
    if kind == kinds.NONE:
        return values
    functions = {
        kinds.RELU: tf.nn.relu,
        kinds.RELU_N1_TO_1: lambda one: tf.clip_by_value(one, -1.0, 1.0),
        kinds.RELU6: tf.nn.relu6,
        kinds.TANH: tf.tanh,
    }
    return functions[kind](values)


def _biased(values: Any, inputs: Inputs, place: int, options: Any) -> Any:
    bias = inputs[place] if len(inputs) > place else None
    return _activated(values if bias is None else values + bias, options)


def _padding(options: Any) -> str:
    return "SAME" if options.padding == schema.Padding.SAME else "VALID"


def _strides(options: Any) -> list[int]:
    return [1, options.strideH, options.strideW, 1]


def _convolved(data: Any, weight: Any, options: Any) -> Any:
    """A convolution, by groups where the weight has fewer input channels: of several some kernels have no gradient."""
    tf, groups = _tf(), data.shape[-1] // weight.shape[2]
    dilations = options.dilationHFactor, options.dilationWFactor
    parts = [
        tf.nn.conv2d(one, own, _strides(options), _padding(options), dilations=dilations)
        for one, own in zip(tf.split(data, groups, -1), tf.split(weight, groups, -1), strict=True)
    ]
    return parts[0] if groups == 1 else tf.concat(parts, -1)


def _conv_2d(inputs: Inputs, options: Any) -> Any:
    made = _convolved(inputs[0], _tf().transpose(inputs[1], (1, 2, 3, 0)), options)
    return _biased(made, inputs, 2, options)


def _depthwise_conv_2d(inputs: Inputs, options: Any) -> Any:
    """As one convolution a channel where strides differ, which TensorFlow's own operator cannot have."""
    tf, (_, height, width, out) = _tf(), inputs[1].shape
    channels = inputs[0].shape[-1]
    dilations = options.dilationHFactor, options.dilationWFactor
    if options.strideH == options.strideW:
        weight = tf.reshape(inputs[1], (height, width, channels, out // channels))
        made = tf.nn.depthwise_conv2d(inputs[0], weight, _strides(options), _padding(options), dilations=dilations)
    else:
        weight = tf.reshape(inputs[1], (height, width, 1, out))  # as many groups as channels
        made = _convolved(inputs[0], weight, options)
    return _biased(made, inputs, 2, options)


def _transpose_conv(inputs: Inputs, options: Any) -> Any:
    tf = _tf()
    weight = tf.transpose(inputs[1], (1, 2, 0, 3))
    shape = tf.concat([tf.shape(inputs[2])[:1], inputs[0][1:]], axis=0)
    made = tf.nn.conv2d_transpose(inputs[2], weight, shape, _strides(options), _padding(options))
    return _biased(made, inputs, 3, options)


def _conv_3d(inputs: Inputs, options: Any) -> Any:
    strides = [1, options.strideD, options.strideH, options.strideW, 1]
    dilations = [1, options.dilationDFactor, options.dilationHFactor, options.dilationWFactor, 1]
    made = _tf().nn.conv3d(inputs[0], inputs[1], strides, _padding(options), dilations=dilations)
    return _biased(made, inputs, 2, options)


def _fully_connected(inputs: Inputs, options: Any) -> Any:
    tf, (out, size) = _tf(), inputs[1].shape
    made = tf.matmul(tf.reshape(inputs[0], (-1, size)), inputs[1], transpose_b=True)
    made = _biased(made, inputs, 2, options)
    if not options.keepNumDims:
        return made
    return tf.reshape(made, tf.concat([tf.shape(inputs[0])[:-1], [out]], axis=0))


def _batch_matmul(inputs: Inputs, options: Any) -> Any:
    return _tf().matmul(inputs[0], inputs[1], transpose_a=options.adjX, transpose_b=options.adjY)


def _pool(name: str, inputs: Inputs, options: Any) -> Any:
    window = [options.filterHeight, options.filterWidth]
    made = getattr(_tf().nn, name)(inputs[0], window, _strides(options), _padding(options))
    return _activated(made, options)


def _each(function: Callable[..., Any], inputs: Inputs, options: Any) -> Any:
    """A function of all inputs that needs no options."""
    return function(*inputs)


def _with_activation(function: Callable[..., Any], inputs: Inputs, options: Any) -> Any:
    return _activated(function(*inputs), options)


def _concatenation(inputs: Inputs, options: Any) -> Any:
    return _activated(_tf().concat(list(inputs), options.axis), options)


def _reshape(inputs: Inputs, options: Any) -> Any:
    return _tf().reshape(inputs[0], inputs[1] if len(inputs) > 1 else options.newShape)


def _squeeze(inputs: Inputs, options: Any) -> Any:
    axes = [] if options.squeezeDims is None else list(map(int, options.squeezeDims))
    return _tf().squeeze(inputs[0], axes or None)


def _strided_slice(inputs: Inputs, options: Any) -> Any:
    data, begin, end, strides = inputs
    masks = {"begin_mask": options.beginMask, "end_mask": options.endMask, "ellipsis_mask": options.ellipsisMask}
    masks |= {"new_axis_mask": options.newAxisMask, "shrink_axis_mask": options.shrinkAxisMask}
    return _tf().strided_slice(data, begin, begin + end if options.offset else end, strides, **masks)


def _split(inputs: Inputs, options: Any) -> Any:
    return _tf().split(inputs[1], options.numSplits, int(inputs[0]))


def _split_v(inputs: Inputs, options: Any) -> Any:
    return _tf().split(inputs[0], inputs[1], int(inputs[2]))


def _unpack(inputs: Inputs, options: Any) -> Any:
    return _tf().unstack(inputs[0], options.num, options.axis)


def _gather(inputs: Inputs, options: Any) -> Any:
    return _tf().gather(inputs[0], inputs[1], axis=options.axis, batch_dims=options.batchDims)


def _reduce(name: str, inputs: Inputs, options: Any) -> Any:
    return getattr(_tf(), name)(inputs[0], np.ravel(inputs[1]), keepdims=options.keepDims)


def _resize(method: str, inputs: Inputs, options: Any) -> Any:
    function = getattr(_tf().raw_ops, method)
    size, corners, centers = inputs[1], options.alignCorners, options.halfPixelCenters
    return function(images=inputs[0], size=size, align_corners=corners, half_pixel_centers=centers)


def _mirror_pad(inputs: Inputs, options: Any) -> Any:
    mode = "REFLECT" if options.mode == schema.MirrorPadMode.REFLECT else "SYMMETRIC"
    return _tf().pad(inputs[0], inputs[1], mode)


def _cast(inputs: Inputs, options: Any) -> Any:
    return _tf().cast(inputs[0], options)


def _shape(inputs: Inputs, options: Any) -> Any:
    return _tf().shape(inputs[0], out_type=DTYPES[options.outType])


def _arg(name: str, inputs: Inputs, options: Any) -> Any:
    return getattr(_tf(), name)(inputs[0], int(inputs[1]), output_type=DTYPES[options.outputType])


def _softmax(inputs: Inputs, options: Any) -> Any:
    return _tf().nn.softmax(inputs[0] * np.float32(options.beta))


def _prelu(inputs: Inputs, options: Any) -> Any:
    tf = _tf()
    return tf.nn.relu(inputs[0]) - inputs[1] * tf.nn.relu(-inputs[0])


def _hard_swish(inputs: Inputs, options: Any) -> Any:
    return inputs[0] * _tf().nn.relu6(inputs[0] + 3.0) / 6.0


def _top_k(inputs: Inputs, options: Any) -> Any:
    return _tf().math.top_k(inputs[0], inputs[1])


def _one_hot(inputs: Inputs, options: Any) -> Any:
    return _tf().one_hot(inputs[0], inputs[1], inputs[2], inputs[3], axis=options.axis)


def _cumsum(inputs: Inputs, options: Any) -> Any:
    return _tf().cumsum(inputs[0], int(inputs[1]), exclusive=options.exclusive, reverse=options.reverse)


def _of(path: str, way: Callable[[Callable[..., Any], Inputs, Any], Any] = _each) -> Function:
    """The function of TensorFlow that is found there, such as nn.relu, which is loaded when it is called."""

    def called(inputs: Inputs, options: Any) -> Any:
        found = _tf()
        for name in path.split("."):
            found = getattr(found, name)
        return way(found, inputs, options)

    return called


SAME = {
    "ABS": "abs",
    "BATCH_TO_SPACE_ND": "batch_to_space",
    "BROADCAST_TO": "broadcast_to",
    "CEIL": "math.ceil",
    "COS": "cos",
    "ELU": "nn.elu",
    "EQUAL": "equal",
    "EXP": "exp",
    "EXPAND_DIMS": "expand_dims",
    "FILL": "fill",
    "FLOOR": "floor",
    "FLOOR_DIV": "math.floordiv",
    "FLOOR_MOD": "math.floormod",
    "GATHER_ND": "gather_nd",
    "GREATER": "greater",
    "GREATER_EQUAL": "greater_equal",
    "LESS": "less",
    "LESS_EQUAL": "less_equal",
    "LOG": "math.log",
    "LOGICAL_AND": "logical_and",
    "LOGICAL_NOT": "logical_not",
    "LOGICAL_OR": "logical_or",
    "LOGISTIC": "sigmoid",
    "LOG_SOFTMAX": "nn.log_softmax",
    "MAXIMUM": "maximum",
    "MINIMUM": "minimum",
    "NEG": "negative",
    "NOT_EQUAL": "not_equal",
    "PAD": "pad",
    "POW": "pow",
    "RANGE": "range",
    "RELU": "nn.relu",
    "RELU6": "nn.relu6",
    "REVERSE_V2": "reverse",
    "ROUND": "round",
    "RSQRT": "math.rsqrt",
    "SELECT": "where",
    "SELECT_V2": "where",
    "SIGN": "sign",
    "SIN": "sin",
    "SLICE": "slice",
    "SPACE_TO_BATCH_ND": "space_to_batch",
    "SQRT": "sqrt",
    "SQUARE": "square",
    "SQUARED_DIFFERENCE": "math.squared_difference",
    "TANH": "tanh",
    "TILE": "tile",
    "TRANSPOSE": "transpose",
    "ZEROS_LIKE": "zeros_like",
}
"""Operator -> the function of TensorFlow of the same inputs."""
REDUCTIONS = {
    "MEAN": "reduce_mean",
    "REDUCE_ALL": "reduce_all",
    "REDUCE_ANY": "reduce_any",
    "REDUCE_MAX": "reduce_max",
    "REDUCE_MIN": "reduce_min",
    "REDUCE_PROD": "reduce_prod",
    "SUM": "reduce_sum",
}
FUNCTIONS: Mapping[str, Function] = MappingProxyType(
    {kind: _of(path) for kind, path in SAME.items()}
    | {kind: partial(_reduce, name) for kind, name in REDUCTIONS.items()}
    | {
        kind: _of(path, _with_activation)
        for kind, path in (("ADD", "add"), ("DIV", "divide"), ("MUL", "multiply"), ("SUB", "subtract"))
    }
    | {
        "ARG_MAX": partial(_arg, "argmax"),
        "ARG_MIN": partial(_arg, "argmin"),
        "AVERAGE_POOL_2D": partial(_pool, "avg_pool2d"),
        "BATCH_MATMUL": _batch_matmul,
        "CAST": _cast,
        "CONCATENATION": _concatenation,
        "CONV_2D": _conv_2d,
        "CONV_3D": _conv_3d,
        "CUMSUM": _cumsum,
        "DEPTHWISE_CONV_2D": _depthwise_conv_2d,
        "DEPTH_TO_SPACE": lambda inputs, options: _tf().nn.depth_to_space(inputs[0], options.blockSize),
        "EMBEDDING_LOOKUP": lambda inputs, options: _tf().gather(inputs[1], inputs[0]),
        "FULLY_CONNECTED": _fully_connected,
        "GATHER": _gather,
        "GELU": lambda inputs, options: _tf().nn.gelu(inputs[0], approximate=options.approximate),
        "HARD_SWISH": _hard_swish,
        "L2_NORMALIZATION": lambda inputs, options: _activated(_tf().math.l2_normalize(inputs[0], -1), options),
        "LEAKY_RELU": lambda inputs, options: _tf().nn.leaky_relu(inputs[0], options.alpha),
        "MAX_POOL_2D": partial(_pool, "max_pool2d"),
        "MIRROR_PAD": _mirror_pad,
        "ONE_HOT": _one_hot,
        "PACK": lambda inputs, options: _tf().stack(list(inputs), options.axis),
        "PADV2": lambda inputs, options: _tf().pad(inputs[0], inputs[1], constant_values=inputs[2]),
        "PRELU": _prelu,
        "RELU_0_TO_1": lambda inputs, options: _tf().clip_by_value(inputs[0], 0.0, 1.0),
        "RELU_N1_TO_1": lambda inputs, options: _tf().clip_by_value(inputs[0], -1.0, 1.0),
        "RESHAPE": _reshape,
        "RESIZE_BILINEAR": partial(_resize, "ResizeBilinear"),
        "RESIZE_NEAREST_NEIGHBOR": partial(_resize, "ResizeNearestNeighbor"),
        "SHAPE": _shape,
        "SOFTMAX": _softmax,
        "SPACE_TO_DEPTH": lambda inputs, options: _tf().nn.space_to_depth(inputs[0], options.blockSize),
        "SPLIT": _split,
        "SPLIT_V": _split_v,
        "SQUEEZE": _squeeze,
        "STRIDED_SLICE": _strided_slice,
        "TOPK_V2": _top_k,
        "TRANSPOSE_CONV": _transpose_conv,
        "UNPACK": _unpack,
    }
)
"""Operator -> what computes it. The others, loops among them, cannot be trained."""


def results_of(lite: LiteGraph, operator: int, inputs: Inputs) -> list[Any]:
    """What an operator of a .tflite, by index, makes of its inputs."""
    op, kind = lite.operators[operator], lite.kind(operator)
    # A CAST need not have options: what type it makes is said by its result.
    options = DTYPES[lite.subgraph.tensors[op.outputs[0]].type] if kind == "CAST" else op.builtinOptions
    made = FUNCTIONS[kind](inputs, options)
    return list(made) if isinstance(made, list | tuple) else [made]
