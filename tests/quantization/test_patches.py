"""Patches against windows that NumPy slides over data; those of every operator are tested where layers are known."""

from __future__ import annotations

import numpy as np
import pytest

from autoquant.quantization.patches import Axis, patches


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("zeros", [(0, 0), (1, 0), (2, 3)])
def test_patches_are_windows_of_padded_data(stride: int, zeros: tuple[int, int]) -> None:
    data = np.random.default_rng(0).normal(size=(3, 6, 7, 2)).astype(np.float32)
    axes = [Axis.padded(6, 3, stride=stride, zeros=zeros), Axis.padded(7, 2, stride=stride)]
    padded = np.pad(data, ((0, 0), zeros, (0, 0), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 2), axis=(1, 2))[:, ::stride, ::stride]
    wanted = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, 6, 2)
    found = patches(data, axes, np.arange(len(wanted)))
    np.testing.assert_array_equal(found, wanted)
    some = np.array([5, 0, 5])
    np.testing.assert_array_equal(patches(data, axes, some), wanted[some])


def test_a_kernel_that_does_not_fit_has_no_results() -> None:
    assert Axis.padded(2, 5).results == 0


def test_a_transposed_convolution_meets_values_a_stride_apart() -> None:
    """Kernel 3, stride 2, nothing left out: results 0 to 4 of two values."""
    axis = Axis.spread(2, 3, 5, stride=2, before=0)
    assert axis.sources(np.arange(5)).tolist() == [[0, -1, -1], [-1, 0, -1], [1, -1, 0], [-1, 1, -1], [-1, -1, 1]]
