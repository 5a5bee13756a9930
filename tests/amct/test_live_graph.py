"""A live graph read as a model; and probes, which read what operators read, and change nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tiny_model import Tiny

from autoquant.amct.live_graph import CALIBRATED, Probes, live_activations, read_live
from autoquant.errors import ModelError, UsageError
from autoquant.model.model import Fusion


def test_a_live_graph_has_the_layers_of_its_file(live: Any) -> None:
    model = read_live(live)
    assert [layer.name for layer in model.survey.layers] == ["conv", "depthwise", "dense"]
    assert model.graph.outputs == ("scores",)


def test_reading_changes_nothing(live: Any) -> None:
    before = live.as_graph_def().SerializeToString(deterministic=True)
    read_live(live)
    assert live.as_graph_def().SerializeToString(deterministic=True) == before


def test_tensors_without_readers_are_outputs(built: Callable[[Callable[[], Any]], Any]) -> None:
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


def table() -> None:
    import tensorflow as tf

    x = tf.compat.v1.placeholder(tf.int32, (None,), name="x")
    rows = tf.compat.v1.get_variable("weight", (4, 4), use_resource=True)
    tf.matmul(tf.nn.embedding_lookup(rows, x), np.ones((4, 4), np.float32))


def training() -> None:
    import tensorflow as tf

    x = tf.compat.v1.placeholder(tf.float32, (None, 6, 6, 2), name="x")
    x = tf.nn.conv2d(x, np.ones((3, 3, 2, 2), np.float32), 1, "SAME", name="conv")
    one = np.ones(2, np.float32)
    tf.compat.v1.nn.fused_batch_norm(x, one, one, one, one, is_training=True, name="norm")


def nothing() -> None:
    import tensorflow as tf

    tf.nn.relu(tf.compat.v1.placeholder(tf.float32, (None, 4), name="x"))


@pytest.mark.parametrize("version", [1, 2])
def test_activations_are_found_behind_training_switches(version: int) -> None:
    """Of TensorFlow 2 the branch is a function, whose result has the name of the condition."""
    import tensorflow as tf
    from tensorflow.python.ops import control_flow_util as util

    before, util.ENABLE_CONTROL_FLOW_V2 = util.ENABLE_CONTROL_FLOW_V2, version == 2
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (None, 4), name="x")
        training = tf.compat.v1.placeholder_with_default(False, (), name="is_training")
        t = tf.linalg.matmul(x, np.eye(4, dtype=np.float32), name="first")
        t = tf.cond(training, lambda: t - tf.reduce_mean(t), lambda: tf.nn.relu(t * 2))
        tf.linalg.matmul(t, np.eye(4, dtype=np.float32), name="second")
    util.ENABLE_CONTROL_FLOW_V2 = before
    layers = read_live(graph).survey.layers
    with graph.as_default(), tf.compat.v1.Session() as session:
        data = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
        # A tensor in a condition cannot be fetched itself.
        read = session.run([tf.identity(*live_activations(graph, layer)) for layer in layers], {"x:0": data})
    np.testing.assert_array_equal(read[0], data)
    np.testing.assert_array_equal(read[1], np.maximum(data * 2, 0))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (table, "weight.*: is a variable .*: the graph is not frozen; freeze it"),
        (training, "norm: this batch norm is in training mode; export the model in inference mode"),
        (nothing, "nothing to quantize|it has no "),
        (lambda: None, "graph: none of its outputs depends on a Placeholder, or .* pipeline.*; import the frozen"),
    ],
)
def test_graphs_that_cannot_be_quantized_are_refused(
    built: Callable[[Callable[[], Any]], Any], write: Callable[..., Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        read_live(built(write), fusion=Fusion())


def test_objects_that_are_no_graph_are_refused(tiny: Tiny) -> None:
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


def kept(x: Any) -> Any:
    import tensorflow as tf

    return tf.identity(tf.nn.dropout(tf.identity(x, name="before"), rate=0.0), name="behind")


def dropped(x: Any) -> Any:
    import tensorflow as tf

    keep = tf.compat.v1.placeholder_with_default(np.float32(1.0), (), name="keep")
    return tf.nn.dropout(x, rate=1 - keep, name="behind")


def scaled(x: Any) -> Any:
    import tensorflow as tf

    return tf.multiply(x, np.float32(3.0), name="behind")


@pytest.mark.parametrize(
    ("between", "read"), [(kept, "behind:0"), (dropped, "behind/SelectV2:0"), (scaled, "behind:0")]
)
def test_the_tensor_is_read_that_the_operator_reads(
    built: Callable[[Callable[[], Any]], Any], between: Callable[[Any], Any], read: str
) -> None:
    """Not what normalization takes for the same, which a session that is fed the tensor does not compute."""
    import tensorflow as tf

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, (None, 4), name="x")
        x = tf.matmul(x, np.ones((4, 4), np.float32), name="first")
        tf.matmul(between(x), np.ones((4, 4), np.float32), name="second")

    graph = built(write)
    layers = read_live(graph).survey.by_name
    assert [tensor.name for tensor in live_activations(graph, layers["second"])] == [read]


def test_of_a_sum_each_input_is_its_own(built: Callable[[Callable[[], Any]], Any]) -> None:
    import tensorflow as tf

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, (None, 4), name="x")
        x = tf.matmul(x, np.ones((4, 4), np.float32), name="first")
        tf.add(tf.multiply(x, np.float32(3.0), name="three"), tf.identity(x, name="one"), name="sum")

    graph = built(write)
    layers = read_live(graph).survey.by_name
    inputs = [live_activations(graph, layers[f"sum:{place}"])[0].name for place in (0, 1)]
    assert inputs == ["three:0", "one:0"]


@pytest.fixture
def relus(built: Callable[[Callable[[], Any]], Any]) -> Any:
    """`x` (batch, 3) -> `first` -> `second`, all of them relus but `x`; and `aside`, another reader of `x`."""
    import tensorflow as tf

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, (None, 3), name="x")
        tf.nn.relu(tf.nn.relu(x, name="first"), name="second")
        tf.nn.relu(x, name="aside")

    return built(write)


def test_a_probe_sees_its_tensors_before_the_operator_runs_and_only_then(relus: Any) -> None:
    import tensorflow as tf

    seen: list[Any] = []
    probe = Probes().attach(
        relus, "second", [relus.get_tensor_by_name(f"{n}:0") for n in ("x", "first")], see_into(seen), name="p"
    )
    assert probe.name == "p"
    fed = np.array([[-1.0, 0.0, 2.0]], np.float32)
    with tf.compat.v1.Session(graph=relus) as session:
        session.run("aside:0", {"x:0": fed})
        assert seen == []
        np.testing.assert_array_equal(session.run("second:0", {"x:0": fed}), [[0.0, 0.0, 2.0]])
    assert [[array.tolist() for array in arrays] for arrays in seen] == [[[[-1.0, 0.0, 2.0]], [[0.0, 0.0, 2.0]]]]


def test_errors_of_a_probe_reach_the_user(relus: Any) -> None:
    import tensorflow as tf

    def see(values: object) -> None:
        raise ValueError("the layer 'second' is to blame; switch it off")

    Probes().attach(relus, "second", [relus.get_tensor_by_name("first:0")], see, name="p")
    with tf.compat.v1.Session(graph=relus) as session:
        session.run("aside:0", {"x:0": np.zeros((1, 3))})
        with pytest.raises(tf.errors.OpError, match=r"the layer 'second' is to blame; switch it off"):
            session.run("second:0", {"x:0": np.zeros((1, 3))})


def test_a_probe_is_never_called_twice_at_a_time(relus: Any) -> None:
    import tensorflow as tf

    inside, most, calls = 0, 0, 0

    def see(values: object) -> None:
        nonlocal inside, most, calls
        inside += 1
        most, calls = max(most, inside), calls + 1
        threading.Event().wait(0.001)
        inside -= 1

    Probes().attach(relus, "second", [relus.get_tensor_by_name("first:0")], see, name="p")
    with tf.compat.v1.Session(graph=relus) as session:

        def run() -> None:
            for _ in range(10):
                session.run("second:0", {"x:0": np.zeros((1, 3))})

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (most, calls) == (1, 40)


def see_into(seen: list[Any]) -> Callable[..., Any]:
    return lambda *arrays: seen.append([array.copy() for array in arrays])
