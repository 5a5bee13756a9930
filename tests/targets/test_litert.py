"""Saved .tflite files: what in them is INT8, and their numbers against integer arithmetic in NumPy."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.schema_py_generated import TensorType
from lite_networks import IMAGE, LiteNetwork, SavedLite, between_layers, constant, conv, error, named, windows
from numpy.typing import NDArray

from autoquant.calibration.plan import Plan
from autoquant.calibration.ranges import Percentile
from autoquant.errors import PlanError, RunError, TrialError
from autoquant.model.model import Fusion
from autoquant.quantization.affine import Affine
from autoquant.targets.base import NO_CORRECTIONS, Corrections
from autoquant.targets.litert import LiteRTTarget
from autoquant.targets.litert_assignment import conversions, integer_operators

# What is INT8


@pytest.fixture(scope="module")
def chain(lite_network: Callable[..., LiteNetwork]) -> LiteNetwork:
    return lite_network(lambda x: named(conv(conv(conv(x, "a"), "b"), "c")), IMAGE)


def test_all_int8_converts_only_at_the_ends(chain: LiteNetwork, tmp_path: Path) -> None:
    saved = chain.saved(tmp_path / "m")
    assert saved.kinds == ["QUANTIZE", "CONV_2D", "CONV_2D", "CONV_2D", "DEQUANTIZE*"]
    assert 1e-4 < error(chain, saved) < 0.05


def test_a_float_layer_between_two_int8_layers_is_float(chain: LiteNetwork, tmp_path: Path) -> None:
    saved = chain.saved(tmp_path / "m", "b")
    assert saved.kinds == ["QUANTIZE", "CONV_2D", "DEQUANTIZE*", "CONV_2D*", "QUANTIZE", "CONV_2D", "DEQUANTIZE*"]
    op = saved.operator("CONV_2D", 1)
    types = {saved.tensor(index).type for index in (*op.inputs, *op.outputs)}
    assert types == {TensorType.FLOAT32}
    np.testing.assert_array_equal(saved.value(op.inputs[1]), chain.lite.constant(chain.layers["b"].weight))
    assert error(chain, saved) < 0.05


def test_all_layers_but_one_in_float(chain: LiteNetwork, tmp_path: Path) -> None:
    made = chain.make(tmp_path / "m", chain.plan("a", "c"))
    assert list(made.record) == ["b"]
    assert made.qdq_ops == 2


def test_int8_ends_have_no_conversions(chain: LiteNetwork, tmp_path: Path) -> None:
    saved = chain.saved(tmp_path / "m", io="int8")
    assert saved.kinds == ["CONV_2D", "CONV_2D", "CONV_2D"]
    output = saved.tensor(saved.graph.outputs[0]).quantization
    real = (saved.run(chain.x)["y"].astype(np.float64) - output.zeroPoint[0]) * output.scale[0]
    want = chain.float_outputs()["y"]
    assert np.linalg.norm(real - want) < 0.05 * np.linalg.norm(want)


def test_a_tensor_that_is_an_output_and_read_by_the_last_layer(
    lite_network: Callable[..., LiteNetwork], tmp_path: Path
) -> None:
    def write(x: Any) -> None:
        first = named(conv(x, "a"), "z")
        named(conv(first, "b"))

    net = lite_network(write, IMAGE, outputs=("z", "y"))
    saved = net.saved(tmp_path / "m")
    assert saved.kinds == ["QUANTIZE", "CONV_2D", "DEQUANTIZE*", "CONV_2D", "DEQUANTIZE*"]
    assert error(net, saved) < 0.05
    assert error(net, saved, "z") < 0.05
    (signature,) = saved.objects.signatureDefs
    by_name = {entry.name.decode(): saved.tensor(entry.tensorIndex) for entry in signature.outputs}
    assert {name: tensor.name.decode() for name, tensor in by_name.items()} == {"z": "z", "y": "y"}
    assert net.saved(tmp_path / "m", io="int8").kinds == ["CONV_2D", "CONV_2D"]


def test_a_residual_addition_is_int8(lite_network: Callable[..., LiteNetwork], tmp_path: Path) -> None:
    net = lite_network(lambda x: named(conv(x, "a") + conv(conv(x, "b"), "c")), IMAGE)
    assert net.saved(tmp_path / "m").kinds.count("ADD") == 1
    saved = net.saved(tmp_path / "m", "b")
    assert saved.kinds == ["QUANTIZE", "CONV_2D", "CONV_2D*", "QUANTIZE", "CONV_2D", "ADD", "DEQUANTIZE*"]
    assert error(net, saved) < 0.05


@pytest.mark.parametrize("kind", list(between_layers()))
def test_operators_between_layers_are_int8(lite_network: Callable[..., LiteNetwork], tmp_path: Path, kind: str) -> None:
    write, wanted = between_layers()[kind]
    net = lite_network(lambda x: named(conv(write(conv(x, "a")), "b", relu=False)), IMAGE)
    path = tmp_path / "m"
    made = net.make(path, net.plan())
    saved = net.saved(path)
    assert wanted <= set(saved.kinds)
    assert (
        made.qdq_ops == 2 == len(conversions(net.lite, integer_operators(net.lite, net.plan(), "float32"), "float32"))
    )
    assert error(net, saved) < 0.05


def test_operators_that_cannot_be_int8_are_float(lite_network: Callable[..., LiteNetwork], tmp_path: Path) -> None:
    import tensorflow as tf

    net = lite_network(lambda x: named(conv(tf.floor(conv(x, "a") - 1.0), "b", relu=False)), IMAGE)
    saved = net.saved(tmp_path / "m")
    middle = ["SUB", "DEQUANTIZE*", "FLOOR*", "QUANTIZE"]
    assert saved.kinds == ["QUANTIZE", "CONV_2D", *middle, "CONV_2D", "DEQUANTIZE*"]


def test_convolution_of_volumes_stays_float(lite_network: Callable[..., LiteNetwork], tmp_path: Path) -> None:
    import tensorflow as tf

    def write(x: Any) -> None:
        volume = tf.reshape(conv(x, "a"), (-1, 8, 8, 2, 2))
        volume = tf.nn.conv3d(volume, constant(2, 2, 2, 2, 2), (1, 1, 1, 1, 1), "SAME", name="volume")
        named(conv(tf.reshape(volume, (-1, 8, 8, 4)), "b"))

    net = lite_network(write, IMAGE)
    assert sorted(net.layers) == ["a", "b"]
    saved = net.saved(tmp_path / "m")
    assert "CONV_3D*" in saved.kinds
    assert saved.kinds.count("CONV_2D") == 2
    assert error(net, saved) < 0.05


def test_nothing_is_dequantized_for_its_shape(lite_network: Callable[..., LiteNetwork], tmp_path: Path) -> None:
    import tensorflow as tf

    def write(x: Any) -> None:
        h = conv(x, "a", stride=2)
        shape = tf.stack([tf.shape(h)[0], 8, 8, 5])
        named(tf.nn.conv2d_transpose(h, constant(3, 3, 5, 4), shape, 2, "SAME", name="up"))

    net = lite_network(write, IMAGE)
    for settings in ({}, {"channel_wise": False}, {"weight_algorithm": "mse"}, {"weight_algorithm": "octav"}):
        saved = net.saved(tmp_path / "m", **settings)
        assert [kind for kind in saved.kinds if "QUANTIZE" in kind] == ["QUANTIZE", "DEQUANTIZE*"]
        assert "TRANSPOSE_CONV" in saved.kinds
        assert error(net, saved) < 0.05


def test_products_of_two_activations(lite_network: Callable[..., LiteNetwork], tmp_path: Path) -> None:
    import tensorflow as tf

    def write(x: Any) -> None:
        query, key = (tf.matmul(x, constant(6, 6), name=name) for name in ("query", "key"))
        tf.matmul(tf.nn.softmax(tf.matmul(query, key, transpose_b=True, name="scores")), key, name="y")

    net = lite_network(write, (None, 5, 6))
    made = net.make(tmp_path / "m", net.plan())
    assert made.qdq_ops == 2
    assert {"scores", "scores:1", "y", "y:1", "query", "key"} == set(made.record)
    assert made.record["scores"].activation.offset == made.record["scores:1"].activation.offset == 0
    assert made.record["scores"].scale_w == ()
    assert error(net, net.saved(tmp_path / "m")) < 0.1


# Ranges


def test_scales_are_those_of_the_first_layer_s_settings(
    lite_network: Callable[..., LiteNetwork], tmp_path: Path
) -> None:
    """Two readers of one tensor want different ranges; a tensor with one reader has that one's."""
    net = lite_network(lambda x: named(conv(x, "a") + conv(conv(x, "b"), "c")), IMAGE)
    first, second = sorted("ab", key=lambda name: net.lite.layers[name])
    plans: dict[str, dict[str, Any]] = {
        first: {"asymmetric": False},
        second: {"activation": Percentile(0.9)},
        "c": {"activation": Percentile(0.6)},
    }
    plan = Plan({name: net.plan(**settings).int8[name] for name, settings in plans.items()})
    record = net.make(tmp_path / "m", plan).record
    low, high = float(net.x.min()), float(net.x.max())
    scale = high / 127 if high > -low else -low / 128
    assert record["a"].activation == record["b"].activation == Affine(float(np.float32(scale)), 0)
    values = net.float_values(net.layers["c"].activations[0])
    assert record["c"].activation.offset == -128
    # the central 60 % of values from 0 up
    assert record["c"].activation.scale == pytest.approx(np.quantile(values, 0.8) / 255, rel=0.02)


