from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoquant.calibration.exact import LIMIT, Exact, ExactCollector
from autoquant.errors import TrialError


def test_the_limit_is_that_of_amct() -> None:
    assert LIMIT == 2147483647 == np.iinfo(np.int32).max


def test_too_many_values() -> None:
    """In all batches together, those that are not finite too; the message names the tensor and three ways out."""
    keeper = ExactCollector("conv1", limit=5)
    keeper.add(np.array([1.0, math.nan], np.float32))
    keeper.add(np.zeros((1, 3), np.float32))
    with pytest.raises(TrialError) as caught:
        keeper.add(np.array([1.0], np.float32))
    assert str(caught.value) == (
        "conv1: calibration is too large: it keeps all values, and 6 are more than 5; "
        'use act_algo hfmg, or sketches ("exact": false), or a smaller batch_num or batch size'
    )
    with pytest.raises(TrialError, match="and 6 are more than 5"):
        ExactCollector("conv1", limit=5).add(np.array([1.0, 2.0], np.float32), np.array([4, 2]))
    assert keeper.distribution().count == 4


def no_memory(*_: object, **__: object) -> None:
    raise MemoryError


@pytest.mark.parametrize("function", ["array", "concatenate"], ids=["while keeping", "while ordering"])
def test_no_memory(function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = ExactCollector("conv1")
    more = np.array([2.0], np.float32)
    keeper.add(np.array([1.0], np.float32))
    monkeypatch.setattr(np, function, no_memory)
    with pytest.raises(TrialError, match=r"conv1: calibration is too large: .* fit into memory; use act_algo hfmg"):
        if function == "array":
            keeper.add(more)
        keeper.distribution()


def test_values_take_no_second_copy_when_nothing_is_new() -> None:
    keeper = ExactCollector("x")
    keeper.add(np.array([3.0, 1.0], np.float32))
    first = keeper.distribution()
    assert first.ordered.tolist() == [1.0, 3.0] and first.ordered.dtype == np.float32
    assert first.values()[1].strides == (0,)  # one count for all


@given(
    st.lists(st.sampled_from([0.1, 0.3, 1.0, -0.7, 5.0]) | st.floats(-2.0, 2.0, width=32), min_size=1, max_size=20),
    st.lists(st.sampled_from([0.1, 0.3, 1.0, -0.7, 5.0]) | st.floats(-9.0, 9.0), min_size=2, max_size=9, unique=True),
)
def test_histogram_against_numpy(values: list[float], edges: list[float]) -> None:
    """Also where an edge is a number that float32 does not have."""
    ordered, ascending = np.sort(np.array(values, np.float32)), np.sort(edges)
    expected, _ = np.histogram(ordered.astype(np.float64), ascending)
    np.testing.assert_array_equal(Exact(ordered).histogram(ascending), expected)


@pytest.mark.parametrize("values", [[2.0, 1.0], [0.0, math.nan], [[1.0, 2.0]]])
def test_no_exact(values: list[Any]) -> None:
    with pytest.raises(ValueError, match="values must be a vector in ascending order"):
        Exact(np.array(values, np.float32))
