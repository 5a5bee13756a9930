from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoquant.errors import IN_FLOAT, TrialError
from autoquant.model.operators import OPERATORS
from autoquant.quantization.affine import EPSILON, by_channel, quantize_bias, quantize_weight, spread, weight_scales

SHAPES = {
    "BatchMatMul": (5, 4),
    "BatchMatMulV2": (5, 4),
    "Conv2D": (2, 3, 3, 4),
    "Conv2DBackpropInput": (2, 2, 4, 3),
    "Conv3D": (2, 1, 2, 3, 4),
    "DepthwiseConv2dNative": (2, 2, 3, 2),
    "MatMul": (5, 4),
}
BITS = pytest.mark.parametrize("bits", [8, 7, 6])


def test_every_operator_with_a_weight_is_here() -> None:
    assert {name for name, operator in OPERATORS.items() if operator.weight is not None} == set(SHAPES)


def reference(weight: np.ndarray, axes: tuple[int, ...] | None, bits: int) -> tuple[list[float], np.ndarray]:
    """Scales and INT8 values in float64, one channel after the other, channels in row-major order of `axes`."""
    scales: list[float] = []
    quantized = np.zeros(weight.shape)
    for place in itertools.product(*(range(weight.shape[axis]) for axis in axes or ())):
        where: list[slice | int] = [slice(None)] * weight.ndim
        for axis, index in zip(axes or (), place, strict=True):
            where[axis] = index
        channel = weight[tuple(where)].astype(np.float64)
        positive = abs(channel.max()) > abs(channel.min())
        scale = abs(channel.max()) / (2 ** (bits - 1) - 1) if positive else abs(channel.min()) / 2 ** (bits - 1)
        scale = float(np.float32(1.0 if scale < np.finfo(np.float32).eps else scale))
        scales.append(scale)
        quantized[tuple(where)] = np.clip(np.round(channel / scale), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return scales, quantized


@pytest.mark.parametrize("whole", [False, True], ids=["per channel", "per tensor"])
@BITS
@pytest.mark.parametrize("kind", SHAPES)
@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), sizes=st.lists(st.floats(1e-9, 1e4), min_size=4, max_size=4))
def test_against_float64(kind: str, bits: int, whole: bool, seed: int, sizes: list[float]) -> None:
    shape, axes = SHAPES[kind], OPERATORS[kind].channel_axes
    rng = np.random.default_rng(seed)
    # Channels of very different size; the shift gives some of them one sign only.
    weight = (rng.normal(size=shape) + rng.integers(-3, 4)) * np.resize(sizes, shape[-1])
    weight = weight.astype(np.float32)
    channel_axes = None if whole else axes
    scales = weight_scales("layer", weight, channel_axes, bits=bits)
    expected_scales, expected = reference(weight, channel_axes, bits)
    assert scales.dtype == np.float32 and scales.tolist() == expected_scales
    quantized = quantize_weight(weight, scales, channel_axes, bits=bits)
    assert quantized.dtype == np.int8
    np.testing.assert_array_equal(quantized, expected)


def test_depthwise_channels_are_in_the_order_of_the_output() -> None:
    """Output channel of input c and multiplier m is c * M + m."""
    weight = np.zeros((1, 1, 3, 2), np.float32)
    for c, m in itertools.product(range(3), range(2)):
        weight[0, 0, c, m] = 127 * (1 + c * 2 + m)
    assert weight_scales("layer", weight, (2, 3)).tolist() == [1, 2, 3, 4, 5, 6]
    assert by_channel(weight, (2, 3)).tolist() == [[127 * n] for n in range(1, 7)]
    assert spread(np.arange(6), 4, weight.shape, (2, 3))[0, 0].tolist() == [[0, 1], [2, 3], [4, 5]]


def test_one_scale_broadcasts_over_channels() -> None:
    weight = np.array([[126.0, -254.0]], np.float32)
    assert quantize_weight(weight, np.array([2.0], np.float32), (1,)).tolist() == [[63, -127]]


TIES = {62.5: 62, 63.5: 64, -62.5: -62, -63.5: -64, 0.5: 0, -0.5: 0}


@pytest.mark.parametrize(("steps", "rounded"), TIES.items())
def test_ties_are_rounded_to_even(steps: float, rounded: int) -> None:
    """Half up would differ at 62.5, half away from zero at 62.5 and -62.5."""
    weight, scale = np.array([[2.0 * steps]], np.float32), np.array([2.0], np.float32)
    assert quantize_weight(weight, scale, (1,)).tolist() == [[rounded]]
    assert quantize_bias("layer", np.array([steps], np.float32), 0.5, scale).tolist() == [rounded]


def test_a_channel_of_zeros_has_scale_one() -> None:
    weight = np.array([[0.0, 127.0], [0.0, 0.0]], np.float32)
    scales = weight_scales("layer", weight, (1,))
    assert scales.tolist() == [1.0, 1.0]
    assert quantize_weight(weight, scales, (1,)).tolist() == [[0, 127], [0, 0]]


