"""Scales of weights against their formulas in float64."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.schema_py_generated import BuiltinOperator
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from autoquant.calibration.plan import LayerPlan
from autoquant.errors import TrialError
from autoquant.model.layer import Layer
from autoquant.targets.litert_weights import BIAS_STEPS, raised_for_bias, scales_of

SHAPES = {
    "CONV_2D": ((5, 3, 3, 2), 0),
    "DEPTHWISE_CONV_2D": ((1, 3, 3, 6), 3),
    "FULLY_CONNECTED": ((7, 11), 0),
    "TRANSPOSE_CONV": ((4, 3, 3, 2), 0),
}
"""Operator -> shape of its weight, and the axis of its output channels."""


def layer(shape: tuple[int, ...], axis: int) -> Layer:
    return Layer("layer", "Conv2D", ("x",), -1, "weight", shape, (axis,), None, None, None)


def found(
    name: Any, weight: NDArray[Any], axis: int, algorithm: str = "minmax", channel_wise: bool = True
) -> NDArray[Any]:
    code = getattr(BuiltinOperator, name)
    model = SimpleNamespace(operatorCodes=[SimpleNamespace(builtinCode=code, deprecatedBuiltinCode=0)])
    operators = [SimpleNamespace(opcodeIndex=0, builtinOptions=None)]
    lite: Any = SimpleNamespace(model=model, operators=operators, layers={"layer": 0})
    settings = LayerPlan(weight_algorithm=algorithm, channel_wise=channel_wise)
    return scales_of(layer(weight.shape, axis), weight, lite, settings)


def octav(rows: NDArray[Any], iterations: int = 10) -> NDArray[Any]:
    """Sakr et al. 2022, equation 6, for 8 bits with a sign: the clip of least squared error, by Newton's method."""
    clips = np.ones(len(rows))
    part = 4.0**-8 / 3
    for _ in range(iterations):
        beyond = np.abs(rows) >= clips[:, None]
        clips = (np.abs(rows) * beyond).sum(axis=1) / (part * (~beyond).sum(axis=1) + beyond.sum(axis=1))
    return clips


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("channel_wise", [True, False])
@pytest.mark.parametrize("algorithm", ["minmax", "mse", "octav"])
def test_scales_follow_the_formulas(random: np.random.Generator, name: Any, channel_wise: bool, algorithm: str) -> None:
    shape, axis = SHAPES[name]
    weight = random.normal(size=shape).astype(np.float32)
    rows = np.moveaxis(weight.astype(np.float64), axis, 0).reshape(shape[axis], -1)
    rows = rows if channel_wise else rows.reshape(1, -1)
    if algorithm == "minmax":
        wanted = np.abs(rows).max(axis=1) / 127
    elif algorithm == "mse":
        wanted = 0.05408 * np.sqrt(np.square(rows).mean(axis=1))  # litert_quantizer: from offline numeric analysis
    else:
        wanted = np.minimum(octav(rows), np.abs(rows).max(axis=1)) / 127
    scales = found(name, weight, axis, algorithm, channel_wise)
    assert scales.ndim == weight.ndim
    np.testing.assert_allclose(scales.reshape(-1), wanted, rtol=2e-3 if algorithm == "octav" else 1e-6)
    np.testing.assert_array_equal(scales.astype(np.float32), scales)


@pytest.mark.parametrize("algorithm", ["minmax", "mse", "octav"])
def test_channels_of_zeros_have_the_scale_of_the_largest(random: np.random.Generator, algorithm: str) -> None:
    weight = random.normal(size=(5, 3, 3, 2)).astype(np.float32)
    weight[1:3] = 0
    scales = found("CONV_2D", weight, 0, algorithm).reshape(-1)
    assert (scales[1:3] == scales.max()).all()
    assert (found("CONV_2D", np.zeros_like(weight), 0, algorithm) == 1.0).all()


@given(
    st.lists(st.floats(2.0**-33, 10, width=32), min_size=3, max_size=3),
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=3),
    st.floats(2.0**-20, 10, width=32),
    st.booleans(),
)
def test_a_bias_has_room_and_no_scale_shrinks(
    scales: list[float], bias: list[float], scale_d: float, channel_wise: bool
) -> None:
    given_scales = np.array(scales if channel_wise else scales[:1], np.float64).reshape(-1, 1, 1, 1)
    raised = raised_for_bias(layer((3, 1, 1, 1), 0), given_scales, np.array(bias, np.float32), scale_d)
    assert raised.shape == given_scales.shape
    assert (raised >= given_scales.astype(np.float32)).all()
    steps = np.abs(bias) / (scale_d * raised.reshape(-1))
    assert (steps <= BIAS_STEPS * (1 + 1e-6)).all()
    fits = np.abs(bias) / (scale_d * given_scales.reshape(-1)) <= BIAS_STEPS * (1 - 1e-6)
    if fits.all():
        np.testing.assert_array_equal(raised, given_scales)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nonfinite_values_name_the_layer(value: float) -> None:
    weight = np.full((3, 2), value, np.float32)
    with pytest.raises(TrialError, match="layer: its weights hold NaN or infinity"):
        found("FULLY_CONNECTED", weight, 0)
    with pytest.raises(TrialError, match="layer: its bias holds NaN or infinity"):
        raised_for_bias(layer((3, 2), 0), np.ones((3, 1)), np.full(3, value, np.float32), 1.0)
