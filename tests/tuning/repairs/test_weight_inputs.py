"""What the weights of every kind of layer meet: with the weights it makes what TensorFlow and LiteRT compute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from autoquant.evaluation.engines.table import open_engine
from autoquant.model.graph import Graph
from autoquant.model.model import Model, known_constant
from autoquant.model.open import prepare_graph
from autoquant.quantization.affine import by_channel, from_channels
from autoquant.targets.table import TARGETS, open_target
from autoquant.tuning.repairs.weight_inputs import TOGETHER, InputMoments, WeightInputs, weight_inputs

SAMPLES = 3


def raw() -> Any:
    import tensorflow as tf

    return tf.raw_ops


def transposed(x: Any, w: Any, padding: str, height: int, width: int) -> Any:
    import tensorflow as tf

    shape = tf.stack([tf.shape(x)[0], height, width, 4])
    return tf.nn.conv2d_transpose(x, w, shape, (1, 2, 3, 1), padding=padding, name="layer")


def conv(x: Any, w: Any, padding: str, **options: Any) -> Any:
    return raw().Conv2D(input=x, filter=w, padding=padding, name="layer", **{"strides": [1] * 4, **options})


def depthwise(x: Any, w: Any, padding: str, stride: int, dilation: int = 1) -> Any:
    return raw().DepthwiseConv2dNative(
        input=x,
        filter=w,
        strides=[1, stride, stride, 1],
        padding=padding,
        dilations=[1, dilation, dilation, 1],
        name="layer",
    )


CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], Callable[..., Any]]] = {
    "matmul": ((5,), (5, 4), lambda x, w: raw().MatMul(a=x, b=w, name="layer")),
    "batch matmul": ((6, 5), (5, 4), lambda x, w: raw().BatchMatMulV2(x=x, y=w, name="layer")),
    "conv same": ((7, 8, 3), (3, 2, 3, 4), lambda x, w: conv(x, w, "SAME")),
    "conv same, strides": ((7, 8, 3), (3, 2, 3, 4), lambda x, w: conv(x, w, "SAME", strides=[1, 2, 3, 1])),
    "conv valid, strides": ((7, 8, 3), (3, 2, 3, 4), lambda x, w: conv(x, w, "VALID", strides=[1, 2, 1, 1])),
    "conv same, dilated": ((9, 8, 3), (3, 2, 3, 4), lambda x, w: conv(x, w, "SAME", dilations=[1, 2, 3, 1])),
    "conv explicit": (
        (7, 8, 3),
        (3, 2, 3, 4),
        lambda x, w: conv(x, w, "EXPLICIT", explicit_paddings=[0, 0, 1, 2, 0, 1, 0, 0], strides=[1, 2, 2, 1]),
    ),
    "conv of groups": ((7, 8, 6), (3, 2, 2, 9), lambda x, w: conv(x, w, "SAME")),
    "depthwise same": ((7, 8, 3), (3, 3, 3, 2), lambda x, w: depthwise(x, w, "SAME", 2)),
    "depthwise valid": ((7, 8, 3), (3, 2, 3, 1), lambda x, w: depthwise(x, w, "VALID", 1)),
    "depthwise dilated": ((9, 8, 3), (3, 2, 3, 1), lambda x, w: depthwise(x, w, "SAME", 1, 2)),
    "transposed same": ((4, 4, 3), (3, 2, 4, 3), lambda x, w: transposed(x, w, "SAME", 8, 11)),
    "transposed valid": ((4, 4, 3), (3, 2, 4, 3), lambda x, w: transposed(x, w, "VALID", 9, 11)),
    "conv3d": (
        (4, 5, 6, 3),
        (2, 3, 3, 3, 4),
        lambda x, w: raw().Conv3D(input=x, filter=w, strides=[1, 1, 2, 2, 1], padding="SAME", name="layer"),
    ),
}
"""Shape of a sample and of the weight, and the layer."""
ON_LITERT = [name for name in CASES if name != "conv3d"]  # which has no INT8 kernel there


def opened(name: str, target_name: str) -> tuple[Model, Any, Any]:
    """The lowered model of a case, its only layer, and data."""
    import tensorflow as tf

    random = np.random.default_rng(6)
    shape, weight_shape, write = CASES[name]
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (None, *shape), name="x")
        tf.identity(write(x, tf.constant(random.normal(size=weight_shape).astype(np.float32))), name="y")
    made = prepare_graph(Graph.from_graph_def(graph.as_graph_def(), inputs=["x"], outputs=["y"]))
    target = open_target(target_name)
    model = target.lowered(Model("m", made, (), ""))
    (layer,) = target.survey(model, {"x": (SAMPLES, *shape)}).layers
    return model, layer, random.normal(size=(SAMPLES, *shape)).astype(np.float32)


def products(inputs: WeightInputs, model: Model, layer: Any, rows: Any) -> Any:
    """The layer's results for rows of inputs, (rows, channels)."""
    weight = by_channel(known_constant(model.program, layer.weight), layer.channel_axes)
    of_groups = np.einsum("gri,gci->rgc", rows, weight.reshape(len(rows), -1, inputs.count))
    return of_groups.reshape(rows.shape[1], -1)


