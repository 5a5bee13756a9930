"""Saved graphs: their form, and their numbers against integer arithmetic in NumPy."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Never

import numpy as np
import pytest
from graph_networks import Network
from numpy.typing import NDArray
from tensorflow.core.framework.function_pb2 import FunctionDef, FunctionDefLibrary
from tiny_model import Tiny

from autoquant.calibration.record import LayerRecord
from autoquant.errors import PlanError, RunError, TrialError
from autoquant.evaluation.engines.tensorflow import TensorFlowEngine
from autoquant.formats.quant_json import QuantJson, load_quant_json
from autoquant.model.graph import GraphDef
from autoquant.model.layer import Layer
from autoquant.model.model import Model
from autoquant.model.nodes import FLOAT, make_node
from autoquant.model.open import open_model
from autoquant.model.survey import survey_graph
from autoquant.quantization.affine import Affine
from autoquant.targets.ascend_functions import NAMES
from autoquant.targets.attributes import type_attr
from autoquant.targets.base import NO_CORRECTIONS, Corrections
from autoquant.targets.check import check
from autoquant.targets.saved_graph import read_saved_graph
from autoquant.targets.tensorflow import TensorFlowTarget, quantize


@pytest.fixture(scope="module")
def opened(tiny: Tiny) -> tuple[Model, dict[str, Layer]]:
    model = open_model(tiny.model)
    return model, {layer.name: layer for layer in survey_graph(model.graph).layers}


def f32(values: Any) -> tuple[float, ...]:
    return tuple(float(np.float32(value)) for value in np.atleast_1d(values))


def records(tiny: Tiny, per_channel: bool) -> dict[str, LayerRecord]:
    """A record with scales computed here, in float64, from the weights."""

    def scales(weight: NDArray[Any], axes: tuple[int, ...]) -> tuple[float, ...]:
        rows = np.abs(weight.astype(np.float64)).max(axis=axes).reshape(-1) / 127.0
        return f32(rows if per_channel else rows.max())

    w = tiny.weights
    return {
        "conv": LayerRecord(Affine(f32(9.0 / 255)[0], -3), scales(w["conv"], (0, 1, 2))),
        "depthwise": LayerRecord(Affine(f32(20.0 / 255)[0], -128), scales(w["depthwise"], (0, 1))),
        "dense": LayerRecord(Affine(f32(30.0 / 255)[0], -128), f32(np.abs(w["dense"]).max() / 127.0)),
    }


def int8_weight(weight: NDArray[Any], scale_w: tuple[float, ...], axes: tuple[int, ...]) -> Any:
    shape = [size if axis in axes and len(scale_w) > 1 else 1 for axis, size in enumerate(weight.shape)]
    return np.clip(np.rint(weight.astype(np.float64) / np.array(scale_w).reshape(shape)), -128, 127)


def conv2d(x: NDArray[Any], w: NDArray[Any], *, stride: int, same: bool) -> Any:
    """Cross-correlation in float64, NHWC and HWIO."""
    kh, kw = w.shape[:2]
    if same:
        x = np.pad(x, ((0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (kh, kw), axis=(1, 2))[:, ::stride, ::stride]
    return np.einsum("nhwcij,ijco->nhwo", windows, w)


def depthwise(x: NDArray[Any], w: NDArray[Any], *, stride: int) -> Any:
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[:2], axis=(1, 2))[:, ::stride, ::stride]
    out = np.einsum("nhwcij,ijcm->nhwcm", windows, w)
    return out.reshape(*out.shape[:3], -1)


def reference(tiny: Tiny, record: dict[str, LayerRecord], images: NDArray[Any]) -> Any:
    """What the INT8 graph must compute: integer products and sums, scaled once."""
    w = tiny.weights

    def steps(x: NDArray[Any], layer: str) -> Any:
        affine = record[layer].activation
        return np.clip(np.rint(x / affine.scale) + affine.offset, -128, 127) - affine.offset

    def real(sums: NDArray[Any], layer: str) -> Any:
        return sums * record[layer].activation.scale * np.array(record[layer].scale_w)

    def bias(name: str, layer: str) -> Any:
        return np.rint(w[name] / (record[layer].activation.scale * np.array(record[layer].scale_w)))

    q = int8_weight(w["conv"], record["conv"].scale_w, (3,))
    x = conv2d(steps(images.astype(np.float64), "conv"), q, stride=1, same=True)
    x = np.maximum(real(x + bias("conv_bias", "conv"), "conv"), 0.0)
    q = int8_weight(w["depthwise"], record["depthwise"].scale_w, (2, 3))
    x = np.maximum(real(depthwise(steps(x, "depthwise"), q, stride=2), "depthwise"), 0.0)
    x = x.mean(axis=(1, 2))
    q = int8_weight(w["dense"], record["dense"].scale_w, (1,))
    return real(steps(x, "dense") @ q + bias("dense_bias", "dense"), "dense")


@pytest.mark.parametrize("per_channel", [True, False])
def test_saved_graph_computes_integer_arithmetic(
    tiny: Tiny, opened: tuple[Model, dict[str, Layer]], tmp_path: Path, per_channel: bool
) -> None:
    model, layers = opened
    record = records(tiny, per_channel)
    path = tmp_path / TensorFlowTarget().file_name("tiny")
    TensorFlowTarget().save(model.graph, layers, record, path)
    images = np.load(tiny.evaluation)["x"][:40]
    got = TensorFlowEngine().open_file(path, model.graph)({"image": images})["scores"]
    want = reference(tiny, record, images)
    # A value within float32 rounding of a tie may fall on the next step: rare, and one step wide at most.
    close = np.isclose(got, want, rtol=1e-4, atol=1e-4)
    assert close.mean() > 0.9
    assert np.abs(got - want).max() < 0.05 * np.abs(want).max()


def test_given_integers_are_the_only_other_nodes(
    tiny: Tiny, opened: tuple[Model, dict[str, Layer]], tmp_path: Path
) -> None:
    model, layers = opened
    record, target = records(tiny, per_channel=True), TensorFlowTarget()
    rng = np.random.default_rng(1)
    integers = {
        name: rng.integers(-128, 128, layers[name].weight_shape).astype(np.int8) for name in ("conv", "depthwise")
    }
    graphs = []
    for name, corrections in (("nearest", NO_CORRECTIONS), ("given", Corrections(weights=integers))):
        path = tmp_path / f"{name}.pb"
        target.save(model.graph, layers, record, path, corrections)
        check(path, record)
        graphs.append(read_saved_graph(path).graph)
    nearest, given = graphs
    differing = {name for name, node in given.nodes.items() if node != nearest.nodes[name]}
    assert differing == {f"{name}/weight_quant/weight" for name in integers}
    for name, values in integers.items():
        np.testing.assert_array_equal(given.constant(f"{name}/weight_quant/weight"), values)


def test_nothing_recorded_is_the_float_model(
    tiny: Tiny, opened: tuple[Model, dict[str, Layer]], tmp_path: Path
) -> None:
    model, layers = opened
    TensorFlowTarget().save(model.graph, layers, {}, tmp_path / "saved")
    images = {"image": np.load(tiny.evaluation)["x"][:20]}
    engine = TensorFlowEngine()
    want = engine.open_graph(model.graph)(images)["scores"]
    got = engine.open_file(tmp_path / "saved", model.graph)(images)["scores"]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_a_foreign_record_is_refused(tiny: Tiny, opened: tuple[Model, dict[str, Layer]], tmp_path: Path) -> None:
    model, layers = opened
    record = {"other": records(tiny, per_channel=True)["conv"]}
    with pytest.raises(PlanError, match="other"):
        TensorFlowTarget().save(model.graph, layers, record, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_form_is_that_of_amct(tiny: Tiny, opened: tuple[Model, dict[str, Layer]], tmp_path: Path) -> None:
    model, layers = opened
    record = records(tiny, per_channel=True)
    path = tmp_path / "tiny_quantized.pb"
    TensorFlowTarget().save(model.graph, layers, record, path)
    graph_def = GraphDef.FromString(path.read_bytes())
    nodes = {node.name: node for node in graph_def.node}
    by_op = [node.op for node in graph_def.node]
    assert [by_op.count(op) for op in ("AscendQuant", "AscendWeightQuant", "AscendDequant")] == [3, 3, 3]
    quant = nodes[nodes["conv"].input[0]]
    assert quant.input[0] == "image"
    assert quant.attr["scale"].f == np.float32(1.0) / np.float32(9.0 / 255)
    assert quant.attr["offset"].f == -3.0
    assert quant.attr["quant_bits"].i == 8
    weight = nodes[nodes[nodes["conv"].input[1]].input[0]]
    assert weight.attr["dtype"].type == 6  # DT_INT8
    scores = nodes["scores"]
    assert scores.op == "AscendDequant"
    assert list(scores.attr["ksize"].list.i) == [1, 1]
    product = np.float32(record["dense"].activation.scale) * np.float32(record["dense"].scale_w[0])
    assert list(nodes[scores.input[1]].attr["value"].tensor.uint64_val) == [int(product.view(np.uint32))]
    float_constants = [n.name for n in graph_def.node if n.op == "Const" and n.attr["dtype"].type == 1]
    assert float_constants == []


def test_every_tensor_keeps_its_name_and_unit(tiny: Tiny, opened: tuple[Model, dict[str, Layer]]) -> None:
    model, layers = opened
    int8 = quantize(model.graph, layers, records(tiny, per_channel=True))
    images = np.load(tiny.evaluation)["x"][:20]
    engine = TensorFlowEngine()
    names = [layers["conv"].bias or "", "depthwise", "scores"]
    before = engine.open_graph(model.graph, names)({"image": images})
    after = engine.open_graph(int8, names)({"image": images})
    for name in names:
        assert name is not None
        assert np.linalg.norm(after[name] - before[name]) < 0.1 * np.linalg.norm(before[name])


def test_layers_not_in_the_record_stay_float(tiny: Tiny, opened: tuple[Model, dict[str, Layer]]) -> None:
    model, layers = opened
    record = {"dense": records(tiny, per_channel=True)["dense"]}
    int8 = quantize(model.graph, layers, record)
    assert int8.nodes["conv"] is model.graph.nodes["conv"]
    assert sum(node.op == "AscendQuant" for node in int8.nodes.values()) == 1


def test_names_of_the_users_nodes_are_left_alone(tiny: Tiny, opened: tuple[Model, dict[str, Layer]]) -> None:
    """A node that is called as one of ours would be keeps its name and its work, and so do its readers."""
    model, layers = opened
    record = records(tiny, per_channel=True)
    images = {"image": np.load(tiny.evaluation)["x"][:20]}
    engine = TensorFlowEngine()
    want = engine.open_graph(quantize(model.graph, layers, record))(images)["scores"]
    relu = next(name for name, node in model.graph.nodes.items() if node.op == "Relu" and "conv" in node.input[0])
    for taken in ("depthwise/quant_op", "conv/weight_quant/weight", "conv/bias_quant/BiasAdd"):
        other = make_node(taken, "Relu", [relu], T=type_attr(FLOAT))
        graph = model.graph.edit(put=[other], redirect={relu: taken})
        found = {layer.name: layer for layer in survey_graph(graph).layers}
        assert found["depthwise"].activations[0] == taken
        int8 = quantize(graph, found, record)
        assert int8.nodes[taken] is other
        np.testing.assert_array_equal(engine.open_graph(int8)(images)["scores"], want)


def test_bias_beyond_int32_names_the_layer(opened: tuple[Model, dict[str, Layer]]) -> None:
    model, layers = opened
    tiny_scale = LayerRecord(Affine(float(np.float32(2e-7)), 0), f32(2e-7))
    with pytest.raises(TrialError, match=r"dense: its quantized bias .* exceeds int32; leave the layer in float"):
        quantize(model.graph, layers, {"dense": tiny_scale})


@pytest.mark.parametrize("scale_w", [1e-45, 5e-32])
def test_scales_whose_product_vanishes_name_the_layer(opened: tuple[Model, dict[str, Layer]], scale_w: float) -> None:
    """Numbers below 1.2e-38 are 0 to TensorFlow."""
    model, layers = opened
    least = LayerRecord(Affine(float(np.float32(2e-7)), 0), f32(scale_w))
    with pytest.raises(TrialError, match="depthwise: the product of its scales is beyond float32; leave the layer"):
        quantize(model.graph, layers, {"depthwise": least})


def test_the_map_tells_what_stands_for_what(tiny: Tiny, opened: tuple[Model, dict[str, Layer]], tmp_path: Path) -> None:
    model, layers = opened
    path = tmp_path / "tiny_quantized.pb"
    TensorFlowTarget().save(model.graph, layers, records(tiny, per_channel=True), path)
    written = load_quant_json(tmp_path / "tiny_quant.json")
    assert written.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    nodes = {node.name: node for node in GraphDef.FromString(path.read_bytes()).node}
    assert set(written.nodes) <= set(nodes)
    assert {original for names in written.nodes.values() for original in names} <= set(model.graph.nodes)
    # What is not listed is as it was.
    for name in set(nodes) - set(written.nodes):
        assert nodes[name].SerializeToString(deterministic=True) == model.graph.nodes[name].SerializeToString(
            deterministic=True
        )
    bias = layers["conv"].bias
    assert bias is not None
    assert written.nodes[bias] == ("conv", bias)
    assert written.nodes["depthwise"] == written.nodes["depthwise/quant_op"] == ("depthwise",)
    assert written.nodes["conv/act_quant/AscendQuant"] == ("image",)
    assert written.nodes["conv/weight_quant/AscendWeightQuant"] == (layers["conv"].weight,)


def test_without_simulation_there_are_no_functions(
    tiny: Tiny, opened: tuple[Model, dict[str, Layer]], tmp_path: Path
) -> None:
    model, layers = opened
    record = records(tiny, per_channel=True)
    for name, simulation in (("with", True), ("without", False)):
        TensorFlowTarget(simulation=simulation).save(model.graph, layers, record, tmp_path / name)
    there, lacking = (GraphDef.FromString((tmp_path / name).read_bytes()) for name in ("with", "without"))
    assert [len(g.library.function) for g in (there, lacking)] == [4, 0]
    there.ClearField("library")
    lacking.ClearField("library")
    assert there == lacking


def test_functions_of_the_model_stay(tiny: Tiny, opened: tuple[Model, dict[str, Layer]], tmp_path: Path) -> None:
    model, layers = opened
    own = FunctionDefLibrary(function=[FunctionDef(signature={"name": "own"})])
    graph = replace(model.graph, library=own)
    for simulation, names in ((True, [*NAMES, "own"]), (False, ["own"])):
        TensorFlowTarget(simulation=simulation).save(graph, layers, records(tiny, True), tmp_path / "saved.pb")
        saved = GraphDef.FromString((tmp_path / "saved.pb").read_bytes())
        assert [function.signature.name for function in saved.library.function] == names


def test_a_map_is_never_beside_a_model_that_it_does_not_describe(
    tiny: Tiny, opened: tuple[Model, dict[str, Layer]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever saving ends: before the model, between the two, or with both."""
    model, layers = opened
    target, record = TensorFlowTarget(), records(tiny, per_channel=True)
    path, mapping = tmp_path / "tiny_quantized.pb", tmp_path / "tiny_quant.json"
    target.save(model.graph, layers, record, path)
    before = path.read_bytes()

    def killed(*arguments: Path | QuantJson) -> Never:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("autoquant.targets.tensorflow.save", killed)
        with pytest.raises(KeyboardInterrupt):
            target.save(model.graph, layers, {"conv": record["conv"]}, path)
    assert path.read_bytes() != before
    assert not mapping.exists()

    mapping.mkdir()
    with pytest.raises(RunError, match="cannot be written"):
        target.save(model.graph, layers, record, path)
    assert path.read_bytes() != before