def test_tensors_between_keep_one_scale(lite_network: Callable[..., LiteNetwork], tmp_path: Path) -> None:
    """Max pooling cannot rescale; the layer behind it decides over both sides."""
    import tensorflow as tf

    net = lite_network(lambda x: named(conv(tf.nn.max_pool2d(conv(x, "a"), 2, 2, "SAME"), "b")), IMAGE)
    saved = net.saved(tmp_path / "m")
    pool = saved.operator("MAX_POOL_2D")
    before, after = (saved.tensor(index).quantization for index in (pool.inputs[0], pool.outputs[0]))
    values = net.float_values(net.lite.subgraph.tensors[pool.inputs[0]].name.decode()).astype(np.float64)
    assert before.scale[0] == after.scale[0] == np.float32(values.max() / 255)
    assert before.zeroPoint[0] == after.zeroPoint[0] == -128


# Numbers


def integers(saved: SavedLite, op: Any) -> tuple[Any, ...]:
    """Weight, bias, and scale and zero of input, weight and output of a layer, from the file."""
    weight, bias = (saved.value(index) for index in op.inputs[1:3])
    found = [saved.tensor(index).quantization for index in (op.inputs[0], op.inputs[1], op.outputs[0])]
    scales = [np.array(one.scale, np.float64) for one in found]
    zeros = [int(one.zeroPoint[0]) for one in found]
    return weight.astype(np.float64), bias.astype(np.float64), scales, zeros


