"""Networks of quantization-aware training: what rounds activations and weights in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

Rounding = Callable[[Any], Any]
LIMIT = 2.0


def same(t: Any) -> Any:
    return t


def fake(t: Any) -> Any:
    return tf.quantization.fake_quant_with_min_max_vars(t, -LIMIT, LIMIT)


def fake_by_its_values(t: Any) -> Any:
    return tf.quantization.fake_quant_with_min_max_vars(t, tf.reduce_min(t), tf.reduce_max(t))


def fake_by_arguments(t: Any) -> Any:
    return tf.quantization.fake_quant_with_min_max_args(t, -2.0, 2.0, num_bits=4)


def quantize_and_dequantize(t: Any) -> Any:
    return tf.quantization.quantize_and_dequantize_v2(t, -LIMIT, LIMIT, range_given=True)


def pair(t: Any) -> Any:
    """Two operators, with an Identity between them."""
    given = {"min_range": -LIMIT, "max_range": LIMIT, "T": tf.qint8, "mode": "SCALED"}
    rounded = tf.raw_ops.QuantizeV2(input=t, **given)
    ranges = {"min_range": rounded.output_min, "max_range": rounded.output_max, "mode": "SCALED"}
    return tf.raw_ops.Dequantize(input=tf.identity(rounded.output), **ranges)


def trained(weight: Any, rounding: Rounding, weight_rounding: Rounding = fake) -> None:
    """X -> convolution with a rounded weight -> ReLU -> y, all activations rounded, the output twice."""
    x = tf.compat.v1.placeholder(tf.float32, (1, 4, 4, 2), name="x")
    t = tf.nn.conv2d(rounding(x), weight_rounding(tf.constant(weight)), 1, "SAME", name="conv")
    tf.identity(rounding(rounding(tf.nn.relu(t))), name="y")


def per_channel(t: Any) -> Any:
    limits = tf.constant([2.5, 2.0, 3.0, 3.5])
    return tf.quantization.fake_quant_with_min_max_vars_per_channel(t, -limits, limits, narrow_range=True)
