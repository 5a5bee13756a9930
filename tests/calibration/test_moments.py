"""Channels of tensors, seen part by part."""

from __future__ import annotations

import numpy as np
import pytest

from autoquant.calibration.moments import collect_moments


@pytest.mark.parametrize("axis", [1, -1])
def test_parts_of_any_size_are_seen_as_a_whole(axis: int) -> None:
    values = np.random.default_rng(0).normal(size=(9, 3, 4, 5)).astype(np.float32)
    parts = ({"t": part, "other": part} for part in np.split(values, [2, 3]))
    found = collect_moments(parts, {"t": axis})
    rows = np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis]).astype(np.float64)
    assert found.keys() == {"t"}
    np.testing.assert_array_equal(found["t"].low, rows.min(axis=0))
    np.testing.assert_array_equal(found["t"].high, rows.max(axis=0))
    np.testing.assert_allclose(found["t"].mean, rows.mean(axis=0), rtol=1e-12, atol=1e-12)


def test_a_mean_of_many_values_is_not_rounded_away() -> None:
    ones = np.ones((1 << 14, 1), np.float32)
    found = collect_moments(({"t": ones * np.float32(0.1)} for _ in range(1 << 11)), {"t": -1})
    assert found["t"].mean == pytest.approx(float(np.float32(0.1)), rel=1e-12)


def test_an_empty_tensor_is_left_out() -> None:
    assert collect_moments([{"t": np.zeros((0, 3), np.float32)}], {"t": -1}) == {}
