"""Training switches: what is opened computes what plain TensorFlow does in inference, without the conditions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoquant.errors import ModelError
from autoquant.model.graph import Graph
from autoquant.model.inference import inference_graph
from autoquant.model.open import open_model

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
CONTROL_FLOW = {"Switch", "Merge", "If", "StatelessIf", "Case", "StatelessCase", "Enter", "LoopCond"}
X = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
Write = Callable[[Any, Any], Any]


def dense(x: Any, seed: int, name: str = "dense") -> Any:
    import tensorflow as tf

    return tf.linalg.matmul(x, np.random.default_rng(seed).normal(size=(4, 4)).astype(np.float32), name=name)


def batch_norm(x: Any, training: Any) -> Any:
    import tensorflow as tf

    t = tf.reshape(dense(x, 1), (-1, 1, 1, 4))
    scale, shift, mean, variance = (tf.constant(v, tf.float32, [4]) for v in (1.5, 0.5, 0.3, 2.0))
    norm = tf.compat.v1.nn.fused_batch_norm
    t = tf.cond(
        training,
        lambda: norm(t, scale, shift, is_training=True),
        lambda: norm(t, scale, shift, mean, variance, is_training=False),
    )[0]
    return tf.nn.relu(tf.reshape(t, (-1, 4)))


def constants(x: Any, training: Any) -> Any:
    """Only control edges say to which branch a constant belongs."""
    import tensorflow as tf

    keep = tf.cond(training, lambda: tf.constant(0.5), lambda: tf.constant(1.0))
    return tf.nn.dropout(dense(x, 2), rate=1 - keep)


def nested(x: Any, training: Any) -> Any:
    import tensorflow as tf

    def inner() -> Any:
        return tf.cond(tf.logical_not(training), lambda: dense(x, 3), lambda: dense(x, 4))

    return tf.cond(training, lambda: tf.cond(training, lambda: dense(x, 5), inner), inner)


def several(x: Any, training: Any) -> Any:
    """Conditions on one predicate, with several results, some of which a branch passes on as they are."""
    import tensorflow as tf

    first, second = tf.cond(training, lambda: (x, dense(x, 6)), lambda: (dense(x, 7), x))
    third = tf.cond(training, lambda: first + 1, lambda: first)
    return tf.cond(training, lambda: third, lambda: third - second)


def training_alone(x: Any, training: Any) -> Any:
    """What only the training branch reads is no output."""
    import tensorflow as tf

    noisy = tf.nn.relu(dense(x, 8), name="noisy")
    return tf.cond(training, lambda: noisy + x, lambda: dense(x, 9))


def loops_in_branches(x: Any, training: Any) -> Any:
    import tensorflow as tf

    def repeated(times: int) -> Any:
        return tf.while_loop(lambda n, _: n < times, lambda n, t: (n + 1, dense(t, 10)), [0, x])[1]

    return tf.cond(training, lambda: repeated(5), lambda: repeated(2))


def branches_in_a_loop(x: Any, training: Any) -> Any:
    import tensorflow as tf

    def step(number: Any, t: Any) -> Any:
        return number + 1, tf.cond(training, lambda: t * 2, lambda: dense(t, 11))

    return tf.while_loop(lambda n, _: n < 2, step, [0, x])[1]


NETWORKS: tuple[Write, ...] = (batch_norm, constants, nested, several, training_alone, loops_in_branches)
PREDICATES: Mapping[str, Callable[[Any], Any]] = {
    "constant": lambda tf: tf.constant(False),
    "default": lambda tf: tf.compat.v1.placeholder_with_default(False, (), name="keras_learning_phase"),
    "negated": lambda tf: tf.logical_not(tf.compat.v1.placeholder_with_default(True, (), name="inference")),
    "computed": lambda tf: tf.logical_and(tf.constant(2) > 1, tf.constant([0.0, -1.0])[0] > 0.5),
    "fed": lambda tf: tf.compat.v1.placeholder(tf.bool, (), name="is_training"),
}


@contextmanager
def control_flow(version: int) -> Any:
    """Conditions and loops that are written are of this version."""
    from tensorflow.python.ops import control_flow_util as util

    before, util.ENABLE_CONTROL_FLOW_V2 = util.ENABLE_CONTROL_FLOW_V2, version == 2
    try:
        yield
    finally:
        util.ENABLE_CONTROL_FLOW_V2 = before


def written(write: Write, predicate: str, version: int) -> Any:
    """The tf.Graph of a network from x to y."""
    import tensorflow as tf

    with tf.Graph().as_default() as graph, control_flow(version):
        x = tf.compat.v1.placeholder(tf.float32, (None, 4), name="x")
        tf.identity(write(x, PREDICATES[predicate](tf)), name="y")
    return graph


def check(
    tf_graph: Any, path: Path, run: Callable[..., list[Any]], outputs: tuple[str, ...] = (), **feed: Any
) -> Counter[str]:
    """What is opened computes what a plain session of the original does; its operators."""
    import tensorflow as tf

    path.write_bytes(tf_graph.as_graph_def().SerializeToString())
    with tf.compat.v1.Session(graph=tf_graph) as session:
        wanted = session.run("y:0", {"x:0": X, **{f"{name}:0": value for name, value in feed.items()}})
    graph = open_model(path, outputs=outputs, feed=feed).graph
    assert (graph.inputs, graph.outputs) == (("x",), ("y",))
    (found,) = run(graph, {"x": X})
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    return Counter(node.op for node in graph.nodes.values())


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("write", NETWORKS, ids=lambda write: write.__name__)
def test_conditions_on_a_training_switch_are_folded(
    write: Write, version: int, tmp_path: Path, run: Callable[..., list[Any]]
) -> None:
    outputs = ("y",) if write is batch_norm else ()  # nothing reads the statistics, which are outputs as well
    ops = check(written(write, "fed", version), tmp_path / "m.pb", run, outputs, is_training=False)
    assert not ops.keys() & (CONTROL_FLOW | {"FusedBatchNormV3", "SelectV2", "RandomUniform"})


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("predicate", [name for name in PREDICATES if name != "fed"])
def test_whatever_the_switch_is_computed_from(
    predicate: str, version: int, tmp_path: Path, run: Callable[..., list[Any]]
) -> None:
    ops = check(written(nested, predicate, version), tmp_path / "m.pb", run)
    assert (ops["MatMul"], ops.keys() & CONTROL_FLOW) == (1, set())


@pytest.mark.parametrize("version", [1, 2])
def test_conditions_in_loops(version: int, tmp_path: Path, run: Callable[..., list[Any]]) -> None:
    ops = check(written(branches_in_a_loop, "default", version), tmp_path / "m.pb", run, outputs=("y",))
    assert (ops["While"] + ops["StatelessWhile"], ops.keys() & CONTROL_FLOW) == (1, set())


def test_a_default_can_be_overridden(tmp_path: Path, run: Callable[..., list[Any]]) -> None:
    graph = written(nested, "default", 1)
    check(graph, tmp_path / "m.pb", run, keras_learning_phase=True)


@pytest.mark.parametrize("index", [0, 1, 7, -1])
def test_one_of_many_branches(index: int, tmp_path: Path, run: Callable[..., list[Any]]) -> None:
    import tensorflow as tf

    with tf.Graph().as_default() as graph, control_flow(2):
        x = tf.compat.v1.placeholder(tf.float32, (None, 4), name="x")
        chosen = tf.compat.v1.placeholder_with_default(index, (), name="mode")
        branches = [lambda: dense(x, 1), lambda: dense(x, 2), lambda: x + 1]
        tf.identity(tf.switch_case(chosen, branches), name="y")
    assert not check(graph, tmp_path / "m.pb", run).keys() & CONTROL_FLOW


def test_functions_that_a_branch_calls_are_layers_too(tmp_path: Path, run: Callable[..., list[Any]]) -> None:
    import tensorflow as tf

    called = tf.function(lambda t: (dense(t, 3), dense(t, 4)))

    def write(x: Any, training: Any) -> Any:
        return tf.cond(training, lambda: x, lambda: tf.add(*called(x)))

    ops = check(written(write, "fed", 2), tmp_path / "m.pb", run, is_training=False)
    assert (ops["MatMul"], ops["PartitionedCall"]) == (2, 0)


@pytest.mark.parametrize("lowered", [False, True])
def test_a_switch_of_tensorflow_2_as_it_is_frozen(lowered: bool, tmp_path: Path, run: Callable[..., list[Any]]) -> None:
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    specs = [tf.TensorSpec((None, 4), name="x"), tf.TensorSpec((), tf.bool, name="is_training")]
    concrete = tf.function(lambda x, training: tf.identity(several(x, training))).get_concrete_function(*specs)
    frozen = convert_variables_to_constants_v2(concrete, lower_control_flow=lowered)
    path = tmp_path / "m.pb"
    path.write_bytes(frozen.graph.as_graph_def().SerializeToString())
    graph = open_model(path, feed={"is_training": False}).graph
    np.testing.assert_allclose(run(graph, {"x": X})[0], concrete(X, False), rtol=1e-5)


def test_assignments_in_the_training_branch_go_with_it(tmp_path: Path) -> None:
    """Frozen as TensorFlow 1 does it they read constants, which TensorFlow itself refuses."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph, control_flow(1):
        x, training = v1.placeholder(tf.float32, (None, 4), name="x"), v1.placeholder(tf.bool, (), name="is_training")
        mean = v1.get_variable("mean", (4,), initializer=v1.constant_initializer(0.5), use_resource=False)

        def trained() -> Any:
            now = tf.reduce_mean(x, 0)
            with tf.control_dependencies([v1.assign(mean, 0.9 * mean + 0.1 * now)]):
                return tf.identity(now)

        tf.subtract(dense(x, 1), tf.cond(training, trained, lambda: mean), name="y")
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            wanted = session.run("y:0", {"x:0": X, "is_training:0": False})
            frozen = v1.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), ["y"])
    path = tmp_path / "m.pb"
    path.write_bytes(frozen.SerializeToString())
    opened = open_model(path, feed={"is_training": False}).graph
    weight, bias = opened.constant(opened.nodes["dense"].input[1]), -0.5
    assert weight is not None
    np.testing.assert_allclose(X @ weight + bias, wanted, rtol=1e-5, atol=1e-6)


