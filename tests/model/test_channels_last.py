"""Graphs with channels first, opened with channels last: the same as with channels last in plain TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from graph_writing import normal

from autoquant.errors import ModelError
from autoquant.model.channels_last import channels_last, has_channels_first
from autoquant.model.graph import Graph
from autoquant.model.open import prepare_graph
from autoquant.model.survey import survey_graph

RUN = Callable[..., list[Any]]
BUILD = Callable[..., Graph]


class Layout:
    """Writes operators with channels first or last, with the same weights every time."""

    def __init__(self, first: bool) -> None:
        self.first, self._rng = first, np.random.default_rng(0)

    def sizes(self, batch: Any, *others: Any) -> list[Any]:
        """Sizes in order; `others` are spatial, and the channels at the end."""
        *spatial, channels = others
        return [batch, channels, *spatial] if self.first else [batch, *spatial, channels]

    def options(self, step: int, rank: int = 2) -> dict[str, Any]:
        names = {2: ("NCHW", "NHWC"), 3: ("NCDHW", "NDHWC")}[rank]
        strides = self.sizes(1, *[step] * rank, 1)
        return {"strides": strides, "padding": "SAME", "data_format": names[0 if self.first else 1]}

    @property
    def format(self) -> str:
        return "NCHW" if self.first else "NHWC"

    @property
    def axis(self) -> int:
        return 1 if self.first else 3

    @property
    def spatial(self) -> list[int]:
        return [2, 3] if self.first else [1, 2]

    def weight(self, *shape: int) -> Any:
        return tf.constant(normal(self._rng, *shape))

    def vector(self, size: int, *shape: int) -> Any:
        """A constant that lies along the channels."""
        own = self.weight(size)
        return tf.reshape(own, (size, 1, 1) if self.first else (1, 1, size)) if not shape else own

    def input(self, *sizes: int | None) -> Any:
        return tf.compat.v1.placeholder(tf.float32, self.sizes(None, *sizes), name="x")

    def conv(self, t: Any, channels: int, name: str, step: int = 1) -> Any:
        weight = self.weight(3, 3, t.shape[self.axis], channels)
        return tf.raw_ops.Conv2D(input=t, filter=weight, name=name, **self.options(step))


def residual(layout: Layout) -> None:
    t = layout.conv(layout.input(16, 16, 3), 8, "first", 2)
    t = tf.nn.bias_add(t, layout.weight(8), data_format=layout.format)
    statistics = {key: layout.weight(8) for key in ("scale", "offset", "mean")}
    norm = {"is_training": False, "data_format": layout.format, "variance": tf.abs(layout.weight(8)) + 0.1}
    skip = tf.nn.relu(tf.raw_ops.FusedBatchNormV3(x=t, **statistics, **norm).y)
    t = tf.pad(skip, layout.sizes([0, 0], [1, 1], [1, 2], [0, 0]))
    options = layout.options(1) | {"padding": "VALID"}
    t = tf.raw_ops.DepthwiseConv2dNative(input=t, filter=layout.weight(3, 4, 8, 1), name="depthwise", **options)
    t = t * layout.vector(8) + layout.vector(8)
    t = tf.raw_ops.MaxPool(input=t + skip, ksize=layout.sizes(1, 2, 2, 1), **layout.options(2))
    pooled = tf.raw_ops.AvgPool(value=skip, ksize=layout.sizes(1, 2, 2, 1), name="pool", **layout.options(2))
    one, other = tf.split(tf.concat([t, pooled], layout.axis), 2, layout.axis)
    t = one * tf.sigmoid(tf.reduce_mean(other, layout.spatial, keepdims=True))
    tf.reduce_mean(layout.conv(t, 5, "last"), layout.spatial, name="y")


def upsampled(layout: Layout) -> None:
    t = layout.conv(layout.input(8, 8, 4), 8, "first", 2)
    shape = tf.stack(layout.sizes(tf.shape(t)[0], 8, 8, 3))
    options = {"input_sizes": shape, "filter": layout.weight(3, 3, 3, 8), "out_backprop": t}
    t = tf.nn.relu(tf.raw_ops.Conv2DBackpropInput(name="up", **options, **layout.options(2)))
    tf.nn.space_to_depth(t, 2, data_format=layout.format, name="y")


def flattened(layout: Layout) -> None:
    """With open sizes; values are flattened in the order of channels first."""
    t = tf.nn.relu(layout.conv(layout.input(None, None, 4), 6, "first"))
    t = t if layout.first else tf.transpose(t, (0, 3, 1, 2))
    flat = tf.reshape(t, (tf.shape(t)[0], tf.shape(t)[1] * tf.shape(t)[2] * tf.shape(t)[3]))
    tf.matmul(flat, layout.weight(96, 5), name="y")


def shaped(layout: Layout) -> None:
    """The shape itself is read as a whole."""
    t = layout.conv(layout.input(4, 4, 4), 6, "first")
    scale = tf.broadcast_to(tf.sigmoid(tf.reduce_mean(t, layout.spatial, keepdims=True)), tf.shape(t))
    tf.reduce_mean(t * scale, layout.spatial, name="y")


def volume(layout: Layout) -> None:
    weight = layout.weight(3, 3, 3, 2, 4)
    t = tf.raw_ops.Conv3D(input=layout.input(4, 4, 4, 2), filter=weight, name="first", **layout.options(1, 3))
    tf.reduce_mean(tf.nn.relu(t), [2, 3, 4] if layout.first else [1, 2, 3], name="y")


def unknown_rank(layout: Layout) -> None:
    x = tf.compat.v1.placeholder(tf.float32, None, name="x")
    t = tf.raw_ops.Conv2D(input=x, filter=layout.weight(3, 3, 4, 5), name="first", **layout.options(1))
    tf.reduce_max(t, layout.spatial, name="y")


def layer_as_output(layout: Layout) -> None:
    t = layout.conv(layout.input(4, 4, 4), 6, "y")
    tf.argmax(t, layout.axis, name="classes")


CASES = [
    (residual, (16, 16, 3), ["first", "pool", "depthwise", "last"], 1),
    (upsampled, (8, 8, 4), ["first", "up"], 2),
    (flattened, (4, 4, 4), ["first", "y"], 2),
    (shaped, (4, 4, 4), ["first"], 3),
    (volume, (4, 4, 4, 2), ["first"], 1),
    (unknown_rank, (4, 4, 4), ["first"], 1),
    (layer_as_output, (4, 4, 4), ["y/channels_last"], 3),
]


@pytest.mark.parametrize(("write", "sample", "layers", "transposes"), CASES)
def test_channels_last_give_the_same(
    write: Callable[[Layout], None],
    sample: tuple[int, ...],
    layers: list[str],
    transposes: int,
    build: BUILD,
    run: RUN,
) -> None:
    outputs = ("y", "classes") if write is layer_as_output else ("y",)
    first, last = (build(lambda f=f: write(Layout(f)), outputs=outputs) for f in (True, False))
    assert has_channels_first(first)
    graph = prepare_graph(channels_last(first))
    assert not has_channels_first(graph)
    x = normal(np.random.default_rng(1), 3, *sample)
    found, wanted = run(graph, {"x": np.moveaxis(x, -1, 1)}), run(last, {"x": x})
    for ours, theirs in zip(found, wanted, strict=True):
        same = np.moveaxis(theirs, -1, 1) if theirs.ndim == 4 else theirs
        np.testing.assert_allclose(ours, same, atol=1e-5 * np.abs(same).max())
    assert sorted(layer.name for layer in survey_graph(graph).layers) == sorted(layers)
    # At the input, at outputs with channels, and in front of what flattens: all others cancel each other.
    assert sum(node.op == "Transpose" for node in graph.nodes.values()) == transposes
    assert not [node for node in graph.nodes.values() if node.op.startswith("DataFormat")]


def test_channels_last_stay_what_they_are(build: BUILD) -> None:
    graph = build(lambda: residual(Layout(False)))
    assert channels_last(graph) is graph


def in_a_loop(layout: Layout) -> None:
    weight = layout.weight(1, 1, 4, 4)

    def body(number: Any, t: Any) -> tuple[Any, Any]:
        return number + 1, tf.nn.conv2d(t, weight, 1, "SAME", data_format=layout.format, name="inner")

    steps = tf.while_loop(lambda number, t: number < 2, body, [0, layout.input(4, 4, 4)])
    tf.identity(steps[1], name="y")


def pooled_volume(layout: Layout) -> None:
    options = layout.options(2, 3)
    tf.raw_ops.MaxPool3D(input=layout.input(4, 4, 4, 2), ksize=options["strides"], name="y", **options)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (
            in_a_loop,
            r"inner_0 \(Conv2D\): has channels first \(NCHW\) inside a function or loop, which a CPU",
        ),
        (pooled_volume, r"y \(MaxPool3D\): has channels first \(NCDHW\).*channels last \(NDHWC\)"),
    ],
)
def test_what_cannot_be_converted_is_refused(write: Callable[[Layout], None], message: str, build: BUILD) -> None:
    graph = build(lambda: write(Layout(True)))
    with pytest.raises(ModelError, match=message):
        channels_last(graph)
