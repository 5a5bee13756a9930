"""Every type of layer, saved and run, against integer arithmetic in NumPy float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph_networks import Network
from numpy.typing import NDArray

from autoquant.calibration.record import LayerRecord
from autoquant.model.graph import GraphDef
from autoquant.model.nodes import attr_of
from autoquant.quantization.affine import Affine
from autoquant.targets.check import check

STEP = 0.125
"""A scale of activations that float32 divides by exactly, so that results can be compared to the last digits."""
OFFSET = -3


def padding(size: int, kernel: int, stride: int, same: bool) -> tuple[int, int, int]:
    """Results along an axis, and what TensorFlow pads before and behind."""
    if not same:
        return (size - kernel) // stride + 1, 0, 0
    count = -(-size // stride)
    total = max((count - 1) * stride + kernel - size, 0)
    return count, total // 2, total - total // 2


def windows(
    x: Any, kernel: tuple[int, ...], strides: tuple[int, ...], same: bool
) -> Iterator[tuple[tuple[int, ...], NDArray[Any]]]:
    """For every place in the kernel, the values (batch, *results, channels) that meet it; zeros where it is padded."""
    axes = [padding(*sizes, same) for sizes in zip(x.shape[1:-1], kernel, strides, strict=True)]
    padded = np.pad(x, [(0, 0), *((before, behind) for _, before, behind in axes), (0, 0)])
    for place in product(*map(range, kernel)):
        cut = [slice(p, p + (n - 1) * s + 1, s) for p, (n, _, _), s in zip(place, axes, strides, strict=True)]
        yield place, padded[(slice(None), *cut, slice(None))]


def convolve(x: NDArray[Any], w: NDArray[Any], strides: tuple[int, ...], same: bool) -> Any:
    return sum(values @ w[place] for place, values in windows(x, w.shape[:-2], strides, same))


def convolve_depthwise(x: NDArray[Any], w: NDArray[Any], strides: tuple[int, int], same: bool) -> Any:
    found = sum(values[..., None] * w[place] for place, values in windows(x, w.shape[:-2], strides, same))
    return found.reshape(*found.shape[:-2], -1)


def convolve_transposed(
    x: NDArray[Any], w: NDArray[Any], strides: tuple[int, int], same: bool, size: tuple[int, int]
) -> NDArray[Any]:
    """Each value of x spreads its kernel; `size` are height and width of the result."""
    kernel = w.shape[:2]
    full = np.zeros((len(x), *(s + k for s, k in zip(size, kernel, strict=True)), w.shape[2]))
    for (i, j), (a, b) in product(np.ndindex(x.shape[1:3]), np.ndindex(kernel)):
        full[:, i * strides[0] + a, j * strides[1] + b] += x[:, i, j] @ w[a, b].T
    starts = [padding(*sizes, same)[1] for sizes in zip(size, kernel, strides, strict=True)]
    return full[(slice(None), *(slice(b, b + s) for b, s in zip(starts, size, strict=True)))]


def average(x: NDArray[Any], kernel: tuple[int, int], strides: tuple[int, int], same: bool) -> NDArray[Any]:
    """The mean of those values of a window that are no padding."""
    total = np.sum([values for _, values in windows(x, kernel, strides, same)], axis=0)
    count = np.sum([values for _, values in windows(np.ones_like(x), kernel, strides, same)], axis=0)
    return np.asarray(total / count)


@dataclass(frozen=True)
class Case:
    """A layer: how TensorFlow writes it (x, weight, whether SAME), and what it computes of integers."""

    op: str
    x: tuple[int, ...]
    weight: tuple[int, ...]
    write: Callable[..., Any]
    compute: Callable[..., Any]
    channel_axes: tuple[int, ...]
    input_axis: int

    @property
    def per_channel(self) -> bool:
        return self.op in {"Conv2D", "Conv2DBackpropInput", "DepthwiseConv2dNative"}


def case(
    op: str,
    x: tuple[int, ...],
    weight: tuple[int, ...],
    write: Callable[..., Any],
    compute: Callable[..., Any],
    channel_axes: tuple[int, ...],
    input_axis: int,
) -> Any:
    return pytest.param(Case(op, x, weight, write, compute, channel_axes, input_axis), id=op)


def tf_name(same: bool) -> str:
    return "SAME" if same else "VALID"


def nn() -> Any:
    import tensorflow as tf

    return tf.raw_ops


def deconv(x: Any, w: Any, same: bool, name: str) -> Any:
    import tensorflow as tf

    shape = tf.stack([tf.shape(x)[0], 8, 11, 4])
    return tf.nn.conv2d_transpose(x, w, shape, (1, 2, 3, 1), padding=tf_name(same), name=name)


WEIGHTED = [
    case(
        "MatMul",
        (6, 5),
        (5, 4),
        lambda x, w, same, name: nn().MatMul(a=x, b=w, name=name),
        lambda x, w, same: x @ w,
        (1,),
        0,
    ),
    case(
        "BatchMatMul",
        (6, 5),
        (5, 4),
        lambda x, w, same, name: nn().BatchMatMul(x=x, y=w, name=name),
        lambda x, w, same: x @ w,
        (1,),
        0,
    ),
    case(
        "BatchMatMulV2",
        (3, 6, 5),
        (5, 4),
        lambda x, w, same, name: nn().BatchMatMulV2(x=x, y=w, name=name),
        lambda x, w, same: x @ w,
        (1,),
        0,
    ),
    case(
        "Conv2D",
        (2, 7, 8, 3),
        (3, 2, 3, 4),
        lambda x, w, same, name: nn().Conv2D(input=x, filter=w, strides=[1, 2, 1, 1], padding=tf_name(same), name=name),
        lambda x, w, same: convolve(x, w, (2, 1), same),
        (3,),
        2,
    ),
    case(
        "DepthwiseConv2dNative",
        (2, 7, 8, 3),
        (3, 3, 3, 2),
        lambda x, w, same, name: nn().DepthwiseConv2dNative(
            input=x, filter=w, strides=[1, 2, 2, 1], padding=tf_name(same), name=name
        ),
        lambda x, w, same: convolve_depthwise(x, w, (2, 2), same),
        (2, 3),
        2,
    ),
    case(
        "Conv3D",
        (2, 4, 5, 6, 3),
        (2, 3, 3, 3, 4),
        lambda x, w, same, name: nn().Conv3D(
            input=x, filter=w, strides=[1, 1, 2, 2, 1], padding=tf_name(same), name=name
        ),
        lambda x, w, same: convolve(x, w, (1, 2, 2), same),
        (4,),
        3,
    ),
    case(
        "Conv2DBackpropInput",
        (2, 4, 4, 3),
        (2, 2, 4, 3),
        deconv,
        lambda x, w, same: convolve_transposed(x, w, (2, 3), same, (8, 11)),
        (2,),
        3,
    ),
]


def on_grid(random: np.random.Generator, *shape: int) -> NDArray[Any]:
    """Values that are multiples of a sixteenth, as far as beyond what INT8 covers."""
    return (random.integers(-320, 320, shape) / 16.0).astype(np.float32)


def steps(x: NDArray[Any], scale: float = STEP, offset: int = OFFSET) -> Any:
    """What AscendQuant gives."""
    return np.clip(np.rint(x.astype(np.float64) / scale) + offset, -128, 127) - offset


def scales_of(weight: NDArray[Any], axes: tuple[int, ...], per_channel: bool, most: int = 127) -> Any:
    rows = np.abs(weight.astype(np.float64)).max(axis=tuple(a for a in range(weight.ndim) if a not in axes)).reshape(-1)
    return (rows / most if per_channel else rows.max(keepdims=True) / most).astype(np.float32)


def integers(weight: NDArray[Any], scales: NDArray[Any], axes: tuple[int, ...], bits: int = 8) -> NDArray[Any]:
    shape = [weight.shape[a] if a in axes and scales.size > 1 else 1 for a in range(weight.ndim)]
    quotient = weight.astype(np.float64) / scales.astype(np.float64).reshape(shape)
    return np.clip(np.rint(quotient), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def close(got: NDArray[Any], want: NDArray[Any]) -> None:
    """Equal up to float32: TensorFlow multiplies the weights of some layers by the last scale beforehand."""
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6 * np.abs(want).max())


def as_tuple(values: NDArray[Any]) -> tuple[float, ...]:
    return tuple(map(float, values))


def build(network: Callable[..., Any], one: Case, weight: NDArray[Any], bias: NDArray[Any] | None, same: bool) -> Any:
    """The layer `layer`, with a bias where there is one, and a float operator behind it."""

    def write(x: Any) -> None:
        import tensorflow as tf

        y = one.write(x, tf.constant(weight), same, "layer")
        if bias is not None:
            y = tf.raw_ops.BiasAdd(value=y, bias=tf.constant(bias), name="bias")
        tf.raw_ops.Relu(features=y, name="y")

    return network(write, x=(None, *one.x[1:]))


VARIANTS = [
    pytest.param(param.values[0], per_channel, same, id=f"{param.id}-{'channel' if per_channel else 'tensor'}-{same}")
    for param, per_channel, same in product(WEIGHTED, (True, False), (True, False))
    if (param.values[0].per_channel or not per_channel) and not ("MatMul" in str(param.id) and same)
]
"""Layers, one weight scale per channel or in all, padding SAME or VALID, as far as there is such a layer."""


@pytest.mark.parametrize("with_bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize(("one", "per_channel", "same"), VARIANTS)
def test_layers_with_a_weight(
    network: Callable[..., Network],
    random: np.random.Generator,
    tmp_path: Path,
    one: Case,
    per_channel: bool,
    same: bool,
    with_bias: bool,
) -> None:
    weight = random.normal(size=one.weight).astype(np.float32)
    channels = int(np.prod([one.weight[axis] for axis in one.channel_axes]))
    bias = random.normal(size=channels).astype(np.float32) * 20 if with_bias else None
    made = build(network, one, weight, bias, same)
    scales = scales_of(weight, one.channel_axes, per_channel)
    record = {"layer": LayerRecord(Affine(STEP, OFFSET), as_tuple(scales))}
    x = on_grid(random, *one.x)
    path = made.save(record, tmp_path / "model.pb")
    got = made.run(path, {"x": x})

    sums = one.compute(steps(x), integers(weight, scales, one.channel_axes), same)
    unit = STEP * scales.astype(np.float64)
    want = np.maximum((sums + (np.rint(bias / unit) if with_bias else 0.0)) * unit, 0.0)
    assert (want > 0.0).mean() > 0.2
    close(got, want)
    checked = check(path, record)
    assert (checked.layers, checked.weights) == ({one.op: 1}, weight.size)
    nodes = {node.name: node for node in GraphDef.FromString(path.read_bytes()).node}
    assert nodes["bias" if with_bias else "layer"].op == "AscendDequant"


@pytest.mark.parametrize("one", WEIGHTED)
def test_balanced_layers(
    network: Callable[..., Network], random: np.random.Generator, tmp_path: Path, one: Case
) -> None:
    """Channels of the activation are divided, those of the weight multiplied, by factors of 1/4 to 4."""
    weight = random.normal(size=one.weight).astype(np.float32)
    factors = 2.0 ** random.integers(-2, 3, one.weight[one.input_axis])
    spread = [-1 if axis == one.input_axis else 1 for axis in range(weight.ndim)]
    balanced = (weight * factors.reshape(spread)).astype(np.float32)
    scales = scales_of(balanced, one.channel_axes, one.per_channel)
    record = {"layer": LayerRecord(Affine(STEP, OFFSET), as_tuple(scales), balance=as_tuple(factors))}
    made = build(network, one, weight, None, True)
    x = on_grid(random, *one.x)
    path = made.save(record, tmp_path / "model.pb")
    sums = one.compute(steps(x / factors), integers(balanced, scales, one.channel_axes), True)
    want = np.maximum(sums * STEP * scales.astype(np.float64), 0.0)
    close(made.run(path, {"x": x}), want)
    check(path, record)


@pytest.mark.parametrize("one", WEIGHTED)
def test_shifted_layers(
    network: Callable[..., Network], random: np.random.Generator, tmp_path: Path, one: Case
) -> None:
    """Sums lose their N low bits, and what is beyond 16 bits after that."""
    weight = random.normal(size=one.weight).astype(np.float32)
    scales = scales_of(weight, one.channel_axes, one.per_channel)
    shift = random.permutation(np.arange(scales.size) % 3 + 1)
    record = {"layer": LayerRecord(Affine(STEP, OFFSET), as_tuple(scales), shift_bit=tuple(map(int, shift)))}
    made = build(network, one, weight, None, True)
    x = on_grid(random, *one.x)
    path = made.save(record, tmp_path / "model.pb")
    sums = one.compute(steps(x), integers(weight, scales, one.channel_axes), True)
    kept = np.clip(np.floor(sums / 2.0**shift), -(2**15), 2**15 - 1) * 2.0**shift
    assert (kept != sums).mean() > 0.3
    want = np.maximum(kept * STEP * scales.astype(np.float64), 0.0)
    close(made.run(path, {"x": x}), want)
    check(path, record)


@pytest.mark.parametrize("bits", [6, 7])
def test_weights_of_fewer_bits(
    network: Callable[..., Network], random: np.random.Generator, tmp_path: Path, bits: int
) -> None:
    one = next(param.values[0] for param in WEIGHTED if param.id == "Conv2D")
    weight = random.normal(size=one.weight).astype(np.float32)
    scales = scales_of(weight, one.channel_axes, True, 2 ** (bits - 1) - 1) / np.float32(2)  # half of them clip
    record = {"layer": LayerRecord(Affine(STEP, OFFSET), as_tuple(scales), weight_bits=bits)}
    made = build(network, one, weight, None, True)
    x = on_grid(random, *one.x)
    path = made.save(record, tmp_path / "model.pb")
    sums = one.compute(steps(x), integers(weight, scales, one.channel_axes, bits), True)
    want = np.maximum(sums * STEP * scales.astype(np.float64), 0.0)
    close(made.run(path, {"x": x}), want)
    check(path, record)


@pytest.mark.parametrize("op", ["BatchMatMul", "BatchMatMulV2"])
def test_product_of_two_activations(
    network: Callable[..., Network], random: np.random.Generator, tmp_path: Path, op: str
) -> None:
    made = network(lambda a, b: getattr(nn(), op)(x=a, y=b, name="y"), a=(None, 4, 5), b=(None, 5, 3))
    record = {"y": LayerRecord(Affine(STEP, 0)), "y:1": LayerRecord(Affine(0.25, 0))}
    a, b = on_grid(random, 2, 4, 5), on_grid(random, 2, 5, 3)
    path = made.save(record, tmp_path / "model.pb")
    want = steps(a, STEP, 0) @ steps(b, 0.25, 0) * STEP * 0.25
    close(made.run(path, {"a": a, "b": b}), want)
    checked = check(path, record)
    assert (checked.layers, checked.weights) == ({op: 1}, 0)


@pytest.mark.parametrize("same", [True, False])
def test_average_pooling(
    network: Callable[..., Network], random: np.random.Generator, tmp_path: Path, same: bool
) -> None:
    def write(x: Any) -> None:
        nn().AvgPool(value=x, ksize=[1, 3, 2, 1], strides=[1, 2, 2, 1], padding=tf_name(same), name="y")

    made = network(write, x=(None, 8, 7, 3))
    record = {"y": LayerRecord(Affine(STEP, OFFSET))}
    x = on_grid(random, 2, 8, 7, 3)
    path = made.save(record, tmp_path / "model.pb")
    want = average(steps(x), (3, 2), (2, 2), same) * STEP
    close(made.run(path, {"x": x}), want)
    nodes = {node.name: node for node in GraphDef.FromString(path.read_bytes()).node}
    assert list(nodes["y"].attr["ksize"].list.i) == [3, 2]
    assert check(path, record).layers == {"AvgPool": 1}


def pooled_sum(a: Any, b: Any) -> None:
    """A MaxPool and an Add that read the same tensor, which a third operator reads too."""
    import tensorflow as tf

    left = tf.raw_ops.Relu(features=a, name="left")
    right = tf.raw_ops.Sigmoid(x=b, name="right")
    tf.raw_ops.AddV2(x=left, y=right, name="sum")
    tf.raw_ops.MaxPool(input=left, ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1], padding="VALID", name="pool")
    parts = [
        tf.reduce_sum(tf.compat.v1.get_default_graph().get_tensor_by_name(f"{n}:0"), [1, 2])
        for n in ("sum", "pool", "left")
    ]
    weight = tf.ones([3, 2])
    tf.concat([*parts, tf.raw_ops.MatMul(a=parts[0], b=weight, name="layer")], 1, name="y")


@pytest.mark.parametrize("quantized", [("sum:0",), ("sum:1",), ("pool:0",), ("sum:0", "pool:0")], ids=str)
def test_single_inputs(
    network: Callable[..., Network], random: np.random.Generator, tmp_path: Path, quantized: tuple[str, ...]
) -> None:
    """Only the input that is named loses precision; other readers of the tensor do not."""
    made = network(pooled_sum, a=(None, 4, 4, 3), b=(None, 4, 4, 3))
    record = {name: LayerRecord(Affine(STEP, OFFSET)) for name in quantized}
    a, b = on_grid(random, 2, 4, 4, 3) + np.float32(0.01), on_grid(random, 2, 4, 4, 3) / 16
    path = made.save(record, tmp_path / "model.pb")

    left, right = np.maximum(a, 0.0).astype(np.float64), 1.0 / (1.0 + np.exp(-b.astype(np.float64)))
    inputs = {"sum:0": left, "sum:1": right, "pool:0": left}
    inputs |= {name: steps(inputs[name]) * STEP for name in quantized}
    blocks = inputs["pool:0"].reshape(2, 2, 2, 2, 2, 3).max(axis=(2, 4))
    total = (inputs["sum:0"] + inputs["sum:1"]).sum(axis=(1, 2))
    want = np.concatenate([total, blocks.sum(axis=(1, 2)), left.sum(axis=(1, 2)), total @ np.ones((3, 2))], axis=1)
    close(made.run(path, {"a": a, "b": b}), want)
    assert sum(check(path, record).layers.values()) == len(quantized)


def test_two_readers_of_a_tensor_have_their_own_scales(
    network: Callable[..., Network], random: np.random.Generator, tmp_path: Path
) -> None:
    """Here the tensor is the second output of an operator."""
    weights = random.normal(size=(2, 5, 4)).astype(np.float32)

    def write(x: Any) -> None:
        import tensorflow as tf

        half = tf.split(x, 2, axis=1)[1]
        both = [tf.raw_ops.MatMul(a=half, b=tf.constant(w), name=f"layer{i}") for i, w in enumerate(weights)]
        tf.concat(both, 1, name="y")

    made = network(write, x=(None, 10))
    scales = [scales_of(w, (1,), False) for w in weights]
    record = {f"layer{i}": LayerRecord(Affine(STEP * (i + 1), i), as_tuple(s)) for i, s in enumerate(scales)}
    x = on_grid(random, 6, 10)
    path = made.save(record, tmp_path / "model.pb")
    parts = [
        steps(x[:, 5:], STEP * (i + 1), i) @ integers(w, s, (1,)) * STEP * (i + 1) * float(s[0])
        for i, (w, s) in enumerate(zip(weights, scales, strict=True))
    ]
    close(made.run(path, {"x": x}), np.concatenate(parts, axis=1))
    assert check(path, record).layers == {"MatMul": 2}


def channels_first(x: Any) -> None:
    import tensorflow as tf

    first = {"data_format": "NCHW"}
    y = tf.raw_ops.Conv2D(input=x, filter=tf.ones([3, 3, 2, 4]), strides=[1] * 4, padding="SAME", **first, name="conv")
    y = tf.raw_ops.BiasAdd(value=y, bias=tf.ones([4]), **first, name="bias")
    y = tf.raw_ops.AvgPool(value=y, ksize=[1, 1, 2, 3], strides=[1, 1, 2, 2], padding="SAME", **first, name="pool")
    y = tf.expand_dims(y, 2)
    kernel = tf.ones([1, 1, 1, 4, 5])
    tf.raw_ops.Conv3D(input=y, filter=kernel, strides=[1] * 5, padding="SAME", data_format="NCDHW", name="y")


def test_channels_first(network: Callable[..., Network], tmp_path: Path) -> None:
    """TensorFlow has no such kernels for the processor: only the form can be looked at."""
    made = network(channels_first, x=(None, 2, 6, 6))
    affine = Affine(STEP, OFFSET)
    record = {
        "conv": LayerRecord(affine, (0.5,) * 4, balance=(1.0, 2.0)),
        "pool": LayerRecord(affine),
        "y": LayerRecord(affine, (0.5,), balance=(4.0,) * 4),
    }
    path = made.save(record, tmp_path / "model.pb")
    nodes = {node.name: node for node in GraphDef.FromString(path.read_bytes()).node}
    assert {name: nodes[name].attr["data_format"].s for name in ("bias", "pool", "y")} == dict.fromkeys(
        ("bias", "pool", "y"), b"NCHW"
    )
    assert list(nodes["pool"].attr["ksize"].list.i) == [2, 3]

    def shape(name: str) -> list[int]:
        return [dim.size for dim in attr_of(nodes[name], "value").tensor.tensor_shape.dim]

    assert shape("conv/act_quant/balance") == [2, 1, 1]
    assert shape("y/act_quant/balance") == [4, 1, 1, 1]
    assert shape("conv/dequant/deq_scale") == [4]
    assert shape("conv/bias_quant/bias") == [4]
    assert check(path, record).layers == {"AvgPool": 1, "Conv2D": 1, "Conv3D": 1}


def test_the_weight_of_a_transposed_convolution_has_its_offsets_on_axis_2(
    network: Callable[..., Network], tmp_path: Path
) -> None:
    """That is how AMCT's kernel knows it."""
    one = next(param.values[0] for param in WEIGHTED if param.id == "Conv2DBackpropInput")
    made = build(network, one, np.ones(one.weight, np.float32), None, True)
    path = made.save({"layer": LayerRecord(Affine(STEP, 0), (0.5,) * 4)}, tmp_path / "model.pb")
    nodes = {node.name: node for node in GraphDef.FromString(path.read_bytes()).node}
    offsets = nodes[nodes["layer/weight_quant/AscendWeightQuant"].input[1]].attr["value"].tensor
    assert [dim.size for dim in offsets.tensor_shape.dim] == [1, 1, 4, 1]
