"""The contract of both distributions: a sketch, or all values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from autoquant.calibration.distribution import LIMIT, Collector, Distribution, Exact, ExactCollector
from autoquant.errors import TrialError

PARTS = [
    [[0.5, -1.25], [], [[3.0, 3.0], [0.0, -7.5]]],
    [[0.0, 0.0], [0.0]],
    [[-2.0]],
    [[1e-30, 1e30], [5.0]],
    [[-1.0, -2.0], [-1000.0]],
]


@pytest.mark.parametrize("batches", PARTS)
def test_numbers_and_order_statistics(see: Callable[..., Distribution], batches: list[Any]) -> None:
    seen = see(*batches)
    ordered = np.sort(np.concatenate([np.ravel(batch) for batch in batches]).astype(np.float32)).astype(np.float64)
    assert seen.count == len(ordered)
    assert seen.nonfinite == 0
    assert seen.low == ordered[0]
    assert seen.high == ordered[-1]
    assert (seen.smallest(1), seen.largest(1)) == (ordered[0], ordered[-1])


def test_values_are_ascending_and_stand_for_all(see: Callable[..., Distribution], values: NDArray[Any]) -> None:
    seen = see(*np.array_split(values, 3))
    found, counts = seen.values()
    assert (np.diff(found) >= 0).all()
    assert counts.sum() == len(values) and counts.min() >= 1
    assert (found[0], found[-1]) == (values.min(), values.max())
    bin_ = (float(values.max()) - float(values.min())) / 2**13
    np.testing.assert_allclose(np.repeat(found, counts), np.sort(values), atol=bin_)


def test_order_statistics_are_within_a_bin(see: Callable[..., Distribution], values: NDArray[Any]) -> None:
    seen, ordered = see(values), np.sort(values).astype(np.float64)
    bin_ = (ordered[-1] - ordered[0]) / 2**13
    for k in (1, 2, 10, len(values)):
        assert seen.smallest(k) == pytest.approx(ordered[k - 1], abs=bin_)
        assert seen.largest(k) == pytest.approx(ordered[-k], abs=bin_)


def test_histogram_against_numpy(see: Callable[..., Distribution]) -> None:
    """On edges that are bins' edges, a sketch has what all values have."""
    values = np.random.default_rng(0).integers(-700, 900, size=5000) / 64
    edges = np.arange(-720, 921, 16) / 64
    expected, _ = np.histogram(values, edges)
    np.testing.assert_array_equal(see(values).histogram(edges), expected)
    inner = edges[(edges > -3.0) & (edges < 4.0)]  # what is outside is not counted
    between = values[values != inner[-1]]  # the last bin is closed, which only all values can tell apart
    np.testing.assert_array_equal(see(between).histogram(inner), np.histogram(between, inner)[0])


def test_histogram_over_what_was_seen_holds_everything(see: Callable[..., Distribution], values: NDArray[Any]) -> None:
    seen = see(values)
    for bins in (1, 100, 1024, 8192):
        counts = seen.histogram(np.linspace(seen.low, seen.high, bins + 1))
        assert counts.shape == (bins,) and counts.min() >= 0.0
        assert counts.sum() == pytest.approx(len(values), abs=1e-2)


@pytest.mark.parametrize("at", [0.0, 6.0, -6.0])
def test_a_peak_at_an_end_belongs_to_the_bin_above_it(see: Callable[..., Distribution], at: float) -> None:
    """The least and the largest value are often one value seen many times: zero after a ReLU, six after a ReLU6."""
    edges = np.arange(-4.0, 5.0) * 2.0
    counts = see(np.full(50, at), [0.0]).histogram(edges)
    expected, _ = np.histogram([*[at] * 50, 0.0], edges)
    np.testing.assert_array_equal(counts, expected)


def test_counted_values_are_values_seen_so_often(new_collector: Callable[[], Collector]) -> None:
    counted, repeated = new_collector(), new_collector()
    values, counts = np.array([[1.5, math.nan], [-2.0, 7.0]], np.float32), np.array([[3, 2], [1, 4]])
    counted.add(values, counts)
    repeated.add(np.repeat(values.ravel(), counts.ravel()))
    first, second = counted.distribution(), repeated.distribution()
    assert (first.low, first.high, first.count, first.nonfinite) == (-2.0, 7.0, 8, 2)
    assert (second.low, second.high, second.count, second.nonfinite) == (-2.0, 7.0, 8, 2)
    for mine, theirs in zip(first.values(), second.values(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_nonfinite_values_are_counted_separately(see: Callable[..., Distribution]) -> None:
    seen = see([1.0, math.nan, 3.0], [math.inf, -math.inf], [2.0])
    assert (seen.low, seen.high, seen.count, seen.nonfinite) == (1.0, 3.0, 3, 3)


def test_nothing_seen(see: Callable[..., Distribution]) -> None:
    for seen in (see(), see([])):
        assert (seen.low, seen.high, seen.count, seen.nonfinite) == (0.0, 0.0, 0, 0)
        assert [part.tolist() for part in seen.values()] == [[], []]


def test_a_distribution_does_not_change_when_more_is_added_or_the_batch_is_overwritten(
    new_collector: Callable[[], Collector],
) -> None:
    collector, batch = new_collector(), np.array([1.0, 2.0], np.float32)
    collector.add(batch)
    batch[:] = 9.0
    before = collector.distribution()
    collector.add(np.array([1.5, -3.0], np.float32))
    assert (before.low, before.high, before.count) == (1.0, 2.0, 2)
    after = collector.distribution()
    assert (after.low, after.high, after.count) == (-3.0, 2.0, 4)


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
def test_exact_histogram_against_numpy(values: list[float], edges: list[float]) -> None:
    """Also where an edge is a number that float32 does not have."""
    ordered, ascending = np.sort(np.array(values, np.float32)), np.sort(edges)
    expected, _ = np.histogram(ordered.astype(np.float64), ascending)
    np.testing.assert_array_equal(Exact(ordered).histogram(ascending), expected)


@pytest.mark.parametrize("values", [[2.0, 1.0], [0.0, math.nan], [[1.0, 2.0]]])
def test_no_exact(values: list[Any]) -> None:
    with pytest.raises(ValueError, match="values must be a vector in ascending order"):
        Exact(np.array(values, np.float32))
