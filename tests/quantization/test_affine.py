from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from autoquant.quantization.affine import (
    EPSILON,
    Affine,
    Range,
    asymmetric,
    powers_of_two,
    symmetric,
    weight_scales,
    wide,
)

SIDE = st.floats(0.0, 1e8, allow_subnormal=False)
"""How far a range reaches to one side; its widest scale, 2e8 / 255, is legal."""
BOTH = (asymmetric, symmetric)


def has_scale(low: float, high: float) -> bool:
    """Whether the range is wide enough for every rule, so that none of them falls back to scale 1."""
    return max(low, high) / 128 > 2 * EPSILON


def fake_quantize(values: NDArray[Any], affine: Affine) -> Any:
    """Quantize to INT8 and back, in float64, by the definition."""
    steps = np.clip(np.rint(np.asarray(values, np.float64) / affine.scale) + affine.offset, -128, 127)
    return (steps - affine.offset) * affine.scale


@given(SIDE, SIDE)
def test_asymmetric_against_the_formula(low: float, high: float) -> None:
    assume(has_scale(low, high))
    affine = asymmetric(Range(-low, high))
    scale = np.float64(high + low) / 255.0
    assert affine.scale == pytest.approx(scale, rel=2**-24)
    assert affine.offset == pytest.approx(-128 + low / scale, abs=0.5 + 1e-4)
    assert -128 <= affine.offset <= 127


@pytest.mark.parametrize(("low", "offset"), [(-62.5, -128 + 62), (-63.5, -128 + 64), (-0.5, -128), (-1.5, -128 + 2)])
def test_a_zero_point_between_two_steps_is_the_even_one(low: float, offset: int) -> None:
    assert asymmetric(Range(low, low + 255.0)) == Affine(1.0, offset)


@given(SIDE, SIDE)
def test_symmetric_against_the_formula(low: float, high: float) -> None:
    assume(has_scale(low, high))
    scale = high / 127 if high > low else low / 128
    assert symmetric(Range(-low, high)) == Affine(float(np.float32(scale)), 0)


@pytest.mark.parametrize("rule", BOTH)
@given(low=SIDE, high=SIDE)
def test_the_next_larger_power_of_two_covers_the_range(rule: Callable[..., Any], low: float, high: float) -> None:
    """By logarithms: no smaller than the scale, and half of it is. Symmetric, one side may lack a step."""
    assume(has_scale(low, high))
    plain, found = rule(Range(-low, high)), rule(Range(-low, high), power_of_two=True)
    assert math.log2(found.scale).is_integer()
    assert plain.scale <= found.scale < 2 * plain.scale
    assert (-128 - found.offset - 0.5) * found.scale <= -low and high <= (127 - found.offset + 1) * found.scale


@given(st.floats(2.0**-100, 2.0**100, width=32))
def test_powers_of_two(scale: float) -> None:
    found = powers_of_two(np.array([scale], np.float32))
    assert found.dtype == np.float32
    assert float(found[0]) == 2.0 ** math.ceil(math.log2(scale)) or abs(math.log2(scale) % 1.0) < 1e-6


@pytest.mark.parametrize("axes", [(1,), None])
@pytest.mark.parametrize("algorithm", ["minmax", "mse"])
def test_weight_scales_of_powers_of_two(axes: tuple[int, ...] | None, algorithm: str) -> None:
    weight = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32) * np.array([1, 10, 0.1, 0], np.float32)
    plain = weight_scales("layer", weight, axes, algorithm=algorithm)
    found = weight_scales("layer", weight, axes, algorithm=algorithm, power_of_two=True)
    assert np.array_equal(found, 2.0 ** np.ceil(np.log2(plain)))


@pytest.mark.parametrize("rule", BOTH)
@given(low=SIDE, high=SIDE)
def test_zero_is_exact(rule: Callable[..., Any], low: float, high: float) -> None:
    assert fake_quantize(np.zeros(3), rule(Range(-low, high))).tolist() == [0.0] * 3


@given(SIDE, SIDE, st.lists(st.floats(0.0, 1.0), min_size=1))
def test_asymmetric_error_is_at_most_half_a_step_inside_the_range(low: float, high: float, places: list[float]) -> None:
    assume(has_scale(low, high))
    affine = asymmetric(Range(-low, high))
    values = -low + (high + low) * np.array(places)
    error = np.abs(fake_quantize(values, affine) - values)
    # The float32 rounding of the scale adds up to 2^-24 of the whole range.
    assert error.max() <= affine.scale * (0.5 + 256 * 2**-23)