def rescaled(sums: NDArray[Any], scales: list[NDArray[Any]], zeros: list[int]) -> Any:
    return np.clip(np.rint(sums * scales[0] * scales[1] / scales[2]) + zeros[2], -128, 127)


@pytest.mark.parametrize("settings", [{}, {"channel_wise": False}, {"weight_algorithm": "octav"}], ids=str)
@pytest.mark.parametrize("kind", ["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"])
def test_kernels_compute_integer_arithmetic(
    lite_network: Callable[..., LiteNetwork],
    tmp_path: Path,
    random: np.random.Generator,
    kind: str,
    settings: dict[str, bool | str],
) -> None:
    import tensorflow as tf

    def write(x: Any) -> None:
        if kind == "CONV_2D":
            x = tf.nn.conv2d(x, constant(3, 3, 4, 6), 1, "VALID", name="layer")
        elif kind == "DEPTHWISE_CONV_2D":
            x = tf.nn.depthwise_conv2d(x, constant(3, 3, 4, 2), (1, 1, 1, 1), "VALID", name="layer")
        else:
            x = tf.matmul(tf.reshape(x, (-1, 64)), constant(64, 7), name="layer")
        named(tf.nn.bias_add(x, constant(x.shape[-1])))

    net = lite_network(write, (None, 4, 4, 4) if kind == "FULLY_CONNECTED" else IMAGE)
    saved = net.saved(tmp_path / "m", io="int8", **settings)
    weight, bias, scales, zeros = integers(saved, saved.operator(kind))
    raw = random.integers(-128, 128, (6, *net.x.shape[1:]), dtype=np.int8)
    steps = raw.astype(np.float64) - zeros[0]
    if kind == "CONV_2D":
        sums = np.einsum("nhwcij,oijc->nhwo", windows(steps, 3), weight)
    elif kind == "DEPTHWISE_CONV_2D":
        sums = np.einsum("nhwcij,ijcm->nhwcm", windows(steps, 3), weight.reshape(3, 3, 4, 2)).reshape(6, 6, 6, 8)
    else:
        sums = steps.reshape(6, 64) @ weight.T
    assert saved.tensor(saved.operator(kind).inputs[1]).type == TensorType.INT8
    assert len(scales[1]) == (1 if settings == {"channel_wise": False} else len(bias))
    want, got = rescaled(sums + bias, scales, zeros), saved.run(raw)["y"]
    assert np.abs(got - want).max() <= 1
    assert (got == want).mean() > 0.98


