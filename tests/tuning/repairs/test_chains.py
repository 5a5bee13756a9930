"""Equalized models on both targets: outputs as they were, channels alike, and chains that end where they must."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from autoquant.calibration.channels import collect_moments
from autoquant.errors import TrialError
from autoquant.evaluation.engines.table import open_engine
from autoquant.model.graph import Graph
from autoquant.model.model import Model
from autoquant.model.open import prepare_graph
from autoquant.model.survey import survey_graph
from autoquant.targets.table import TARGETS, open_target
from autoquant.tuning.repairs.equalization import equalized_program
from autoquant.tuning.repairs.graph_chains import find_chains

CHANNELS = 6
SIZES = np.array([1.0, 30.0, 0.1, 5.0, 300.0, 0.02], np.float32)
"""How large channels are, before and behind each of which a layer mends it."""


class Net:
    """Writes layers with random weights; `large` are the sizes of output channels, which the next layer undoes."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(4)
        self.large: Any = 1.0

    def constant(self, *shape: int) -> Any:
        return self.rng.normal(size=shape).astype(np.float32)

    def conv(self, x: Any, out: int, *, size: int = 3, large: Any = 1.0, padding: str = "SAME", **options: Any) -> Any:
        import tensorflow as tf

        weight = self.constant(size, size, x.shape[-1], out) / np.reshape(self.large, (-1, 1)) * large
        return self.biased(tf.nn.conv2d(x, np.float32(weight), 1, padding), out, large, **options)

    def depthwise(self, x: Any, multiplier: int = 1, *, large: Any = 1.0, **options: Any) -> Any:
        import tensorflow as tf

        inputs = x.shape[-1]
        weight = self.constant(3, 3, inputs, multiplier) / np.reshape(np.ones(inputs) * self.large, (-1, 1))
        weight = np.float32(weight * np.reshape(np.ones(inputs * multiplier) * large, (inputs, multiplier)))
        made = tf.nn.depthwise_conv2d(x, weight, (1, 1, 1, 1), "SAME")
        return self.biased(made, inputs * multiplier, large, **options)

    def dense(self, x: Any, out: int, *, large: Any = 1.0, **options: Any) -> Any:
        import tensorflow as tf

        undone = np.resize(self.large, x.shape[-1])[:, None]
        return self.biased(
            tf.matmul(x, np.float32(self.constant(x.shape[-1], out) / undone * large)), out, large, **options
        )

    def biased(self, x: Any, out: int, large: Any, *, bias: float = 0.0, name: str | None = None) -> Any:
        import tensorflow as tf

        self.large = large
        return tf.nn.bias_add(x, np.float32((self.constant(out) + bias) * large), name=name)


def relu(net: Net, x: Any) -> Any:
    import tensorflow as tf

    t = tf.nn.relu(net.conv(x, CHANNELS, large=SIZES))
    return net.conv(t, 5, name="y")


def depthwise(net: Net, x: Any) -> Any:
    """Convolution, LeakyRelu, depthwise with two outputs a channel, ReLU, convolution."""
    import tensorflow as tf

    t = tf.nn.leaky_relu(net.conv(x, CHANNELS, large=SIZES), 0.3)
    t = tf.nn.relu(net.depthwise(t, 2, large=np.repeat(SIZES[::-1], 2)))
    return net.conv(t, 5, name="y")


def pooled(net: Net, x: Any) -> Any:
    import tensorflow as tf

    t = tf.nn.max_pool2d(tf.nn.relu(net.conv(x, CHANNELS, large=SIZES)), 3, 2, "SAME")
    t = tf.nn.avg_pool2d(net.conv(t, CHANNELS, large=SIZES[::-1]), 2, 1, "SAME")
    return net.conv(t, 5, name="y")


def padded(net: Net, x: Any) -> Any:
    """Zeros beside height and width."""
    import tensorflow as tf

    t = tf.pad(tf.nn.relu(net.conv(x, CHANNELS, large=SIZES, bias=20.0)), [[0, 0], [1, 2], [0, 1], [0, 0]])
    return net.conv(t, 5, padding="VALID", name="y")


