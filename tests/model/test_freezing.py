from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from autoquant.model.freezing import freeze
from autoquant.model.graph import Graph, GraphDef
from autoquant.model.load import load
from autoquant.model.nodes import make_const, make_node

RNG = np.random.default_rng(6)
SHAPE = tf.TensorSpec((None, 40), tf.float32, name="x")


def variable(*shape: int, dtype: Any = tf.float32) -> Any:
    return tf.Variable(tf.cast(RNG.normal(size=shape) / 8, dtype))


def multiplied(x: Any, w: Any) -> Any:
    return x @ w


def half(x: Any, w: Any) -> Any:
    return tf.cast(tf.cast(x, tf.float16) @ w, tf.float32)


def looked_up(x: Any, w: Any) -> Any:
    return tf.gather(w, tf.cast(tf.abs(x[:, 0]) * 8, tf.int32))


def decided(x: Any, w: Any) -> Any:
    """What is computed hangs on a value of the variable."""
    return tf.cond(w[0, 0] > 100.0, lambda: x, lambda: x @ w)


def looped(x: Any, w: Any) -> Any:
    return tf.while_loop(lambda y, n: n < 3, lambda y, n: (tf.tanh(y @ w), n + 1), [x, 0], maximum_iterations=4)[0]


MODELS: Mapping[str, tuple[Callable[[Any, Any], Any], Any]] = {
    "multiplied": (multiplied, variable(40, 40)),
    "small": (multiplied, variable(40, 3)),
    "half precision": (half, variable(40, 40, dtype=tf.float16)),
    "looked up": (looked_up, variable(60, 40)),
    "decided": (decided, variable(40, 40)),
    "looped": (looped, variable(40, 40)),
    "of another shape later": (multiplied, tf.Variable(variable(40, 40), shape=(None, 40))),
}


@pytest.mark.parametrize(("compute", "weight"), MODELS.values(), ids=MODELS.keys())
def test_variables_have_their_values(
    compute: Callable[[Any, Any], Any], weight: Any, tmp_path: Path, run: Callable[..., list[Any]]
) -> None:
    module = tf.Module()
    module.weight = weight
    module.call = tf.function(lambda x: {"y": compute(x, weight)}, input_signature=[SHAPE])
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=module.call)
    x = RNG.normal(size=(3, 40)).astype(np.float32)
    (got,) = run(load(tmp_path / "model"), {"x": x})
    np.testing.assert_allclose(got, module.call(x)["y"].numpy(), rtol=1e-5, atol=1e-5)


def test_a_frozen_graph_has_no_large_values() -> None:
    weight, bias = variable(200, 200), variable(200)
    call = tf.function(lambda x: x @ weight + bias).get_concrete_function(tf.TensorSpec((None, 200)))
    frozen = freeze(call)
    assert frozen.graph_def.ByteSize() < 5000
    assert [one is weight for one in frozen.large.values()] == [True]


def test_nodes_of_a_graph_do_not_hold_those_that_are_gone() -> None:
    """Python keeps no account of the memory of messages: what a copy is shows when the other is changed."""
    graph_def = GraphDef()
    graph_def.node.extend([make_const("c", np.zeros(4, np.float32)), make_node("y", "Relu", ["c"])])
    graph_def.library.function.add().signature.name = "f"
    graph = Graph.from_graph_def(graph_def, inputs=(), outputs=("y",))
    graph_def.node[1].op = "Elu"
    graph_def.library.function[0].signature.name = "g"
    assert graph.nodes["y"].op == "Relu"
    assert graph.library.function[0].signature.name == "f"