def of_data(x: Any, _: Any) -> Any:
    import tensorflow as tf

    return tf.cond(tf.reduce_sum(x) > 0, lambda: dense(x, 1), lambda: x)


@pytest.mark.parametrize(
    ("write", "predicate", "version", "message"),
    [
        (nested, "fed", 1, r"is a condition of TensorFlow 1 \(Switch\) on 'is_training', whose value is not known; "),
        (constants, "fed", 1, r"is a condition of TensorFlow 1 \(Merge\) on 'is_training', whose value is not known; "),
        (nested, "fed", 2, r"is a condition \(StatelessIf\) on 'is_training', whose value is not known; "),
    ],
)
def test_a_switch_without_a_value_is_refused(
    write: Write, predicate: str, version: int, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "m.pb"
    path.write_bytes(written(write, predicate, version).as_graph_def().SerializeToString())
    with pytest.raises(ModelError, match=message + "give its value: --feed is_training=false"):
        open_model(path, outputs=["y"])


def test_a_condition_on_data_is_refused_in_version_1_and_stays_in_version_2(
    tmp_path: Path, run: Callable[..., list[Any]]
) -> None:
    path = tmp_path / "m.pb"
    path.write_bytes(written(of_data, "constant", 1).as_graph_def().SerializeToString())
    message = r"is a condition of TensorFlow 1 \(Switch\) that depends on the data \('x'\); freeze it with lower_contr"
    with pytest.raises(ModelError, match=message):
        open_model(path)
    assert check(written(of_data, "constant", 2), path, run)["StatelessIf"] == 1


def test_an_output_in_the_branch_that_is_not_taken_is_refused() -> None:
    graph_def = written(training_alone, "constant", 1).as_graph_def()
    (dead,) = (node.name for node in graph_def.node if node.name == "cond/add")
    with pytest.raises(ModelError, match="is computed in a branch of a condition that is not taken"):
        inference_graph(graph_def, outputs=[dead])


def test_a_graph_without_conditions_is_left_alone() -> None:
    graph_def = written(lambda x, _: dense(x, 1), "fed", 1).as_graph_def()
    plain = Graph.from_graph_def(graph_def, inputs=(), outputs=())
    assert inference_graph(graph_def) == plain
