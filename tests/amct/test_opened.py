from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tiny_model import Tiny

from autoquant.amct.opened import CALIBRATED, live_activations, read_live
from autoquant.errors import ModelError, UsageError
from autoquant.model.fusion import Fusion


def test_a_live_graph_has_the_layers_of_its_file(live: Any) -> None:
    model = read_live(live)
    assert [layer.name for layer in model.survey.layers] == ["conv", "depthwise", "dense"]
    assert model.graph.outputs == ("scores",)


def test_reading_changes_nothing(live: Any) -> None:
    before = live.as_graph_def().SerializeToString(deterministic=True)
    read_live(live)
    assert live.as_graph_def().SerializeToString(deterministic=True) == before


def test_what_nobody_reads_is_an_output(built: Callable[[Callable[[], Any]], Any]) -> None:
    import tensorflow as tf

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, (None, 4), name="x")
        tf.compat.v1.placeholder(tf.float32, (None,), name="idle")
        body = tf.matmul(x, tf.eye(4), name="body")
        tf.nn.relu(body, name="one")
        tf.matmul(body, tf.eye(4), name="two")
        tf.Variable(0, trainable=False, name="global_step")

    model = read_live(built(write))
    assert model.graph.outputs == ("one", "two")
    assert model.graph.inputs == ("x",)
    assert [layer.name for layer in model.survey.layers] == ["body", "two"]


def test_activations_are_found_in_the_live_graph_behind_folded_batch_norms(
    built: Callable[[Callable[[], Any]], Any],
) -> None:
    import tensorflow as tf

    rng = np.random.default_rng(0)

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, (None, 6, 6, 2), name="x")
        for number in (1, 2):
            x = tf.nn.conv2d(x, rng.normal(size=(3, 3, 2, 2)).astype(np.float32), 1, "SAME", name=f"conv{number}")
            one = np.ones(2, np.float32)
            x = tf.compat.v1.nn.fused_batch_norm(
                x, 2 * one, one, 0 * one, one, is_training=False, name=f"norm{number}"
            )[0]

    graph = built(write)
    model = read_live(graph)
    first, second = (live_activations(graph, layer) for layer in model.survey.layers)
    assert [tensor.name for tensor in (*first, *second)] == ["x:0", "norm1:0"]


def variable() -> None:
    import tensorflow as tf

    x = tf.compat.v1.placeholder(tf.float32, (None, 4), name="x")
    tf.matmul(x, tf.compat.v1.get_variable("weight", (4, 4)))


def training() -> None:
    import tensorflow as tf

    x = tf.compat.v1.placeholder(tf.float32, (None, 6, 6, 2), name="x")
    x = tf.nn.conv2d(x, np.ones((3, 3, 2, 2), np.float32), 1, "SAME", name="conv")
    one = np.ones(2, np.float32)
    tf.compat.v1.nn.fused_batch_norm(x, one, one, one, one, is_training=True, name="norm")


def piped() -> None:
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices(np.ones((8, 4), np.float32)).batch(2)
    x = tf.compat.v1.data.make_initializable_iterator(data).get_next()
    tf.matmul(x, np.ones((4, 4), np.float32))


def nothing() -> None:
    import tensorflow as tf

    tf.nn.relu(tf.compat.v1.placeholder(tf.float32, (None, 4), name="x"))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (variable, "weight.*: is a variable .*: the graph is not frozen; freeze it"),
        (training, "norm: this batch norm is in training mode; export the model in inference mode"),
        (nothing, "nothing to quantize|it has no "),
        (lambda: None, "graph: none of its outputs depends on a Placeholder; import the frozen .pb by itself"),
        (piped, "graph: none of its outputs depends on a Placeholder; .*without a tf.data pipeline"),
    ],
)
def test_graphs_that_cannot_be_quantized_are_refused(
    built: Callable[[Callable[[], Any]], Any], write: Callable[..., Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        read_live(built(write), fusion=Fusion())


def test_what_is_no_graph_is_refused(tiny: Tiny) -> None:
    with pytest.raises(UsageError, match=r"graph: expected a tf.Graph, got PosixPath; import the frozen .pb"):
        read_live(tiny.model)


def test_a_graph_that_is_being_calibrated_is_refused(live: Any) -> None:
    live.add_to_collection(CALIBRATED, "probe")
    with pytest.raises(UsageError, match=r"quantize_model has been called on it already; import the .pb into a new"):
        read_live(live)


def test_an_operator_that_the_live_graph_does_not_have_is_told(
    live: Any, built: Callable[[Callable[[], Any]], Any]
) -> None:
    layer = read_live(live).survey.layers[0]
    with pytest.raises(ModelError, match=r"conv: what it reads was made by rewriting the graph"):
        live_activations(built(lambda: None), layer)
