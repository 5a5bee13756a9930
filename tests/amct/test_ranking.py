"""Layers of every kind, compared with their INT8 selves."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from autoquant.amct.evaluator import Judge
from autoquant.amct.live_graph import LiveModel, read_live
from autoquant.amct.ranking import (
    PREFIX,
    CosineSimilaritySensitivity,
    MseSensitivity,
    Scores,
    observe,
    rank,
    ranking_text,
)
from autoquant.calibration.plan import LayerPlan, Plan, layer_plan
from autoquant.calibration.record import Calibrator
from autoquant.errors import DataError

BATCHES = np.random.default_rng(4).normal(size=(2, 3, 8, 8, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def every_kind(built: Callable[[Callable[[], Any]], Any]) -> LiveModel:
    """One layer of every kind: `image` (batch, 8, 8, 4) -> `scores` (batch, 6)."""

    def write() -> None:
        import tensorflow as tf

        rng = np.random.default_rng(3)

        def weight(*shape: int) -> Any:
            return tf.constant(0.3 * rng.normal(size=shape).astype(np.float32))

        image = tf.compat.v1.placeholder(tf.float32, (None, 8, 8, 4), name="image")
        x = tf.nn.conv2d(image, weight(3, 3, 4, 4), 1, "SAME", name="conv")
        x = tf.nn.relu(tf.nn.bias_add(x, weight(4), name="conv_bias"))
        left, right = tf.split(x, 2, axis=3, name="halves")
        y = tf.concat([tf.nn.conv2d(right, weight(1, 1, 2, 2), 1, "SAME", name="second_output"), left], axis=3)
        y = tf.compat.v1.nn.depthwise_conv2d_native(y, weight(3, 3, 4, 1), (1, 1, 1, 1), "SAME", name="depthwise")
        y = tf.raw_ops.AddV2(x=x, y=tf.nn.relu(y), name="add")
        y = tf.nn.max_pool2d(y, 2, 2, "VALID", name="max_pool")
        shape = tf.stack([tf.shape(y)[0], 8, 8, 4])
        y = tf.nn.conv2d_transpose(y, weight(3, 3, 4, 4), shape, 2, "SAME", name="deconv")
        y = tf.squeeze(tf.nn.conv3d(y[..., tf.newaxis], weight(2, 2, 2, 1, 1), [1] * 5, "SAME", name="volume"), -1)
        rows = tf.reshape(tf.nn.avg_pool2d(y, 2, 2, "VALID", name="avg_pool"), (-1, 16, 4))
        rows = tf.raw_ops.BatchMatMulV2(x=rows, y=weight(4, 4), name="projected")
        y = tf.raw_ops.BatchMatMulV2(x=rows, y=tf.transpose(rows, (0, 2, 1)), name="two_activations")
        y = tf.linalg.matmul(tf.reduce_mean(y, axis=2), weight(16, 6), name="dense")
        tf.identity(y, name="scores")

    return read_live(built(write))


class Evaluator:
    def calibration(self, graph: Any, outputs: list[str]) -> None:
        import tensorflow as tf

        with tf.compat.v1.Session(graph=graph) as session:
            for batch in BATCHES:
                session.run(outputs, {"image:0": batch})


def whole(model: LiveModel, **settings: Any) -> Plan:
    """Every layer, and the first input of every operator that is quantized by its input."""
    names = [name for name in model.survey.by_name if not name.endswith(":1")]
    return Plan({name: layer_plan(model.survey.by_name[name], LayerPlan(**settings)) for name in names}, len(BATCHES))


@pytest.mark.parametrize("dmq", [None, 0.5])
def test_every_kind_of_layer(every_kind: LiveModel, dmq: float | None) -> None:
    judge, plan = Judge(Evaluator(), ("scores:0",), None), whole(every_kind, dmq=dmq)
    calibrator = Calibrator(every_kind.graph, every_kind.survey.by_name, observe(every_kind, plan, judge))
    ranking = rank(every_kind, plan, calibrator, judge, CosineSimilaritySensitivity())
    kinds = {"conv", "second_output", "depthwise", "add:0", "max_pool:0", "deconv", "volume", "avg_pool", "projected"}
    assert set(ranking) == kinds | {"two_activations", "dense"}
    assert list(ranking.values()) == sorted(ranking.values())
    assert all(0.999 < score < 1.0 for score in ranking.values())


def test_only_layers_of_the_plan_are_compared(every_kind: LiveModel) -> None:
    graphs = []

    class Watching(Evaluator):
        def calibration(self, graph: Any, outputs: list[str]) -> None:
            graphs.append(graph)
            super().calibration(graph, outputs)

    judge, plan = Judge(Watching(), ("scores:0",), None), whole(every_kind)
    some = Plan({**dict.fromkeys(plan.layers), "dense": plan.layers["dense"]}, plan.batch_num)
    calibrator = Calibrator(every_kind.graph, every_kind.survey.by_name, observe(every_kind, some, judge))
    assert set(rank(every_kind, some, calibrator, judge, MseSensitivity())) == {"dense"}
    added = {op.name.split("/")[1] for op in graphs[-1].get_operations() if op.name.startswith(PREFIX)}
    assert added == {"dense"}


def test_scores_are_means_of_the_first_batches_and_the_larger_the_better() -> None:
    better, worse = Scores(CosineSimilaritySensitivity(), 2), Scores(MseSensitivity(), 2)
    for fake in ([1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]):  # cos 1, 0, -1; squared errors 0, 2, 4
        for scores in (better, worse):
            scores.add("a", np.array([1.0, 0.0]), np.array(fake))
    assert better.mean("a") == pytest.approx(0.75)
    assert worse.mean("a") == pytest.approx(-0.5)


def test_an_evaluator_that_does_less_the_second_time(every_kind: LiveModel) -> None:
    judge = Judge(Evaluator(), ("scores:0",), None)
    plan = whole(every_kind)
    calibrator = Calibrator(every_kind.graph, every_kind.survey.by_name, observe(every_kind, plan, judge))

    class Once(Evaluator):
        def calibration(self, graph: Any, outputs: list[str]) -> None:
            pass

    with pytest.raises(DataError, match=r"ran conv in 0 of 2 batches when it was called again; it must run the same"):
        rank(every_kind, plan, calibrator, Judge(Once(), ("scores:0",), None), CosineSimilaritySensitivity())


def test_the_file_is_json_without_infinity() -> None:
    assert json.loads(ranking_text({"b": -math.inf, "a": 0.5})) == [["b", None], ["a", 0.5]]
