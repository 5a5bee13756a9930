from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoquant.quantization.bias_correction import mean_shift

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
def test_against_sums_over_every_weight(kind: str, seed: int) -> None:
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
