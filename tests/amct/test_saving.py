"""save_model and convert_model: what they write, and what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_model import Tiny

import autoquant as amct
from autoquant.calibration.record import LayerRecord
from autoquant.errors import ModelError, PlanError, RunError, TrialError, UsageError
from autoquant.formats.record_text import load_record, save_record
from autoquant.quantization.affine import Affine
from autoquant.targets.check import check

CONFIG, RECORD = Path("config.json"), Path("record.txt")
F = np.float32


def calibrated(graph: Any, feeds: dict[str, Any], *outputs: str, **changes: Any) -> None:
    """Calibrate a live graph with one pass; `changes` are made to config.json."""
    import tensorflow as tf

    amct.create_quant_config(CONFIG, graph)
    CONFIG.write_text(json.dumps(json.loads(CONFIG.read_text()) | changes))
    amct.quantize_model(graph, CONFIG, RECORD)
    with graph.as_default(), tf.compat.v1.Session() as session:
        session.run(tf.compat.v1.global_variables_initializer())
        session.run(list(outputs), feeds)


def frozen(graph: Any, path: str = "model.pb") -> Path:
    Path(path).write_bytes(graph.as_graph_def().SerializeToString())
    return Path(path)


def results(graph: Any, feeds: dict[str, Any], *outputs: str) -> Any:
    import tensorflow as tf

    with tf.compat.v1.Session(graph=graph) as session:
        return session.run(list(outputs), feeds)


@pytest.fixture
def record(live: Any, images: NDArray[Any]) -> Path:
    """The record of the tiny model."""
    calibrated(live, {"image:0": images}, "scores:0")
    return RECORD


def test_the_model_is_written_where_the_prefix_says_and_fits_its_record(
    tiny: Tiny, record: Path, load_pb: Callable[[Path], Any], images: NDArray[Any]
) -> None:
    saved = amct.save_model(str(tiny.model), ["scores:0"], str(record), "./new/folder/tiny")
    assert saved.model == Path("new/folder/tiny_quantized.pb").absolute()
    assert saved.mapping == Path("new/folder/tiny_quant.json").absolute()
    found = check(saved.model, load_record(record))
    assert sum(found.layers.values()) == 3
    assert found.mapping
    feeds = {"image:0": images}
    (expected,), (scores,) = (results(load_pb(path), feeds, "scores:0") for path in (tiny.model, saved.model))
    assert 0 < np.abs(scores - expected).max() < 0.05 * np.ptp(expected)


def test_files_are_overwritten(tiny: Tiny, record: Path) -> None:
    for text in ("old", "older"):
        Path("x_quantized.pb").write_text(text)
        amct.save_model(tiny.model, "scores:0", record, "x")
    assert len(Path("x_quantized.pb").read_bytes()) > 1000


def test_without_simulation_the_functions_are_left_out(tiny: Tiny, record: Path) -> None:
    for simulation in (True, False):
        saved = amct.save_model(tiny.model, "scores:0", record, "x", simulation=simulation)
        assert check(saved.model, load_record(record)).simulation == simulation


def test_outputs_can_be_one_text(built: Callable[[Callable[[], Any]], Any]) -> None:
    import tensorflow as tf

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, (None, 4), name="x")
        tf.matmul(x, np.eye(4, dtype=F), name="a")
        tf.matmul(x, 2 * np.eye(4, dtype=F), name="b")

    graph = built(write)
    model = frozen(graph)
    calibrated(graph, {"x:0": np.eye(4)}, "a:0", "b:0")
    saved = amct.save_model(model, "a:0; b:0;", RECORD, "x")
    assert check(saved.model, load_record(RECORD)).layers == {"MatMul": 2}


def test_layers_that_the_outputs_do_not_need_are_left_out_and_named(
    built: Callable[[Callable[[], Any]], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    import tensorflow as tf

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, (None, 4), name="x")
        tf.matmul(x, np.eye(4, dtype=F), name="a")
        tf.matmul(x, 2 * np.eye(4, dtype=F), name="b")

    graph = built(write)
    model = frozen(graph)
    calibrated(graph, {"x:0": np.eye(4)}, "a:0", "b:0")
    saved = amct.save_model(model, ["a:0"], RECORD, "x")
    assert "WARNING - [autoquant]: left out, as the outputs do not depend on it: b\n" in capsys.readouterr().err
    found = check(saved.model, load_record(RECORD))
    assert (found.layers, found.left_out) == ({"MatMul": 1}, ("b",))
    assert check(saved.model, {"a": load_record(RECORD)["a"]}).left_out == ()
    save_record({"b": load_record(RECORD)["b"]}, RECORD)
    with pytest.raises(PlanError, match="the outputs depend on none of its layers; give the outputs of the model"):
        amct.save_model(model, ["a:0"], RECORD, "x")


def normed() -> None:
    """Two convolutions, each with a batch norm that changes its weights."""
    import tensorflow as tf

    rng = np.random.default_rng(3)
    x = tf.compat.v1.placeholder(tf.float32, (None, 6, 6, 2), name="x")
    for number in (1, 2):
        x = tf.nn.conv2d(x, rng.normal(size=(3, 3, 2, 2)).astype(F), 1, "SAME", name=f"conv{number}")
        scale, shift = np.array([0.25, 8.0], F), np.array([1.0, -1.0], F)
        norm = tf.compat.v1.nn.fused_batch_norm(
            x, scale, shift, 0 * scale, scale, is_training=False, name=f"norm{number}"
        )
        x = tf.nn.relu(norm[0], name=f"relu{number}")


@pytest.mark.parametrize(
    ("changes", "apart"),
    [
        ({}, {"conv1": False, "conv2": False}),
        ({"skip_fusion_layers": ["conv2"]}, {"conv1": False, "conv2": True}),
        ({"do_fusion": False}, {"conv1": True, "conv2": True}),
    ],
)
def test_a_model_is_saved_with_the_fusion_it_was_calibrated_with(
    built: Callable[[Callable[[], Any]], Any],
    load_pb: Callable[[Path], Any],
    changes: dict[str, Any],
    apart: dict[str, bool],
) -> None:
    graph = built(normed)
    model = frozen(graph)
    feeds = {"x:0": np.random.default_rng(4).normal(size=(8, 6, 6, 2))}
    (expected,) = results(graph, feeds, "relu2:0")
    calibrated(load_pb(model), feeds, "relu2:0", **changes)
    assert {name: entry.skip_fusion for name, entry in load_record(RECORD).items()} == apart
    saved = amct.save_model(model, ["relu2:0"], RECORD, "out/model")
    int8 = load_pb(saved.model)
    kept = [f"conv{op.name[-1]}" for op in int8.get_operations() if op.type.startswith("FusedBatchNorm")]
    assert kept == [name for name, one in apart.items() if one]
    (found,) = results(int8, feeds, "relu2:0")
    assert np.abs(found - expected).max() < 0.03 * expected.max()


def test_a_record_of_other_weights_is_refused(
    built: Callable[[Callable[[], Any]], Any], load_pb: Callable[[Path], Any]
) -> None:
    """A record that was made with batch norms folded in does not fit a model of which an output lies before them."""
    graph = built(normed)
    model = frozen(graph)
    feeds = {"x:0": np.ones((1, 6, 6, 2))}
    calibrated(load_pb(model), feeds, "relu2:0")
    message = r"record.txt: conv2: its scale_w is not what calibration gives the weight of this model; .*calib_outputs"
    with pytest.raises(PlanError, match=message):
        amct.save_model(model, ["conv2:0"], RECORD, "x")
    live = load_pb(model)
    amct.create_quant_config(CONFIG, live)
    amct.quantize_model(live, CONFIG, RECORD, calib_outputs=["conv2:0"])
    import tensorflow as tf

    with live.as_default(), tf.compat.v1.Session() as session:
        session.run(tf.compat.v1.global_variables_initializer())
        session.run("conv2:0", feeds)
    amct.save_model(model, ["conv2:0"], RECORD, "x")


def edited(record: Path, **changes: Any) -> Path:
    """The record with entries put in (or, as None, taken out)."""
    entries = {name: entry for name, entry in {**load_record(record), **changes}.items() if entry is not None}
    save_record(entries, record)
    return record


MATMUL = LayerRecord(Affine(1.0, 0), (1.0,))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "record.txt: record_file is empty, no layers to be quantized; please ensure calibration is finished"),
        ('record { key: "conv" value { offset_d: 0 } }', "conv: cannot find scale_d of layer conv in record_file"),
        (
            'record { key: "cnv" value { scale_d: 1 offset_d: 0 } }',
            r"record.txt: cnv: find cnv failure in .*tiny.pb; did you mean 'conv'",
        ),
        ('record { key: "Relu" value { scale_d: 1 offset_d: 0 } }', "record.txt: Relu: layer Relu cannot be quantized"),
    ],
)
def test_records_that_do_not_fit_are_refused(tiny: Tiny, text: str, message: str) -> None:
    RECORD.write_text(text)
    for function in (amct.save_model, amct.convert_model):
        with pytest.raises(PlanError, match=message):
            function(tiny.model, ["scores:0"], RECORD, "x")
    assert not list(Path.cwd().glob("x*"))


def test_a_bias_beyond_int32_names_the_layer(tiny: Tiny) -> None:
    small = float(F(1.3e-7))
    save_record({"conv": LayerRecord(Affine(small, 0), (small,))}, RECORD)
    with pytest.raises(TrialError, match=r"conv: its quantized bias .* exceeds int32; leave the layer in float"):
        amct.convert_model(tiny.model, ["scores:0"], RECORD, "x")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"pb_model": "none.pb"}, ModelError, "none.pb: there is no such file"),
        ({"outputs": ["score:0"]}, ModelError, "score:0: no such output in the graph; did you mean 'scores'"),
        ({"outputs": []}, UsageError, "outputs: no output is named; give names of tensors"),
        ({"outputs": " ;"}, UsageError, "outputs: no output is named"),
        ({"outputs": None}, UsageError, "outputs: expected names of tensors, got None; give a list"),
        ({"outputs": [1]}, UsageError, r"outputs: expected names of tensors, got \[1\]"),
        ({"save_path": "folder/"}, UsageError, "save_path: 'folder/' names a folder; give a prefix"),
        ({"save_path": ""}, UsageError, "save_path: '' names a folder"),
        ({"save_path": "record.txt/x"}, RunError, "cannot be written"),
        ({"record_file": "none.txt"}, PlanError, "none.txt: cannot be read"),
    ],
)
def test_arguments_that_cannot_be_used(
    tiny: Tiny, record: Path, arguments: dict[str, Any], error: Any, message: str
) -> None:
    given: dict[str, Any] = {"pb_model": tiny.model, "outputs": ["scores:0"], "record_file": record, "save_path": "x"}
    with pytest.raises(error, match=message):
        amct.save_model(**given | arguments)


def test_a_quantized_model_is_not_quantized_again(tiny: Tiny, record: Path) -> None:
    saved = amct.save_model(tiny.model, ["scores:0"], record, "x")
    for function in (amct.save_model, amct.convert_model):
        with pytest.raises(ModelError, match="the model is quantized already; give the float model"):
            function(saved.model, ["scores:0"], record, "y")


def test_scales_of_the_users_own_are_converted(tiny: Tiny, record: Path) -> None:
    own = LayerRecord(Affine(0.125, 3), (float(F(0.03)),))
    edited(record, conv=own, depthwise=None)
    with pytest.raises(PlanError, match="use convert_model for scales of your own"):
        amct.save_model(tiny.model, ["scores:0"], record, "x")
    saved = amct.convert_model(tiny.model, ["scores:0"], record, "x")
    assert check(saved.model, load_record(record)).layers == {"Conv2D": 1, "MatMul": 1}


def test_shift_bit_is_refused(tiny: Tiny, record: Path) -> None:
    edited(record, dense=LayerRecord(Affine(1.0, 0), (1.0,), shift_bit=(0,)))
    with pytest.raises(PlanError, match="shift_bit is not support, please delete shift_bit of layer dense"):
        amct.convert_model(tiny.model, ["scores:0"], record, "x")


def others() -> None:
    """Layers that convert_model does not take: Conv3D, a product with a batch, a dilated depthwise convolution, Add."""
    import tensorflow as tf

    x = tf.compat.v1.placeholder(tf.float32, (None, 6, 6, 2), name="x")
    volume = tf.nn.conv3d(x[:, None], np.ones((1, 1, 1, 2, 2), F), (1, 1, 1, 1, 1), "SAME", name="conv3d")[:, 0]
    wide = tf.compat.v1.nn.depthwise_conv2d_native(
        volume, np.ones((3, 3, 2, 1), F), (1, 1, 1, 1), "SAME", dilations=(1, 2, 2, 1), name="wide"
    )
    rows = tf.reshape(wide, (-1, 36, 2))
    tf.add(tf.linalg.matmul(rows, np.eye(2, dtype=F), name="product"), rows, name="sum")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("conv3d", "conv3d: layer type Conv3D is not supported by convert_model; remove its record; supported are Avg"),
        ("product", r"product: layer type BatchMatMulV2 is not supported"),
        ("wide", "wide: its dilation is 2; convert_model takes depthwise convolutions of dilation 1 only"),
        ("sum:1", r"sum:1: layer type AddV2 is not supported by convert_model"),
    ],
)
def test_layers_that_convert_model_does_not_take(
    built: Callable[[Callable[[], Any]], Any], name: str, message: str
) -> None:
    model = frozen(built(others))
    weights = () if ":" in name else (1.0,)
    save_record({name: LayerRecord(Affine(1.0, 0), weights)}, RECORD)
    with pytest.raises(PlanError, match=message):
        amct.convert_model(model, ["sum:0"], RECORD, "x")


def test_why_a_layer_cannot_be_quantized_is_told(built: Callable[[Callable[[], Any]], Any]) -> None:
    import tensorflow as tf

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, (4, 4), name="x")
        y = tf.matmul(x, np.eye(4, dtype=F), transpose_a=True, name="turned")
        tf.matmul(y, np.eye(4, dtype=F), name="plain")

    model = frozen(built(write))
    save_record({"turned": MATMUL}, RECORD)
    message = r"turned: layer turned cannot be quantized: it transposes a factor \(transpose_a\); remove its record"
    with pytest.raises(PlanError, match=message):
        amct.convert_model(model, ["plain:0"], RECORD, "x")
