"""convert_qat_model: what FakeQuants were trained to becomes the scales of INT8 layers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import autoquant as amct
from autoquant.errors import ModelError, TrialError
from autoquant.formats.record_text import load_record
from autoquant.quantization.affine import Affine
from autoquant.targets.check import check

F = np.float32
RECORD = Path("record.txt")


class Trained:
    """Writes networks of FakeQuants, as training for INT8 leaves them: `x` (batch, 8, 8, 2) -> `y` (batch, 3)."""

    def __init__(self) -> None:
        import tensorflow as tf

        self.tf = tf
        self.rng = np.random.default_rng(5)

    def fake(self, tensor: Any, low: Any, high: Any, **options: Any) -> Any:
        return self.tf.quantization.fake_quant_with_min_max_vars(
            tensor, self.tf.identity(self.tf.constant(F(low))), F(high), **options
        )

    def weight(self, *shape: int, channels: bool = False) -> Any:
        """A weight behind its FakeQuant, of symmetric ranges a little too narrow."""
        values = self.rng.normal(size=shape).astype(F)
        if not channels:
            most = F(0.9 * np.abs(values).max())
            return self.fake(values, -most, most, narrow_range=True)
        most = 0.9 * np.abs(values).max(axis=(0, 1, 2))
        return self.tf.quantization.fake_quant_with_min_max_vars_per_channel(values, -most, most, narrow_range=True)

    def start(self) -> Any:
        return self.tf.compat.v1.placeholder(self.tf.float32, (None, 8, 8, 2), name="x")

    def write(self) -> None:
        tf = self.tf
        x = tf.quantization.fake_quant_with_min_max_args(self.start(), -3.0, 3.5)
        x = tf.nn.conv2d(x, self.weight(3, 3, 2, 4, channels=True), 1, "SAME", name="conv")
        x = self.fake(tf.nn.relu(tf.nn.bias_add(x, np.array([0.1, -0.2, 0.3, 0.0], F))), 0.0, 9.0)
        x = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
        x = tf.compat.v1.nn.depthwise_conv2d_native(x, self.weight(3, 3, 4, 1), (1, 2, 2, 1), "VALID", name="depthwise")
        x = self.fake(tf.nn.relu(x), 0.0, 20.0)
        x = tf.nn.avg_pool2d(x, 2, 2, "VALID", name="pool")
        x = self.fake(tf.reshape(x, (-1, 16)), 0.0, 15.0)
        x = tf.matmul(x, self.weight(16, 3), name="dense")
        tf.nn.bias_add(x, np.array([1.0, 2.0, 3.0], F), name="y")


@pytest.fixture
def trained() -> Trained:
    return Trained()


@pytest.fixture
def images() -> Any:
    return np.random.default_rng(6).normal(size=(64, 8, 8, 2)).astype(F)


def frozen(graph: Any) -> Path:
    Path("qat.pb").write_bytes(graph.as_graph_def().SerializeToString())
    return Path("qat.pb")


def output(graph: Any, images: Any) -> Any:
    import tensorflow as tf

    with tf.compat.v1.Session(graph=graph) as session:
        return session.run("y:0", {"x:0": images})


def test_the_converted_model_computes_what_was_trained(
    built: Callable[[Callable[[], Any]], Any], load_pb: Callable[[Path], Any], trained: Trained, images: NDArray[Any]
) -> None:
    graph = built(trained.write)
    saved = amct.convert_qat_model(frozen(graph), ["y:0"], "out/model", RECORD)
    record = load_record(RECORD)
    assert list(record) == ["conv", "depthwise", "pool", "dense"]
    assert check(saved.model, record).simulation
    int8 = load_pb(saved.model)
    assert not [op.name for op in int8.get_operations() if op.type.startswith("FakeQuant")]
    expected, found = output(graph, images), output(int8, images)
    # One step of dense's input through its largest weight is the most that a tie can make.
    step = record["dense"].activation.scale * record["dense"].scale_w[0] * 127
    assert np.abs(found - expected).max() < step
    assert np.abs(found - expected).max() < 0.01 * np.ptp(expected)
    assert np.median(np.abs(found - expected)) < 1e-4


def test_ranges_of_weights_that_are_not_narrow(
    built: Callable[[Callable[[], Any]], Any], load_pb: Callable[[Path], Any], trained: Trained, images: NDArray[Any]
) -> None:
    """As FakeQuant has them where nothing else is said: only the uppermost of the trained steps is lost."""
    tf, most = trained.tf, np.array([0.7, 0.9, 1.1, 1.3, 1.7, 1.9, 2.3], F)
    wide = tf.quantization.fake_quant_with_min_max_vars_per_channel
    values = trained.rng.uniform(-0.99, 0.99, size=(3, 3, 2, 7)).astype(F) * most

    def write() -> None:
        x = trained.fake(trained.start(), -3.0, 3.5)
        x = tf.nn.conv2d(x, wide(values, -most, most), 1, "SAME", name="conv")
        tf.identity(x, name="y")

    graph = built(write)
    saved = amct.convert_qat_model(frozen(graph), ["y:0"], "model", RECORD)
    np.testing.assert_allclose(load_record(RECORD)["conv"].scale_w, 2 * most / 255, rtol=1e-6)
    np.testing.assert_allclose(output(load_pb(saved.model), images), output(graph, images), atol=1e-4)


def test_the_record_holds_the_trained_ranges(built: Callable[[Callable[[], Any]], Any], trained: Trained) -> None:
    amct.convert_qat_model(frozen(built(trained.write)), "y", "model", RECORD)
    record = load_record(RECORD)
    assert record["conv"].activation.scale == pytest.approx(6.5 / 255, rel=1e-6)
    assert record["conv"].activation.offset == round(3.0 / 6.5 * 255) - 128
    weight = np.random.default_rng(5).normal(size=(3, 3, 2, 4)).astype(F)
    np.testing.assert_allclose(record["conv"].scale_w, 0.9 * np.abs(weight).max(axis=(0, 1, 2)) / 127, rtol=1e-6)
    assert len(record["depthwise"].scale_w) == len(record["dense"].scale_w) == 1
    assert record["pool"].scale_w == ()
    assert record["pool"].activation == Affine(float(F(20 / F(255))), -128)
    assert not any(entry.skip_fusion for entry in record.values())


def test_the_record_converts_the_float_model_too(
    built: Callable[[Callable[[], Any]], Any], load_pb: Callable[[Path], Any], trained: Trained, images: NDArray[Any]
) -> None:
    """What is written as a record is one for convert_model."""
    saved = amct.convert_qat_model(frozen(built(trained.write)), ["y:0"], "trained", RECORD)

    class Float(Trained):
        def fake(self, tensor: Any, low: Any, high: Any, **options: Any) -> Any:
            return tensor

        def weight(self, *shape: int, channels: bool = False) -> Any:
            return self.rng.normal(size=shape).astype(F)

    plain = built(Float().write)
    Path("float.pb").write_bytes(plain.as_graph_def().SerializeToString())
    converted = amct.convert_model("float.pb", ["y:0"], RECORD, "converted")
    expected, found = (output(load_pb(one.model), images) for one in (saved, converted))
    assert np.abs(found - expected).max() < 0.05 * np.ptp(expected)  # -128 instead of -127 in some weights


def test_weights_that_a_batch_norm_would_change_stay_as_they_were_trained(
    built: Callable[[Callable[[], Any]], Any], load_pb: Callable[[Path], Any], trained: Trained, images: NDArray[Any]
) -> None:
    tf = trained.tf

    def write() -> None:
        x = trained.fake(trained.start(), -4.0, 4.0)
        x = tf.nn.conv2d(x, trained.weight(8, 8, 2, 3, channels=True), 1, "VALID", name="conv")
        x = tf.squeeze(
            tf.compat.v1.nn.fused_batch_norm(
                x,
                np.array([3, -2, 1], F),
                np.array([1, 2, 3], F),
                np.array([0, 1, 0], F),
                np.array([4, 1, 9], F),
                is_training=False,
                name="norm",
            )[0],
            (1, 2),
        )
        tf.nn.relu(x, name="y")

    graph = built(write)
    saved = amct.convert_qat_model(frozen(graph), ["y:0"], "model", RECORD)
    assert load_record(RECORD)["conv"].skip_fusion
    expected, found = output(graph, images), output(load_pb(saved.model), images)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_layers_without_both_fakes_stay_in_float_with_a_warning(
    built: Callable[[Callable[[], Any]], Any], trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    tf = trained.tf

    def write() -> None:
        x = trained.fake(tf.reshape(trained.start(), (-1, 128)), -4.0, 4.0)
        x = tf.matmul(x, trained.weight(128, 16), name="first")
        x = tf.matmul(tf.nn.relu(x), trained.weight(16, 16), name="second")
        x = tf.matmul(trained.fake(x, -9.0, 9.0), np.ones((16, 16), F), name="third")
        tf.matmul(x, np.ones((16, 3), F), name="y")

    amct.convert_qat_model(frozen(built(write)), ["y:0"], "model", RECORD)
    assert list(load_record(RECORD)) == ["first"]
    warned = [line.rpartition("[autoquant]: ")[2] for line in capsys.readouterr().err.splitlines() if "WARN" in line]
    assert warned == [
        "second stays in float: its input comes from no FakeQuant",
        "third stays in float: its weight comes from no FakeQuant",
    ]


def crooked(trained: Trained) -> None:
    x = trained.fake(trained.tf.reshape(trained.start(), (-1, 128)), -4.0, 4.0)
    trained.tf.matmul(x, trained.fake(trained.rng.normal(size=(128, 3)).astype(F), -1.0, 2.0, name="crooked"), name="y")


def many_ranges(trained: Trained) -> None:
    tf = trained.tf
    x = trained.fake(tf.reshape(trained.start(), (-1, 128)), -4.0, 4.0)
    weight = tf.quantization.fake_quant_with_min_max_vars_per_channel(
        np.ones((128, 3), F), np.array([-1, -2, -3], F), np.array([1, 2, 3], F), narrow_range=True, name="many"
    )
    tf.matmul(x, weight, name="y")


def huge_bias(trained: Trained) -> None:
    tf = trained.tf
    x = trained.fake(tf.reshape(trained.start(), (-1, 128)), -4.0, 4.0)
    tf.nn.bias_add(tf.matmul(x, trained.weight(128, 3), name="dense"), np.array([1e12, 0, 0], F), name="y")


def no_fakes(trained: Trained) -> None:
    trained.tf.matmul(trained.tf.reshape(trained.start(), (-1, 128)), np.ones((128, 3), F), name="y")


def nothing_around_layers(trained: Trained) -> None:
    x = trained.tf.matmul(trained.tf.reshape(trained.start(), (-1, 128)), np.ones((128, 3), F), name="dense")
    trained.tf.identity(trained.fake(x, -1.0, 1.0), name="y")


@pytest.mark.parametrize(
    ("write", "error", "message"),
    [
        (crooked, ModelError, r"crooked: quantizes a weight with offset -43, not 0; train again with symmetric ranges"),
        (many_ranges, ModelError, r"many: quantizes the weight of 'y' \(MatMul\) with 3 ranges; train again with one"),
        (huge_bias, TrialError, r"dense: its quantized bias .* exceeds int32"),
        (no_fakes, ModelError, r"qat.pb: has no FakeQuant operator: it was not trained for INT8; calibrate it"),
        (nothing_around_layers, ModelError, r"no layer has a FakeQuant before its input and its weight"),
    ],
)
def test_models_that_cannot_be_converted(
    built: Callable[[Callable[[], Any]], Any], trained: Trained, write: Callable[..., Any], error: Any, message: str
) -> None:
    model = frozen(built(lambda: write(trained)))
    with pytest.raises(error, match=message):
        amct.convert_qat_model(model, ["y:0"], "model", RECORD)
    assert {path.name for path in Path.cwd().iterdir()} == {"qat.pb"}