@BITS
@pytest.mark.parametrize("dominant", [1.0, -1.0])
def test_the_smallest_legal_scale_and_the_first_that_is_too_small(bits: int, dominant: float) -> None:
    """Half of a scale of EPSILON is none: 1 instead, with which every weight is 0."""
    steps = 2 ** (bits - 1) - (dominant > 0)
    epsilon = np.finfo(np.float32).eps
    weight = np.array([[dominant * steps * epsilon, dominant * steps * epsilon / 2]], np.float32)
    scales = weight_scales("layer", weight, (1,), bits=bits)
    assert scales.tolist() == [epsilon, 1.0]
    assert quantize_weight(weight, scales, (1,), bits=bits).tolist() == [[dominant * steps, 0]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(bad: float) -> None:
    with pytest.raises(TrialError, match="conv1: its weights hold NaN or infinity; repair the model"):
        weight_scales("conv1", np.array([[1.0, bad]], np.float32), (1,))


def test_weights_too_large() -> None:
    with pytest.raises(TrialError, match=r"conv1: weight scale 7.87e\+35 is too large for INT8; leave"):
        weight_scales("conv1", np.array([[1.0, 1e38]], np.float32), (1,))


@given(
    st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=8),
    st.floats(2**-10, 1.0, width=32),
    st.floats(2**-10, 1.0, width=32),
)
def test_bias_against_float64(values: list[float], scale_d: float, scale_w: float) -> None:
    bias = np.array(values, np.float32)
    expected = [round(value / (scale_d * scale_w)) for value in bias.tolist()]
    got = quantize_bias("layer", bias, scale_d, np.array([scale_w], np.float32))
    assert got.dtype == np.int32 and got.tolist() == expected


@pytest.mark.parametrize("bias", [2.0**31 - 1, -(2.0**31)])
def test_the_ends_of_int32_are_legal(bias: float) -> None:
    assert quantize_bias("layer", np.array([bias]), 1.0, np.ones(1, np.float32)).tolist() == [int(bias)]


@pytest.mark.parametrize(
    ("bias", "shown"),
    [(2.0**31, "2147483648"), (-(2.0**31) - 1, "-2147483649"), (3.35e12, "3.35e+12"), (np.inf, "inf"), (np.nan, "nan")],
)
def test_bias_overflow_names_the_layer_the_value_the_range_and_the_way_out(bias: float, shown: str) -> None:
    with pytest.raises(TrialError) as caught:
        quantize_bias("conv1", np.array([0.0, bias]), 1.0, np.ones(2, np.float32))
    assert str(caught.value) == (
        f"conv1: its quantized bias {shown} of channel 1, beyond [-2147483648, 2147483647], exceeds int32; {IN_FLOAT}"
    )


def squared_error(row: np.ndarray, scale: float, bits: int) -> float:
    steps = 2 ** (bits - 1)
    return float(np.sum((row - scale * np.clip(np.round(row / scale), -steps, steps - 1)) ** 2))


@pytest.mark.parametrize("whole", [False, True], ids=["per channel", "per tensor"])
@BITS
@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), tail=st.floats(1.0, 1e3), size=st.floats(1e-6, 1e4))
def test_least_squared_error_against_a_search_of_our_own(
    bits: int, whole: bool, seed: int, tail: float, size: float
) -> None:
    """One clip after the other, each row by itself; the largest value of a channel lies far out."""
    rng = np.random.default_rng(seed)
    weight = rng.laplace(size=(3, 3, 4, 5))
    weight[0, 0, 0] *= tail
    weight = (weight * size).astype(np.float32)
    axes = None if whole else (3,)
    scales = weight_scales("layer", weight, axes, bits=bits, algorithm="mse")
    largest = weight_scales("layer", weight, axes, bits=bits)
    assert scales.dtype == np.float32 and scales.shape == largest.shape
    for row, scale, most in zip(by_channel(weight, axes).astype(np.float64), scales, largest, strict=True):
        shares = [0.2 + 0.05 * number for number in range(15)] + [0.91 + 0.005 * number for number in range(19)]
        legal = [max(float(most) * share, EPSILON) for share in shares]  # no scale is smaller
        best = min(squared_error(row, scale, bits) for scale in legal)
        assert squared_error(row, float(scale), bits) <= best * (1 + 1e-4)
        assert 0.19 * most < scale <= most


def test_long_rows_are_summed_in_parts() -> None:
    """More weights in a channel than are looked at together."""
    weight = np.random.default_rng(1).laplace(size=(100_000, 2)).astype(np.float32)
    scales = weight_scales("layer", weight, (1,), algorithm="mse")
    whole = weight_scales("layer", weight, None, algorithm="mse")
    for row, scale in ((weight[:, 0], scales[0]), (weight[:, 1], scales[1]), (weight, whole[0])):
        row = row.astype(np.float64)
        around = [squared_error(row, float(scale) * near, 8) for near in (0.9, 1.0, 1.1)]
        assert np.argmin(around) == 1


def test_least_squared_error_of_weights_on_the_grid_is_none() -> None:
    weight = np.array([[127.0, 0.5, 0.0], [3.0, -64.0, 0.0]], np.float32)
    scales = weight_scales("layer", weight, (1,), algorithm="mse")
    assert scales.tolist() == [1.0, 0.5, 1.0]


@BITS
def test_a_clip_has_no_scale_below_the_smallest_legal_one(bits: int) -> None:
    epsilon = np.finfo(np.float32).eps
    weight = (np.random.default_rng(0).laplace(size=(500, 1)) * 1e-7).astype(np.float32)
    assert weight_scales("layer", weight, (1,), bits=bits, algorithm="mse")[0] >= epsilon