def averaged(net: Net, x: Any) -> Any:
    """Mean over space, MatMul, ReLU, MatMul."""
    import tensorflow as tf

    t = tf.reduce_mean(tf.nn.relu(net.conv(x, CHANNELS, large=SIZES)), (1, 2))
    return net.dense(tf.nn.relu(net.dense(t, CHANNELS, large=SIZES)), 5, name="y")


def flattened(net: Net, x: Any) -> Any:
    """Each channel comes round once for each place, in the rows of the MatMul."""
    import tensorflow as tf

    t = tf.nn.max_pool2d(tf.nn.relu(net.conv(x, CHANNELS, large=SIZES)), 2, 2, "VALID")
    return net.dense(tf.reshape(t, (-1, 16 * CHANNELS)), 5, name="y")


def linear(net: Net, x: Any) -> Any:
    """No function between: any constant may be absorbed."""
    t = net.conv(x, CHANNELS, size=1, large=SIZES, bias=20.0)
    return net.conv(t, 5, padding="VALID", name="y")


def high(net: Net, x: Any) -> Any:
    """Values that are far from 0, and a second layer that sees no zeros beside them."""
    import tensorflow as tf

    t = tf.nn.relu(net.conv(x, CHANNELS, large=SIZES, bias=60.0))
    return net.conv(tf.nn.relu(net.conv(t, 4, padding="VALID")), 5, size=1, name="y")


CASES = {write.__name__: write for write in (relu, depthwise, pooled, padded, averaged, flattened, linear, high)}
LINKS = {"relu": 1, "depthwise": 2, "pooled": 2, "padded": 1, "averaged": 2, "flattened": 1, "linear": 1, "high": 2}


class Both:
    """A model that a target lowered, samples, and the same model equalized on them."""

    def __init__(self, target: str, write: Any, outputs: tuple[str, ...] = ("y",)) -> None:
        import tensorflow as tf

        with tf.Graph().as_default() as tf_graph:
            write(Net(), tf.compat.v1.placeholder(tf.float32, (None, 8, 8, 3), name="x"))
        graph = prepare_graph(Graph.from_graph_def(tf_graph.as_graph_def(), inputs=["x"], outputs=outputs))
        self.target, self.engine = open_target(target), open_engine(TARGETS[target].runtime)
        self.model = self.target.lowered(Model("net", graph, (), ""))
        self.layers = self.target.survey(self.model, {}).by_name
        self.x = np.random.default_rng(5).normal(size=(24, 8, 8, 3)).astype(np.float32)
        self.watched: dict[str, int] = {}
        program = equalized_program(self.model.program, self.layers, self.moments)
        self.equalized = replace(self.model, program=program)

    def moments(self, axes: Any) -> Any:
        self.watched = dict(axes)
        return self.seen(self.model)

    def seen(self, model: Any) -> Any:
        """Moments of what was watched, of either model."""
        return collect_moments(
            [self.engine.open_graph(model.program, sorted(self.watched))({"x": self.x})], self.watched
        )

    def run(self, model: Any, x: Any = None) -> Any:
        return next(iter(self.engine.open_graph(model.program)({"x": self.x if x is None else x}).values()))

    def same(self, x: Any = None) -> None:
        want = self.run(self.model, x)
        np.testing.assert_allclose(self.run(self.equalized, x), want, rtol=1e-4, atol=1e-5 * np.abs(want).max())


@pytest.fixture(params=sorted(TARGETS))
def target(request: Any) -> str:
    return str(request.param)


@pytest.mark.parametrize("name", CASES)
def test_the_model_computes_what_it_did_and_channels_are_alike(target: str, name: str) -> None:
    both = Both(target, CASES[name])
    assert len(both.watched) == LINKS[name]
    both.same()
    before, after = both.seen(both.model), both.seen(both.equalized)
    for tensor in list(both.watched)[:1]:
        assert spread(before[tensor]) > 20
        assert spread(after[tensor]) < 4
    if name not in ("averaged", "high"):  # of those, biases are absorbed as far as the samples allow
        both.same(50.0 * both.x - 30.0)