@given(SIDE, SIDE, st.lists(st.floats(-1.0, 1.0), min_size=1))
def test_symmetric_error_is_at_most_half_a_step_up_to_127_steps(low: float, high: float, places: list[float]) -> None:
    affine = symmetric(Range(-low, high))
    values = 127 * affine.scale * np.array(places)
    assert np.abs(fake_quantize(values, affine) - values).max() <= affine.scale * (0.5 + 1e-12)


@pytest.mark.parametrize("rule", BOTH)
@given(low=SIDE, high=SIDE)
def test_quantized_values_are_among_256_multiples_of_the_scale(
    rule: Callable[..., Any], low: float, high: float
) -> None:
    affine = rule(Range(-low, high))
    values = np.linspace(-2 * low - 1, 2 * high + 1, 999)
    steps = fake_quantize(values, affine) / affine.scale + affine.offset
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-9)
    assert steps.min() >= -128 - 1e-9 and steps.max() <= 127 + 1e-9


@pytest.mark.parametrize(
    ("rule", "low", "high", "scale", "offset"),
    [
        (asymmetric, -1.0, 0.9921875, 0.0078125, 0),  # the input of the published MobileNetV2 record
        (asymmetric, 0.0, 6.0, 6.0 / 255.0, -128),
        (asymmetric, -6.0, 0.0, 6.0 / 255.0, 127),
        (asymmetric, 0.0, 0.0, 1.0, -128),
        (asymmetric, -1e-6, 1e-6, 1.0, -128),
        (symmetric, -0.5, 1.0, 1.0 / 127.0, 0),
        (symmetric, -1.0, 0.5, 1.0 / 128.0, 0),
        (symmetric, -1.0, 1.0, 1.0 / 128.0, 0),  # a tie is the negative side's
        (symmetric, 0.0, 0.0, 1.0, 0),
        (symmetric, -1e-6, 1e-6, 1.0, 0),
    ],
)
def test_rules(rule: Callable[..., Any], low: float, high: float, scale: float, offset: int) -> None:
    assert rule(Range(low, high)) == Affine(float(np.float32(scale)), offset)


def test_the_smallest_legal_scale_and_the_first_that_is_too_small() -> None:
    assert asymmetric(Range(0.0, 255 * EPSILON)).scale == EPSILON
    assert asymmetric(Range(0.0, 254 * EPSILON)).scale == 1.0


@pytest.mark.parametrize("rule", BOTH)
@pytest.mark.parametrize("high", [256.01 * 2.0**23, 1e38, 1e300])
def test_a_range_too_large(rule: Callable[..., Any], high: float) -> None:
    with pytest.raises(ValueError, match="scale must be in"):
        rule(Range(0.0, high))


@pytest.mark.parametrize(("low", "high"), [(0.1, 1.0), (-1.0, -0.1), (math.nan, 1.0), (0.0, math.nan), (0.0, math.inf)])
def test_no_range(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="a range is finite and contains zero"):
        Range(low, high)


@pytest.mark.parametrize(
    ("scale", "offset", "message"),
    [
        (0.0, 0, "scale must be in"),
        (-1.0, 0, "scale must be in"),
        (math.nan, 0, "scale must be in"),
        (math.inf, 0, "scale must be in"),
        (0.1, 0, "scale must be a float32 number"),
        (0.5, 128, "offset must be in"),
        (0.5, -129, "offset must be in"),
    ],
)
def test_no_affine(scale: float, offset: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Affine(scale, offset)


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(1.0, 2.0, (0.0, 2.0)), (-2.0, -1.0, (-2.0, 0.0)), (-1.0, 1.0, (-1.0, 1.0))]
)
def test_a_range_covers_zero(low: float, high: float, expected: tuple[float, float]) -> None:
    assert Range.covering(low, high) == Range(*expected)


@given(st.floats(0.0, 1e6, width=32), st.floats(0.0, 1e6, width=32), st.booleans())
def test_16_bits_reach_twice_as_far_as_the_range_and_have_steps_of_a_128th_of_8_bits(
    low: float, high: float, power_of_two: bool
) -> None:
    found, narrow = wide(Range(-low, high), power_of_two=power_of_two), symmetric(Range(-low, high))
    largest = max(low, high)
    assert found.bits == 16 and found.offset == 0
    assert found.low < -1.99 * largest <= 1.99 * largest < found.high
    exponent = np.log2(found.scale)
    assert abs(exponent - np.rint(exponent)) > 1e-3 or power_of_two or largest < 1e-2
    if largest > 1.0:
        assert found.scale <= (2.0 if power_of_two else 1.0) * narrow.scale / 128 * 1.01
    fractions = np.frexp(found.scale)[0]
    assert fractions == 0.5 or not power_of_two


def test_16_bits_have_no_offset() -> None:
    with pytest.raises(ValueError, match="16 without an offset, got 16 with 3"):
        Affine(1.0, 3, 16)
