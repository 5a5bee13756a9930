"""Channels behind the batch: what is folded along them. TensorFlow on a CPU may not run such graphs, so none is run."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tensorflow.core.framework import attr_value_pb2, types_pb2

from autoquant.model.graph import Graph
from autoquant.model.nodes import make_const, make_node
from autoquant.model.normalize import normalize
from autoquant.model.shapes import make_placeholder

FLOAT = attr_value_pb2.AttrValue(type=types_pb2.DT_FLOAT)
INT = attr_value_pb2.AttrValue(type=types_pb2.DT_INT32)
NORM = {"T": FLOAT, "U": FLOAT, "epsilon": 0.0, "is_training": False}


def ops(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes.values() if node.op != "Const"]


def channels_first(op: str, last: list[Any], *constants: Any) -> tuple[Graph, NDArray[Any]]:
    """From x -> a convolution with channels first, 2 -> 3 -> the nodes `last`; a CPU may not run it."""
    rank = 5 if op == "Conv3D" else 4
    strides = attr_value_pb2.AttrValue()
    strides.list.i.extend([1] * rank)
    text = {"data_format": b"NCDHW" if rank == 5 else b"NCHW", "padding": b"SAME"}
    weight = np.arange(1, 7, dtype=np.float32).reshape(*[1] * (rank - 2), 2, 3)
    nodes = [
        make_placeholder("x", 1, (None, 2, *[3] * (rank - 2))),
        make_const("w", weight),
        make_node("op", op, ["x", "w"], T=FLOAT, strides=strides, **text),
        *(make_const(f"c{i}", np.asarray(value)) for i, value in enumerate(constants)),
        *last,
    ]
    return Graph(MappingProxyType({n.name: n for n in nodes}), ("x",), ("y",)), weight


@pytest.mark.parametrize("shape", [(3, 1, 1), (1, 3, 1, 1)])
def test_constants_fold_along_their_axis(shape: tuple[int, ...]) -> None:
    factor = np.array([2.0, 3.0, 4.0], np.float32)
    graph, weight = channels_first("Conv2D", [make_node("y", "Mul", ["op", "c0"], T=FLOAT)], factor.reshape(shape))
    folded = normalize(graph)
    np.testing.assert_array_equal(folded.constant("w"), weight * factor)
    assert folded.nodes["y"].op == "BiasAdd"
    assert folded.nodes["y"].attr["data_format"].s == b"NCHW"


def test_a_vector_lies_along_the_width_and_does_not_fold() -> None:
    graph, _ = channels_first("Conv2D", [make_node("y", "Mul", ["op", "c0"], T=FLOAT)], np.array([2, 3, 4], np.float32))
    assert normalize(graph).nodes["y"].op == "Mul"


def test_a_batch_norm_folds() -> None:
    statistics = np.array([[2, 3, 4], [1, 1, 1], [1, 2, 3], [4, 4, 4]], np.float32)
    norm = make_node("y", "FusedBatchNormV3", ["op", "c0", "c1", "c2", "c3"], data_format=b"NCHW", **NORM)
    graph, weight = channels_first("Conv2D", [norm], *statistics)
    folded = normalize(graph)
    np.testing.assert_allclose(np.asarray(folded.constant("w")), weight * statistics[0] / 2)
    np.testing.assert_allclose(np.asarray(folded.constant(folded.nodes["y"].input[1])), [0, -2, -5])


SPACE = [
    ("BatchToSpaceND", [1, 2, 2], [[0, 0], [0, 1], [0, 1]], True),
    # Of 6 channels, each twice, the first 3 are left; of 3 the one in the middle, which is multiplied by three factors.
    ("BatchToSpaceND", [2, 2], [[0, 3], [0, 0]], False),
    ("BatchToSpaceND", [1, 2], [[1, 1], [0, 0]], False),
    ("BatchToSpace", None, [[0, 3], [0, 0]], False),
]


@pytest.mark.parametrize(("op", "blocks", "crops", "folds"), SPACE)
def test_1_channels_first_must_not_be_among_the_blocks(
    op: str, blocks: list[int] | None, crops: list[list[int]], folds: bool
) -> None:
    factor = np.array([2.0, 3.0, 4.0], np.float32)
    if op == "BatchToSpace":
        space = make_node("space", op, ["op", "c1"], T=FLOAT, Tidx=INT, block_size=2)
    else:
        space = make_node("space", op, ["op", "c0", "c1"], T=FLOAT, Tblock_shape=INT, Tcrops=INT)
    last = [space, make_node("y", "Mul", ["space", "c2"], T=FLOAT)]
    graph, weight = channels_first(
        "Conv2D", last, np.array(blocks or 0, np.int32), np.array(crops, np.int32), factor.reshape(3, 1, 1)
    )
    after = normalize(graph)
    assert after.nodes["y"].op == (op if folds else "Mul")
    np.testing.assert_array_equal(after.constant("w"), weight * factor if folds else weight)


def test_7_channels_first_are_not_followed_through_a_reshape() -> None:
    reshape = make_node("flat", "Reshape", ["op", "c0"], T=FLOAT, Tshape=INT)
    last = [reshape, make_node("y", "Mul", ["flat", "c1"], T=FLOAT)]
    graph, _ = channels_first("Conv2D", last, np.array([-1, 3], np.int32), np.array([1, 2, 3], np.float32))
    assert normalize(graph).nodes["y"].op == "Mul"


def test_4_what_is_joined_must_have_its_channels_on_the_same_axis() -> None:
    strides = attr_value_pb2.AttrValue()
    strides.list.i.extend([1] * 4)
    attrs = {"T": FLOAT, "strides": strides, "padding": b"SAME"}
    last = [
        make_const("v", np.ones((1, 1, 3, 3), np.float32)),
        make_node("other", "Conv2D", ["x3", "v"], data_format=b"NHWC", **attrs),  # 3 channels, and a height of 3
        make_node("joined", "ConcatV2", ["op", "other", "c0"], T=FLOAT, Tidx=INT, N=2),
        make_node("y", "Mul", ["joined", "c1"], T=FLOAT),
        make_placeholder("x3", 1, (None, 3, 3, 3)),
    ]
    graph, _ = channels_first("Conv2D", last, np.int32(1), np.ones((6, 1, 1), np.float32))
    assert normalize(replace(graph, inputs=("x", "x3"))).nodes["y"].op == "Mul"


@pytest.mark.parametrize("layout", [b"NCHW", b"NHWC"])
def test_vectors_along_another_axis_than_the_channels_are_not_folded(layout: bytes) -> None:
    other = b"NHWC" if layout == b"NCHW" else b"NCHW"
    last = [
        make_node("bias", "BiasAdd", ["op", "c0"], T=FLOAT, data_format=other),
        make_node("scaled", "Mul", ["bias", "c1"], T=FLOAT),  # not over the bias
        make_node("relu", "Relu", ["scaled"], T=FLOAT),
        make_node("second", "Conv2D", ["relu", "w2"], T=FLOAT, data_format=layout),
        make_node("y", "FusedBatchNormV3", ["second", "c0", "c0", "c0", "c0"], data_format=other, **NORM),
        make_const("w2", np.ones((1, 1, 3, 3), np.float32)),
    ]
    factor = np.ones((3, 1, 1) if layout == b"NCHW" else 3, np.float32)
    graph, _ = channels_first("Conv2D", last, np.array([1, 2, 3], np.float32), factor)
    if layout == b"NHWC":
        first = make_node("op", "Conv2D", ["x", "w"], T=FLOAT, data_format=layout)
        graph = graph.edit(put=[first, make_placeholder("x", 1, (None, 3, 3, 2))])
    assert ops(normalize(graph)) == ops(graph)


@pytest.mark.parametrize("batch_norm_first", [False, True])
def test_a_convolution_in_three_dimensions_with_channels_first(batch_norm_first: bool) -> None:
    gamma, beta, mean, variance, bias = np.array([[2, 3, 4], [1, 1, 1], [1, 2, 3], [4, 4, 4], [5, 6, 7]], np.float32)
    attrs = NORM | {"data_format": b"NCDHW"}
    names = ["bn", "y"] if batch_norm_first else ["y", "bias"]
    norm = make_node(
        names[0], "FusedBatchNormV3", [names[1] if names[0] == "y" else "op", "c0", "c1", "c2", "c3"], **attrs
    )
    add = make_node(names[1], "BiasAdd", ["bn" if names[1] == "y" else "op", "c4"], T=FLOAT, data_format=b"NCHW")
    graph, weight = channels_first("Conv3D", [norm, add], gamma, beta, mean, variance, bias)
    after = normalize(graph)
    assert (after.nodes["y"].op, after.nodes["y"].attr["data_format"].s) == ("BiasAdd", b"NCHW")
    np.testing.assert_allclose(np.asarray(after.constant("w")), weight * gamma / 2)
    shift = 1 - mean * gamma / 2 + bias * (1 if batch_norm_first else gamma / 2)
    np.testing.assert_allclose(np.asarray(after.constant(after.nodes["y"].input[1])), shift)