def test_records_say_what_is_in_the_file(chain: LiteNetwork, tmp_path: Path) -> None:
    made = chain.make(tmp_path / "m", chain.plan())
    record = made.record["a"]
    low, high = float(chain.x.min()), float(chain.x.max())
    scale = np.float32((high - low) / 255)
    assert record.activation == Affine(float(scale), round(-128 - low / float(scale)))
    weight = chain.lite.constant(chain.layers["a"].weight)
    np.testing.assert_allclose(record.scale_w, np.abs(weight).max(axis=(1, 2, 3)) / 127.0, rtol=1e-6)


@pytest.mark.parametrize("samples", [1, 7, 64])
def test_the_batch_stays_open(chain: LiteNetwork, tmp_path: Path, samples: int) -> None:
    saved = chain.saved(tmp_path / "m")
    x = np.resize(chain.x, (samples, *chain.x.shape[1:]))
    np.testing.assert_array_equal(saved.run(x)["y"][:1], saved.run(x[:1])["y"])
    assert saved.run(x)["y"].shape == (samples, 8, 8, 4)


def test_constants_that_layers_share(lite_network: Callable[..., LiteNetwork], tmp_path: Path) -> None:
    """One weight and one bias for two layers, of which one is float, or quantized in another way."""
    import tensorflow as tf

    def write(x: Any) -> None:
        weight, bias = constant(3, 3, 4, 4), tf.zeros(4)
        for name in "ab":
            x = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, weight, 1, "SAME", name=name), bias))
        named(x)

    net = lite_network(write, IMAGE)
    np.testing.assert_array_equal(*(net.lite.constant(net.layers[name].weight) for name in "ab"))
    saved = net.saved(tmp_path / "m", "a")
    assert saved.kinds == ["CONV_2D*", "QUANTIZE", "CONV_2D", "DEQUANTIZE*"]
    assert error(net, saved) < 0.05
    settings = {**net.plan().int8, "b": net.plan(channel_wise=False).int8["b"]}
    made = net.make(tmp_path / "m", Plan(settings))
    assert [len(entry.scale_w) for entry in made.record.values()] == [4, 1]


