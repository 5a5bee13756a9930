"""convert_model with a record that AMCT wrote itself, for MobileNetV2 as TensorFlow's slim builds it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autoquant as amct
from autoquant.formats.record_text import load_record
from autoquant.model.graph import GraphDef
from autoquant.targets.check import check

SIZE = 96
BLOCKS = (
    *((1, 16, 1), (6, 24, 2), (6, 24, 1), (6, 32, 2), (6, 32, 1), (6, 32, 1)),
    *((6, 64, 2), (6, 64, 1), (6, 64, 1), (6, 64, 1), (6, 96, 1), (6, 96, 1), (6, 96, 1)),
    *((6, 160, 2), (6, 160, 1), (6, 160, 1), (6, 320, 1)),
)
"""Expansion, channels and stride of each block of MobileNetV2 1.0."""


class Network:
    """MobileNetV2 under slim's names; its weights use the scales of a record to the full."""

    def __init__(self, record: Any) -> None:
        import tensorflow as tf

        self._tf = tf
        self._record = record
        self._rng = np.random.default_rng(1)

    def write(self) -> None:
        tf = self._tf
        x = tf.compat.v1.placeholder(tf.float32, (None, SIZE, SIZE, 3), name="input")
        x = self.conv(x, "MobilenetV2/Conv", 32, 3, stride=2, relu=True)
        for number, (expansion, channels, stride) in enumerate(BLOCKS):
            before, scope = x, f"MobilenetV2/expanded_conv{f'_{number}' if number else ''}"
            if expansion > 1:
                x = self.conv(x, f"{scope}/expand", int(x.shape[-1]) * expansion, relu=True)
            x = self.depthwise(x, f"{scope}/depthwise", stride)
            x = self.conv(x, f"{scope}/project", channels)
            if stride == 1 and int(before.shape[-1]) == channels:
                x = tf.add(x, before, name=f"{scope}/add")
        x = self.conv(x, "MobilenetV2/Conv_1", 1280, relu=True)
        x = tf.nn.avg_pool2d(x, SIZE // 32, 1, "VALID", name="MobilenetV2/Logits/AvgPool")
        name = "MobilenetV2/Logits/Conv2d_1c_1x1"
        x = tf.nn.conv2d(x, self.weight(f"{name}/Conv2D", (1, 1, 1280, 1001)), 1, "SAME", name=f"{name}/Conv2D")
        x = tf.nn.bias_add(x, np.zeros(1001, np.float32), name=f"{name}/BiasAdd")
        x = tf.squeeze(x, (1, 2), name="MobilenetV2/Logits/Squeeze")
        tf.nn.softmax(x, name="MobilenetV2/Predictions/Reshape_1")

    def conv(self, x: Any, scope: str, channels: int, size: int = 1, *, stride: int = 1, relu: bool = False) -> Any:
        weight = self.weight(f"{scope}/Conv2D", (size, size, int(x.shape[-1]), channels))
        return self.normed(self._tf.nn.conv2d(x, weight, stride, "SAME", name=f"{scope}/Conv2D"), scope, relu=relu)

    def depthwise(self, x: Any, scope: str, stride: int) -> Any:
        weight = self.weight(f"{scope}/depthwise", (3, 3, int(x.shape[-1]), 1))
        convolve = self._tf.compat.v1.nn.depthwise_conv2d_native
        x = convolve(x, weight, (1, stride, stride, 1), "SAME", name=f"{scope}/depthwise")
        return self.normed(x, scope, relu=True)

    def normed(self, x: Any, scope: str, *, relu: bool) -> Any:
        """A batch norm that halves, so that weights must be folded to fit their scales, and a ReLU6."""
        one = np.ones(int(x.shape[-1]), np.float32)
        norm = self._tf.compat.v1.nn.fused_batch_norm(
            x, one / 2, 0 * one, 0 * one, one, epsilon=0.0, is_training=False, name=f"{scope}/BatchNorm/FusedBatchNorm"
        )
        return self._tf.nn.relu6(norm[0], name=f"{scope}/Relu6") if relu else norm[0]

    def weight(self, layer: str, shape: tuple[int, ...]) -> Any:
        """Random steps from -127 to 127, both in each channel, in units of the record's scale, times 2 for the norm."""
        steps = self._rng.integers(-127, 128, shape).astype(np.float32)
        steps[(0, 0, 0) if shape[3] > 1 else (0, 0)] = 127
        scales = np.array(self._record[layer].scale_w, np.float32)
        factor = 1 if "Logits" in layer else 2
        return steps * scales.reshape((1, 1, -1, 1) if shape[3] == 1 else (1, 1, 1, -1)) * factor


def test_the_published_record_of_mobilenet_v2_is_converted(
    real_data: Path, built: Callable[[Callable[[], Any]], Any]
) -> None:
    source = real_data / "mobilenet_v2_record.txt"
    record = load_record(source)
    assert len(record) == 54
    Path("float.pb").write_bytes(built(Network(record).write).as_graph_def().SerializeToString())
    outputs = ["MobilenetV2/Predictions/Reshape_1:0"]
    saved = amct.convert_model("float.pb", outputs, source, "results/mobilenet_v2")
    found = check(saved.model, record)
    assert found.layers == {"AvgPool": 1, "Conv2D": 36, "DepthwiseConv2dNative": 17}

    graph_def = GraphDef()
    graph_def.ParseFromString(saved.model.read_bytes())
    quants = [node for node in graph_def.node if node.op == "AscendQuant"]
    scales = sorted(1 / entry.activation.scale for entry in record.values())
    assert sorted(node.attr["scale"].f for node in quants) == pytest.approx(scales, rel=1e-6)
    assert not [node for node in graph_def.node if node.op.startswith("FusedBatchNorm")]


def test_its_layers_are_those_of_a_config(real_data: Path, built: Callable[[Callable[[], Any]], Any]) -> None:
    """create_quant_config finds the same 54 layers, and does not quantize what AMCT does not."""
    import json

    record = load_record(real_data / "mobilenet_v2_record.txt")
    amct.create_quant_config("config.json", built(Network(record).write))
    config = json.loads(Path("config.json").read_text())
    assert {name for name, value in config.items() if isinstance(value, dict)} == set(record)
    assert "weight_quant_params" not in config["MobilenetV2/Logits/AvgPool"]
