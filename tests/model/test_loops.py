"""Loops of TensorFlow 1 become While operators that compute the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recurrent import KINDS, freeze, predict, recurrent, run_pb, sequences

from autoquant.errors import ModelError
from autoquant.model.graph import Graph
from autoquant.model.load import load
from autoquant.model.loops import with_functional_loops
from autoquant.model.open import open_model, prepare_graph
from autoquant.model.shapes import import_graph
from autoquant.model.survey import BODY, survey_graph

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
Run = Callable[..., list[Any]]


def ops(graph: Graph) -> Counter[str]:
    return Counter(node.op for node in graph.nodes.values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_frozen_recurrence_computes_what_keras_does(kind: str, tmp_path: Path, run: Run) -> None:
    network, x = recurrent(kind), sequences(4)
    graph = open_model(freeze(network, tmp_path / "m.pb", lowered=True)).graph
    wanted = predict(network, x)
    assert len(graph.outputs) == len(wanted)
    assert ops(graph)["While"] == {"bidirectional": 2, "stacked": 2}.get(kind, 1)
    assert not ops(graph).keys() & {"Enter", "Exit", "Merge", "Switch", "NextIteration", "LoopCond"}
    for found, expected in zip(run(graph, {"x": x}), wanted, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("lowered", [True, False])
def test_layers_around_the_loop_are_found_with_their_sizes(lowered: bool, tmp_path: Path) -> None:
    found = survey_graph(open_model(freeze(recurrent("stacked"), tmp_path / "m.pb", lowered=lowered)).graph)
    assert {layer.name.split("/")[1]: layer.macs for layer in found.layers} == {
        "front_1": 6 * 4 * 8, "between_1": 6 * 6 * 5, "hidden_1": 5 * 7, "head_1": 7 * 3
    }  # fmt: skip
    assert [(one.op, one.reason) for one in found.rejected] == [("While", BODY)] * 2


def test_sizes_that_need_an_open_input_stay_unknown(tmp_path: Path) -> None:
    path = freeze(recurrent("open steps"), tmp_path / "m.pb", lowered=True)
    front, hidden, head = survey_graph(open_model(path).graph).layers
    assert front.macs is None
    front, hidden, head = survey_graph(open_model(path).graph, input_shapes={"x": (9, 4)}).layers
    assert (front.macs, hidden.macs, head.macs) == (9 * 4 * 8, 5 * 7, 7 * 3)


def test_gradients_go_through_the_loop(tmp_path: Path) -> None:
    import tensorflow as tf

    network, x = recurrent("bidirectional"), sequences(4)
    found = []
    for lowered in (True, False):
        graph = import_graph(open_model(freeze(network, tmp_path / "m.pb", lowered=lowered)).graph)
        (layer,) = (op for op in graph.get_operations() if op.type == "MatMul" and "front" in op.name)
        with graph.as_default(), tf.compat.v1.Session() as session:
            output = graph.get_tensor_by_name("Identity:0")[:, 0]
            (gradient,) = tf.gradients(output, layer.outputs)
            found.append(session.run(gradient, {"x:0": x}))
    assert np.abs(found[1]).max() > 1e-3
    np.testing.assert_allclose(found[0], found[1], atol=1e-7)


def of_tensorflow_1() -> None:
    """A loop with TensorArrays, another loop in it, a value that grows, and two results read as they leave the loop."""
    import tensorflow as tf
    from tensorflow.python.ops import control_flow_util

    enabled, control_flow_util.ENABLE_CONTROL_FLOW_V2 = control_flow_util.ENABLE_CONTROL_FLOW_V2, False
    rng = np.random.default_rng(0)
    kernel, back, out = (tf.constant(rng.normal(0, 0.5, s), tf.float32) for s in ((4, 6), (6, 6), (6, 3)))
    x = tf.compat.v1.placeholder(tf.float32, (None, None, 4), name="x")
    steps = tf.shape(x)[1]
    data = tf.TensorArray(tf.float32, steps).unstack(tf.transpose(x, [1, 0, 2]))

    def step(number: Any, state: Any, results: Any, sums: Any) -> Any:
        state = tf.tanh(data.read(number) @ kernel + state @ back)
        _, state = tf.while_loop(lambda n, _: n < 2, lambda n, s: (n + 1, 0.5 * s + s @ back), [0, state], name="inner")
        sums = tf.concat([sums, [tf.reduce_sum(state)]], 0)
        return number + 1, state, results.write(number, state), sums

    state = tf.zeros((tf.shape(x)[0], 6))
    shapes = [tf.TensorShape([]), tf.TensorShape((None, 6)), tf.TensorShape(None), tf.TensorShape([None])]
    begin = [0, state, tf.TensorArray(tf.float32, steps), tf.zeros([0])]
    _, state, results, sums = tf.while_loop(lambda n, *_: n < steps, step, begin, shapes, name="loop")
    tf.linalg.matmul(state, out, name="last")
    tf.linalg.matmul(tf.reshape(results.stack(), (-1, 6)), out, name="all")
    tf.size(sums, name="grown")
    tf.stack([tf.reduce_sum(sums), 1.0], name="total")
    control_flow_util.ENABLE_CONTROL_FLOW_V2 = enabled


@pytest.fixture(scope="module")
def old_graph() -> Any:
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        of_tensorflow_1()
    return graph


def test_loops_of_tensorflow_1_compute_the_same_to_the_bit(old_graph: Any, tmp_path: Path, run: Run) -> None:
    path, x = tmp_path / "m.pb", sequences(5)
    path.write_bytes(old_graph.as_graph_def().SerializeToString())
    graph = open_model(path).graph
    assert sorted(graph.outputs) == ["all", "grown", "last", "total"]
    wanted = run_pb(path, [f"{output}:0" for output in graph.outputs], x)
    for found, expected in zip(run(graph, {"x": x}), wanted, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert dict(zip(graph.outputs, wanted, strict=True))["grown"] == x.shape[1]


def test_what_leaves_a_loop_keeps_its_name_and_can_be_an_output(old_graph: Any, run: Run) -> None:
    loaded = with_functional_loops(Graph.from_graph_def(old_graph.as_graph_def(), inputs=["x"], outputs=[]))
    exits = [op.name for op in old_graph.get_operations() if op.type == "Exit" and "inner" not in op.name]
    counter, state = exits[:2]
    graph = prepare_graph(loaded, outputs=[counter, state, "last"])
    x = sequences(2)
    found = run(graph, {"x": x})
    assert found[0] == x.shape[1]
    (last,) = (layer for layer in survey_graph(graph).layers if layer.name == "last")
    assert last.activations == (state,)
    weight = graph.constant(last.weight or "")
    np.testing.assert_allclose(found[1] @ weight, found[2], rtol=1e-5)


def test_a_graph_without_such_loops_is_left_alone(build: Callable[..., Graph]) -> None:
    import tensorflow as tf

    graph = build(lambda: tf.nn.relu(tf.compat.v1.placeholder(tf.float32, (2,), name="x"), name="y"))
    assert with_functional_loops(graph) is graph


@pytest.mark.parametrize("inside", [True, False])
def test_conditions_of_tensorflow_1_are_refused(inside: bool, tmp_path: Path) -> None:
    import tensorflow as tf

    def call(x: Any) -> Any:
        for _ in tf.range(3 if inside else 0):
            x = tf.cond(tf.reduce_sum(x) > 0, lambda: x * 2, lambda: x - 1)  # noqa: B023  # called at once
        return x if inside else tf.cond(tf.reduce_sum(x) > 0, lambda: x * 2, lambda: x - 1)

    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    spec = tf.TensorSpec((None, 4), name="x")
    frozen = convert_variables_to_constants_v2(tf.function(call).get_concrete_function(spec))
    path = tmp_path / "m.pb"
    path.write_bytes(frozen.graph.as_graph_def().SerializeToString())
    message = r"condition of TensorFlow 1 \(Switch\) that depends on the data \('x'\); freeze it with lower"
    with pytest.raises(ModelError, match=message):
        prepare_graph(replace(load(path), outputs=()))