def spread(moments: Any) -> float:
    """The width of the widest channel to that of the median one."""
    widths = moments.high - moments.low
    return float(widths.max() / np.median(widths))


def test_constants_are_absorbed_where_no_zeros_are_padded(target: str) -> None:
    both = Both(target, high)
    first = next(iter(both.watched))
    assert (both.seen(both.model)[first].low > 0).sum() >= 3
    after = both.seen(both.equalized)[first]
    low = np.minimum(after.low, 0.0) if target == "tensorflow" else after.low  # before or behind the ReLU
    assert (low < 1e-3 * (after.high - after.low)).all()


def test_a_linear_chain_is_centred(target: str) -> None:
    after = next(iter((both := Both(target, linear)).seen(both.equalized).values()))
    np.testing.assert_allclose(after.high + after.low, 0.0, atol=1e-4 * (after.high - after.low).max())


def given_up(net: Net, x: Any) -> Any:
    """Channels 1 and 4 have weights of next to nothing: all that they hold is a bias, of either sign."""
    import tensorflow as tf

    weight = net.constant(3, 3, 3, CHANNELS)
    weight[..., [1, 4]] *= 1e-20
    t = tf.nn.conv2d(x, weight, 1, "SAME")
    t = tf.nn.relu(tf.nn.bias_add(t, np.array([0.0, 0.7, 0.1, 0.2, -0.5, 0.3], np.float32), name="before"))
    return net.conv(net.depthwise(t), 5, name="y")


def test_channels_that_training_gave_up_do_not_grow(target: str) -> None:
    """By their weights they would become 1e9 times as large, and their biases exceed INT32."""
    both = Both(target, given_up)
    both.same()
    first = next(iter(both.watched))
    after = both.seen(both.equalized)[first]
    others = [0, 2, 3, 5]
    assert np.maximum(np.abs(after.low), np.abs(after.high))[[1, 4]].max() <= np.abs(after.high)[others].max()
    bias = np.abs(np.asarray(both.equalized.program.constant(bias_of(both))))
    assert bias.max() < 100


def bias_of(both: Both) -> str:
    layer = next(iter(both.layers.values()))
    assert layer.bias is not None
    return layer.bias if both.target.name == "litert" else both.model.graph.nodes[layer.bias].input[1]


def test_names_and_operators_stay(target: str) -> None:
    both = Both(target, depthwise)
    layers = both.target.survey(both.equalized, {}).by_name
    assert layers == both.layers
    assert both.target.tensors(both.equalized, layers) == both.target.tensors(both.model, layers)


def bottleneck(net: Net, x: Any) -> Any:
    """Small channels of a depthwise convolution that reads what a Relu6 made never come to 6; as in MobileNetV2."""
    import tensorflow as tf

    t = tf.nn.relu6(net.conv(x, CHANNELS))
    t = tf.nn.relu6(net.depthwise(t, large=np.array([0.01, 0.001, 3.0, 0.003, 0.002, 1.0])))
    return net.conv(t, 5, size=1, name="y")


def test_relu6_clips_what_it_did(target: str) -> None:
    both = Both(target, bottleneck)
    for x in (both.x, 100.0 * both.x, -100.0 * both.x, np.full_like(both.x, 1e4)):
        both.same(x)
    assert len(both.watched) == 2
    weights = [
        [np.abs(np.asarray(model.program.constant(layer.weight or ""))) for layer in both.layers.values()]
        for model in (both.model, both.equalized)
    ]
    np.testing.assert_array_equal(weights[0][0], weights[1][0])  # its input is not bounded
    axes = (0, 1, 3) if target == "tensorflow" else (0, 1, 2)
    grown = weights[1][1].max(axis=axes) / weights[0][1].max(axis=axes)
    np.testing.assert_allclose(grown[[2, 5]], 1.0, rtol=1e-6)  # they come to 6
    assert (grown[[0, 1, 3, 4]] > 3).all()


