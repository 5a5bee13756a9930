"""Operators that LiteRT Quantizer leaves in float on LiteRT's integer kernels, against NumPy float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.schema_py_generated import TensorType
from lite_networks import IMAGE, LiteNetwork, all_values, conv, error, named

from autoquant.model.litert import flatbuffer
from autoquant.targets.litert_kernels import KERNELS
from autoquant.targets.litert_library import supports

Real = Callable[[Any], Any]


def depth_to_space(x: Any) -> Any:
    blocks = x.reshape(*x.shape[:3], 2, 2, -1)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(len(x), 2 * x.shape[1], 2 * x.shape[2], -1)


def space_to_batch(x: Any) -> Any:
    blocks = x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2, -1).transpose(2, 4, 0, 1, 3, 5)
    return blocks.reshape(-1, *blocks.shape[3:])


def batch_to_space(x: Any) -> Any:
    blocks = x.reshape(2, 2, -1, *x.shape[1:]).transpose(2, 3, 0, 4, 1, 5)
    return blocks.reshape(len(blocks), 2 * x.shape[1], 2 * x.shape[2], -1)


def cases() -> Mapping[str, tuple[Real, Real]]:
    """Operator -> how to write it, and what it computes."""
    import tensorflow as tf

    return {
        "ABS": (tf.abs, np.abs),
        "BATCH_TO_SPACE_ND": (lambda x: tf.batch_to_space(x, [2, 2], [[0, 0], [0, 0]]), batch_to_space),
        "DEPTH_TO_SPACE": (lambda x: tf.nn.depth_to_space(x, 2), depth_to_space),
        "ELU": (tf.nn.elu, lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0.0)))),
        "EXP": (lambda x: tf.exp(x * 0.2), np.exp),
        "LEAKY_RELU": (lambda x: tf.nn.leaky_relu(x, 0.2), lambda x: np.where(x > 0, x, 0.2 * x)),
        "LOG": (lambda x: tf.math.log(tf.nn.relu(x) + 2.0), np.log),
        "MINIMUM": (lambda x: tf.minimum(x, 0.5), lambda x: np.minimum(x, 0.5)),
        "REDUCE_MAX": (lambda x: tf.reduce_max(x, (1, 2), keepdims=True), lambda x: x.max((1, 2), keepdims=True)),
        "NEG": (tf.negative, np.negative),
        "RELU6": (lambda x: tf.nn.relu6(tf.abs(x)), lambda x: np.clip(x, 0.0, 6.0)),
        "REVERSE_V2": (lambda x: tf.reverse(x, [2]), lambda x: x[:, :, ::-1]),
        "SPACE_TO_BATCH_ND": (lambda x: tf.space_to_batch(x, [2, 2], [[0, 0], [0, 0]]), space_to_batch),
        "SPLIT_V": (lambda x: tf.split(x, [1, 3], -1)[1], lambda x: x[..., :1]),
        "TILE": (lambda x: tf.tile(x, [1, 2, 2, 1]), lambda x: np.tile(x, (1, 2, 2, 1))),
    }


def test_every_kernel_is_here_and_none_is_the_library_s() -> None:
    from types import SimpleNamespace

    from ai_edge_litert.schema_py_generated import BuiltinOperator, OperatorT

    assert set(cases()) == set(KERNELS)
    for kind in KERNELS:
        code = SimpleNamespace(builtinCode=getattr(BuiltinOperator, kind), deprecatedBuiltinCode=0)
        assert not supports(SimpleNamespace(operatorCodes=[code]), OperatorT(), 8), kind


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", list(KERNELS))
def test_kernels_compute_what_the_operator_does(
    lite_network: Callable[..., LiteNetwork], tmp_path: Path, kind: str, bits: int
) -> None:
    write, real = cases()[kind]
    net = lite_network(lambda x: named(conv(write(conv(x, "a", relu=False)), "b", relu=False)), (24, *IMAGE[1:]))
    saved = net.saved(tmp_path / "m", activation_bits=bits)
    op = saved.operator("MUL" if kind == "NEG" else kind)
    wide = bits if bits in KERNELS[kind].bits else 8
    kinds = {saved.tensor(index).type for index in (op.inputs[-1 if kind == "SPLIT_V" else 0], op.outputs[0])} - {
        TensorType.INT32
    }
    assert kinds == {TensorType.INT8 if wide == 8 else TensorType.INT16}
    assert all("*" not in one for one in saved.kinds[:-1]) or bits == 16
    values = all_values(saved, net.x)
    read, made = (saved.tensor(index).quantization for index in (op.inputs[0], op.outputs[0]))
    want = real((values[op.inputs[0]].astype(np.float64) - read.zeroPoint[0]) * read.scale[0])
    steps = np.clip(np.rint(want / made.scale[0]) + made.zeroPoint[0], -(2 ** (wide - 1)), 2 ** (wide - 1) - 1)
    off = np.abs(values[op.outputs[0]] - steps)
    assert off.max() <= (
        1 if wide == 8 else 16 if kind in ("EXP", "LOG") else 2
    )  # these are interpolated, of 512 values
    assert error(net, saved) < 0.05


def test_a_kernel_between_float_operators_stays_in_float(
    lite_network: Callable[..., LiteNetwork], tmp_path: Path
) -> None:
    """It would take two conversions more."""
    import tensorflow as tf

    net = lite_network(lambda x: named(tf.floor(tf.abs(tf.floor(conv(x, "a"))))), IMAGE)
    assert net.saved(tmp_path / "m").kinds == ["QUANTIZE", "CONV_2D", "DEQUANTIZE*", "FLOOR*", "ABS*", "FLOOR*"]


@pytest.mark.parametrize("io", ["float32", "int8"])
def test_kernels_at_the_ends_of_a_model_and_in_a_row(
    lite_network: Callable[..., LiteNetwork], tmp_path: Path, io: str
) -> None:
    """The image goes in through kernels of ours, and comes out through them where that takes no conversion more."""
    import tensorflow as tf

    def write(x: Any) -> None:
        first = tf.abs(tf.reverse(x, [1]))
        middle = tf.nn.leaky_relu(conv(first, "a", relu=False), 0.3)
        named(tf.nn.depth_to_space(tf.tile(middle, [1, 2, 1, 1]), 2))
        named(tf.floor(middle), "z")

    net = lite_network(write, IMAGE, outputs=("y", "z"))
    saved = net.saved(tmp_path / "m", io=io)
    begin, end = ["REVERSE_V2", "ABS", "CONV_2D", "LEAKY_RELU", "DEQUANTIZE*", "FLOOR*"], ["TILE", "DEPTH_TO_SPACE"]
    if io == "int8":
        assert saved.kinds == [*begin, "QUANTIZE", *end]
    else:
        assert saved.kinds == ["QUANTIZE", *begin, *(f"{kind}*" for kind in end)]
    found = saved.run(net.x)
    for name, want in net.float_outputs().items():
        (index,) = [index for index in saved.graph.outputs if flatbuffer.tensor_name(saved.tensor(index)) == name]
        got = found[name].astype(np.float64)
        if io == "int8":
            quantization = saved.tensor(index).quantization
            got = (got - quantization.zeroPoint[0]) * quantization.scale[0]
        assert np.linalg.norm(got - want) < (0.05 if name == "y" else 0.5) * np.linalg.norm(want), name


def test_a_kernel_reads_what_another_scale_was_chosen_for(
    lite_network: Callable[..., LiteNetwork], tmp_path: Path
) -> None:
    """SOFTMAX makes steps of 1/256; what keeps a scale keeps that of its input."""
    import tensorflow as tf

    net = lite_network(lambda x: named(conv(tf.reverse(tf.nn.softmax(conv(x, "a")), [1]), "b")), IMAGE)
    saved = net.saved(tmp_path / "m")
    op = saved.operator("REVERSE_V2")
    scales = [saved.tensor(index).quantization.scale[0] for index in (op.inputs[0], op.outputs[0])]
    assert scales[0] == scales[1]
    assert error(net, saved) < 0.05