@pytest.mark.parametrize(
    ("target", "name"),
    [("tensorflow", name) for name in CASES] + [("litert", name) for name in ON_LITERT],
)
def test_inputs_times_weights_are_results(target: str, name: str) -> None:
    model, layer, x = opened(name, target)
    inputs = weight_inputs(model.program, layer)
    assert isinstance(inputs, WeightInputs)
    runtime = "litert" if name == "depthwise dilated" else TARGETS[target].runtime  # TensorFlow has no kernel for it
    runner = open_engine(runtime).open_graph(model.program, [*layer.activations, *model.program.outputs])
    found = {key: np.array(value) for key, value in runner({"x": x}).items()}
    data, wanted = found[layer.activations[0]], found[model.program.outputs[0]]
    wanted = wanted.reshape(-1, wanted.shape[-1])
    every = inputs.rows(data, np.zeros((SAMPLES, 10**6)))
    np.testing.assert_allclose(products(inputs, model, layer, every), wanted, atol=1e-5)
    # Of each sample some: rows of the same, a third of them from each.
    draws = np.random.default_rng(0).random((SAMPLES, 2))
    own = len(wanted) // SAMPLES
    chosen = [sample * own + int(draw * own) for sample, row in enumerate(draws) for draw in row]
    some = inputs.rows(data, draws)
    np.testing.assert_allclose(products(inputs, model, layer, some), wanted[chosen] if own > 2 else wanted, atol=1e-5)


def test_channels_that_come_first() -> None:
    model, layer, x = opened("conv same", "tensorflow")
    last = weight_inputs(model.program, layer)
    assert isinstance(last, WeightInputs)
    first = WeightInputs(last.space, last.kernel, last.channels, data_axis=1)
    draws = np.random.default_rng(0).random((SAMPLES, 5))
    np.testing.assert_array_equal(first.rows(np.moveaxis(x, -1, 1), draws), last.rows(x, draws))


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_a_transposed_convolution_of_unknown_size(target: str) -> None:
    model, layer, _ = opened("transposed same", target)
    found = weight_inputs(model.program, replace(layer, output_shape=(None, None, None, 4)))
    assert found == "the size of its result is not known"


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_more_inputs_than_memory_has_room_for(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, layer, _ = opened("conv same", target)
    monkeypatch.setattr("autoquant.tuning.repairs.weight_inputs.LARGEST", 17)
    assert weight_inputs(model.program, layer) == "it has 18 inputs, more than 17"


def test_rows_of_a_weight_are_put_back() -> None:
    weight = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    for axes in ((3,), (2,), (2, 3), (0,)):
        np.testing.assert_array_equal(from_channels(by_channel(weight, axes), weight.shape, axes), weight)


@pytest.mark.parametrize("centered", [False, True])
def test_few_rows_stay_as_they_are_and_have_the_same_moment(centered: bool) -> None:
    rows = (1000 + np.random.default_rng(0).normal(size=(2, 30, 200))).astype(np.float32)
    moments = InputMoments(rows[:, :10])
    moments.add(rows[:, 10:])
    assert moments.nbytes == rows.nbytes < 4 * 200 * 200 * 2
    samples = moments.samples(centered=centered)
    assert samples is not None and samples.shape == rows.shape
    np.testing.assert_allclose(
        samples.swapaxes(1, 2) @ samples, moments.moment(centered=centered), rtol=1e-9, atol=1e-9
    )
    moments.add(rows[:, :21])
    assert moments.samples(centered=centered) is None  # of 51 rows and 200 inputs


def test_many_rows_take_the_memory_of_their_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoquant.tuning.repairs.weight_inputs.WAITING", 1)
    moments = InputMoments(np.ones((1, 30, 20), np.float32))
    for _ in range(10):
        moments.add(np.ones((1, 30, 20), np.float32))
        assert moments.nbytes == 4 * 20 * 20
    np.testing.assert_allclose(moments.moment(centered=False), np.ones((1, 20, 20)))


@pytest.mark.parametrize("inputs", [5, TOGETHER + 5])
def test_moments_are_those_of_all_rows(inputs: int) -> None:
    """Also where the mean is large, and the spread small."""
    rows = (1000 + np.random.default_rng(0).normal(size=(2, 300, inputs))).astype(np.float32)
    moments = InputMoments(rows[:, :100])
    moments.add(rows[:, 100:])
    exact = rows.astype(np.float64)
    np.testing.assert_allclose(moments.moment(centered=False), exact.swapaxes(1, 2) @ exact / 300, rtol=1e-6)
    moved = exact - exact.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(moments.moment(centered=True), moved.swapaxes(1, 2) @ moved / 300, atol=1e-5)
