"""Recurrent networks with an open batch are converted, and the batch stays open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recurrent import KINDS, freeze, predict, recurrent, sequences

from autoquant.evaluation.engines.litert import LiteRTEngine
from autoquant.model.graph import Graph
from autoquant.model.litert.convert import convert
from autoquant.model.litert.interpreter import plain_interpreter, run
from autoquant.model.litert.kinds import BODY
from autoquant.model.litert.lists import with_made_lists
from autoquant.model.litert.survey import survey_lite
from autoquant.model.open import open_model

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def outputs(content: bytes, x: Any) -> list[Any]:
    interpreter = plain_interpreter(content)
    run(interpreter, [x])
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]


@pytest.mark.parametrize("kind", KINDS)
def test_a_recurrence_computes_what_keras_does_for_any_batch(kind: str, tmp_path: Path) -> None:
    network = recurrent(kind)
    network.save(tmp_path / "m.keras")
    lite = convert(open_model(tmp_path / "m.keras").graph)
    assert lite.shape_of(lite.subgraph.inputs[0])[0] is None
    for count in (1, 4):
        x = sequences(count)
        for found, expected in zip(outputs(lite.content, x), predict(network, x), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-6)


def test_loops_of_tensorflow_1_are_converted_too(tmp_path: Path) -> None:
    network, x = recurrent("bidirectional"), sequences(3)
    lite = convert(open_model(freeze(network, tmp_path / "m.pb", lowered=True)).graph)
    np.testing.assert_allclose(outputs(lite.content, x)[0], predict(network, x)[0], atol=1e-6)


def test_layers_around_the_loop_are_found(tmp_path: Path) -> None:
    recurrent("stacked").save(tmp_path / "m.keras")
    found = survey_lite(convert(open_model(tmp_path / "m.keras").graph))
    assert {layer.name.split("/")[1].split("_")[0]: layer.macs for layer in found.layers} == {
        "front": 6 * 4 * 8, "between": 6 * 6 * 5, "hidden": 5 * 7, "head": 7 * 3
    }  # fmt: skip
    assert [(one.op, one.reason) for one in found.rejected] == [("WHILE", BODY)] * 2


def test_a_batch_that_is_not_the_inputs_is_that_of_what_the_loop_reads(tmp_path: Path) -> None:
    import keras

    x = given = keras.Input((6, 4), name="x")
    x = keras.layers.LSTM(5)(keras.ops.reshape(x, (-1, 3, 4)))
    network = keras.Model(given, keras.ops.reshape(keras.layers.Dense(2)(x), (-1, 2, 2)))
    network.save(tmp_path / "m.keras")
    data = sequences(3)
    lite = convert(open_model(tmp_path / "m.keras").graph)
    np.testing.assert_allclose(outputs(lite.content, data)[0], predict(network, data)[0], atol=1e-6)


def test_a_fixed_batch_runs_one_by_one(tmp_path: Path) -> None:
    network, x = recurrent("lstm", batch=1), sequences(5)
    network.save(tmp_path / "m.keras")
    lite = convert(open_model(tmp_path / "m.keras").graph)
    (tmp_path / "m.tflite").write_bytes(lite.content)
    model = open_model(tmp_path / "m.tflite")
    assert model.inputs[0].shape == (1, 6, 4)
    found = LiteRTEngine().open_graph(model.program)({"x": x})[model.program.outputs[0]]
    wanted = np.concatenate([predict(network, x[i : i + 1])[0] for i in range(5)])
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_lists_of_known_sizes_are_left_alone(build: Callable[..., Graph]) -> None:
    import tensorflow as tf

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, (2, 3), name="x")
        reserved = tf.raw_ops.TensorListReserve(element_shape=[2, 3], num_elements=1, element_dtype=tf.float32)
        full = tf.raw_ops.TensorListSetItem(input_handle=reserved, index=0, item=x)
        tf.raw_ops.TensorListStack(input_handle=full, element_shape=[2, 3], element_dtype=tf.float32, name="y")

    graph = build(write)
    assert with_made_lists(graph) is graph


@pytest.mark.parametrize("name", ["number", "values"])
def test_a_made_list_holds_zeros_until_it_is_filled(
    name: str, build: Callable[..., Graph], run: Callable[..., list[Any]]
) -> None:
    import tensorflow as tf

    kind = tf.int32 if name == "number" else tf.float32

    def write() -> None:
        x = tf.compat.v1.placeholder(kind, (None, 3), name="x")
        reserved = tf.raw_ops.TensorListReserve(element_shape=[-1, 3], num_elements=2, element_dtype=kind)
        full = tf.raw_ops.TensorListSetItem(input_handle=reserved, index=1, item=x)
        tf.raw_ops.TensorListStack(input_handle=full, element_shape=[-1, 3], element_dtype=kind, name="y")

    graph, x = build(write), np.arange(12).reshape(4, 3).astype(kind.as_numpy_dtype)
    made = with_made_lists(graph)
    assert not any(node.op == "TensorListReserve" for node in made.nodes.values())
    np.testing.assert_array_equal(run(made, {"x": x})[0], np.stack([np.zeros_like(x), x]))
