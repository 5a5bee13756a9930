"""Factors that make channels alike, and constants that move: against plain formulas in float64."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from autoquant.quantization.equalize import (
    HIGHEST,
    LIMIT,
    LayerPair,
    Sizes,
    absorbable,
    absorbed,
    equalizing_factors,
    mean_shift,
    scaled,
)

SIZE = st.floats(2.0**-6, 2.0**6)


def weights(*shape: int) -> Any:
    """Weights of which none is 0."""
    return hnp.arrays(np.float64, shape, elements=st.one_of(SIZE, SIZE.map(lambda x: -x)))


def pair(first: int, second: int, channels: int, **limits: Any) -> LayerPair:
    free = {"least": np.zeros(channels), "most": np.full(channels, np.inf)}
    unknown = {"peaks": np.zeros(channels), "live": np.zeros(channels, bool)}
    return LayerPair(first, second, **{**free, **unknown, **limits})


@given(weights(3, 3, 2, 4), weights(4, 5))
def test_two_layers_have_the_same_range_in_each_channel(first: NDArray[Any], second: NDArray[Any]) -> None:
    (factors,) = equalizing_factors(
        [Sizes.of(first, depthwise=False), Sizes.of(second, depthwise=False)], [pair(0, 1, 4)]
    )
    of_first, of_second = np.abs(first).max(axis=(0, 1, 2)), np.abs(second).max(axis=1)
    np.testing.assert_allclose(of_first / factors, np.sqrt(of_first * of_second), rtol=1e-3)
    np.testing.assert_allclose(of_second * factors, np.sqrt(of_first * of_second), rtol=1e-3)


@given(weights(3, 4), weights(3, 3, 4, 2), weights(8, 5), weights(5, 2))
def test_a_chain_settles_where_every_pair_is_alike(
    one: NDArray[Any], depthwise: NDArray[Any], three: NDArray[Any], four: NDArray[Any]
) -> None:
    """Four layers, the second of them depthwise with two outputs for each input; ranges are counted anew."""
    layers = [(one, False), (depthwise, True), (three, False), (four, False)]
    pairs = [pair(0, 1, 4), pair(1, 2, 8), pair(2, 3, 5)]
    factors = equalizing_factors([Sizes.of(weight, depthwise=deep) for weight, deep in layers], pairs)
    one = one / factors[0]
    depthwise = depthwise * factors[0][:, None] / factors[1].reshape(4, 2)
    three, four = three * factors[1][:, None] / factors[2], four * factors[2][:, None]
    np.testing.assert_allclose(np.abs(one).max(axis=0), np.abs(depthwise).max(axis=(0, 1, 3)), rtol=2e-3)
    np.testing.assert_allclose(np.abs(depthwise).max(axis=(0, 1)).ravel(), np.abs(three).max(axis=1), rtol=2e-3)
    np.testing.assert_allclose(np.abs(three).max(axis=0), np.abs(four).max(axis=1), rtol=2e-3)


@given(weights(3, 4), weights(12, 5), weights(2, 3))
def test_the_product_of_two_layers_is_what_it_was(first: NDArray[Any], second: NDArray[Any], x: NDArray[Any]) -> None:
    """Channels come round three times, as behind a Reshape of three positions."""
    layers = [Sizes.of(first, depthwise=False), Sizes.of(second, depthwise=False)]
    (factors,) = equalizing_factors(layers, [pair(0, 1, 4)])
    before = np.tile(x @ first, 3) @ second
    made = x @ scaled(first, depthwise=False, outputs=1 / factors)
    after = np.tile(made, 3) @ scaled(second, depthwise=False, inputs=factors)
    np.testing.assert_allclose(after, before, rtol=1e-9, atol=1e-9 * np.abs(before).max())
    folded = np.abs(second).reshape(3, 4, 5).max(axis=(0, 2))
    np.testing.assert_allclose(np.abs(first).max(axis=0) / factors, folded * factors, rtol=1e-3)


def test_channels_without_weights_keep_their_size() -> None:
    first, second = np.array([[1.0, 0.0, 4.0, 0.0]]), np.array([[1.0], [2.0], [0.0], [0.0]])
    (factors,) = equalizing_factors(
        [Sizes.of(first, depthwise=False), Sizes.of(second, depthwise=False)], [pair(0, 1, 4)]
    )
    np.testing.assert_array_equal(factors, 1.0)


def test_factors_keep_their_limits() -> None:
    first, second = np.array([[1e-20, 1e20, 1e-4, 1e4]]), np.ones((4, 1))
    limits = {"least": np.array([0.0, 0.0, 0.5, 1.0]), "most": np.array([np.inf, np.inf, np.inf, 1.0])}
    (factors,) = equalizing_factors(
        [Sizes.of(first, depthwise=False), Sizes.of(second, depthwise=False)], [pair(0, 1, 4, **limits)]
    )
    np.testing.assert_array_equal(factors, [1 / LIMIT, LIMIT, 0.5, 1.0])


def test_a_channel_that_is_a_bias_alone_becomes_no_larger_than_the_others() -> None:
    """By its weights of 1e-20 it would become 1e9 times as large."""
    first, second = np.array([[1.0, 1.0, 1.0, 1e-20]]), np.ones((4, 1))
    seen = {"peaks": np.array([2.0, 3.0, 4.0, 0.5]), "live": np.array([True, True, True, False])}
    (factors,) = equalizing_factors(
        [Sizes.of(first, depthwise=False), Sizes.of(second, depthwise=False)], [pair(0, 1, 4, **seen)]
    )
    np.testing.assert_allclose(factors, [1.0, 1.0, 1.0, 0.5 / 3.0])


def test_no_channel_becomes_much_larger_than_the_median() -> None:
    first, second = np.ones((1, 3)), np.ones((3, 1))
    seen = {"peaks": np.array([1.0, 2.0, 200.0]), "live": np.ones(3, bool)}
    (factors,) = equalizing_factors(
        [Sizes.of(first, depthwise=False), Sizes.of(second, depthwise=False)], [pair(0, 1, 3, **seen)]
    )
    np.testing.assert_allclose(factors, [1.0, 1.0, 200.0 / (HIGHEST * 2.0)])


@pytest.mark.parametrize("depthwise", [False, True])
def test_a_bias_takes_up_what_is_subtracted(depthwise: bool) -> None:
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(3, 2, 4, 5)), rng.normal(size=20 if depthwise else 5)
    x, shift = rng.normal(size=(3, 2, 4)), rng.normal(size=4)

    def layer(values: NDArray[Any], bias: NDArray[Any]) -> Any:
        each = (values[..., None] * weight).sum(axis=(0, 1))
        return bias + (each.ravel() if depthwise else each.sum(axis=0))

    made = layer(x - shift, absorbed(weight, bias, shift, depthwise=depthwise))
    np.testing.assert_allclose(made, layer(x, bias), rtol=1e-12, atol=1e-12)


def test_how_much_bias_can_be_absorbed() -> None:
    low, high = np.array([-1.0, 2.0, -3.0, np.nan]), np.array([5.0, 4.0, -1.0, np.nan])
    np.testing.assert_array_equal(absorbable(low, high, rectified=True), [0.0, 2.0, 0.0, 0.0])
    np.testing.assert_array_equal(absorbable(low, high, rectified=False), [2.0, 3.0, -2.0, 0.0])


KINDS = {
    "convolution": ((3, 2, 4, 6), 2, (3,), 1),
    "in groups": ((3, 2, 2, 6), 2, (3,), 3),
    "depthwise": ((3, 3, 4, 2), 2, (2, 3), 1),
    "transposed": ((2, 2, 5, 4), 3, (2,), 1),
    "matrix": ((4, 6), 0, (1,), 1),
    "LiteRT's matrix": ((6, 4), -1, (0,), 1),
    "LiteRT's convolution": ((6, 3, 2, 4), -1, (0,), 1),
    "LiteRT's depthwise": ((1, 3, 3, 8), -1, (3,), 4),
}
"""Shape of the weight, axis of its input channels, axes of its output channels, groups."""


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_mean_shift_against_sums_over_every_weight(kind: str, seed: int) -> None:
    shape, input_axis, channel_axes, groups = KINDS[kind]
    rng = np.random.default_rng(seed)
    error = rng.normal(size=shape).astype(np.float32)
    depthwise = input_axis % len(shape) in channel_axes
    means = rng.normal(size=4 if depthwise else shape[input_axis] * groups)
    outputs = int(np.prod([shape[axis] for axis in channel_axes]))
    expected = np.zeros(outputs)
    for place in itertools.product(*map(range, shape)):
        channel = np.ravel_multi_index([place[a] for a in channel_axes], [shape[a] for a in channel_axes])
        own = outputs // len(means) if depthwise else outputs // groups  # outputs of a group
        inputs = channel // own if depthwise else channel // own * shape[input_axis] + place[input_axis]
        expected[channel] += float(error[place]) * means[inputs]
    found = mean_shift(error, means, input_axis=input_axis, channel_axes=channel_axes)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_a_weight_that_is_exact_shifts_nothing() -> None:
    assert mean_shift(np.zeros((3, 3, 2, 4)), np.ones(2), input_axis=2, channel_axes=(3,)).tolist() == [0.0] * 4
