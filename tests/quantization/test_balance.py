from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from autoquant.model.operators import OPERATORS
from autoquant.quantization.affine import balance_factors, balanced_weight, input_maxima

EPSILON = float(np.finfo(np.float32).eps)
SIZES = st.one_of(st.just(0.0), st.floats(2.0**-10, 2.0**10))
SHAPES = {
    "BatchMatMulV2": (5, 4),
    "Conv2D": (3, 2, 5, 4),
    "Conv2DBackpropInput": (3, 2, 4, 5),
    "Conv3D": (2, 3, 2, 5, 4),
    "DepthwiseConv2dNative": (3, 2, 5, 4),
    "MatMul": (5, 4),
}
"""Weights of five input channels."""


@given(st.lists(st.tuples(SIZES, SIZES), min_size=1, max_size=9), st.floats(0.2, 0.8))
def test_against_the_formulas(pairs: list[tuple[float, float]], strength: float) -> None:
    """Ordinary channels first; then the rules for channels of zeros, each with what the ordinary ones came to."""
    ordinary = {i: a**strength / w ** (1 - strength) for i, (a, w) in enumerate(pairs) if a and w}
    expected = []
    for i, (a, w) in enumerate(pairs):
        if i in ordinary:
            factor = ordinary[i]
        elif not ordinary or a == w == 0.0:
            factor = 1.0
        elif a == 0.0:
            factor = max(pairs[j][1] * f for j, f in ordinary.items()) / w
        else:
            factor = a / max(pairs[j][0] / f for j, f in ordinary.items())
        expected.append(min(max(factor, EPSILON), 1 / EPSILON))
    inputs, weights = np.array(pairs).T
    found = balance_factors(inputs, weights, strength)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=2.0**-23)


def test_channels_become_alike() -> None:
    """At strength 0.5 the input's and the weight's channels are equally large: the root of the product."""
    inputs, weights = np.array([1.0, 64.0, 4.0]), np.array([16.0, 1.0, 4.0])
    factors = balance_factors(inputs, weights, 0.5)
    assert factors.tolist() == [0.25, 8.0, 1.0]
    np.testing.assert_array_equal(inputs / factors, weights * factors)


def test_channels_of_zeros() -> None:
    """Of the input alone, of the weight alone, of both: with 4 and 4 in the ordinary channel."""
    factors = balance_factors(np.array([16.0, 0.0, 8.0, 0.0]), np.array([1.0, 2.0, 0.0, 0.0]), 0.5)
    assert factors.tolist() == [4.0, 2.0, 2.0, 1.0]


@pytest.mark.parametrize(
    ("inputs", "weights"), [([0.0, 0.0], [1.0, 2.0]), ([3.0, 4.0], [0.0, 0.0]), ([0.0, 3.0], [5.0, 0.0])]
)
def test_nothing_to_go_by(inputs: list[float], weights: list[float]) -> None:
    assert balance_factors(np.array(inputs), np.array(weights), 0.5).tolist() == [1.0, 1.0]


def test_factors_are_clipped() -> None:
    factors = balance_factors(np.array([1e-30, 1e30, 1.0], np.float32), np.array([1.0, 1e-30, 1.0], np.float32), 0.5)
    assert factors.tolist() == [EPSILON, 1 / EPSILON, 1.0]


@pytest.mark.parametrize("op", SHAPES)
def test_the_largest_weight_of_each_input_channel(op: str) -> None:
    """Of a depthwise convolution over all multipliers."""
    weight = np.random.default_rng(0).normal(size=SHAPES[op]).astype(np.float32)
    axis = OPERATORS[op].input_axis
    expected = [
        max(
            abs(float(weight[place]))
            for place in itertools.product(*map(range, weight.shape))
            if place[axis] == channel
        )
        for channel in range(5)
    ]
    assert input_maxima(weight, axis).tolist() == expected


def test_every_operator_with_a_weight_is_here() -> None:
    with_weight = {name for name, operator in OPERATORS.items() if operator.weight is not None}
    assert with_weight - {"BatchMatMul"} == set(SHAPES)


@given(
    hnp.arrays(np.float32, (2, 5), elements=st.floats(-4.0, 4.0, width=32)),
    hnp.arrays(np.float32, (5, 3), elements=st.floats(-4.0, 4.0, width=32)),
)
def test_the_product_stays(x: np.ndarray, weight: np.ndarray) -> None:
    factors = balance_factors(np.abs(x).max(axis=0), input_maxima(weight, 0), 0.5)
    balanced = balanced_weight(weight, factors, 0)
    assert balanced.dtype == np.float32
    product = (x / factors.astype(np.float64)) @ balanced.astype(np.float64)
    np.testing.assert_allclose(product, x.astype(np.float64) @ weight, atol=5 * 16 * 2.0**-23)


@pytest.mark.parametrize("op", SHAPES)
def test_the_balanced_weight(op: str) -> None:
    weight = np.random.default_rng(0).normal(size=SHAPES[op]).astype(np.float32)
    axis, factors = OPERATORS[op].input_axis, np.array([1.0, 2.0, 0.5, 4.0, 8.0], np.float32)
    balanced = balanced_weight(weight, factors, axis)
    for channel, factor in enumerate(factors):
        np.testing.assert_array_equal(balanced.take(channel, axis), factor * weight.take(channel, axis))


def test_a_weight_beyond_float32() -> None:
    assert balanced_weight(np.array([[3e38]], np.float32), np.array([2.0], np.float32), 0).tolist() == [[np.inf]]
