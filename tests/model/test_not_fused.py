"""Operators that are not folded: they would not compute the same, or the user says so."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from graph_writing import NORMS, normal, ops, placeholder
from numpy.typing import NDArray

from autoquant.errors import ModelError, PlanError
from autoquant.model.graph import Graph
from autoquant.model.model import Fusion
from autoquant.model.normalize import check_fusion, normalize
from autoquant.model.open import prepare_graph


def conv(x: Any, rng: np.random.Generator, channels: int = 4) -> Any:
    import tensorflow as tf

    return tf.nn.conv2d(x, normal(rng, 1, 1, x.shape[-1], channels), 1, "SAME")


def times(t: Any, *shape: int, value: float | None = None) -> Any:
    """The tensor times a constant, which is the Mul that must stay."""
    import tensorflow as tf

    return tf.multiply(t, np.full(shape, value or 2.0, np.float32))


def carried() -> dict[str, Callable[..., Any]]:
    """What -> a graph of x, shape (None, 4, 4, 4), where a Mul is not folded through a carrier."""
    import tensorflow as tf

    def grown(x: Any) -> Any:
        return tf.space_to_batch(x, [2, 2], [[0, 0], [0, 0]])

    def shrunk(t: Any, **name: Any) -> Any:
        return tf.batch_to_space(t, [2, 2], [[0, 0], [0, 0]], **name)

    def read(t: Any) -> Any:
        tf.nn.relu(t, name="z")
        return t

    def overflowing(x: Any, rng: np.random.Generator) -> Any:
        large = tf.nn.conv2d(x, np.full((1, 1, 4, 3), 3e38, np.float32), 1, "SAME")
        return tf.concat([conv(x, rng), large], -1)

    def unknown_blocks(x: Any, rng: np.random.Generator) -> Any:
        return tf.batch_to_space(conv(x, rng), tf.shape(x)[1:3] // 4, [[0, 0], [0, 0]])

    return {
        "output": lambda x, rng: times(tf.identity(shrunk(conv(grown(x), rng), name="z")), 4),
        "read before the carrier": lambda x, rng: times(shrunk(read(conv(grown(x), rng))), 4),
        "branch that others read": lambda x, rng: times(tf.concat([read(conv(x, rng)), conv(x, rng)], -1), 8),
        "branch that is not a layer": lambda x, rng: times(tf.concat([conv(x, rng), x], -1), 8),
        "branch twice": lambda x, rng: times(tf.concat([conv(x, rng)] * 2, -1), 8),
        "branch that overflows": lambda x, rng: times(overflowing(x, rng), 7),
        "joined in height": lambda x, rng: times(tf.concat([conv(x, rng, 1), conv(x, rng, 1)], 1), 2),
        "blocks not constant": lambda x, rng: times(unknown_blocks(x, rng), 4),
        "broadcast": lambda x, rng: times(shrunk(conv(grown(x), rng, 1)), 5),
        "more axes than the data": lambda x, rng: times(shrunk(conv(grown(x), rng)), 1, 1, 1, 1, 4),
    }


def direct(batch_norm: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """What -> a graph of x, shape (None, 4, 4, 4), where a Mul is not folded into what it follows."""
    import tensorflow as tf

    def statistics(x: Any, rng: np.random.Generator) -> Any:
        norm = batch_norm(rng, x, 4)
        return tf.multiply(norm.y, norm.batch_mean)

    def read(x: Any, rng: np.random.Generator) -> Any:
        y = batch_norm(rng, x, 4).y
        tf.nn.relu(y, name="z")
        return times(y, 4)

    return {
        "stack of matrices": lambda x, rng: times(tf.raw_ops.BatchMatMulV2(x=x, y=normal(rng, 4, 4, 4)), 4),
        "one more axis": lambda x, rng: times(tf.raw_ops.BatchMatMulV2(x=x, y=normal(rng, 4, 4)), 1, 1, 1, 1, 4),
        "batch norm whose statistics are read": statistics,
        "statistics of a batch norm": lambda x, rng: times(batch_norm(rng, x, 4).batch_mean, 4),
        "batch norm that others read": read,
        "constant along the width": lambda x, rng: times(batch_norm(rng, x, 4).y, 4, 1),
        "batch norm that overflows": lambda x, rng: times(batch_norm(rng, x, 4).y, 4, value=np.inf),
    }


CARRIED = ["output", "read before the carrier", "branch that others read", "branch that is not a layer", "branch twice"]
CARRIED += ["branch that overflows", "joined in height", "blocks not constant", "broadcast", "more axes than the data"]
DIRECT = ["stack of matrices", "one more axis", "batch norm whose statistics are read", "statistics of a batch norm"]
DIRECT += ["batch norm that others read", "constant along the width", "batch norm that overflows"]


@pytest.mark.parametrize("what", [*CARRIED, *DIRECT])
def test_operators_that_would_not_compute_the_same_are_not_folded(
    build: Callable[..., Graph], batch_norm: Callable[..., Any], what: str
) -> None:
    import tensorflow as tf

    table = carried() | direct(batch_norm)
    assert list(table) == [*CARRIED, *DIRECT]

    def write() -> None:
        tf.nn.relu(table[what](placeholder(None, 4, 4, 4), np.random.default_rng(18)), name="y")

    before = build(write)
    outputs = ("y", "z") if "z" in before.nodes else ("y",)
    after = normalize(replace(before, outputs=outputs))
    assert ops(after).count("Mul") == 1
    assert "BiasAdd" not in ops(after)


def test_a_batch_norm_in_training_mode_is_refused_wherever_it_stands(
    build: Callable[..., Graph], batch_norm: Callable[..., Any]
) -> None:
    import tensorflow as tf

    def write() -> None:
        x = placeholder(2, 3, 3, 4)
        tf.nn.relu(batch_norm(np.random.default_rng(0), x, 4, is_training=True).y, name="y")

    for fusion in (Fusion(), Fusion(enabled=False)):
        with pytest.raises(ModelError, match=r"bn: .*training mode; export the model in inference mode"):
            normalize(build(write), fusion)


@pytest.fixture(scope="module")
def network(build: Callable[..., Graph], batch_norm: Callable[..., Any]) -> Graph:
    """Layers with what may be folded: first, bias, bn; group0 and group1, scale; last, add; and bn_1, twice alone."""
    import tensorflow as tf

    def write() -> None:
        rng = np.random.default_rng(1)
        x = tf.identity(placeholder(None, 4, 4, 4))
        t = tf.nn.bias_add(tf.nn.conv2d(x, normal(rng, 1, 1, 4, 4), 1, "SAME", name="first"), ones(4), name="bias")
        t = tf.nn.relu(batch_norm(rng, t, 4).y, name="relu")
        halves = [
            tf.nn.conv2d(half, normal(rng, 1, 1, 2, 2), 1, "SAME", name=f"group{i}")
            for i, half in enumerate(tf.split(t, 2, -1))
        ]
        t = tf.reshape(tf.nn.relu(tf.multiply(tf.concat(halves, -1), ones(4), name="scale")), [-1, 4])
        t = tf.nn.relu(tf.add(tf.matmul(t, normal(rng, 4, 4), name="last"), ones(4), name="add"))
        norm = batch_norm(rng, tf.reshape(t, [-1, 4, 4, 4]), 4).y
        tf.nn.relu(tf.multiply(norm, ones(4), name="twice"), name="y")

    return build(write)


def ones(*shape: int) -> NDArray[Any]:
    return np.ones(shape, np.float32)


SKIPPED = [
    (frozenset(), set()),
    ({"first"}, {"bn"}),
    ({"bn"}, {"bn"}),
    ({"bias"}, {"bn"}),
    ({"group0"}, {"scale"}),
    ({"scale"}, {"scale"}),
    ({"last"}, {"add"}),
    ({"add", "first"}, {"add", "bn"}),
    ({"bn_1"}, {"twice"}),
    ({"twice"}, {"twice"}),
]


@pytest.mark.parametrize(("skip", "stay"), SKIPPED, ids=[" ".join(sorted(s)) or "nothing" for s, _ in SKIPPED])
def test_layers_that_the_user_names_are_not_fused_and_no_others(
    network: Graph, check: Callable[..., set[str]], skip: Any, stay: set[str]
) -> None:
    absorbed = {"bn", "scale", "add", "twice"}
    after = normalize(network, Fusion(skip=frozenset(skip)))
    kept = {name for name in absorbed if after.nodes[name].op == network.nodes[name].op}
    assert kept == stay
    assert absorbed | {"y"} <= check(network, after, x=normal(np.random.default_rng(2), 2, 4, 4, 4))


def test_without_fusion_constants_are_folded_and_identities_gone_but_nothing_else(
    network: Graph, check: Callable[..., set[str]]
) -> None:
    after = normalize(network, Fusion(enabled=False))
    assert sorted(ops(after)) == sorted(op for op in ops(network) if op != "Identity")
    check(network, after, x=normal(np.random.default_rng(3), 2, 4, 4, 4))


def test_operators_behind_an_unfused_layer_are_not_fused_either(
    build: Callable[..., Graph], batch_norm: Callable[..., Any]
) -> None:
    import tensorflow as tf

    def write() -> None:
        rng = np.random.default_rng(4)
        t = tf.nn.conv2d(placeholder(None, 4, 4, 4), normal(rng, 1, 1, 4, 4), 1, "SAME", name="op")
        t = tf.reshape(tf.nn.bias_add(t, ones(4), name="bias"), [-1, 4, 4, 4])
        tf.nn.relu(tf.multiply(batch_norm(rng, t * 2.0, 4).y, ones(4)), name="y")

    graph = build(write)
    for skip, left in (
        (set(), []),
        ({"op"}, ["Mul", "FusedBatchNormV3", "Mul"]),
        ({"bias"}, ["Mul", "FusedBatchNormV3", "Mul"]),
    ):
        after = normalize(graph, Fusion(skip=frozenset(skip)))
        assert [op for op in ops(after) if op in {"Mul", *NORMS}] == left


MESSAGES = [
    ("frist", "skip_fusion_layers: Layer frist does not exist in the graph; did you mean 'first'?"),
    ("else", "Layer else does not exist in the graph; take it out of the list"),
    ("relu", "layer relu is of type Relu, which has no weight; name the layer in front of it"),
    ("bn", "layer bn is of type FusedBatchNormV3, which has no weight"),
]


@pytest.mark.parametrize(("name", "message"), MESSAGES)
def test_a_name_that_cannot_be_kept_apart_is_refused(network: Graph, name: str, message: str) -> None:
    for enabled in (True, False):
        with pytest.raises(PlanError, match=re.escape(message)):
            prepare_graph(network, fusion=Fusion(enabled, frozenset({"first", name})))


@pytest.mark.parametrize("name", ["first", "group0", "last"])
def test_layers_can_be_kept_apart(network: Graph, name: str) -> None:
    check_fusion(network, Fusion(skip=frozenset({name})))