@pytest.mark.parametrize("shared", [False, True])
def test_given_integers_are_the_only_other_bytes(
    lite_network: Callable[..., LiteNetwork], tmp_path: Path, shared: bool
) -> None:
    """The other layer keeps what rounding to nearest gives, also where both have the same weight."""
    import tensorflow as tf

    def write(x: Any) -> None:
        weights = [constant(3, 3, 4, 4)] * 2 if shared else [constant(3, 3, 4, 4), 2 * constant(3, 3, 4, 4)]
        for name, weight in zip("ab", weights, strict=True):
            x = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, weight, 1, "SAME", name=name), tf.zeros(4)))
        named(x)

    net = lite_network(write, IMAGE)
    plan, sizes = net.plan(), []
    integers = np.random.default_rng(1).integers(-128, 128, net.layers["b"].weight_shape).astype(np.int8)
    compiler = LiteRTTarget().compiler(net.model, net.layers, net.statistics)
    records, found = [], []
    for number, corrections in enumerate((NO_CORRECTIONS, Corrections(weights={"b": integers}))):
        path = tmp_path / f"{number}.tflite"
        records.append(compiler.compile(plan, path, corrections=corrections).record)
        saved = SavedLite(path.read_bytes())
        ops = [saved.operator("CONV_2D", index) for index in (0, 1)]
        found.append([(saved.value(op.inputs[1]), saved.tensor(op.inputs[1]).quantization.scale) for op in ops])
        sizes.append(path.stat().st_size)
    assert records[0] == records[1]
    (a, b), (same, other) = found
    np.testing.assert_array_equal(same[0], a[0])
    np.testing.assert_array_equal(other[0], integers)
    np.testing.assert_array_equal(other[1], b[1])
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("algorithm", ["minmax", "mse", "octav"])
@pytest.mark.parametrize("channel_wise", [True, False])
def test_channels_of_zeros_keep_their_bias(
    lite_network: Callable[..., LiteNetwork],
    tmp_path: Path,
    random: np.random.Generator,
    algorithm: str,
    channel_wise: bool,
) -> None:
    import tensorflow as tf

    weight = random.normal(size=(3, 3, 4, 6)).astype(np.float32)
    weight[..., 2], weight[..., 3] = 0.0, weight[..., 3] * 1e-12

    def write(x: Any) -> None:
        named(tf.nn.bias_add(tf.nn.conv2d(x, weight, 1, "SAME", name="layer"), tf.constant([1.0, -2, 3, -4, 5, -6])))

    net = lite_network(write, IMAGE)
    saved = net.saved(tmp_path / "m", weight_algorithm=algorithm, channel_wise=channel_wise)
    output = saved.run(net.x)["y"]
    step = saved.tensor(saved.operator("CONV_2D").outputs[0]).quantization.scale[0]
    np.testing.assert_allclose(output[..., 2], 3.0, atol=step)
    np.testing.assert_allclose(output[..., 3], -4.0, atol=step)
    assert error(net, saved) < 0.1


# The maker


