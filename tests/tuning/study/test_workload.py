"""The multiply-adds of layers, and searches where inputs of additions and poolings may be quantized too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autoquant
from autoquant.calibration.plan import LayerPlan, Plan
from autoquant.evaluation.data.dataset import open_data
from autoquant.formats.config_json import load_config
from autoquant.formats.record_text import load_record
from autoquant.model.layer import Layer, Rejected, Survey
from autoquant.model.open import open_model
from autoquant.targets.tensorflow import TensorFlowTarget
from autoquant.tuning import events
from autoquant.tuning.certification.certificate import Verdict
from autoquant.tuning.result import Ended
from autoquant.tuning.study.trial import count_layers
from autoquant.tuning.study.workload import Macs, Workload

LAYERS = ["conv", "average", "dense"]
COSTS = {"conv": 36 * 2 * 2, "average": 9 * 4 * 2, "dense": 18 * 3}
TENSORS = """
[layer]
quant_enable = [true, false]
[[override]]
types = ["AddV2", "MaxPool"]
quant_enable = [true, false]
"""


def network(path: Path, size: int | None = 6) -> Path:
    """Conv2D, AddV2, MaxPool, AvgPool and MatMul over images of (size, 6, 2), three scores."""
    import tensorflow as tf

    rng = np.random.default_rng(3)
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, size, 6, 2], name="image")
        t = tf.nn.conv2d(x, rng.normal(size=(1, 1, 2, 2)).astype(np.float32), 1, "SAME", name="conv")
        t = tf.raw_ops.AddV2(x=t, y=x, name="add")
        t = tf.nn.max_pool2d(t, 3, 1, "SAME", name="pool")
        t = tf.nn.avg_pool2d(t, 2, 2, "SAME", name="average")
        weight = rng.normal(size=(18, 3)).astype(np.float32)
        tf.linalg.matmul(tf.reshape(t, [-1, 18]), weight, name="dense")
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network, data whose labels it gets right but for one in five, and its scores."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("workload")
    model = network(folder / "net.pb")
    images = np.random.default_rng(5).normal(size=(100, 6, 6, 2)).astype(np.float32)
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(tf.compat.v1.GraphDef.FromString(model.read_bytes()), name="")
        with tf.compat.v1.Session(graph=graph) as session:
            scores = session.run("dense:0", {"image:0": images})
    np.savez(folder / "scores.npz", x=images, y=scores)
    labels = scores.argmax(axis=1)
    labels[::5] = (labels[::5] + 1) % 3
    np.savez(folder / "data.npz", x=images, y=labels)
    (folder / "space.toml").write_text(TENSORS)
    return folder


def workload(model: Path, data: Any) -> Workload:
    opened = open_model(model)
    return Workload.of(TensorFlowTarget(), opened, open_data(data, opened.inputs))


def test_costs_are_of_layers_alone(files: Path) -> None:
    found = workload(files / "net.pb", files / "data.npz")
    assert (found.unit, found.size) == ("multiply-adds", 3)
    assert found.costs == {**COSTS, "add:0": 0, "add:1": 0, "pool:0": 0}
    assert list(found.layers) == [*LAYERS, "add:0", "add:1", "pool:0"]
    plan = Plan({"conv": LayerPlan(), "average": None, "dense": None, "add:1": LayerPlan(channel_wise=False)})
    assert found.int8_share(plan) == pytest.approx(144 / (144 + 72 + 54))
    assert count_layers(plan.layers) == 3
    assert count_layers(plan.int8) == 1


def test_parameters_stand_for_unknown_multiply_adds_and_layers_for_those(files: Path) -> None:
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, 4, 4, 2], name="image")
        box = tf.boolean_mask(x, tf.reduce_max(x, [1, 2, 3]) > 0)  # of a length that nobody knows
        t = tf.nn.avg_pool2d(tf.reshape(box, [-1, tf.shape(box)[0] + 2, 2, 2]), 1, 1, "SAME", name="average")
        tf.nn.relu(tf.nn.max_pool2d(t, 1, 1, "SAME", name="pool"), name="y")
        (files / "pools.pb").write_bytes(graph.as_graph_def().SerializeToString())
        tf.nn.conv2d(t, tf.ones([1, 1, 2, 3]), 1, "SAME", name="conv")
        (files / "conv.pb").write_bytes(graph.as_graph_def().SerializeToString())
    data = {"image": np.zeros((3, 4, 4, 2), np.float32)}
    found = workload(files / "conv.pb", data)
    assert (found.unit, found.costs) == ("parameters", {"average": 0, "conv": 6, "pool:0": 0})
    found = workload(files / "pools.pb", data)
    assert (found.unit, found.costs) == ("layers", {"average": 1, "pool:0": 0})
    assert found.int8_share(Plan({"average": LayerPlan(channel_wise=False)})) == 1.0


def test_a_search_that_quantizes_inputs_too_ends_when_all_layers_are_in_int8(files: Path, tmp_path: Path) -> None:
    heard: list[Any] = []
    options: dict[str, Any] = {
        "space": files / "space.toml",
        "tolerance": "90%",
        "listener": heard.append,
        "batch_size": 20,
    }
    options |= {"certify": "none"}
    result = autoquant.search(files / "net.pb", files / "data.npz", run=tmp_path / "run", **options)
    assert (result.verdict, result.ended, len(result.trials)) == (Verdict.MET, Ended.NOTHING_BETTER, 1)
    assert result.best is not None
    assert result.layers == 3
    assert result.best.layers == 3
    assert result.best.int8_layers == 3
    assert result.best.int8_share == 1.0
    assert next(event for event in heard if isinstance(event, events.Opened)).layers == 3
    assert list(result.best.plan.int8) == [*LAYERS, "add:0", "pool:0"]
    assert load_config(tmp_path / "run" / "best" / "config.json") == result.best.plan
    assert set(load_record(tmp_path / "run" / "best" / "record.txt")) == {*LAYERS, "add:0", "pool:0"}
    score = json.loads((tmp_path / "run" / "best" / "score.json").read_text())
    assert (score["layers"], score["int8_layers"]) == (3, 3)


def test_a_search_that_misses_keeps_one_model_with_its_map_and_blames_layers_alone(files: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "space": files / "space.toml",
        "tolerance": 0.0,
        "max_trials": 4,
        "batch_size": 20,
        "metric": "mse",
    }
    options |= {"sampler": "tpe"}
    result = autoquant.search(files / "net.pb", files / "scores.npz", run=tmp_path / "run", **options)
    assert result.costly.layers
    assert {name for name, _ in result.costly.layers} <= set(LAYERS)
    assert [trial.why for trial in result.trials][:2] == ["all INT8", "all INT8: tensors in float"]
    assert result.best is not None
    kept = result.run / "trials" / f"{result.best.number:04d}"
    found = {path for pattern in ("*.pb", "*_quant.json") for path in result.run.glob(f"trials/*/{pattern}")}
    assert found == {kept / "net_quantized.pb", kept / "net_quant.json"}
    (kept / "net_quant.json").unlink()
    autoquant.resume(result.run, max_trials=5)
    assert (result.run / "best" / "net_quant.json").is_file()


def layer(name: str, macs: int | None, parameters: int) -> Layer:
    return Layer(name, "MatMul", ("x",), -1, "w" if parameters else None, (parameters, 1), (), None, None, macs)


@pytest.mark.parametrize(
    ("layers", "others", "unit", "share"),
    [
        ([("a", 30, 5), ("b", 10, 5)], [(60, 7)], "multiply-adds", 0.3),
        ([("a", 30, 5), ("b", 10, 5)], [(60, 7), (0, 9)], "multiply-adds", 0.3),
        ([("a", 30, 5), ("b", 10, 5)], [], "multiply-adds", 0.75),
        ([("a", 30, 5), ("b", 10, 5)], [(None, 10), (60, 20)], "parameters", 5 / 40),
        ([("a", None, 0), ("b", 10, 0)], [(60, 7), (None, 9)], "layers", 0.25),
    ],
)
def test_the_share_is_of_all_that_computes(layers: Any, others: Any, unit: str, share: float) -> None:
    """With one of two layers in INT8, beside operators that cannot be; those without multiply-adds do not count."""
    rejected = tuple(Rejected(f"r{n}", "Conv2D", "half", macs, own) for n, (macs, own) in enumerate(others))
    workload = Workload.from_survey(Survey(tuple(layer(*one) for one in layers), (), rejected))
    plan = Plan({"a": LayerPlan(), "b": None})
    assert workload.unit == unit
    assert workload.int8_share(plan) == pytest.approx(share)
    assert workload.size == 2 + sum(macs != 0 for macs, _ in others)
    assert Macs(workload, None)(plan) == pytest.approx(1.0 - share)


def test_a_model_of_which_most_cannot_be_int8(tmp_path: Path) -> None:
    """A convolution in double precision, and a matrix: 36 * 18 * 4 and 144 * 3 multiply-adds."""
    import tensorflow as tf

    rng = np.random.default_rng(3)
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, 6, 6, 2], name="image")
        kernel = tf.constant(rng.normal(size=(3, 3, 2, 4)).astype(np.float64))
        t = tf.cast(tf.nn.conv2d(tf.cast(x, tf.double), kernel, 1, "SAME", name="conv"), tf.float32)
        tf.linalg.matmul(tf.reshape(t, [-1, 144]), rng.normal(size=(144, 3)).astype(np.float32), name="dense")
    model = tmp_path / "wide.pb"
    model.write_bytes(graph.as_graph_def().SerializeToString())
    images = rng.normal(size=(120, 6, 6, 2)).astype(np.float32)
    heard: list[events.Event] = []
    result = autoquant.search(
        model, (images, None), metric="agreement", tolerance="50%", run=tmp_path / "run", listener=heard.append
    )
    assert result.best is not None
    share = 144 * 3 / (36 * 18 * 4 + 144 * 3)
    assert (result.best.int8_layers, result.layers, result.best.layers) == (1, 2, 2)
    assert result.best.int8_share == pytest.approx(share)
    (opened,) = (event for event in heard if isinstance(event, events.Opened))
    assert (opened.layers, opened.macs) == (2, 36 * 18 * 4 + 144 * 3)
    stored = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (stored["int8_layers"], stored["layers"], stored["int8_share"]) == (1, 2, pytest.approx(share))
    score = json.loads((tmp_path / "run" / "best" / "score.json").read_text())
    assert (score["layers"], score["int8_share"]) == (2, pytest.approx(share))
