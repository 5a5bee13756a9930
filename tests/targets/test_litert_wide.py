"""Layers with activations of 16 bits: what in the file is INT16, and its numbers against integers in NumPy float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.schema_py_generated import TensorType
from lite_networks import (
    IMAGE,
    LiteNetwork,
    SavedLite,
    all_values,
    between_layers,
    constant,
    conv,
    error,
    named,
    windows,
)
from numpy.typing import NDArray

from autoquant.calibration.plan import Plan
from autoquant.targets.litert import LiteRTTarget

TYPES = {TensorType.INT8: "8", TensorType.INT16: "16", TensorType.FLOAT32: "float"}
MOST = 2
"""Steps of INT16 that a result may be off: the kernels multiply by numbers of 16 bits."""


def kinds(saved: SavedLite) -> list[str]:
    """Operators in order, each with the type of its first result."""
    graph = saved.graph
    results = [TYPES[graph.tensors[op.outputs[0]].type] for op in graph.operators]
    return [f"{kind.rstrip('*')} {own}" for kind, own in zip(saved.kinds, results, strict=True)]


def widened(net: LiteNetwork, *wide: str, in_float: Sequence[str] = (), **settings: Any) -> Plan:
    """A plan in which these layers have activations of 16 bits, others are INT8."""
    narrow, own = net.plan(*in_float, **settings), net.plan(*in_float, **settings, activation_bits=16)
    return Plan({name: own.layers[name] if name in wide else plan for name, plan in narrow.layers.items()})


def saved_with(net: LiteNetwork, path: Path, plan: Plan, io: str = "float32") -> SavedLite:
    net.make(path, plan, io=io)
    return SavedLite(path.read_bytes())


# What is INT16


@pytest.fixture(scope="module")
def chain(lite_network: Callable[..., LiteNetwork]) -> LiteNetwork:
    return lite_network(lambda x: named(conv(conv(conv(x, "a"), "b"), "c")), IMAGE)


@pytest.mark.parametrize(
    ("wide", "in_float", "wanted"),
    [
        ("abc", "", ["QUANTIZE 16", "CONV_2D 16", "CONV_2D 16", "CONV_2D 16", "DEQUANTIZE float"]),
        ("a", "", ["QUANTIZE 16", "CONV_2D 16", "QUANTIZE 8", "CONV_2D 8", "CONV_2D 8", "DEQUANTIZE float"]),
        (
            "b",
            "",
            ["QUANTIZE 8", "CONV_2D 8", "QUANTIZE 16", "CONV_2D 16", "QUANTIZE 8", "CONV_2D 8", "DEQUANTIZE float"],
        ),
        ("c", "", ["QUANTIZE 8", "CONV_2D 8", "CONV_2D 8", "QUANTIZE 16", "CONV_2D 16", "DEQUANTIZE float"]),
        (
            "c",
            "b",
            [
                *("QUANTIZE 8", "CONV_2D 8", "DEQUANTIZE float", "CONV_2D float"),
                *("QUANTIZE 16", "CONV_2D 16", "DEQUANTIZE float"),
            ],
        ),
    ],
    ids=str,
)
def test_layers_have_16_bits_where_the_plan_says_so(
    chain: LiteNetwork, tmp_path: Path, wide: str, in_float: str, wanted: list[str]
) -> None:
    plan = widened(chain, *wide, in_float=in_float)
    made = chain.make(tmp_path / "m", plan)
    saved = SavedLite((tmp_path / "m").read_bytes())
    assert kinds(saved) == wanted
    assert made.qdq_ops == sum("QUANTIZE" in kind for kind in wanted)
    assert made.record == LiteRTTarget().compiler(chain.model, chain.layers, chain.statistics).record(plan)
    assert {name: one.activation.bits for name, one in made.record.items()} == {
        name: 16 if name in wide else 8 for name in "abc" if name not in in_float
    }
    assert error(chain, saved) < 0.05


def test_16_bits_leave_the_error_of_weights_alone(chain: LiteNetwork, tmp_path: Path) -> None:
    """Against the float network with the very weights and biases that the file has."""
    saved = saved_with(chain, tmp_path / "m", widened(chain, *"abc"))
    x: NDArray[Any] = chain.x.astype(np.float64)
    for number in range(3):
        weight, bias = (real_constant(saved, index) for index in saved.operator("CONV_2D", number).inputs[1:3])
        padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
        x = np.maximum(np.einsum("nhwcij,oijc->nhwo", windows(padded, 3), weight) + bias, 0.0)
    assert np.linalg.norm(saved.run(chain.x)["y"] - x) < 5e-4 * np.linalg.norm(x)


def real_constant(saved: SavedLite, index: int) -> Any:
    """What the integers of a constant stand for."""
    value, quantization = saved.value(index).astype(np.float64), saved.tensor(index).quantization
    scale = np.asarray(quantization.scale, np.float64)
    shape = [len(scale) if axis == quantization.quantizedDimension else 1 for axis in range(value.ndim)]
    return value * (scale.reshape(shape) if len(scale) > 1 else scale)


@pytest.mark.parametrize("wide", ["a", "b", "ab"])
@pytest.mark.parametrize("kind", list(between_layers()))
def test_operators_between_layers_follow_them(
    lite_network: Callable[..., LiteNetwork], tmp_path: Path, kind: str, wide: str
) -> None:
    """To 16 bits between two such layers, where there are kernels; no more conversions than it takes."""
    write, wanted = between_layers()[kind]
    net = lite_network(lambda x: named(conv(write(conv(x, "a")), "b", relu=False)), IMAGE)
    made = net.make(tmp_path / "m", widened(net, *wide))
    saved = SavedLite((tmp_path / "m").read_bytes())
    without_kernel = kind == "hard swish"
    one_scale = wide == "a" and kind in (
        "concat",
        "pack",
    )  # what all inputs have, converted beside that of another reader
    assert made.qdq_ops == (2 if wide == "ab" and not without_kernel else 3 + one_scale + (wide == "ab"))
    bits = "16" if wide == "ab" and not without_kernel else "8"
    assert {f"{one} {bits}" for one in wanted} <= set(kinds(saved))
    assert error(net, saved) < (0.02 if wide == "ab" else 0.05)


def test_fixed_scales_are_those_of_the_kernels(lite_network: Callable[..., LiteNetwork], tmp_path: Path) -> None:
    """A result of SOFTMAX has 2^-15 whatever reads it, so that nothing is in between."""
    import tensorflow as tf

    net = lite_network(lambda x: named(conv(tf.nn.softmax(conv(x, "a")), "b")), IMAGE)
    saved = saved_with(net, tmp_path / "m", widened(net, *"ab"))
    assert kinds(saved) == ["QUANTIZE 16", "CONV_2D 16", "SOFTMAX 16", "CONV_2D 16", "DEQUANTIZE float"]
    assert saved.tensor(saved.operator("SOFTMAX").outputs[0]).quantization.scale[0] == 2.0**-15


def test_int8_inputs_and_outputs_are_converted_to_16_bits(chain: LiteNetwork, tmp_path: Path) -> None:
    saved = saved_with(chain, tmp_path / "m", widened(chain, *"abc"), io="int8")
    assert kinds(saved) == ["QUANTIZE 16", "CONV_2D 16", "CONV_2D 16", "CONV_2D 16", "QUANTIZE 8"]


@pytest.mark.parametrize("power_of_two", [False, True])
@pytest.mark.parametrize("kind", ["ADD", "SUB"])
def test_scales_that_are_nearly_powers_of_two(
    lite_network: Callable[..., LiteNetwork], tmp_path: Path, kind: str, power_of_two: bool
) -> None:
    """Ranges of 1, 2 and 4: the kernel takes 2 / 32767 for a power of two, and not every sum of such has a kernel."""
    import tensorflow as tf

    def write(x: Any) -> None:
        x = tf.reverse(tf.clip_by_value(conv(x, "a"), 0.0, 4.0), [1]) / 2.0
        x = x + tf.constant([1.0, -1.0, 1.0, 1.0]) if kind == "ADD" else x - tf.constant([1.0, -1.0, 1.0, 1.0])
        named(conv(x, "b"))

    net = lite_network(write, IMAGE)
    saved = saved_with(net, tmp_path / "m", widened(net, *"ab", power_of_two=power_of_two))
    assert f"{kind} {8 if power_of_two else 16}" in kinds(saved)
    assert error(net, saved) < (0.05 if power_of_two else 0.02)


# Numbers


def conv2d(x: Any, weight: Any) -> Any:
    return np.einsum("nhwcij,oijc->nhwo", windows(x, 3), weight)


def depthwise(x: Any, weight: Any) -> Any:
    spread = np.einsum("nhwcij,ijcm->nhwcm", windows(x, 3), weight.reshape(3, 3, x.shape[-1], -1))
    return spread.reshape(*spread.shape[:3], -1)


def transposed(x: Any, weight: Any) -> Any:
    """Stride 2, a kernel of 2: each value has four results of its own."""
    spread = np.einsum("nhwc,oijc->nhiwjo", x, weight)
    return spread.reshape(len(x), 2 * x.shape[1], 2 * x.shape[2], -1)


def layers() -> dict[str, tuple[Callable[[Any], Any], str, Callable[..., Any]]]:
    """How to write a layer, its operator, and the sums of its integers."""
    import tensorflow as tf

    def write_transposed(x: Any) -> Any:
        weight, shape = constant(2, 2, 5, int(x.shape[-1])), (24, 2 * x.shape[1], 2 * x.shape[2], 5)
        return tf.nn.bias_add(tf.nn.conv2d_transpose(x, weight, shape, 2, "SAME", name="layer"), constant(5))

    def write_dense(x: Any) -> Any:
        flat = tf.reshape(x, (-1, int(np.prod(x.shape[1:]))))
        return tf.nn.bias_add(tf.matmul(flat, constant(int(flat.shape[-1]), 7), name="layer"), constant(7))

    def biased(x: Any) -> Any:
        return tf.nn.bias_add(x, constant(x.shape[-1]))

    return {
        "conv": (
            lambda x: biased(tf.nn.conv2d(x, constant(3, 3, x.shape[-1], 6), 1, "VALID", name="layer")),
            "CONV_2D",
            conv2d,
        ),
        "conv without bias": (
            lambda x: tf.nn.conv2d(x, constant(3, 3, x.shape[-1], 6), 1, "VALID", name="layer"),
            "CONV_2D",
            conv2d,
        ),
        "conv and relu": (
            lambda x: tf.nn.relu(biased(tf.nn.conv2d(x, constant(3, 3, x.shape[-1], 6), 1, "VALID", name="layer"))),
            "CONV_2D",
            conv2d,
        ),
        "depthwise": (
            lambda x: biased(
                tf.nn.depthwise_conv2d(x, constant(3, 3, x.shape[-1], 2), (1, 1, 1, 1), "VALID", name="layer")
            ),
            "DEPTHWISE_CONV_2D",
            depthwise,
        ),
        "transposed": (write_transposed, "TRANSPOSE_CONV", transposed),
        "dense": (write_dense, "FULLY_CONNECTED", lambda x, weight: x @ weight.T),
        "product": (
            lambda x: tf.matmul(x, constant(x.shape[1], x.shape[-1], 3), name="layer"),
            "BATCH_MATMUL",
            np.matmul,
        ),
    }


@pytest.mark.parametrize("between", [False, True], ids=["alone", "between INT8 layers"])
@pytest.mark.parametrize("channel_wise", [True, False])
@pytest.mark.parametrize("kind", list(layers()))
def test_kernels_compute_integer_arithmetic(
    lite_network: Callable[..., LiteNetwork], tmp_path: Path, kind: str, channel_wise: bool, between: bool
) -> None:
    write, operator, sums = layers()[kind]

    def network(x: Any) -> None:
        import tensorflow as tf

        x = write(conv(x, "before") if between else x)
        named(tf.matmul(tf.reshape(x, (24, -1, x.shape[-1])), constant(x.shape[-1], 3)) if between else x)

    net = lite_network(network, (24, 8, 8, 4))
    (wide,) = [name for name in net.layers if name.startswith("layer")]
    saved = saved_with(net, tmp_path / "m", widened(net, wide, channel_wise=channel_wise))
    values = all_values(saved, net.x)
    (op,) = [op for op in saved.graph.operators if kinds_of(saved, op) == (operator, "16")]
    data = 2 if operator == "TRANSPOSE_CONV" else 0
    weight, bias = saved.value(op.inputs[1]), saved.value(op.inputs[-1]) if len(op.inputs) > data + 2 - data // 2 else 0
    assert weight.dtype == np.int8
    scales = [
        np.asarray(saved.tensor(index).quantization.scale, np.float64)
        for index in (op.inputs[data], op.inputs[1], op.outputs[0])
    ]
    assert len(scales[1]) == (net.layers[wide].channels if channel_wise and operator != "BATCH_MATMUL" else 1)
    exact = sums(values[op.inputs[data]].astype(np.float64), weight.astype(np.float64)) + bias
    steps = np.rint(exact * scales[0] * scales[1] / scales[2])
    low = 0 if kind == "conv and relu" else -32768
    assert np.abs(values[op.outputs[0]] - np.clip(steps, low, 32767)).max() <= MOST
    assert np.abs(steps).max() > 8192  # a quarter of them all


def test_products_of_two_activations_are_integer_arithmetic(
    lite_network: Callable[..., LiteNetwork], tmp_path: Path
) -> None:
    import tensorflow as tf

    def write(x: Any) -> None:
        query, key = (tf.matmul(x, constant(6, 6), name=name) for name in ("query", "key"))
        tf.matmul(query, key, transpose_b=True, name="y")

    net = lite_network(write, (24, 5, 6))
    saved = saved_with(net, tmp_path / "m", widened(net, "query", "key", "y"))
    values, op = all_values(saved, net.x), saved.operator("BATCH_MATMUL")
    one, other, result = (saved.tensor(index).quantization.scale[0] for index in (*op.inputs, *op.outputs))
    first, second = (values[index].astype(np.float64) for index in op.inputs)
    assert {saved.tensor(index).type for index in (*op.inputs, *op.outputs)} == {TensorType.INT16}
    sums = first @ (second.swapaxes(-1, -2) if op.builtinOptions.adjY else second)
    steps = np.rint(sums * float(one) * float(other) / float(result))
    assert np.abs(values[op.outputs[0]] - np.clip(steps, -32768, 32767)).max() <= MOST
    assert np.abs(steps).max() > 8192


def test_average_pooling_is_integer_arithmetic(lite_network: Callable[..., LiteNetwork], tmp_path: Path) -> None:
    """It has no scale of its own: the mean of four integers, half of one rounded away from 0."""
    import tensorflow as tf

    net = lite_network(lambda x: named(tf.nn.avg_pool2d(x, 2, 2, "VALID", name="pool")), (24, 8, 8, 4))
    (pool,) = net.layers
    saved = saved_with(net, tmp_path / "m", widened(net, pool))
    values, op = all_values(saved, net.x), saved.operator("AVERAGE_POOL_2D")
    read, made = (values[index].astype(np.float64) for index in (op.inputs[0], op.outputs[0]))
    mean = read.reshape(24, 4, 2, 4, 2, 4).mean(axis=(2, 4))
    assert saved.tensor(op.inputs[0]).quantization.scale[0] == saved.tensor(op.outputs[0]).quantization.scale[0]
    assert np.abs(made - mean).max() <= 0.5
    assert np.abs(made).max() > 8192


def kinds_of(saved: SavedLite, op: Any) -> tuple[str, str]:
    from autoquant.model.litert import flatbuffer

    return flatbuffer.op_name(saved.objects, op), TYPES.get(saved.tensor(op.outputs[0]).type, "")
