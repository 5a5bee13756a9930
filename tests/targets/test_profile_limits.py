"""Every limit on single operators, on one that keeps to it and one that does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from autoquant.model.graph import Graph
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.model import Model
from autoquant.model.open import prepare_graph
from autoquant.targets.litert import LiteRTTarget
from autoquant.targets.profiles.limits import (
    Flat,
    GatherAxis,
    Innermost,
    Inputs,
    Limit,
    NoActivation,
    NoGroups,
    OneMultiplier,
    OneSample,
    Rank,
    ResizedTo,
    Size,
)
from autoquant.targets.profiles.windows import (
    SAME,
    VALID,
    Dilation,
    EqualStride,
    Kernel,
    SquareDilation,
    Stride,
)

IMAGE = (1, 8, 8, 4)


def tf() -> Any:
    import tensorflow

    return tensorflow


def weight(*shape: int) -> Any:
    return tf().constant(np.random.default_rng(1).normal(size=shape).astype(np.float32))


def conv(kernel: int = 3, channels: int = 4, strides: int = 1, padding: str = "SAME", dilation: Any = None) -> Any:
    return lambda x: tf().nn.conv2d(x, weight(kernel, kernel, channels, 4), strides, padding, dilations=dilation)


def pool(size: int, stride: int, padding: str = "VALID") -> Any:
    return lambda x: tf().nn.max_pool2d(x, size, stride, padding)


def depthwise(multiplier: int = 1, stride: int = 1, dilation: Any = None, channels: int = 4) -> Any:
    strides = (1, stride, stride, 1)
    kernel = (3, 3, channels, multiplier)
    return lambda x: tf().nn.depthwise_conv2d(x, weight(*kernel), strides, "SAME", dilations=dilation)


def dense(x: Any) -> Any:
    return tf().linalg.matmul(tf().reshape(x, (1, 256)), weight(256, 3))


def transposed(x: Any) -> Any:
    return tf().nn.conv2d_transpose(x, weight(3, 3, 5, 4), (1, 16, 16, 5), 2, "SAME")


def biased(x: Any) -> Any:
    return tf().nn.bias_add(transposed(x), weight(5))


def resized(size: int) -> Any:
    return lambda x: tf().image.resize(x, (size, size))


def gathered(axis: int) -> Any:
    return lambda x: tf().gather(x, [2, 0, 1], axis=axis)


CONV, DEPTHWISE, POOL = frozenset({"CONV_2D"}), frozenset({"DEPTHWISE_CONV_2D"}), frozenset({"MAX_POOL_2D"})
CASES: list[tuple[Limit, Any, Any, str]] = [
    (Rank(4), conv(), lambda x: tf().tanh(tf().reshape(x, (1, 2, 4, 8, 4))), "a tensor has 5 dimensions, of 4 at most"),
    (Innermost(3), conv(), lambda x: tf().tanh(tf().reshape(x, (2, 4, 8, 4))), "an outer dimension of a tensor is 2"),
    (Size(64), conv(), lambda x: tf().tanh(tf().reshape(x, (1, 256))), "a dimension of a tensor is 256, of 64 at most"),
    (OneSample(POOL), conv(), lambda x: conv(1)(tf().reshape(x, (2, 4, 8, 4))), "its batch is 2, not 1"),
    (OneSample(POOL), conv(), lambda x: pool(2, 2)(tf().reshape(x, (2, 4, 8, 4))), ""),
    (Inputs(frozenset({"TRANSPOSE_CONV"}), 3), transposed, biased, "it has a bias"),
    (NoActivation(CONV), conv(), lambda x: tf().nn.relu(conv()(x)), "an activation is fused into it"),
    (NoGroups(), conv(), conv(channels=2), "it has 2 groups of channels"),
    (OneMultiplier(), depthwise(), depthwise(2), "it makes 2 channels of each"),
    (OneMultiplier(), depthwise(), lambda x: depthwise(2, channels=1)(x[..., :1]), ""),
    (Flat(frozenset({"FULLY_CONNECTED"})), dense, lambda x: tf().linalg.matmul(x, weight(4, 3)), "its result has 4"),
    (GatherAxis(), gathered(0), gathered(3), "it gathers along axis 3"),
    (ResizedTo(frozenset({"RESIZE_BILINEAR"}), 9), resized(9), resized(12), "its result is 12x12, of 9 at most"),
    (Stride(1, CONV), conv(), conv(strides=2), "its strides are 2x2, of 1 at most"),
    (Stride(1, CONV), conv(), pool(2, 2), ""),
    (Stride(1, CONV, or_plain=True), conv(), conv(strides=2, padding="VALID"), ""),
    (Stride(1, CONV, or_plain=True), conv(), conv(strides=2, padding="SAME"), "its strides are 2x2"),
    (EqualStride(((1, 1), (2, 2)), CONV), conv(strides=2), conv(strides=3), "its strides are 3x3"),
    (Kernel(CONV, height=3), conv(), conv(5), "its kernel is 5x5, which is too large"),
    (Kernel(CONV, height=3), conv(), conv(3, dilation=2), "its kernel is 5x5"),
    (Kernel(CONV, height=5, width=3), conv(), conv(5), "its kernel is 5x5"),
    (Kernel(CONV, height=5, area=9), conv(), conv(5), "its kernel is 5x5"),
    (Kernel(CONV, height=3, padding=SAME), conv(), conv(5), "its kernel is 5x5"),
    (Kernel(CONV, height=3, padding=VALID), conv(), conv(5), ""),
    (Kernel(POOL, height=2), pool(2, 2), pool(3, 2), "its kernel is 3x3"),
    (Dilation(CONV), conv(), conv(dilation=2), "it is dilated"),
    (Dilation(DEPTHWISE, with_stride_1=True), depthwise(), depthwise(dilation=(2, 2)), ""),
    (SquareDilation(CONV), conv(dilation=2), conv(dilation=(2, 1)), "its dilations are 2x1"),
]


def broken(limit: Limit, write: Any) -> str:
    """What of the operators of a network is beyond a limit."""
    with tf().Graph().as_default() as graph:
        tf().identity(write(tf().compat.v1.placeholder(tf().float32, IMAGE, name="x")), name="y")
    prepared = prepare_graph(Graph.from_graph_def(graph.as_graph_def(), inputs=["x"], outputs=("y",)))
    lite = LiteRTTarget().lowered(Model("net", prepared, (), "")).program
    assert isinstance(lite, LiteGraph)
    return "; ".join(filter(None, (limit(lite, index) for index in range(len(lite.operators)))))


@pytest.mark.parametrize(("limit", "fitting", "breaking", "why"), CASES)
def test_a_limit(limit: Limit, fitting: Any, breaking: Any, why: str) -> None:
    assert broken(limit, fitting) == ""
    found = broken(limit, breaking)
    assert found.startswith(why) and bool(found) == bool(why)
    assert limit.words and not limit.words.endswith(".")