def test_the_same_plan_gives_the_same_bytes_whatever_was_made_before(chain: LiteNetwork, tmp_path: Path) -> None:
    compiler = LiteRTTarget().compiler(chain.model, chain.layers, chain.statistics)
    compiler.compile(chain.plan("b", weight_algorithm="mse"), tmp_path / "other")
    compiler.compile(chain.plan(), tmp_path / "one")
    chain.make(tmp_path / "two", chain.plan())
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"fp16_scales": True}, "FORCE_FP16_QUANT"), ({"fusion": Fusion(enabled=False)}, "do_fusion")],
)
def test_plans_that_no_tflite_can_follow(
    chain: LiteNetwork, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(PlanError, match=f"{message}.*choose --target tensorflow"):
        chain.make(tmp_path / "m", Plan(chain.plan().layers, **changes))


def test_weights_of_fewer_bits_are_refused(chain: LiteNetwork, tmp_path: Path) -> None:
    from dataclasses import replace

    few = {name: replace(settings, weight_bits=6) for name, settings in chain.plan().int8.items()}
    with pytest.raises(PlanError, match="a: weights of 6 bits"):
        chain.make(tmp_path / "m", Plan(few))


def test_values_without_a_scale_name_the_layer(
    lite_network: Callable[..., LiteNetwork], tmp_path: Path, random: np.random.Generator
) -> None:
    x = random.normal(size=(4, 8, 8, 4)).astype(np.float32)
    x[0, 0, 0, 0] = np.nan
    net = lite_network(lambda x: named(conv(x, "a")), IMAGE, x=x)
    with pytest.raises(TrialError, match="a: its input held 1 NaN"):
        net.make(tmp_path / "m", net.plan())
    assert not (tmp_path / "m").exists()


def test_a_result_without_a_scale_names_the_layer_that_makes_it(
    lite_network: Callable[..., LiteNetwork], tmp_path: Path
) -> None:
    x = np.full((4, 8, 8, 4), 1e9, np.float32)
    net = lite_network(lambda x: named(conv(conv(x * 1e-9, "a") * 1e-3, "b", relu=False) * 1e12), IMAGE, x=x)
    with pytest.raises(TrialError, match=r"b: calculate scale failed: .*quant_enable false in its config"):
        net.make(tmp_path / "m", net.plan())


def test_a_step_of_the_input_that_is_worth_too_much_names_the_layer(
    lite_network: Callable[..., LiteNetwork], tmp_path: Path, random: np.random.Generator
) -> None:
    """XNNPACK refuses such a file as a whole."""
    x = np.concatenate([random.uniform(0, 8e4, (64, 1)), random.uniform(0, 1, (64, 3))], axis=1).astype(np.float32)

    def write(x: Any) -> Any:
        import tensorflow as tf

        weight = np.concatenate([np.full((1, 8), 1e-6), random.normal(size=(3, 8))]).astype(np.float32)
        return named(tf.matmul(x, tf.constant(weight), name="a"))

    net = lite_network(write, (None, 4), x=x)
    with pytest.raises(TrialError, match=r"a: one step of its input is worth \d+\S* of its output, .* less than 256"):
        net.make(tmp_path / "m", net.plan())


def test_a_disk_that_refuses(chain: LiteNetwork, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        chain.make(tmp_path / "file" / "m", chain.plan())


def test_ends_of_another_type_are_refused() -> None:
    with pytest.raises(ValueError, match="float32 or int8, not uint8"):
        LiteRTTarget("uint8")


def test_nothing_is_printed(chain: LiteNetwork, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    chain.make(tmp_path / "m", chain.plan())
    assert capfd.readouterr() == ("", "")


def test_a_tflite_is_quantized_without_tensorflow(chain: LiteNetwork, tmp_path: Path) -> None:
    (tmp_path / "float.tflite").write_bytes(chain.lite.content)
    code = """if True:
    import sys, numpy as np
    from pathlib import Path
    from autoquant.calibration.plan import LayerPlan, Plan, layer_plan
    from autoquant.calibration.ranges import MinMax
    from autoquant.calibration.statistics import collect
    from autoquant.model.open import open_model
    from autoquant.targets.table import open_target
    folder, target = Path(sys.argv[1]), open_target("litert")
    model = target.lowered(open_model(folder / "float.tflite"))
    layers = target.survey(model, {}).by_name
    seen = {name: np.linspace(-1, 3, 50, dtype=np.float32) for name in target.tensors(model, layers)}
    plan = Plan({name: layer_plan(layer, LayerPlan(MinMax())) for name, layer in layers.items()})
    made = target.compiler(model, layers, collect([(1, [seen])], key="")).compile(plan, folder / "int8.tflite")
    print(len(made.record), made.qdq_ops, "tensorflow" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "2", "False"]


def test_no_conversion_is_undone_by_the_next(chain: LiteNetwork, tmp_path: Path) -> None:
    for number, in_float in enumerate([(), ("a",), ("b",), ("c",), ("a", "b")]):
        saved = chain.saved(tmp_path / f"{number}", *in_float)
        assert not any(pair == ("DEQUANTIZE*", "QUANTIZE") for pair in pairwise(saved.kinds))
        read = {int(index) for op in saved.graph.operators for index in op.inputs} | set(map(int, saved.graph.outputs))
        assert all(int(op.outputs[0]) in read for op in saved.graph.operators)


def test_a_conv1d_network_converts_only_at_the_ends(lite_network: Callable[..., LiteNetwork], tmp_path: Path) -> None:
    """As many operators in INT8, and as few conversions, as TFLiteConverter gives it."""
    import tensorflow as tf

    def conv1d(x: Any, name: str, padding: str, stride: int = 1, dilation: int = 1) -> Any:
        weight = constant(3, int(x.shape[-1]), 4)
        x = tf.nn.convolution(x, weight, stride, padding, dilations=dilation, name=name)
        return tf.nn.relu(tf.nn.bias_add(x, constant(4)))

    def write(x: Any) -> None:
        x = conv1d(x, "plain", "SAME")
        x = conv1d(x, "strided", "SAME", stride=2)
        x = conv1d(x, "dilated", "SAME", dilation=2)
        x = conv1d(tf.pad(x, [[0, 0], [4, 0], [0, 0]]), "causal", "VALID", dilation=2)
        x = tf.squeeze(tf.nn.max_pool2d(tf.expand_dims(x, 1), (1, 2), (1, 2), "VALID"), [1])
        named(tf.linalg.matmul(tf.reduce_mean(x, 1), constant(4, 3), name="dense"))

    net = lite_network(write, (None, 32, 4))
    saved = net.saved(tmp_path / "m")
    assert len(net.layers) == 5
    assert [kind for kind in saved.kinds if kind.endswith("*")] == ["DEQUANTIZE*"]
    assert saved.kinds.count("QUANTIZE") == 1
    assert error(net, saved) < 0.1
