"""Saved graphs on LiteRT against TensorFlow: every type of layer, every form that it can have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoquant.calibration.channels import collect_moments
from autoquant.calibration.plan import LayerPlan, Plan, layer_plan
from autoquant.calibration.ranges import Ifmr
from autoquant.calibration.record import LayerRecord
from autoquant.calibration.statistics import collect
from autoquant.errors import TrialError
from autoquant.evaluation.engines.fake_quant import FakeQuantEngine, step_of
from autoquant.evaluation.engines.tensorflow import TensorFlowEngine
from autoquant.evaluation.passes import CalibrationRunner
from autoquant.model.graph import Graph
from autoquant.model.litert import flatbuffer
from autoquant.model.model import Fusion, Model
from autoquant.model.nodes import changed_node
from autoquant.model.open import open_model, prepare_graph
from autoquant.model.survey import survey_graph
from autoquant.quantization.affine import Affine
from autoquant.targets.base import NO_CORRECTIONS, Corrections
from autoquant.targets.saved_graph import read_saved_graph
from autoquant.targets.tensorflow import TensorFlowTarget
from autoquant.tuning.inputs import open_splits
from autoquant.tuning.repairs.equalization import equalized_program
from autoquant.tuning.study.model_request import DataRequest

STEP, OFFSET = 0.125, -3


def ops() -> Any:
    import tensorflow as tf

    return tf.raw_ops


def graph_of(write: Callable[..., Any], *, fusion: bool = True, **shapes: Any) -> Graph:
    """The normalized graph that a function writes: it is given its placeholders, and names its output `y`."""
    import tensorflow as tf

    with tf.Graph().as_default() as tf_graph:
        write(*(tf.compat.v1.placeholder(tf.float32, shape, name=name) for name, shape in shapes.items()))
    graph = Graph.from_graph_def(tf_graph.as_graph_def(), inputs=list(shapes), outputs=["y"])
    return prepare_graph(graph, fusion=Fusion(enabled=fusion))


def both(
    graph: Graph, record: Any, folder: Path, feeds: Any, corrections: Corrections = NO_CORRECTIONS
) -> tuple[Any, Any]:
    """What a saved graph gives on LiteRT, and in TensorFlow."""
    layers = survey_graph(graph).by_name
    path = folder / "model.pb"
    TensorFlowTarget().save(graph, layers, record, path, corrections)
    engines = (FakeQuantEngine.of(graph, layers.values()), TensorFlowEngine())
    ours, theirs = (engine.open_file(path, graph)(feeds)["y"] for engine in engines)
    return ours, theirs


def check_same(
    graph: Graph, record: Any, folder: Path, corrections: Corrections = NO_CORRECTIONS, **feeds: Any
) -> None:
    """On LiteRT as in TensorFlow, up to rounding in float32; and not as the float graph has it."""
    ours, theirs = both(graph, record, folder, feeds, corrections)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-6 * np.abs(theirs).max())
    plain = TensorFlowEngine().open_graph(graph)(feeds)["y"]
    assert np.abs(plain - theirs).max() > 1e-4 * np.abs(theirs).max()


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(3)


def on_grid(random: np.random.Generator, *shape: int) -> Any:
    """Multiples of a sixteenth, half of them in the middle between two steps, some beyond what INT8 covers."""
    return (random.integers(-320, 320, shape) / 16.0).astype(np.float32)


def scales(random: np.random.Generator, count: int) -> tuple[float, ...]:
    return tuple(map(float, random.uniform(0.005, 0.02, count).astype(np.float32)))


def deconv(x: Any, w: Any) -> Any:
    import tensorflow as tf

    shape = tf.stack([tf.shape(x)[0], 8, 11, 4])
    return tf.nn.conv2d_transpose(x, w, shape, (1, 2, 3, 1), padding="SAME", name="layer")


WEIGHTED: dict[str, tuple[tuple[int, ...], tuple[int, ...], int, int, Callable[[Any, Any], Any]]] = {
    "MatMul": ((6, 5), (5, 4), 1, 5, lambda x, w: ops().MatMul(a=x, b=w, name="layer")),
    "MatMul, square": ((6, 4), (4, 4), 1, 4, lambda x, w: ops().MatMul(a=x, b=w, name="layer")),
    "BatchMatMul": ((6, 5), (5, 4), 1, 5, lambda x, w: ops().BatchMatMul(x=x, y=w, name="layer")),
    "BatchMatMulV2": ((3, 6, 5), (5, 4), 1, 5, lambda x, w: ops().BatchMatMulV2(x=x, y=w, name="layer")),
    "Conv2D": (
        (2, 7, 8, 3),
        (3, 2, 3, 4),
        4,
        3,
        lambda x, w: ops().Conv2D(input=x, filter=w, strides=[1, 2, 1, 1], padding="SAME", name="layer"),
    ),
    "Conv2D of one channel": (
        (2, 7, 8, 1),
        (3, 2, 1, 4),
        4,
        1,
        lambda x, w: ops().Conv2D(input=x, filter=w, strides=[1, 1, 1, 1], padding="VALID", name="layer"),
    ),
    "DepthwiseConv2dNative": (
        (2, 7, 8, 3),
        (3, 3, 3, 2),
        6,
        3,
        lambda x, w: ops().DepthwiseConv2dNative(input=x, filter=w, strides=[1, 2, 2, 1], padding="SAME", name="layer"),
    ),
    "DepthwiseConv2dNative of one channel": (
        (2, 7, 8, 1),
        (3, 3, 1, 2),
        2,
        1,
        lambda x, w: ops().DepthwiseConv2dNative(
            input=x, filter=w, strides=[1, 2, 2, 1], padding="VALID", name="layer"
        ),
    ),
    "Conv3D": (
        (2, 4, 5, 6, 3),
        (2, 3, 3, 3, 4),
        1,
        3,
        lambda x, w: ops().Conv3D(input=x, filter=w, strides=[1, 1, 2, 2, 1], padding="SAME", name="layer"),
    ),
    "Conv2DBackpropInput": ((2, 4, 4, 3), (2, 2, 4, 3), 4, 3, deconv),
}
"""Name -> shapes of data and weight, the most weight scales there can be, input channels, how TensorFlow writes it."""


def weighted(name: str, weight: Any, bias: Any | None) -> Graph:
    """One layer, its bias where there is one, and a Relu that the converter joins with it."""
    shape, _, _, _, write = WEIGHTED[name]

    def network(x: Any) -> None:
        import tensorflow as tf

        y = write(x, tf.constant(weight))
        if bias is not None:
            y = tf.raw_ops.BiasAdd(value=y, bias=tf.constant(bias), name="bias")
        tf.raw_ops.Relu(features=y, name="y")

    return graph_of(network, x=(None, *shape[1:]))


@pytest.mark.parametrize("with_bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("name", WEIGHTED)
def test_layers_with_a_weight(random: np.random.Generator, tmp_path: Path, name: str, with_bias: bool) -> None:
    shape, weight_shape, count, _, _ = WEIGHTED[name]
    weight = random.normal(size=weight_shape).astype(np.float32)
    channels = {"Depthwise": weight_shape[-1] * weight_shape[-2], "Conv2DBack": weight_shape[-2]}
    size = next((found for prefix, found in channels.items() if name.startswith(prefix)), weight_shape[-1])
    bias = random.normal(size=size).astype(np.float32) if with_bias else None
    record = {"layer": LayerRecord(Affine(STEP, OFFSET), scales(random, count))}
    check_same(weighted(name, weight, bias), record, tmp_path, x=on_grid(random, *shape))


@pytest.mark.parametrize("name", [name for name in WEIGHTED if not name.endswith("one channel")])
def test_balanced_layers(random: np.random.Generator, tmp_path: Path, name: str) -> None:
    shape, weight_shape, count, channels, _ = WEIGHTED[name]
    weight = random.normal(size=weight_shape).astype(np.float32)
    balance = tuple(map(float, 2.0 ** random.integers(-2, 3, channels)))
    record = {"layer": LayerRecord(Affine(STEP, OFFSET), scales(random, count), balance=balance)}
    check_same(weighted(name, weight, None), record, tmp_path, x=on_grid(random, *shape))


def test_scales_that_binary_fractions_are_not(random: np.random.Generator, tmp_path: Path) -> None:
    weight = random.normal(size=(3, 2, 3, 4)).astype(np.float32)
    graph = weighted("Conv2D", weight, random.normal(size=4).astype(np.float32))
    scale = float(np.float32(0.0371))
    record = {"layer": LayerRecord(Affine(scale, 17), scales(random, 4))}
    check_same(graph, record, tmp_path, x=random.normal(size=(2, 7, 8, 3)).astype(np.float32) * 3)


@pytest.mark.parametrize("scale", np.random.default_rng(0).uniform(1e-6, 3.0, 50).astype(np.float32).tolist())
def test_the_step_is_found_again_by_its_inverse(scale: float) -> None:
    inverse = float(np.float32(1.0) / np.float32(scale))
    assert float(np.float32(1.0) / np.float32(step_of(inverse))) == inverse


def test_channels_first(random: np.random.Generator, tmp_path: Path) -> None:
    weight, bias = random.normal(size=(3, 3, 2, 4)).astype(np.float32), random.normal(size=4).astype(np.float32)

    def write(x: Any) -> None:
        import tensorflow as tf

        first = {"data_format": "NCHW"}
        y = tf.raw_ops.Conv2D(
            input=x, filter=tf.constant(weight), strides=[1] * 4, padding="SAME", name="layer", **first
        )
        y = tf.raw_ops.BiasAdd(value=y, bias=tf.constant(bias), name="bias", **first)
        tf.raw_ops.Relu(features=y, name="y")

    record = {"layer": LayerRecord(Affine(STEP, OFFSET), scales(random, 4), balance=(0.5, 4.0))}
    graph = graph_of(write, x=(None, 2, 5, 6))
    layers = survey_graph(graph).by_name
    TensorFlowTarget().save(graph, layers, record, tmp_path / "model.pb")
    engine = FakeQuantEngine.of(graph, layers.values())
    assert not engine.activations  # their channels are on another axis in the .tflite
    x = on_grid(random, 3, 2, 5, 6)
    got = engine.open_file(tmp_path / "model.pb", graph)({"x": x})["y"]
    # TensorFlow does not run it on a CPU: the same with channels last, in float64
    inner = np.clip(np.rint(x * np.array([0.5, 4.0]).reshape(1, 2, 1, 1) ** -1 / STEP) + OFFSET, -128, 127) - OFFSET
    padded = np.pad(inner * STEP, ((0, 0), (0, 0), (1, 1), (1, 1)))
    balanced = weight.astype(np.float64) * np.array([0.5, 4.0]).reshape(1, 1, 2, 1)
    scale_w = np.array(record["layer"].scale_w)
    weights = np.clip(np.rint(balanced / scale_w), -128, 127) * scale_w
    sums = sum(
        np.einsum("bchw,co->bohw", padded[:, :, i : i + 5, j : j + 6], weights[i, j])
        for i in range(3)
        for j in range(3)
    )
    unit = STEP * scale_w
    want = np.maximum(sums + (np.rint(bias / unit) * unit).reshape(1, 4, 1, 1), 0.0)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * want.max())


@pytest.mark.parametrize("op", ["BatchMatMul", "BatchMatMulV2"])
def test_product_of_two_activations(random: np.random.Generator, tmp_path: Path, op: str) -> None:
    graph = graph_of(lambda a, b: getattr(ops(), op)(x=a, y=b, name="y"), a=(None, 4, 5), b=(None, 5, 3))
    record = {"y": LayerRecord(Affine(STEP, 0)), "y:1": LayerRecord(Affine(0.25, 0))}
    check_same(graph, record, tmp_path, a=on_grid(random, 2, 4, 5), b=on_grid(random, 2, 5, 3))


@pytest.mark.parametrize("same", ["SAME", "VALID"])
def test_average_pooling(random: np.random.Generator, tmp_path: Path, same: str) -> None:
    def write(x: Any) -> None:
        ops().AvgPool(value=x, ksize=[1, 3, 2, 1], strides=[1, 2, 2, 1], padding=same, name="y")

    record = {"y": LayerRecord(Affine(STEP, OFFSET))}
    check_same(graph_of(write, x=(None, 8, 7, 3)), record, tmp_path, x=on_grid(random, 2, 8, 7, 3))


def pooled_sum(a: Any, b: Any) -> None:
    """A MaxPool and an addition that read the same tensor, which a third operator reads too."""
    import tensorflow as tf

    left = tf.raw_ops.Relu(features=a, name="left")
    right = tf.raw_ops.Sigmoid(x=b, name="right")
    both = tf.raw_ops.AddV2(x=left, y=right, name="sum")
    pool = tf.raw_ops.MaxPool(input=left, ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1], padding="VALID", name="pool")
    parts = [tf.reduce_sum(tensor, [1, 2]) for tensor in (both, pool, left)]
    product = tf.raw_ops.MatMul(a=parts[0], b=tf.constant(np.arange(6, dtype=np.float32).reshape(3, 2)), name="layer")
    tf.concat([*parts, product], 1, name="y")


@pytest.mark.parametrize("quantized", [("sum:0",), ("sum:1",), ("pool:0",), ("sum:0", "pool:0")], ids=str)
def test_single_inputs(random: np.random.Generator, tmp_path: Path, quantized: tuple[str, ...]) -> None:
    record = {name: LayerRecord(Affine(STEP, OFFSET)) for name in quantized}
    a, b = on_grid(random, 2, 4, 4, 3) + np.float32(0.01), on_grid(random, 2, 4, 4, 3) / 16
    check_same(graph_of(pooled_sum, a=(None, 4, 4, 3), b=(None, 4, 4, 3)), record, tmp_path, a=a, b=b)


def test_two_readers_of_a_tensor_have_their_own_scales(random: np.random.Generator, tmp_path: Path) -> None:
    """Their biases are equal, so that the converter keeps one constant for both."""
    weights, bias = random.normal(size=(2, 5, 4)).astype(np.float32), random.normal(size=4).astype(np.float32)

    def write(x: Any) -> None:
        import tensorflow as tf

        parts = [
            tf.nn.bias_add(tf.raw_ops.MatMul(a=x, b=tf.constant(w), name=f"layer{i}"), tf.constant(bias))
            for i, w in enumerate(weights)
        ]
        tf.concat(parts, 1, name="y")

    record = {f"layer{i}": LayerRecord(Affine(STEP * (i + 1), i), scales(random, 1)) for i in range(2)}
    check_same(graph_of(write, x=(None, 5)), record, tmp_path, x=on_grid(random, 6, 5))
    check_same(graph_of(write, x=(None, 5)), {"layer1": record["layer1"]}, tmp_path, x=on_grid(random, 6, 5))


@pytest.mark.parametrize(("scale", "pairs"), [(STEP, 1), (2 * STEP, 2)])
def test_layers_that_quantize_a_tensor_alike_share_it(
    random: np.random.Generator, tmp_path: Path, scale: float, pairs: int
) -> None:
    weights = random.normal(size=(2, 5, 4)).astype(np.float32)

    def write(x: Any) -> None:
        import tensorflow as tf

        tf.concat([tf.raw_ops.MatMul(a=x, b=tf.constant(w), name=f"layer{i}") for i, w in enumerate(weights)], 1, "y")

    record = {f"layer{i}": LayerRecord(Affine(s, 1), scales(random, 1)) for i, s in enumerate((STEP, scale))}
    graph = graph_of(write, x=(None, 5))
    check_same(graph, record, tmp_path, x=on_grid(random, 6, 5))
    content = FakeQuantEngine.of(graph, survey_graph(graph).layers).content(read_saved_graph(tmp_path / "model.pb"))
    model = flatbuffer.read(content)
    assert [flatbuffer.op_name(model, op) for op in model.subgraphs[0].operators].count("QUANTIZE") == pairs


def test_a_relu6_that_a_quantizer_makes_superfluous(random: np.random.Generator, tmp_path: Path) -> None:
    weights = random.normal(size=(2, 4, 4)).astype(np.float32)

    def write(x: Any) -> None:
        import tensorflow as tf

        hidden = tf.nn.relu6(tf.raw_ops.MatMul(a=x, b=tf.constant(weights[0]), name="first"))
        tf.raw_ops.MatMul(a=hidden, b=tf.constant(weights[1]), name="y")

    record = {
        "first": LayerRecord(Affine(STEP, OFFSET), scales(random, 1)),
        "y": LayerRecord(Affine(float(np.float32(5.5 / 255)), -128), scales(random, 1)),
    }
    check_same(graph_of(write, x=(None, 4)), record, tmp_path, x=on_grid(random, 9, 4))


def test_the_float_weights_are_left_out(random: np.random.Generator, tmp_path: Path) -> None:
    """So the file is no larger than that of the float model, but for its quantizers."""
    weight = random.normal(size=(60, 50)).astype(np.float32)

    def write(x: Any) -> None:
        import tensorflow as tf

        ops().MatMul(a=x, b=tf.constant(weight), name="y")

    graph = graph_of(write, x=(None, 60))
    layers = survey_graph(graph).by_name
    TensorFlowTarget().save(graph, layers, {"y": LayerRecord(Affine(STEP, OFFSET), (0.015625,))}, tmp_path / "model.pb")
    engine = FakeQuantEngine.of(graph, layers.values())
    before = bytes(engine.lite.content)
    content = engine.content(read_saved_graph(tmp_path / "model.pb"))
    assert weight.nbytes < len(content) < 1.5 * weight.nbytes
    assert engine.lite.content == flatbuffer.write(engine.lite.model) == before  # shared, and left alone


def test_a_shift_is_refused(random: np.random.Generator, tmp_path: Path) -> None:
    graph = weighted("Conv2D", random.normal(size=(3, 2, 3, 4)).astype(np.float32), None)
    record = {"layer": LayerRecord(Affine(STEP, OFFSET), scales(random, 4), shift_bit=(1, 2, 3, 1))}
    with pytest.raises(TrialError, match=r"layer: its shift_bit has no counterpart.*--engine tensorflow"):
        both(graph, record, tmp_path, {"x": on_grid(random, 2, 7, 8, 3)})


@pytest.mark.parametrize("name", WEIGHTED)
def test_a_bias_of_zeros_that_is_corrected(random: np.random.Generator, tmp_path: Path, name: str) -> None:
    """The converter leaves it out, so that a saved graph has one that the .tflite has not."""
    shape, weight_shape, count, _, _ = WEIGHTED[name]
    channels = {"Depthwise": weight_shape[-1] * weight_shape[-2], "Conv2DBack": weight_shape[-2]}
    size = next((found for prefix, found in channels.items() if name.startswith(prefix)), weight_shape[-1])
    graph = weighted(name, random.normal(size=weight_shape).astype(np.float32), np.zeros(size, np.float32))
    record = {"layer": LayerRecord(Affine(STEP, OFFSET), scales(random, count))}
    corrections = Corrections({"layer": random.normal(size=size)})
    check_same(graph, record, tmp_path, corrections, x=on_grid(random, *shape))


def padded(x: Any, w: Any) -> Any:
    import tensorflow as tf

    return conv(tf.raw_ops.Pad(input=x, paddings=[[0, 0], [0, 1], [0, 1], [0, 0]]), w)


def conv(x: Any, w: Any) -> Any:
    return ops().Conv2D(input=x, filter=w, strides=[1, 2, 2, 1], padding="VALID", name="layer")


def rescaled(x: Any) -> Any:
    return ops().Mul(x=x, y=np.array([0.5, 0.25, 4.0], np.float32), name="rescaled")


JOINED: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Any], Any]]] = {
    "a rescaling before it": (lambda x, w: conv(rescaled(x), w), lambda y: y),
    "a rescaling before its padding": (lambda x, w: padded(rescaled(x), w), lambda y: y),
    "a shift before it": (lambda x, w: conv(ops().AddV2(x=rescaled(x), y=np.float32(0.5)), w), lambda y: y),
    "a rescaling behind it": (conv, lambda y: ops().Mul(x=y, y=np.array([0.5, 2.0, 3.0, -1.0], np.float32))),
}
"""What the converter folds into the weight of a convolution: what makes its data, and what reads it."""


@pytest.mark.parametrize("name", JOINED)
def test_a_layer_that_the_converter_joins_with_another_operator(
    random: np.random.Generator, tmp_path: Path, name: str
) -> None:
    before, behind = JOINED[name]
    weight, bias = random.normal(size=(3, 2, 3, 4)).astype(np.float32), random.normal(size=4).astype(np.float32)

    def write(x: Any) -> None:
        import tensorflow as tf

        y = tf.raw_ops.BiasAdd(value=before(x, tf.constant(weight)), bias=tf.constant(bias))
        tf.raw_ops.Relu(features=behind(y), name="y")

    graph = graph_of(write, fusion=False, x=(None, 7, 8, 3))
    engine = FakeQuantEngine.of(graph, survey_graph(graph).layers)
    assert not engine.reasons and engine.lite.inputs == ("x",) and engine.lite.outputs == ("y",)
    record = {"layer": LayerRecord(Affine(STEP, OFFSET), scales(random, 4))}
    x = on_grid(random, 3, 7, 8, 3)
    check_same(graph, record, tmp_path, x=x)
    activation = survey_graph(graph).by_name["layer"].activations[0]
    ours, theirs = (one.open_graph(graph, [activation])({"x": x})[activation] for one in (engine, TensorFlowEngine()))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_an_input_of_an_addition_that_the_converter_left_out_has_a_reason(
    random: np.random.Generator, tmp_path: Path
) -> None:
    weight = random.normal(size=(5, 4)).astype(np.float32)

    def write(x: Any) -> None:
        import tensorflow as tf

        nothing = tf.raw_ops.AddV2(x=x, y=tf.constant(np.zeros(5, np.float32)), name="nothing")
        tf.raw_ops.MatMul(a=nothing, b=tf.constant(weight), name="y")

    graph = graph_of(write, fusion=False, x=(None, 5))
    survey = survey_graph(graph)
    engine = FakeQuantEngine.of(graph, (*survey.layers, *survey.tensors))
    assert engine.reasons == {"nothing:0": "the converter left no operator for it"}
    record = {"nothing:0": LayerRecord(Affine(STEP, OFFSET))}
    with pytest.raises(TrialError, match="nothing:0: cannot be fake-quantized on LiteRT: the converter left no"):
        both(graph, record, tmp_path, {"x": on_grid(random, 6, 5)})


REAL: dict[str, tuple[str, dict[str, Any]]] = {
    "bed/mid.pb": ("bed/evaluation.npz", {"preprocess": "tf"}),
    "cifar10/resnet8.pb": ("cifar10/evaluation.npz", {}),
    "kws/kws_ref_model.pb": ("kws/evaluation.npz", {}),
    "vww/vww_96.pb": ("vww/evaluation.npz", {"scale": 1 / 255}),
}
"""Model -> its data, and how that is preprocessed."""


@dataclass(frozen=True)
class Real:
    """A real model, opened; what calibration saw of it, channels too; 500 images, and what it gives for them."""

    model: Model
    layers: dict[str, Any]
    engine: FakeQuantEngine
    statistics: Any
    images: Any
    plain: Any


def scores(runner: Any, images: Any) -> Any:
    """The first output, (images, classes), in float64."""
    found = [next(iter(runner(batch.inputs).values())) for batch in images.batches(50)]
    return np.concatenate(found).astype(np.float64)


@pytest.fixture(scope="module", params=REAL)
def real(real_data: Path, request: pytest.FixtureRequest) -> Real:
    data, options = REAL[request.param]
    model = open_model(real_data / request.param)
    samples = open_splits(DataRequest(data=str(real_data / data), **options), model, seed=0)
    layers = {layer.name: layer for layer in survey_graph(model.graph).layers}
    engine = FakeQuantEngine.of(model.graph, layers.values())
    balanced = [name for name, layer in layers.items() if layer.can.balanceable]
    statistics = CalibrationRunner(engine, samples.calibration, 50).statistics(model, layers, [1], balanced=balanced)
    images = samples.evaluation.subset(np.arange(500))
    plain = scores(TensorFlowEngine().open_graph(model.program), images)
    return Real(model, layers, engine, statistics, images, plain)


@pytest.mark.parametrize("dmq", [None, 0.5], ids=["plain", "balanced"])
def test_real_models_give_the_classes_that_they_give_in_tensorflow(real: Real, tmp_path: Path, dmq: Any) -> None:
    """Of 500 images; a value that is rounded to another step moves the layers behind, so outputs differ a little."""
    plan = Plan({name: layer_plan(layer, LayerPlan(Ifmr(), dmq=dmq)) for name, layer in real.layers.items()}, 1)
    path = tmp_path / "model.pb"
    TensorFlowTarget().compiler(real.model, real.layers, real.statistics).compile(plan, path)
    engines = (real.engine, TensorFlowEngine())
    ours, theirs = (scores(engine.open_file(path, real.model.program), real.images) for engine in engines)
    plain = real.plain
    assert (ours.argmax(axis=1) == theirs.argmax(axis=1)).mean() >= 0.998
    assert np.sqrt(((ours - theirs) ** 2).mean()) < 0.15 * np.sqrt(((theirs - plain) ** 2).mean())


def test_activations_are_fetched_from_the_converted_model(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_model(real_data / "cifar10" / "resnet8.pb")
    layers = survey_graph(model.graph).layers
    engine = FakeQuantEngine.of(model.graph, layers)
    monkeypatch.setattr("autoquant.model.litert.convert.convert", lambda graph: pytest.fail("it is converted again"))
    names = sorted({name for layer in layers for name in layer.activations})
    images = np.load(real_data / "cifar10" / "calibration.npz")["x"][:20].astype(np.float32)
    found = engine.open_graph(model.graph, names)({"input": images})
    expected = TensorFlowEngine().open_graph(model.graph, names)({"input": images})
    assert list(found) == names
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-3, atol=1e-3 * np.abs(expected[name]).max())


def unequal(random: np.random.Generator) -> Graph:
    """A network with channels of unlike sizes."""
    sizes = np.array([1.0, 30.0, 0.1, 5.0], np.float32)

    def weight(*shape: int) -> Any:
        return random.normal(size=shape).astype(np.float32)

    def write(x: Any) -> None:
        import tensorflow as tf

        t = tf.nn.bias_add(tf.nn.conv2d(x, weight(3, 3, 3, 4) * sizes, 1, "SAME", name="one"), weight(4) * sizes)
        deep = weight(3, 3, 4, 1) / sizes[:, None]
        t = tf.nn.depthwise_conv2d(tf.nn.relu(t), deep, (1, 1, 1, 1), "SAME", name="deep")
        t = tf.nn.relu(tf.nn.bias_add(t, np.array([30.0, 0.0, 20.0, 1.0], np.float32)))
        two = tf.nn.bias_add(tf.nn.conv2d(t, weight(1, 1, 4, 5), 1, "SAME", name="two"), np.zeros(5, np.float32))
        t = tf.reduce_mean(tf.nn.relu(two), (1, 2))
        tf.nn.bias_add(tf.linalg.matmul(t, weight(5, 3), name="dense"), weight(3), name="y")

    return graph_of(write, x=(None, 8, 8, 3))


def equalized(graph: Graph, x: Any) -> Graph:
    layers = survey_graph(graph).by_name

    def seen(axes: Any) -> Any:
        return collect_moments([TensorFlowEngine().open_graph(graph, sorted(axes))({"x": x})], axes)

    program = equalized_program(graph, layers, seen)
    assert isinstance(program, Graph)
    return program


def test_other_constants_are_put_into_the_converted_model(
    random: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = unequal(random)
    layers = survey_graph(graph).by_name
    engine = FakeQuantEngine.of(graph, layers.values())
    x = random.normal(size=(16, 8, 8, 3)).astype(np.float32)
    program = equalized(graph, x)
    monkeypatch.setattr("autoquant.model.litert.convert.convert", lambda graph: pytest.fail("it is converted again"))
    read = {name for layer in layers.values() for name in layer.activations}
    made = {layer.bias or layer.node for layer in layers.values()} - {"y"}
    for each in (graph, program):
        for names in (None, sorted(read), sorted(made), sorted({*read, *made})):
            found, expected = (one.open_graph(each, names)({"x": x}) for one in (engine, TensorFlowEngine()))
            assert list(found) == (names or ["y"])
            for name, values in expected.items():
                np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-5 * np.abs(values).max())
    before, after = (TensorFlowEngine().open_graph(each, ["one"])({"x": x})["one"] for each in (graph, program))
    assert np.abs(before - after).max() > 0.1 * np.abs(before).max()


@pytest.mark.parametrize(("size", "kernel", "before", "behind"), [(6, 7, 2, 3), (9, 3, 0, 1), (8, 3, 1, 1)])
def test_zeros_that_the_converter_joins_with_a_layer_are_fetched_too(
    random: np.random.Generator, size: int, kernel: int, before: int, behind: int
) -> None:
    """As Keras writes a convolution with strides; a kernel can be larger than what is within the zeros."""
    weight = random.normal(size=(kernel, kernel, 4, 1)).astype(np.float32)

    def write(x: Any) -> None:
        sides = [before, behind]
        padded = ops().Pad(input=x, paddings=[[0, 0], sides, sides, [0, 0]], name="zeros")
        ops().DepthwiseConv2dNative(input=padded, filter=weight, strides=[1, 2, 2, 1], padding="VALID", name="y")

    graph = graph_of(write, x=[None, size, size, 4])
    engine = FakeQuantEngine.of(graph, survey_graph(graph).layers)
    assert "y" in engine.layers
    x = random.normal(size=(3, size, size, 4)).astype(np.float32)
    fetches = ("zeros", "y")
    found, wanted = (one.open_graph(graph, fetches)({"x": x}) for one in (engine, TensorFlowEngine()))
    assert found["zeros"].shape == (3, *[before + size + behind] * 2, 4)
    for name in fetches:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5, atol=1e-5)


def test_a_graph_that_differs_in_more_is_converted_anew(random: np.random.Generator) -> None:
    import tensorflow as tf

    graph = graph_of(lambda x: tf.nn.relu(tf.linalg.matmul(x, tf.ones((3, 2)), name="one"), name="y"), x=(None, 3))
    other = graph.edit(put=[changed_node(graph.nodes["y"], op="Neg")])
    engine = FakeQuantEngine.of(graph, survey_graph(graph).layers)
    x = random.normal(size=(4, 3)).astype(np.float32)
    np.testing.assert_allclose(
        engine.open_graph(other)({"x": x})["y"], -x.sum(axis=1, keepdims=True) * [1, 1], rtol=1e-5
    )


@pytest.mark.parametrize("in_float", [(), ("one", "deep"), ("two", "dense"), ("one", "deep", "two")], ids=str)
def test_equalized_graphs_with_layers_in_float(
    tmp_path: Path, random: np.random.Generator, in_float: tuple[str, ...]
) -> None:
    """Layers in float have the constants of the saved graph, which are not those of the graph that was converted."""
    graph = unequal(random)
    x = random.normal(size=(16, 8, 8, 3)).astype(np.float32)
    target, layers = TensorFlowTarget(), survey_graph(graph).by_name
    program = equalized(graph, x)
    model = Model("net", program, (), "")
    changed = [name for name, one in layers.items() if not np.array_equal(*weights_of(graph, model.graph, one))]
    assert changed == ["one", "deep", "two", "dense"]
    seen = TensorFlowEngine().open_graph(program, sorted(target.tensors(model, layers)))({"x": x})
    statistics = collect([(1, [seen])], key="")
    plans = {name: None if name in in_float else layer_plan(layer, LayerPlan(Ifmr())) for name, layer in layers.items()}
    target.compiler(model, layers, statistics).compile(Plan(plans, equalize=True), tmp_path / "model.pb")
    engines = (FakeQuantEngine.of(graph, layers.values()), TensorFlowEngine())
    ours, theirs = (engine.open_file(tmp_path / "model.pb", graph)({"x": x})["y"] for engine in engines)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-5 * np.abs(theirs).max())


def weights_of(one: Graph, other: Graph, layer: Any) -> Any:
    return one.constant(layer.weight), other.constant(layer.weight)