def in_the_way(kind: str) -> Any:
    """Two layers with something between that factors do not pass."""

    def write(net: Net, x: Any) -> Any:
        import tensorflow as tf

        t = net.conv(x, CHANNELS, large=SIZES, name="between")
        if kind == "two readers":
            return tf.add(net.conv(tf.nn.relu(t), 5), tf.reduce_mean(t), name="y")
        if kind == "sigmoid":
            t = tf.sigmoid(t)
        if kind == "padded channels":
            t = tf.pad(t, [[0, 0], [0, 0], [0, 0], [1, 2]])
            net.large = 1.0
        if kind == "groups":
            net.large = 1.0
            return net.biased(tf.nn.conv2d(t, net.constant(3, 3, 3, 4), 1, "SAME"), 4, 1.0, name="y")
        if kind == "mixed":
            net.large = 1.0
            t = tf.reshape(t, (-1, 8, 16, 3))
        return net.conv(t, 5, name="y")

    return write


@pytest.mark.parametrize("kind", ["two readers", "sigmoid", "padded channels", "groups", "mixed", "output"])
def test_chains_end(target: str, kind: str) -> None:
    outputs = ("between", "y") if kind == "output" else ("y",)
    both = Both(target, in_the_way(kind), outputs)
    assert both.equalized.program is both.model.program
    assert both.watched == {}


def test_factors_beyond_float32_are_told(target: str) -> None:
    """A bias of 3e38 becomes a hundred times as large."""

    def write(net: Net, x: Any) -> None:
        import tensorflow as tf

        t = tf.nn.bias_add(
            tf.matmul(tf.reduce_mean(x, (1, 2)), np.ones((3, 2), np.float32)), np.array([3e38, 1e38], np.float32)
        )
        tf.matmul(t, np.array([[1e-4], [1e4]], np.float32), name="y")

    with pytest.raises(TrialError, match="equalized, it is beyond float32; set equalize to false"):
        Both(target, write)


def test_a_bias_that_two_layers_share(target: str) -> None:
    """Each gets its own."""

    def write(net: Net, x: Any) -> None:
        import tensorflow as tf

        shared = tf.constant(net.constant(CHANNELS))
        t = tf.nn.bias_add(tf.nn.conv2d(x, net.constant(3, 3, 3, CHANNELS), 1, "SAME"), shared)
        t = tf.nn.bias_add(tf.nn.conv2d(tf.nn.relu(t), 9 * net.constant(3, 3, CHANNELS, CHANNELS), 1, "SAME"), shared)
        net.conv(tf.nn.relu(t), 5, name="y")

    both = Both(target, write)
    assert len(both.watched) == 2
    both.same()


def test_channels_first() -> None:
    """As TensorFlow writes models for GPUs; on this processor only the constants can be looked at."""

    def write(net: Net, x: Any) -> None:
        import tensorflow as tf

        t = tf.transpose(x, (0, 3, 1, 2))
        t = tf.nn.conv2d(t, net.constant(3, 3, 3, CHANNELS) * SIZES, 1, "SAME", data_format="NCHW")
        t = tf.nn.relu(tf.nn.bias_add(t, net.constant(CHANNELS), data_format="NCHW"))
        t = tf.nn.max_pool2d(t, 2, 2, "SAME", data_format="NCHW")
        t = tf.nn.conv2d(t, net.constant(3, 3, CHANNELS, 5) / SIZES[:, None], 1, "SAME", data_format="NCHW")
        t = tf.reduce_mean(t, (2, 3))
        tf.matmul(t, net.constant(5, 2), name="y")

    found = surveyed(write)
    assert [(link.channels, link.axis) for link in find_chains(*found).links] == [(CHANNELS, 1), (5, 1)]


def surveyed(write: Any) -> Any:
    import tensorflow as tf

    with tf.Graph().as_default() as tf_graph:
        write(Net(), tf.compat.v1.placeholder(tf.float32, (None, 8, 8, 3), name="x"))
    graph = prepare_graph(Graph.from_graph_def(tf_graph.as_graph_def(), inputs=["x"], outputs=["y"]))
    return graph, survey_graph(graph).by_name
