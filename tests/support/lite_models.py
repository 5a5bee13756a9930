"""A small float .tflite of many kinds of operators, and an INT8 one of the same."""

from __future__ import annotations

import contextlib
import io
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from autoquant.model.litert import flatbuffer


@dataclass(frozen=True)
class Pair:
    """Both models, and a batch for them."""

    in_float: bytes
    int8: bytes
    images: np.ndarray


def network() -> bytes:
    """A float .tflite: image (batch, 8, 8, 4) -> y (batch, 3)."""
    import tensorflow as tf

    rng = np.random.default_rng(3)

    def weight(*shape: int) -> Any:
        return tf.constant(rng.normal(size=shape).astype(np.float32))

    image = tf.TensorSpec([None, 8, 8, 4], tf.float32, name="image")

    @tf.function(input_signature=[image])  # type: ignore[untyped-decorator]  # TensorFlow ships no types
    def computed(image: Any) -> dict[str, Any]:
        t = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(image, weight(3, 3, 4, 6), 1, "SAME"), weight(6)))
        t = tf.nn.relu6(tf.nn.depthwise_conv2d(t, weight(3, 3, 6, 1), (1, 2, 2, 1), "SAME"))
        one = tf.nn.conv2d(t, weight(1, 1, 6, 6), 1, "SAME")
        t = tf.nn.relu(t + one) * tf.sigmoid(one)
        t = tf.concat([t, tf.nn.max_pool2d(t, 3, 1, "SAME")], axis=-1)
        t = tf.pad(t, [[0, 0], [1, 1], [1, 1], [0, 0]])
        t = tf.nn.avg_pool2d(t, 2, 2, "VALID")
        t = tf.nn.conv2d_transpose(t, weight(2, 2, 5, 12), [1, 6, 6, 5], 2, "SAME")
        t = tf.nn.leaky_relu(t, 0.125) - tf.tanh(t)
        t = tf.reshape(t, [-1, 36, 5])
        t = tf.linalg.matmul(t, t, transpose_b=True)
        t = tf.reduce_mean(t, axis=2)
        return {"y": tf.nn.softmax(tf.nn.bias_add(tf.linalg.matmul(t, weight(36, 3)), weight(3)))}

    converter = tf.lite.TFLiteConverter.from_concrete_functions([computed.get_concrete_function()], tf.Module())
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        model = flatbuffer.read(converter.convert())
    flatbuffer.add_signature(model, ["image"], ["y"])
    return flatbuffer.write(model)


def quantized(content: bytes, images: np.ndarray) -> bytes:
    """All of it in INT8, but for inputs and outputs, by LiteRT Quantizer's own calibration."""
    from litert_quantizer import quantizer, recipe

    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(action="ignore"),  # it keeps all tensors, of which LiteRT warns
    ):
        made = quantizer.Quantizer(bytearray(content))
        made.load_quantization_recipe(recipe.static_wi8_ai8())
        made.update_quantization_recipe(".*", "INPUT", None, "no_quantize")
        made.update_quantization_recipe(".*", "OUTPUT", None, "no_quantize")
        seen = made.calibrate({flatbuffer.SIGNATURE: [{"image": images}]})
        return bytes(made.quantize(seen).quantized_model)


def pair() -> Pair:
    """Both."""
    images = np.random.default_rng(5).normal(size=(1, 8, 8, 4)).astype(np.float32)
    content = network()
    return Pair(content, quantized(content, images), images)
