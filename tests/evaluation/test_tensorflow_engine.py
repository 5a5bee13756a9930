"""The contract of an engine, and what TensorFlow adds to it."""

from dataclasses import replace

import numpy as np
import pytest

from autoquant.errors import TrialError
from autoquant.evaluation.engine import Engine
from autoquant.evaluation.tensorflow_engine import TensorFlowEngine
from autoquant.model.graph import Graph, GraphDef, make_const, make_node
from autoquant.model.model import open_model
from autoquant.model.shapes import make_placeholder
from autoquant.targets.ascend_functions import FLOAT, INT32, type_attr

ENGINES = {"tensorflow": TensorFlowEngine}


@pytest.fixture(params=sorted(ENGINES))
def engine(request) -> Engine:
    return ENGINES[request.param]()


@pytest.fixture(scope="module")
def model(tiny):
    return open_model(tiny.model)


def test_its_name_is_that_of_the_table(engine):
    assert engine.name in ENGINES


def test_outputs_are_those_of_a_plain_session(engine, model, tiny):
    import tensorflow as tf

    images = np.load(tiny.evaluation)["x"][:30]
    graph_def = tf.compat.v1.GraphDef.FromString(tiny.model.read_bytes())
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(graph_def, name="")
        with tf.compat.v1.Session(graph=graph) as session:
            want = session.run("scores:0", {"image:0": images})
    runner = engine.open_graph(model.graph)
    got = runner({"image": images})
    runner.close()
    assert list(got) == ["scores"]
    np.testing.assert_allclose(got["scores"], want, rtol=1e-5, atol=1e-5)


def test_a_file_gives_what_its_graph_gives(engine, model, tiny, tmp_path):
    path = tmp_path / "model.pb"
    path.write_bytes(model.graph.to_graph_def().SerializeToString())
    images = np.load(tiny.evaluation)["x"][:7]
    from_file = engine.open_file(path, model.graph)({"image": images})
    np.testing.assert_array_equal(from_file["scores"], engine.open_graph(model.graph)({"image": images})["scores"])


def test_inner_tensors_can_be_fetched(engine, model):
    images = np.zeros((2, 8, 8, 2), np.float32)
    fetched = engine.open_graph(model.graph, ["conv", "depthwise"])({"image": images})
    assert {name: value.shape for name, value in fetched.items()} == {
        "conv": (2, 8, 8, 4),
        "depthwise": (2, 3, 3, 8),
    }


def fixed_batch(size: int) -> Graph:
    """A graph of y = Neg(x) and inside it `flat` = Reshape(x, (-1,)), for batches of exactly `size` rows of two."""
    nodes = [
        make_placeholder("x", FLOAT, (size, 2)),
        make_node("y", "Neg", ["x"], T=type_attr(FLOAT)),
        make_const("shape", np.array([-1], np.int32)),
        make_node("flat", "Reshape", ["x", "shape"], T=type_attr(FLOAT)),
    ]
    return Graph.from_graph_def(GraphDef(node=nodes), inputs=["x"], outputs=["y"])


@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_a_fixed_batch_is_run_as_often_as_it_takes(engine, count: int):
    x = np.arange(2 * count, dtype=np.float32).reshape(count, 2)
    got = engine.open_graph(fixed_batch(4))({"x": x})
    np.testing.assert_array_equal(got["y"], -x)


@pytest.mark.parametrize(("count", "rows"), [(3, [0, 1, 2, 2]), (4, [0, 1, 2, 3]), (5, [0, 1, 2, 3, 4, 4, 4, 4])])
def test_inner_tensors_of_a_fixed_batch_are_never_cut(engine, count: int, rows: list[int]):
    x = np.arange(2 * count, dtype=np.float32).reshape(count, 2)
    got = engine.open_graph(fixed_batch(4), ["flat", "y"])({"x": x})  # `flat` might as well be time-major
    np.testing.assert_array_equal(got["flat"], x[rows].reshape(-1))
    np.testing.assert_array_equal(got["y"], -x[rows])


def test_an_output_of_a_fixed_batch_that_has_no_row_a_sample_is_left_whole(engine):
    graph = replace(fixed_batch(4), outputs=("y", "flat"))
    got = engine.open_graph(graph)({"x": np.ones((3, 2), np.float32)})
    assert got["y"].shape == (3, 2) and got["flat"].shape == (8,)


def test_a_scalar_output_of_a_fixed_batch_is_left_to_the_caller(engine):
    mean = make_node("mean", "Sum", ["flat", "zero"], T=type_attr(FLOAT), Tidx=type_attr(INT32))
    graph = fixed_batch(4).edit(put=[mean, make_const("zero", np.array(0, np.int32))])
    runner = engine.open_graph(Graph(graph.nodes, graph.inputs, ("mean",)))
    assert runner({"x": np.ones((6, 2), np.float32)})["mean"].shape == ()


def test_data_that_does_not_fit_says_so(engine, model):
    runner = engine.open_graph(model.graph)
    with pytest.raises(TrialError, match="the model does not run"):
        runner({"image": np.zeros((1, 8, 8, 5), np.float32)})


def test_a_graph_that_is_refused_says_why():
    graph = fixed_batch(2).edit(put=[make_node("y", "NoSuchOperator", ["x"])])
    with pytest.raises(TrialError, match="NoSuchOperator"):
        TensorFlowEngine().open_graph(graph)