def test_saving_again_describes_the_new_model(
    tiny: Tiny, opened: tuple[Model, dict[str, Layer]], tmp_path: Path
) -> None:
    model, layers = opened
    target, record = TensorFlowTarget(), records(tiny, per_channel=True)
    path, mapping = tmp_path / "tiny_quantized.pb", tmp_path / "tiny_quant.json"
    for wanted in (record, {"conv": record["conv"]}):
        target.save(model.graph, layers, wanted, path)
        assert load_quant_json(mapping).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert "dense/act_quant/AscendQuant" not in load_quant_json(mapping).nodes


FOREIGN = """
import sys
import numpy as np
import tensorflow as tf

graph_def = tf.compat.v1.GraphDef.FromString(open(sys.argv[1], "rb").read())
with tf.Graph().as_default():
    tf.compat.v1.import_graph_def(graph_def, name="")
    with tf.compat.v1.Session() as session:
        np.save(sys.argv[3], session.run("y:0", {"x:0": np.load(sys.argv[2])}))
assert not any(name.startswith("autoquant") for name in sys.modules)
"""


def test_a_plain_session_of_another_process_runs_the_file(
    network: Callable[..., Network], tmp_path: Path, random: np.random.Generator
) -> None:
    """All that a graph needs is in it: shifts, the area of a pooling, balance factors, an input by itself."""

    def write(x: Any) -> None:
        import tensorflow as tf

        kernel = tf.constant(random.normal(size=(3, 3, 2, 4)), tf.float32)
        y = tf.raw_ops.Conv2D(input=x, filter=kernel, strides=[1] * 4, padding="SAME", name="conv")
        y = tf.raw_ops.AvgPool(value=y, ksize=[1, 2, 3, 1], strides=[1, 2, 2, 1], padding="SAME", name="pool")
        tf.raw_ops.AddV2(x=y, y=tf.raw_ops.Sigmoid(x=y), name="y")

    made = network(write, x=(None, 6, 6, 2))
    record = {
        "conv": LayerRecord(Affine(0.125, -3), (0.0625,), balance=(0.5, 3.0), shift_bit=(3,)),
        "pool": LayerRecord(Affine(0.25, -3)),
        "y:1": LayerRecord(Affine(1 / 128, 0)),
    }
    x = random.normal(size=(2, 6, 6, 2)).astype(np.float32) * 2
    path = made.save(record, tmp_path / "model.pb")
    np.save(tmp_path / "x.npy", x)
    words = [sys.executable, "-W", "error", "-c", FOREIGN, *(str(tmp_path / n) for n in ("model.pb", "x.npy", "y.npy"))]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "rror" not in done.stderr
    got = np.load(tmp_path / "y.npy")
    np.testing.assert_allclose(got, made.run(path, {"x": x}), rtol=1e-6)
    want = made.run_float({"x": x})
    assert np.linalg.norm(got - want) < 0.1 * np.linalg.norm(want)
