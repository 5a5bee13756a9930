"""The contract of an engine, for each of them: the same models run through all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_model import Tiny

from autoquant.errors import TrialError
from autoquant.evaluation.engines.engine import Engine, fixed_batch
from autoquant.evaluation.engines.table import ENGINES, open_engine
from autoquant.model.graph import Graph, GraphDef
from autoquant.model.litert.convert import convert
from autoquant.model.model import Model
from autoquant.model.nodes import FLOAT, INT32, make_const, make_node
from autoquant.model.open import open_model
from autoquant.model.shapes import make_placeholder
from autoquant.targets.attributes import type_attr

SAVED: dict[str, Callable[[Graph], bytes]] = {
    "litert": lambda graph: convert(graph).content,
    "tensorflow": lambda graph: graph.to_graph_def().SerializeToString(),
}
"""What a file that the engine opens holds."""


@pytest.fixture(params=sorted(ENGINES))
def engine(request: pytest.FixtureRequest) -> Engine:
    return open_engine(request.param)


@pytest.fixture(scope="module")
def model(tiny: Tiny) -> Model:
    return open_model(tiny.model)


@pytest.fixture(scope="module")
def scores(tiny: Tiny) -> tuple[NDArray[Any], NDArray[Any]]:
    """The tiny model's outputs in a plain session."""
    import tensorflow as tf

    images = np.load(tiny.evaluation)["x"][:30]
    graph_def = tf.compat.v1.GraphDef.FromString(tiny.model.read_bytes())
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(graph_def, name="")
        with tf.compat.v1.Session(graph=graph) as session:
            return images, session.run("scores:0", {"image:0": images})


def graph_of(*nodes: Any, inputs: tuple[str, ...] = ("x",), outputs: tuple[str, ...] = ("y",)) -> Graph:
    return Graph.from_graph_def(GraphDef(node=nodes), inputs=inputs, outputs=outputs)


def in_float(name: str, op: str, *inputs: str, **attributes: Any) -> Any:
    return make_node(name, op, inputs, T=type_attr(FLOAT), **attributes)


def fixed(size: int) -> Graph:
    """A graph of y = Neg(x) and inside it `flat` = Reshape(x, (-1,)), for batches of exactly `size` rows of two."""
    return graph_of(
        make_placeholder("x", FLOAT, (size, 2)),
        in_float("y", "Neg", "x"),
        make_const("shape", np.array([-1], np.int32)),
        make_node("flat", "Reshape", ["x", "shape"], T=type_attr(FLOAT), Tshape=type_attr(INT32)),
    )


def two_sided() -> Graph:
    """Of `a` (batch, 2) and `b` (batch, 2): their sum and their product."""
    return graph_of(
        make_placeholder("a", FLOAT, (None, 2)),
        make_placeholder("b", FLOAT, (None, 2)),
        in_float("sum", "AddV2", "a", "b"),
        in_float("product", "Mul", "a", "b"),
        inputs=("b", "a"),
        outputs=("product", "sum"),
    )


def test_its_name_is_that_of_the_table(engine: Engine) -> None:
    assert type(ENGINES[engine.name]()) is type(engine)


def test_its_version_is_that_of_the_library(engine: Engine) -> None:
    library, number = engine.version.split()
    assert library in ("litert", "tensorflow") and number[0].isdigit()


def test_outputs_are_those_of_a_plain_session(
    engine: Engine, model: Model, scores: tuple[NDArray[Any], NDArray[Any]]
) -> None:
    images, want = scores
    runner = engine.open_graph(model.graph)
    got = runner({"image": images})
    runner.close()
    assert list(got) == ["scores"]
    np.testing.assert_allclose(got["scores"], want, rtol=1e-5, atol=1e-5)


def test_a_batch_may_be_shorter_than_the_last_one_or_longer(
    engine: Engine, model: Model, scores: tuple[NDArray[Any], NDArray[Any]]
) -> None:
    images, want = scores
    runner = engine.open_graph(model.graph)
    for rows in (slice(0, 12), slice(12, 24), slice(24, 30), slice(3, 4), slice(0, 30)):
        np.testing.assert_allclose(runner({"image": images[rows]})["scores"], want[rows], rtol=1e-5, atol=1e-5)


def test_images_may_be_of_several_sizes(engine: Engine) -> None:
    graph = graph_of(make_placeholder("x", FLOAT, (None, None, None, 1)), in_float("y", "Neg", "x"))
    runner = engine.open_graph(graph)
    for shape in ((2, 3, 4, 1), (1, 5, 2, 1), (2, 3, 4, 1)):
        x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        np.testing.assert_array_equal(runner({"x": x})["y"], -x)


def test_a_file_gives_what_its_graph_gives(
    engine: Engine, model: Model, scores: tuple[NDArray[Any], NDArray[Any]], tmp_path: Path
) -> None:
    path = tmp_path / "model"
    path.write_bytes(SAVED[engine.name](model.graph))
    images, _ = scores
    from_file = engine.open_file(path, model.graph)({"image": images})
    np.testing.assert_array_equal(from_file["scores"], engine.open_graph(model.graph)({"image": images})["scores"])


