"""Batch norms that are folded through what moves values about; the numbers are those of AMCT's fusions in affine.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from graph_writing import NORMS, SMALL, normal, ops, placeholder

from autoquant.model.graph import Graph
from autoquant.model.normalize import normalize


@pytest.fixture(scope="module")
def behind(batch_norm: Callable[..., Any]) -> Callable[..., Any]:
    """Write something per channel behind a tensor, with the name 'bn'."""
    import tensorflow as tf

    def written(kind: str, rng: np.random.Generator, t: Any, channels: int) -> Any:
        if kind in NORMS:
            return batch_norm(rng, t, channels, kind).y
        vector = normal(rng, channels)
        if kind == "small":
            scale = tf.math.rsqrt(tf.constant(np.abs(vector)) + 1e-3) * normal(rng, channels)
            return tf.add(t * scale, normal(rng, channels) - normal(rng, channels) * scale, name="bn")
        if kind == "Add":
            return tf.raw_ops.Add(x=t, y=vector, name="bn")
        return {"BiasAdd": tf.nn.bias_add, "Mul": tf.multiply, "AddV2": tf.add}[kind](t, vector, name="bn")

    return written


def dilated(op: str, t: Any, rng: np.random.Generator, channels: int, name: str = "op") -> Any:
    """An operator between SpaceToBatchND and BatchToSpaceND, as TensorFlow 1 writes a dilation."""
    import tensorflow as tf

    inner = t.shape[-1]
    if op == "Conv2D":
        weight = tf.constant(normal(rng, 3, 3, inner, channels))
        return tf.nn.with_space_to_batch(
            t, [2, 2], "SAME", lambda x, *_: tf.nn.conv2d(x, weight, 1, "VALID", name=name), filter_shape=[3, 3]
        )
    if op == "Conv3D":
        weight = tf.constant(normal(rng, 2, 2, 2, inner, channels))
        t = tf.space_to_batch(t, [1, 2, 2], [[0, 0], [2, 2], [1, 1]])
        return tf.batch_to_space(
            tf.nn.conv3d(t, weight, [1] * 5, "VALID", name=name), [1, 2, 2], [[0, 0], [0, 1], [0, 0]], name="space"
        )
    weight = tf.constant(normal(rng, 3, 3, inner, channels // inner))
    t = tf.raw_ops.SpaceToBatch(input=t, paddings=[[2, 2], [2, 2]], block_size=2)
    t = tf.raw_ops.DepthwiseConv2dNative(input=t, filter=weight, strides=[1] * 4, padding="VALID", name=name)
    return tf.raw_ops.BatchToSpace(input=t, crops=[[0, 0], [0, 0]], block_size=2, name="space")


DILATED = {"Conv2D": (None, None, None, 2), "Conv3D": (None, 3, 6, 6, 2), "DepthwiseConv2dNative": (None, 6, 6, 2)}


@pytest.mark.parametrize("kind", ["FusedBatchNormV3", "small", "BiasAdd", "Mul", "AddV2"])
@pytest.mark.parametrize("op", DILATED)
@pytest.mark.parametrize("with_bias", [False, True])
def test_1_a_batch_norm_behind_batch_to_space_is_folded_into_the_convolution(
    build: Callable[..., Graph],
    check: Callable[..., set[str]],
    behind: Callable[..., Any],
    op: str,
    kind: str,
    with_bias: bool,
) -> None:
    import tensorflow as tf

    def write() -> None:
        rng = np.random.default_rng(3)
        t = dilated(op, placeholder(*DILATED[op]), rng, 4)
        t = tf.nn.bias_add(t, normal(rng, 4), name="bias") if with_bias else t
        tf.nn.relu(behind(kind, rng, t, 4), name="y")

    before = build(write)
    after = normalize(before)
    assert not SMALL & set(ops(after))
    assert ops(after).count("BiasAdd") == 1
    moved = after.nodes["bn"]
    assert moved.op.startswith("BatchToSpace")
    bias = after.nodes[moved.input[0]]
    assert (bias.op, bias.input[0], after.nodes["op"].op) == ("BiasAdd", "op", op)
    assert not {"space", "bias"} & set(after.nodes)
    x = normal(np.random.default_rng(4), *[size or 6 for size in DILATED[op]])
    assert {"bn", "y"} <= check(before, after, x=x)
    assert normalize(after) is after


def grouped(
    rng: np.random.Generator, t: Any, splits: str, *, bias: bool, axis: int = -1, concat: str = "ConcatV2"
) -> Any:
    """Two convolutions of 4 channels in and 2 and 3 out, of parts of the data, one behind the other on an axis."""
    import tensorflow as tf

    rank = t.shape.rank
    parts: dict[str, Callable[[], Any]] = {
        "Split": lambda: tf.split(t, 2, -1),
        "SplitV": lambda: tf.split(t, [4, 4], -1),
        "StridedSlice": lambda: [t[..., :4], t[..., 4:]],
    }
    made = []
    for part, count in zip(parts[splits](), (2, 3 if axis == -1 else 2), strict=True):
        weight = normal(rng, *[3] * (rank - 2), 4, count)
        conv = (tf.nn.conv2d if rank == 4 else tf.nn.conv3d)(part, weight, [1] * rank, "SAME")
        made.append(tf.nn.bias_add(conv, normal(rng, count)) if bias else conv)
    if concat == "Concat":
        return tf.raw_ops.Concat(concat_dim=axis % rank, values=made, name="joined")
    return tf.concat(made, axis, name="joined")


GROUPED = [
    *(("Split", "ConcatV2", 4, kind) for kind in (*NORMS, "small", "Mul", "BiasAdd", "Add")),
    *(("SplitV", "Concat", 4, kind) for kind in ("FusedBatchNormV3", "small")),
    *(("StridedSlice", "ConcatV2", 5, kind) for kind in ("FusedBatchNormV3", "Mul", "BiasAdd")),
]


@pytest.mark.parametrize(("splits", "concat", "rank", "kind"), GROUPED)
@pytest.mark.parametrize("bias", [False, True])
def test_4_a_batch_norm_behind_a_group_convolution_is_folded_into_every_group(
    build: Callable[..., Graph],
    check: Callable[..., set[str]],
    behind: Callable[..., Any],
    splits: str,
    concat: str,
    rank: int,
    kind: str,
    bias: bool,
) -> None:
    import tensorflow as tf

    def write() -> None:
        rng = np.random.default_rng(5)
        t = grouped(rng, placeholder(None, *[4] * (rank - 2), 8), splits, bias=bias, concat=concat)
        tf.nn.relu(behind(kind, rng, t, 5), name="y")

    before = build(write)
    after = normalize(before)
    assert not SMALL & set(ops(after))
    assert (ops(after).count("BiasAdd"), after.nodes["bn"].op) == (2, concat)
    assert "joined" not in after.nodes
    x = normal(np.random.default_rng(6), 2, *[4] * (rank - 2), 8)
    assert {"bn", "y"} <= check(before, after, x=x)
    assert normalize(after) is after


def test_4_groups_that_are_dilated_take_it_through_both(
    build: Callable[..., Graph], check: Callable[..., set[str]], batch_norm: Callable[..., Any]
) -> None:
    import tensorflow as tf

    def write() -> None:
        rng = np.random.default_rng(7)
        first, second = tf.split(placeholder(None, 6, 6, 4), 2, -1)
        made = [dilated("DepthwiseConv2dNative", first, rng, 2, "a"), dilated("Conv2D", second, rng, 3, "b")]
        tf.nn.relu(batch_norm(rng, tf.concat(made, -1), 5).y, name="y")

    before = build(write)
    after = normalize(before)
    assert not SMALL & set(ops(after))
    assert "space" not in after.nodes  # what it would compute now is not what it did
    assert check(before, after, x=normal(np.random.default_rng(8), 2, 6, 6, 4)) >= {"bn", "y"}


def reshapes() -> dict[str, tuple[bool, Callable[..., Any], bool]]:
    """How the shape is given -> (whether channels come first, shape from the tensor, whether it is to be folded)."""
    import tensorflow as tf

    def batch(t: Any) -> Any:
        return tf.shape(t)[0]

    return {
        "fixed": (False, lambda t: [8, 1, 1, 6], True),
        "open batch": (False, lambda t: [-1, 1, 1, 6], True),
        "sequence": (False, lambda t: [-1, 2, 2, 6], True),
        "packed": (False, lambda t: [batch(t), 1, 1, 6], True),
        "concatenated": (False, lambda t: tf.concat([tf.shape(t)[:-1], [1, 1, 6]], 0), True),
        "concatenated in parts": (False, lambda t: tf.concat([tf.shape(t)[:-1], [1], [1], [6]], 0), True),
        "first, fixed": (True, lambda t: [8, 6, 1, 1], True),
        "first, open batch": (True, lambda t: [-1, 6, 1, 1], True),
        "first, packed": (True, lambda t: [batch(t), 6, 1, 1], True),
        "first, concatenated": (True, lambda t: tf.concat([tf.shape(t)[:1], [6, 1, 1]], 0), True),
        "open channels": (False, lambda t: [8, 1, 1, -1], False),
        "packed, open channels": (False, lambda t: [1, 1, batch(t), 6 * batch(t) // batch(t)], False),
        "halved": (False, lambda t: [-1, 1, 2, 3], False),
        "first, with a height": (True, lambda t: [-1, 6, 2, 1], False),
        "first, open width": (True, lambda t: [4, 6, 1, -1], False),
        "first, halved": (True, lambda t: [-1, 3, 2, 1], False),
    }


CASES = ["fixed", "open batch", "sequence", "packed", "concatenated", "concatenated in parts"]
CASES += [f"first, {case}" for case in ("fixed", "open batch", "packed", "concatenated", "with a height", "halved")]
CASES += ["first, open width", "open channels", "packed, open channels", "halved"]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("with_bias", [False, True])
def test_7_a_batch_norm_between_two_reshapes_is_folded_into_the_product(
    build: Callable[..., Graph],
    check: Callable[..., set[str]],
    batch_norm: Callable[..., Any],
    case: str,
    with_bias: bool,
) -> None:
    import tensorflow as tf

    assert sorted(CASES) == sorted(reshapes())
    first, shape, folds = reshapes()[case]

    def write() -> None:
        rng = np.random.default_rng(9)
        t = tf.matmul(placeholder(None, 4), normal(rng, 4, 6), name="op")
        t = tf.nn.bias_add(t, normal(rng, 6), name="bias") if with_bias else t
        four = tf.reshape(t, shape(t), name="there")
        bn = batch_norm(rng, four, 3 if "halved" in case else 6, data_format="NCHW" if first else "NHWC")
        tf.nn.relu(tf.reshape(bn.y, tf.shape(t), name="back"), name="y")

    before = build(write)
    after = normalize(before)
    assert bool(set(NORMS) & set(ops(after))) is not folds
    x = normal(np.random.default_rng(10), 8, 4)
    assert "y" in check(before, after, x=x)
    if folds:
        assert after.nodes["bn"].op == "Reshape"
        bias = after.nodes[after.nodes["bn"].input[0]]
        assert (bias.op, bias.input[0]) == ("BiasAdd", "op")
        assert after.single_consumer("op") is not None  # so its bias is known as such
        assert not {"bias", "there"} & set(after.nodes)


def test_7_a_shape_of_which_the_end_is_not_known_is_not_trusted(
    build: Callable[..., Graph], check: Callable[..., set[str]]
) -> None:
    import tensorflow as tf

    def write() -> None:
        t = tf.matmul(placeholder(None, 4), normal(np.random.default_rng(9), 4, 6))
        ones = tf.shape(t) // tf.shape(t)
        tf.nn.relu(tf.multiply(tf.reshape(t, tf.concat([[8, 6], ones], 0)), np.full(6, 2, np.float32)), name="y")

    before = build(write)
    after = normalize(before)
    assert "Mul" in ops(after)
    assert "y" in check(before, after, x=normal(np.random.default_rng(10), 8, 4))
