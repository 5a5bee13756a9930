"""Ties are rounded to even in what a target saves, and by AscendQuant, as by AMCT and XNNPACK."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lite_networks import SavedLite
from trained_networks import Saved

from autoquant.calibration.plan import LayerPlan, Plan
from autoquant.calibration.ranges import MinMax
from autoquant.calibration.statistics import collect
from autoquant.evaluation.engines.table import open_engine
from autoquant.model.graph import Graph
from autoquant.model.model import Model
from autoquant.targets.table import TARGETS, open_target

WEIGHT = np.array([[127.0, 62.5, 63.5, -62.5, -63.5, 0.5, 1.5]], np.float32)
BIAS = np.array([0.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5], np.float32)
"""With a scale of 1 all but the first are ties."""


@dataclass(frozen=True)
class Dense:
    """One layer that a target saved: the offset of its input, and the integers in its file."""

    path: Path
    offset: int
    weight: list[int]
    bias: list[int]


def dense(target: str, x: Any, path: Path) -> Dense:
    """`x` * WEIGHT + BIAS by a target, the range of the input that of `x`, which has scale 1 as the weight has."""
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        data = tf.compat.v1.placeholder(tf.float32, (None, 1), name="x")
        tf.nn.bias_add(tf.linalg.matmul(data, tf.constant(WEIGHT), name="dense"), tf.constant(BIAS), name="y")
    opened = Model("m", Graph.from_graph_def(graph.as_graph_def(), inputs=["x"], outputs=["y"]), (), "")
    to, engine = open_target(target), open_engine(TARGETS[target].runtime)
    model = to.lowered(opened)
    layers = to.survey(model, {}).by_name
    seen = engine.open_graph(model.program, sorted(to.tensors(model, layers)))({"x": x})
    compiler = to.compiler(model, layers, collect([(1, [seen])], key=""))
    made = compiler.compile(Plan({"dense": LayerPlan(MinMax(), channel_wise=False)}), path)
    activation = made.record["dense"].activation
    assert (activation.scale, made.record["dense"].scale_w) == (1.0, (1.0,))
    weight, bias = (_in_lite if target == "litert" else _in_graph)(path)
    return Dense(path, activation.offset, np.ravel(weight).tolist(), np.ravel(bias).tolist())


def _in_lite(path: Path) -> tuple[Any, Any]:
    saved = SavedLite(path.read_bytes())
    _, weight, bias = saved.operator("FULLY_CONNECTED").inputs
    return saved.value(weight), saved.value(bias)


def _in_graph(path: Path) -> tuple[Any, ...]:
    saved = Saved(path)
    constants = [saved.constant(name) for name, node in saved.nodes.items() if node.op == "Const"]
    whole = {value.dtype: value for value in constants if value.size == WEIGHT.size}
    return whole[np.dtype(np.int8)], whole[np.dtype(np.int32)]


@pytest.mark.parametrize(("low", "offset"), [(-62.5, -128 + 62), (-63.5, -128 + 64)])
@pytest.mark.parametrize("target", sorted(TARGETS))
def test_offsets_weights_and_biases(target: str, low: float, offset: int, tmp_path: Path) -> None:
    saved = dense(target, np.array([[low], [low + 255.0]], np.float32), tmp_path / "m")
    assert saved.offset == offset
    assert saved.weight == [127, 62, 64, -62, -64, 0, 2]
    assert saved.bias == [0, 0, 2, 2, 0, -2, -2]


def test_activations_in_ascend_quant(tmp_path: Path) -> None:
    path = dense("tensorflow", np.array([[-128.0], [127.0]], np.float32), tmp_path / "m").path
    saved = Saved(path)
    (quant,) = saved.before("dense", "AscendQuant")
    values = [62.5, 63.5, -62.5, -63.5, 0.5, 1.5, -0.5, -1.5]
    (found,) = saved.run(np.array(values, np.float32)[:, None], quant)
    assert found.ravel().tolist() == [62, 64, -62, -64, 0, 2, 0, -2]
