from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from autoquant.errors import DataError, TrialError
from autoquant.evaluation.data.batch import Array
from autoquant.evaluation.metrics.regression import mean_squared_error, peak_signal_to_noise

images = hnp.arrays(np.float32, (3, 2, 4, 1), elements=st.floats(0, 255, width=32))


@given(images, images)
def test_mse_in_float64(outputs: Array, labels: Array) -> None:
    rows = mean_squared_error().measure({"o": outputs}, labels, None)
    expected = [np.mean((a - b) ** 2) for a, b in zip(outputs.astype(np.float64), labels.astype(float), strict=True)]
    np.testing.assert_allclose(rows, expected, rtol=1e-12)


def test_mse_of_one_value_a_sample() -> None:
    rows = mean_squared_error().measure({"o": np.asarray([[1.0], [2.0]])}, np.asarray([3, 2]), None)
    np.testing.assert_array_equal(rows, [4.0, 0.0])
    assert mean_squared_error().combine(rows) == 2.0


def test_psnr_by_hand() -> None:
    flat = np.zeros((3, 2, 2, 1))
    outputs = flat + np.asarray([25.5, 255.0, 0.0]).reshape(3, 1, 1, 1)
    # a tenth of the peak: 20 dB; the peak itself: 0 dB; equal: capped
    rows = peak_signal_to_noise().measure({"o": outputs}, flat.astype(np.uint8), None)
    np.testing.assert_allclose(rows, [20.0, 0.0, 100.0], atol=1e-9)
    rows = peak_signal_to_noise().measure({"o": outputs / 255}, flat, None)
    np.testing.assert_allclose(rows, [20.0, 0.0, 100.0], atol=1e-9)
    assert peak_signal_to_noise().combine(rows) == pytest.approx(40.0)


@given(images, images)
def test_psnr_of_integer_labels(outputs: Array, labels: Array) -> None:
    whole = np.rint(labels).astype(np.uint8)
    rows = peak_signal_to_noise().measure({"o": outputs}, whole, None)
    for row, a, b in zip(rows, outputs.astype(np.float64), whole.astype(np.float64), strict=True):
        error = np.mean((a - b) ** 2)
        expected = 100.0 if error == 0 else min(100.0, 10 * np.log10(255.0**2 / error))
        assert row == pytest.approx(expected, abs=1e-9)


def test_different_shapes() -> None:
    with pytest.raises(DataError, match=r"outputs have shape \(2, 4, 4, 1\), labels \(2, 4, 5, 1\)"):
        peak_signal_to_noise().measure({"o": np.zeros((2, 4, 4, 1))}, np.zeros((2, 4, 5, 1)), None)
    with pytest.raises(DataError, match=r"outputs have shape \(1, 5\), labels \(5, 1\)"):
        mean_squared_error().measure({"o": np.zeros((1, 5))}, np.zeros((5, 1)), None)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_outputs_that_are_not_finite_fail_the_trial(bad: float) -> None:
    with pytest.raises(TrialError, match=r"NaN|infinite"):
        mean_squared_error().measure({"o": np.asarray([[bad], [0.0]])}, np.zeros((2, 1)), None)
