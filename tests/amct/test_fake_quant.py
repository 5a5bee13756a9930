"""Grids of FakeQuant operators, against TensorFlow's own kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoquant.amct.qat import fake_before, grid_of, nudged
from autoquant.errors import ModelError
from autoquant.model.fake_quants import without_fakes
from autoquant.model.graph import Graph

BOUNDS = st.floats(0.0, 100.0, width=32, allow_subnormal=False).filter(lambda bound: bound == 0 or bound > 2e-3)


@settings(deadline=None, max_examples=50)
@given(BOUNDS, BOUNDS.filter(bool), st.booleans())
def test_a_grid_is_what_tensorflow_rounds_to(below: float, above: float, narrow: bool) -> None:
    import tensorflow as tf

    low, high = np.float32(-below), np.float32(above)
    values = np.linspace(1.5 * low - 1, 1.5 * high + 1, 1001, dtype=np.float32)
    with tf.device("/CPU:0"):
        rounded = tf.quantization.fake_quant_with_min_max_vars(values, low, high, narrow_range=narrow).numpy()
    grid = nudged(np.array([low]), np.array([high]), narrow=narrow)
    (scale,), (offset,) = grid.scales.astype(np.float64), grid.offsets
    steps = rounded / scale + offset
    np.testing.assert_allclose(steps, np.rint(steps), atol=2e-3)
    assert np.rint(steps).min() == (-127 if narrow else -128)
    assert np.rint(steps).max() == 127
    assert 0.0 in rounded or not (low <= 0 <= high)


def test_a_range_of_nothing_has_scale_one() -> None:
    grid = nudged(np.zeros(2, np.float32), np.array([0.0, 1.27], np.float32), narrow=True)
    assert grid.scales[0] == 1.0
    assert grid.offsets[0] == 0


@pytest.fixture
def graph_of(built: Callable[[Callable[[], Any]], Any]) -> Callable[..., Graph]:
    """A Graph of what a function writes, without normalization."""

    def made(write: Callable[..., Any]) -> Graph:
        return Graph.from_graph_def(built(write).as_graph_def(), inputs=["x"], outputs=["y"])

    return made


def test_arguments_and_constants_behind_identity_are_read(graph_of: Callable[..., Graph]) -> None:
    import tensorflow as tf

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, (None, 4), name="x")
        x = tf.quantization.fake_quant_with_min_max_args(x, -1.0, 1.55, name="args")
        x = tf.quantization.fake_quant_with_min_max_vars(x, tf.identity(tf.constant(0.0)), 2.55, name="vars")
        tf.nn.relu(tf.reshape(x, (-1, 2)), name="y")

    graph = graph_of(write)
    args, found = (grid_of(graph, graph.nodes[name]).activation(name) for name in ("args", "vars"))
    assert args.scale == pytest.approx(0.01, rel=1e-5)
    assert args.offset == -28
    assert found.scale == pytest.approx(0.01, rel=1e-5)
    assert found.offset == -128
    fake = fake_before(graph, graph.nodes["y"].input[0])
    assert fake is not None
    assert fake.name == "vars"
    assert fake_before(graph, "y") is None
    plain = without_fakes(graph)
    assert not [node for node in plain.nodes.values() if node.op.startswith("FakeQuant")]
    assert plain.nodes[plain.nodes["y"].input[0]].input[0] == "x"


def test_an_output_keeps_its_name(graph_of: Callable[..., Graph], run: Callable[..., list[Any]]) -> None:
    import tensorflow as tf

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, (None, 4), name="x")
        tf.quantization.fake_quant_with_min_max_args(x, name="y")

    plain = without_fakes(graph_of(write))
    values = np.array([[0.1234, 100.0, -100.0, 0.0]], np.float32)
    np.testing.assert_array_equal(run(plain, {"x": values})[0], values)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_bits": 4}, "fake: has num_bits 4, not 8; train again"),
        ({"min": 1.0, "max": -1.0}, "fake: its min is above its max"),
        ({"min": float("nan")}, "fake: its min is above its max, or not finite"),
        ({"narrow_range": True}, "fake: is narrow_range, which is for weights"),
    ],
)
def test_ranges_that_int8_does_not_have_are_refused(
    graph_of: Callable[..., Graph], options: dict[str, bool | float], message: str
) -> None:
    import tensorflow as tf

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, (None, 4), name="x")
        tf.nn.relu(tf.quantization.fake_quant_with_min_max_args(x, **options, name="fake"), name="y")

    graph = graph_of(write)
    with pytest.raises(ModelError, match=message):
        grid_of(graph, graph.nodes["fake"]).activation("fake")


def test_a_range_that_is_fed_is_refused(graph_of: Callable[..., Graph]) -> None:
    import tensorflow as tf

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, (None, 4), name="x")
        tf.nn.relu(tf.quantization.fake_quant_with_min_max_vars(x, tf.reduce_min(x), 1.0, name="fake"), name="y")

    graph = graph_of(write)
    with pytest.raises(ModelError, match=r"fake: its range .* is not constant; freeze the graph"):
        grid_of(graph, graph.nodes["fake"])


@settings(deadline=None, max_examples=200)
@given(BOUNDS.filter(bool))
def test_a_symmetric_range_that_is_not_narrow_is_one_of_a_weight(most: float) -> None:
    """The zero point is between two steps; what TensorFlow rounds to has the same steps either way."""
    grid = nudged(np.array([-most], np.float32), np.array([most], np.float32), narrow=False)
    assert grid.weight("fake") == pytest.approx(2 * most / 255, rel=1e-6)


def test_offsets_of_weights_are_refused() -> None:
    with pytest.raises(
        ModelError, match="fake: quantizes a weight with offset -128, not 0; train again with symmetric"
    ):
        nudged(np.zeros(1), np.ones(1), narrow=False).weight("fake")
