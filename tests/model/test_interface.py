from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from autoquant.errors import ModelError
from autoquant.model.graph import Graph, GraphDef
from autoquant.model.interface import (
    check_runnable,
    find_inputs,
    find_outputs,
    node_name,
    rename_interface,
    select_interface,
)
from autoquant.model.nodes import make_node
from autoquant.model.shapes import make_placeholder


def two_heads() -> None:
    import tensorflow as tf

    x = tf.compat.v1.placeholder(tf.float32, [None, 4], name="x")
    hidden = tf.nn.relu(x, name="hidden")
    tf.nn.softmax(hidden, name="probabilities")
    tf.identity(tf.reduce_sum(hidden, 1), name="total")
    tf.add(tf.constant(1.0), 2.0, name="idle")  # depends on no input
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(x > 0), [x], name="check")]):
        tf.no_op(name="NoOp")


@pytest.fixture
def heads(build: Callable[..., Graph]) -> Graph:
    return build(two_heads, inputs=("x",), outputs=())


def test_inputs_are_placeholders_and_outputs_what_nobody_reads(heads: Graph) -> None:
    assert find_inputs(heads) == ("x",)
    assert find_outputs(heads) == ("probabilities", "total")
    graph = select_interface(heads)
    assert graph.outputs == ("probabilities", "total")
    assert not {"idle", "NoOp"} & set(graph.nodes)


@pytest.mark.parametrize("name", ["total", "total:0"])
def test_outputs_can_be_asked_for(heads: Graph, name: str) -> None:
    graph = select_interface(heads, outputs=[name])
    assert graph.outputs == ("total",)
    assert "probabilities" not in graph.nodes


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"outputs": ["probabilitis"]}, "probabilitis: no such output in the graph; did you mean 'probabilities'"),
        ({"inputs": ["hiden:0"]}, "hiden:0: no such input in the graph; did you mean 'hidden'"),
        ({"outputs": ["qqqq"]}, "no such output in the graph; the graph's own: probabilities, total"),
        ({"outputs": ["total:3"]}, "'total' has no such output; try 'total'"),
        ({"outputs": ["total:b"]}, "no such output in the graph"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(heads: Graph, asked: dict[str, list[str]], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        select_interface(heads, **asked)


def test_an_input_inside_the_graph_cuts_off_what_is_before(heads: Graph, run: Callable[..., list[Any]]) -> None:
    graph = select_interface(heads, inputs=["hidden:0"], outputs=["total"])
    assert graph.inputs == ("hidden",)
    assert "x" not in graph.nodes
    node = graph.nodes["hidden"]
    assert (node.op, node.attr["dtype"].type) == ("Placeholder", 1)
    assert [dim.size for dim in node.attr["shape"].shape.dim] == [-1, 4]
    np.testing.assert_array_equal(run(graph, {"hidden": [[-1.0, 2, 3, 4]]})[0], [8.0])


def test_outputs_are_found_behind_the_inputs_asked_for(build: Callable[..., Graph]) -> None:
    import tensorflow as tf

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, [2], name="x")
        tf.nn.relu(tf.nn.elu(x, name="inner"), name="y")
        tf.nn.relu(x, name="other")

    assert select_interface(build(write, outputs=()), inputs=["inner"]).outputs == ("y",)


def test_the_second_output_of_a_node_can_be_an_input(
    build: Callable[..., Graph], run: Callable[..., list[Any]]
) -> None:
    import tensorflow as tf

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, [4], name="x")
        first, second = tf.split(x, 2, name="split")
        tf.subtract(first, second, name="y")

    graph = select_interface(build(write), inputs=["x", "split:1"])
    assert graph.inputs == ("x", "split_1")
    np.testing.assert_array_equal(run(graph, {"x": [1.0, 2, 3, 4], "split_1": [10.0, 20]})[0], [-9.0, -18.0])
    with pytest.raises(ModelError, match="other outputs are read too"):
        select_interface(build(write), inputs=["split:0"])


def test_a_placeholder_with_default_can_be_an_input(build: Callable[..., Graph], run: Callable[..., list[Any]]) -> None:
    import tensorflow as tf

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, [2], name="x")
        tf.multiply(x, tf.compat.v1.placeholder_with_default(3.0, [], name="rate"), name="y")

    graph = select_interface(build(write), inputs=["x", "rate"])
    assert graph.nodes["rate"].op == "Placeholder"
    np.testing.assert_array_equal(run(graph, {"x": [1.0, 2.0], "rate": 5.0})[0], [5.0, 10.0])


