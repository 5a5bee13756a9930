"""Graphs that are not frozen, and those with their data in them, calibrate as their frozen file does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autoquant as amct
from autoquant.errors import PlanError
from autoquant.formats.record_text import load_record

F = np.float32
IMAGES = np.random.default_rng(0).normal(size=(8, 6, 6, 2)).astype(F)


def network(x: Any, *, resource: bool) -> None:
    """A convolution with a batch norm, and a product: `prob`; all weights are variables."""
    import tensorflow as tf

    spread = tf.compat.v1.random_uniform_initializer(0.5, 1.5, seed=1)

    def variable(name: str, *shape: int) -> Any:
        return tf.compat.v1.get_variable(name, shape, initializer=spread, use_resource=resource)

    x = tf.nn.conv2d(x, variable("kernel", 3, 3, 2, 4), 1, "SAME", name="conv")
    norm = [variable(name, 4) for name in ("scale", "offset", "mean", "variance")]
    x = tf.nn.relu(tf.compat.v1.nn.fused_batch_norm(x, *norm, is_training=False)[0])
    x = tf.matmul(tf.reduce_mean(x, (1, 2)), variable("rows", 4, 3), name="dense")
    tf.nn.softmax(x, name="prob")


def from_placeholder(resource: bool) -> None:
    import tensorflow as tf

    network(tf.compat.v1.placeholder(tf.float32, (None, 6, 6, 2), name="x"), resource=resource)


def from_pipeline(resource: bool) -> None:
    """The images come second: the first result of the iterator is a label."""
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices((np.zeros(8), IMAGES)).batch(4)
    labels, images = tf.compat.v1.data.make_one_shot_iterator(data).get_next()
    network(images, resource=resource)
    tf.reduce_mean(tf.cast(labels, tf.float32), name="mean_label")


def frozen(graph: Any, session: Any) -> Any:
    """The GraphDef with constants in place of variables, fed with `x` in place of a pipeline."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_from_session_graph

    graph_def = convert_variables_to_constants_from_session_graph(session, graph.as_graph_def(), ["prob"])
    for node in graph_def.node:
        node.input[:] = ["x" if edge.startswith("IteratorGetNext") else edge for edge in node.input]
    kept = [node for node in graph_def.node if not node.op.startswith(("Iterator", "OneShot", "Placeholder"))]
    kept.append(tf.compat.v1.NodeDef(name="x", op="Placeholder"))
    kept[-1].attr["dtype"].type = tf.float32.as_datatype_enum
    return tf.compat.v1.GraphDef(node=kept)


@pytest.mark.parametrize("resource", [True, False])
@pytest.mark.parametrize("write", [from_placeholder, from_pipeline])
def test_variables_and_pipelines_are_calibrated_as_the_frozen_file_is(
    built: Callable[[Callable[[], Any]], Any],
    load_pb: Callable[[Path], Any],
    write: Callable[[bool], None],
    resource: bool,
) -> None:
    """As of AMCT's FAQ 0369: the variables of the calibration are no part of the checkpoint that is restored."""
    import tensorflow as tf

    graph, path, fed = built(lambda: write(resource)), Path("net.pb"), write is from_placeholder
    with graph.as_default(), tf.compat.v1.Session() as session:
        saver = tf.compat.v1.train.Saver()
        session.run(tf.compat.v1.global_variables_initializer())
        checkpoint = saver.save(session, str(Path.cwd() / "net.ckpt"), write_meta_graph=False)
        path.write_bytes(frozen(graph, session).SerializeToString())
    amct.create_quant_config("config.json", graph, batch_num=2)
    added = amct.quantize_model(graph, "config.json", "live.txt")
    with graph.as_default(), tf.compat.v1.Session() as session:
        session.run(tf.compat.v1.variables_initializer(added))
        saver.restore(session, checkpoint)
        for batch in np.split(IMAGES, 2):
            session.run("prob:0", {"x:0": batch} if fed else {})
    amct.save_model(path, ["prob"], "live.txt", "net")

    constant = load_pb(path)
    amct.quantize_model(constant, "config.json", "frozen.txt")
    with constant.as_default(), tf.compat.v1.Session() as session:
        session.run(tf.compat.v1.global_variables_initializer())
        for batch in np.split(IMAGES, 2):
            session.run("prob:0", {"x:0": batch})
    live, expected = load_record(Path("live.txt")), load_record(Path("frozen.txt"))
    assert list(live) == list(expected) == ["conv", "dense"]
    for name, entry in expected.items():
        assert live[name].activation.offset == entry.activation.offset
        np.testing.assert_allclose(live[name].activation.scale, entry.activation.scale, rtol=1e-5)
        np.testing.assert_allclose(live[name].scale_w, entry.scale_w, rtol=1e-5)


def test_a_pipeline_beside_the_model_is_none_of_its_inputs(built: Callable[[Callable[[], Any]], Any]) -> None:
    """As the evaluators of AMCT's samples have it."""
    import tensorflow as tf

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, (None, 4), name="x")
        tf.matmul(x, np.eye(4, dtype=F), name="y")
        data = tf.data.Dataset.from_tensor_slices(np.ones((8, 4), F)).batch(2)
        tf.nn.relu(tf.compat.v1.data.make_one_shot_iterator(data).get_next(), name="preprocessed")

    from autoquant.amct.live_graph import read_live

    model = read_live(built(write))
    assert (model.graph.inputs, model.graph.outputs) == (("x",), ("y",))


def test_a_model_with_other_weights_than_the_session_had_is_refused(built: Callable[[Callable[[], Any]], Any]) -> None:
    import tensorflow as tf

    graph = built(lambda: from_placeholder(True))
    amct.create_quant_config("config.json", graph)
    amct.quantize_model(graph, "config.json", "record.txt")
    with graph.as_default(), tf.compat.v1.Session() as session:
        session.run(tf.compat.v1.global_variables_initializer())
        session.run("prob:0", {"x:0": IMAGES})
        for variable in tf.compat.v1.global_variables()[:5]:
            variable.load(2 * session.run(variable), session)
        Path("net.pb").write_bytes(frozen(graph, session).SerializeToString())
    with pytest.raises(PlanError, match="its scale_w is not what calibration gives the weight of this model"):
        amct.save_model("net.pb", ["prob"], "record.txt", "net")
