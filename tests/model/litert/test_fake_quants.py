"""Rounding of quantization-aware training in float .tflite files, which is removed on opening."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from graph_writing import normal
from quantization_aware import Rounding, fake, per_channel, same, trained

from autoquant.errors import ModelError
from autoquant.model.graph import Graph
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.convert import convert
from autoquant.model.litert.fake_quants import remove_fake_quants
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.open import open_model


@pytest.fixture
def weight() -> Any:
    return normal(np.random.default_rng(0), 3, 3, 2, 4)


@pytest.fixture
def x() -> Any:
    return 3 * normal(np.random.default_rng(1), 1, 4, 4, 2)


@pytest.mark.parametrize("weight_rounding", [fake, per_channel, same])
def test_a_lite_file_is_opened_without(
    weight_rounding: Rounding,
    weight: Any,
    x: Any,
    tmp_path: Path,
    build: Callable[..., Graph],
    ran_lite: Callable[[bytes, Mapping[str, Any]], Mapping[str, Any]],
) -> None:
    """The converter writes FakeQuants as QUANTIZE and DEQUANTIZE, of weights too."""
    path = tmp_path / "qat.tflite"
    path.write_bytes(convert(build(lambda: trained(weight, fake, weight_rounding))).content)
    model = flatbuffer.read(path.read_bytes())
    assert "DEQUANTIZE" in {flatbuffer.op_name(model, op) for op in model.subgraphs[0].operators}
    opened = open_model(path)
    assert opened.program.outputs == ("y",)
    assert ["removed from 2 activations" in note for note in opened.notes] == [True]
    assert isinstance(opened.program, LiteGraph)
    content = opened.program.content
    model = flatbuffer.read(content)
    assert [flatbuffer.op_name(model, op) for op in model.subgraphs[0].operators] == ["CONV_2D"]
    wanted = tf.nn.relu(tf.nn.conv2d(x, weight_rounding(weight), 1, "SAME"))
    np.testing.assert_allclose(ran_lite(content, {"x": x})["y"], wanted, atol=1e-4)


def test_a_file_without_stays_to_the_byte(weight: Any, build: Callable[..., Graph]) -> None:
    content = convert(build(lambda: trained(weight, same, same))).content
    model = flatbuffer.read(content)
    assert remove_fake_quants(model) == 0
    assert flatbuffer.write(model) == flatbuffer.write(flatbuffer.read(content))


@pytest.mark.filterwarnings("ignore:Statistics for quantized inputs")  # the ranges of FakeQuants are enough
def test_what_computes_in_integers_is_refused(weight: Any, x: Any, tmp_path: Path) -> None:
    def write(t: Any) -> Any:
        return fake(tf.nn.relu(tf.nn.conv2d(fake(t), fake(tf.constant(weight)), 1, "SAME")))

    concrete = tf.function(write).get_concrete_function(tf.TensorSpec(x.shape, tf.float32))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    (tmp_path / "int8.tflite").write_bytes(converter.convert())
    with pytest.raises(ModelError, match="is quantized already"):
        open_model(tmp_path / "int8.tflite")
