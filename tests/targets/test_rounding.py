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
from autoquant.evaluation.engines.fake_quant import FakeQuantEngine
from autoquant.evaluation.engines.table import open_engine
from autoquant.model.graph import Graph
from autoquant.model.model import Model
from autoquant.model.survey import survey_graph
from autoquant.targets.base import Corrections
from autoquant.targets.table import TARGETS, open_target

WEIGHT = np.array([[127.0, 62.5, 63.5, -62.5, -63.5, 0.5, 1.5]], np.float32)
BIAS = np.array([0.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5], np.float32)
"""With a scale of 1 all but the first are ties."""


@dataclass(frozen=True)
class Dense:
    """One layer that a target saved: the float graph, the offset of its input, and the integers in its file."""

    graph: Graph
    path: Path
    offset: int
    weight: list[int]
    bias: list[int]


def dense(target: str, x: Any, path: Path, *, correction: Any = None) -> Dense:
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
    corrections = Corrections({} if correction is None else {"dense": np.array(correction)})
    plan = Plan({"dense": LayerPlan(MinMax(), channel_wise=False)})
    made = compiler.compile(plan, path, corrections=corrections)
    activation = made.record["dense"].activation
    assert (activation.scale, made.record["dense"].scale_w) == (1.0, (1.0,))
    weight, bias = (_in_lite if target == "litert" else _in_graph)(path)
    return Dense(opened.graph, path, activation.offset, np.ravel(weight).tolist(), np.ravel(bias).tolist())


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


VALUES = {62.5: 62, 63.5: 64, -62.5: -62, -63.5: -64, 0.5: 0, 1.5: 2, -0.5: 0, -1.5: -2}
ENDS = np.array([[-128.0], [127.0]], np.float32)
"""Of a range with scale 1 and offset 0."""


@pytest.mark.parametrize(
    ("target", "correction", "bias"),
    [
        ("tensorflow", [0.0, 2.0, 1.0, 0.0, -1.0, 0.0, 0.0], [0, 2, 2, 2, -2, -2, -2]),  # added, then rounded
        ("litert", [0.5, 1.5, 2.5, -0.5, -1.5, 62.5, 0.0], [0, 2, 4, 2, -2, 60, -2]),  # each rounded, then added
    ],
)
def test_corrected_biases(target: str, correction: list[float], bias: list[int], tmp_path: Path) -> None:
    assert dense(target, ENDS, tmp_path / "m", correction=correction).bias == bias


def test_activations_in_ascend_quant(tmp_path: Path) -> None:
    saved = Saved(dense("tensorflow", ENDS, tmp_path / "m").path)
    (quant,) = saved.before("dense", "AscendQuant")
    (found,) = saved.run(np.array([*VALUES], np.float32)[:, None], quant)
    assert found.ravel().tolist() == [*VALUES.values()]


def test_activations_that_are_fake_quantized(tmp_path: Path) -> None:
    """LiteRT's QUANTIZE, in place of AscendQuant."""
    saved = dense("tensorflow", ENDS, tmp_path / "m")
    runner = FakeQuantEngine.of(saved.graph, survey_graph(saved.graph).layers).open_file(saved.path, saved.graph)
    found = runner({"x": np.array([*VALUES], np.float32)[:, None]})["y"]
    want = np.outer([*VALUES.values()], saved.weight) + np.array(saved.bias)
    np.testing.assert_array_equal(found, want)