def test_inputs_that_no_output_needs_are_left_out_unless_asked_for(build: Callable[..., Graph]) -> None:
    import tensorflow as tf

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, [2], name="x")
        tf.compat.v1.placeholder(tf.float32, [2], name="labels")
        tf.nn.relu(x, name="y")

    graph = build(write, inputs=("x", "labels"))
    assert select_interface(graph).inputs == ("x",)
    with pytest.raises(ModelError, match="y: does not depend on labels; check --inputs"):
        check_runnable(select_interface(graph, inputs=["x", "labels"]))


def test_placeholders_that_an_output_needs_must_be_fed(build: Callable[..., Graph]) -> None:
    import tensorflow as tf

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, [2], name="x")
        tf.add(x, tf.compat.v1.placeholder(tf.float32, [2], name="z"), name="y")

    with pytest.raises(ModelError, match="y: depends on 'z', which is not fed; add z to --inputs"):
        check_runnable(select_interface(build(write), inputs=["x"]))


def test_a_graph_without_input_or_output_is_refused(build: Callable[..., Graph]) -> None:
    import tensorflow as tf

    with pytest.raises(ModelError, match="no Placeholder to feed; name its inputs with --inputs"):
        select_interface(build(lambda: tf.add(1.0, 2.0, name="y"), inputs=()))
    with pytest.raises(ModelError, match="no output depends on an input"):
        select_interface(build(lambda: tf.compat.v1.placeholder(tf.float32, name="x"), outputs=()))


def test_variables_and_old_control_flow_are_refused(build: Callable[..., Graph]) -> None:
    import tensorflow as tf

    v1 = tf.compat.v1

    def with_variable() -> None:
        x = v1.placeholder(tf.float32, [2], name="x")
        tf.add(x, v1.get_variable("v", [2], use_resource=False), name="y")

    def with_branch() -> None:
        x = v1.placeholder(tf.float32, [2], name="x")
        off, on = tf.raw_ops.Switch(data=x, pred=v1.placeholder(tf.bool, [], name="p"))
        tf.identity(tf.raw_ops.Merge(inputs=[off, tf.nn.relu(on)])[0], name="y")

    with pytest.raises(ModelError, match=r"v: is a variable \(VariableV2\): the graph is not frozen; freeze it"):
        select_interface(build(with_variable))
    with pytest.raises(
        ModelError, match=r"condition of TensorFlow 1 \(Switch\) on 'p', whose .*; give its value: --feed p=false"
    ):
        select_interface(build(with_branch, inputs=("x", "p")))


def test_names_of_users_become_names_of_nodes(heads: Graph, run: Callable[..., list[Any]]) -> None:
    graph = rename_interface(heads, inputs={"x": "my image"}, outputs=[("total:0", "total"), ("probabilities:0", "x")])
    assert graph.inputs == ("my_image",)
    assert graph.outputs == ("total", "x")
    total, probabilities = run(graph, {"my_image": np.ones((1, 4))})
    assert total == [4.0]
    np.testing.assert_allclose(probabilities, [[0.25] * 4])


def test_a_name_that_is_taken_gets_a_number(heads: Graph) -> None:
    graph = rename_interface(heads, inputs={"x": "hidden"}, outputs=[("total:0", "probabilities")])
    assert (graph.inputs, graph.outputs) == (("hidden_1",), ("probabilities_1",))


@pytest.mark.parametrize(
    ("text", "name"), [("a/b", "a/b"), ("a b:c", "a_b_c"), ("_x", "x"), ("b-x", "b-x"), ("é", "tensor"), ("x:0", "x")]
)
def test_node_names_are_made_of_allowed_characters(text: str, name: str) -> None:
    assert node_name(text) == name


@pytest.mark.parametrize("op", ["AscendQuant", "SearchN"])
def test_a_model_that_is_quantized_already_is_refused(op: str) -> None:
    nodes = [make_placeholder("x", 1, (None, 2)), make_node("q", op, ["x"])]
    graph = Graph.from_graph_def(GraphDef(node=nodes), inputs=["x"], outputs=["q"])
    with pytest.raises(ModelError, match=rf"q: is an operator of AMCT \({op}\): the model is quantized already"):
        select_interface(graph)