def test_results_are_not_overwritten_by_the_next_batch(
    engine: Engine, model: Model, scores: tuple[NDArray[Any], NDArray[Any]]
) -> None:
    images, want = scores
    runner = engine.open_graph(model.graph)
    first = runner({"image": images[:8]})["scores"]
    runner({"image": images[8:16]})
    runner.close()
    np.testing.assert_allclose(first, want[:8], rtol=1e-5, atol=1e-5)


def test_two_runners_do_not_disturb_each_other(
    engine: Engine, model: Model, scores: tuple[NDArray[Any], NDArray[Any]]
) -> None:
    images, want = scores
    one, other = engine.open_graph(model.graph), engine.open_graph(model.graph, ["conv"])
    one({"image": images[:5]})
    other({"image": images[:9]})
    other.close()
    np.testing.assert_allclose(one({"image": images[5:10]})["scores"], want[5:10], rtol=1e-5, atol=1e-5)


def test_inputs_and_outputs_are_known_by_name(engine: Engine) -> None:
    a, b = np.array([[1, 2], [3, 4]], np.float32), np.array([[5, 6], [7, 8]], np.float32)
    got = engine.open_graph(two_sided())({"a": a, "b": b})
    assert list(got) == ["product", "sum"]
    np.testing.assert_array_equal(got["sum"], a + b)
    np.testing.assert_array_equal(got["product"], a * b)


def test_inner_tensors_can_be_fetched_and_inputs_too(engine: Engine, model: Model) -> None:
    images = np.full((2, 8, 8, 2), 0.5, np.float32)
    fetched = engine.open_graph(model.graph, ["conv", "image", "depthwise"])({"image": images})
    assert {name: value.shape for name, value in fetched.items()} == {
        "conv": (2, 8, 8, 4),
        "image": (2, 8, 8, 2),
        "depthwise": (2, 3, 3, 8),
    }
    np.testing.assert_array_equal(fetched["image"], images)


def test_the_fetched_tensor_is_not_the_one_that_follows_it(engine: Engine, model: Model, tiny: Tiny) -> None:
    images = np.load(tiny.evaluation)["x"][:2]
    got = engine.open_graph(model.graph, ["conv"])({"image": images})["conv"]
    weight = tiny.weights["conv"].astype(np.float64)
    padded = np.pad(images.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    want = sum(padded[:, i : i + 8, j : j + 8] @ weight[i, j] for i in range(3) for j in range(3))
    np.testing.assert_allclose(got, want, atol=1e-4)  # without the bias, and before the Relu


@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_a_fixed_batch_is_run_as_often_as_it_takes(engine: Engine, count: int) -> None:
    x = np.arange(2 * count, dtype=np.float32).reshape(count, 2)
    got = engine.open_graph(fixed(4))({"x": x})
    np.testing.assert_array_equal(got["y"], -x)


@pytest.mark.parametrize(("count", "rows"), [(3, [0, 1, 2, 2]), (4, [0, 1, 2, 3]), (5, [0, 1, 2, 3, 4, 4, 4, 4])])
def test_inner_tensors_of_a_fixed_batch_are_never_cut(engine: Engine, count: int, rows: list[int]) -> None:
    x = np.arange(2 * count, dtype=np.float32).reshape(count, 2)
    got = engine.open_graph(fixed(4), ["flat", "y"])({"x": x})  # `flat` might as well be time-major
    np.testing.assert_array_equal(got["flat"], x[rows].reshape(-1))
    np.testing.assert_array_equal(got["y"], -x[rows])


def test_an_output_of_a_fixed_batch_that_has_no_row_a_sample_is_left_whole(engine: Engine) -> None:
    graph = replace(fixed(4), outputs=("y", "flat"))
    got = engine.open_graph(graph)({"x": np.ones((3, 2), np.float32)})
    assert got["y"].shape == (3, 2) and got["flat"].shape == (8,)


def test_a_scalar_output_of_a_fixed_batch_is_left_to_the_caller(engine: Engine) -> None:
    mean = make_node("mean", "Sum", ["flat", "zero"], T=type_attr(FLOAT), Tidx=type_attr(INT32))
    graph = fixed(4).edit(put=[mean, make_const("zero", np.array(0, np.int32))])
    runner = engine.open_graph(Graph(graph.nodes, graph.inputs, ("mean",)))
    assert runner({"x": np.ones((6, 2), np.float32)})["mean"].shape == ()


def test_data_that_does_not_fit_says_so_and_the_next_batch_runs(
    engine: Engine, model: Model, scores: tuple[NDArray[Any], NDArray[Any]]
) -> None:
    images, want = scores
    runner = engine.open_graph(model.graph)
    runner({"image": images[:3]})
    with pytest.raises(TrialError, match="the model does not run"):
        runner({"image": np.zeros((1, 8, 8, 5), np.float32)})
    np.testing.assert_allclose(runner({"image": images[:3]})["scores"], want[:3], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("shapes", "batch"),
    [
        ([(None, 3)], None),
        ([(-1, 3)], None),
        ([(4, 3)], 4),
        ([(), (4, 3)], 4),
        ([(None, 3), (2, 3)], 2),
        ([()], None),
        ([], None),
    ],
)
def test_the_batch_that_inputs_fix(shapes: list[tuple[Any, ...]], batch: int | None) -> None:
    assert fixed_batch(shapes) == batch
