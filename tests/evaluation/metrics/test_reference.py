"""Agreement and SQNR with the FP32 outputs, against loops over samples in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from autoquant.array import Array
from autoquant.errors import DataError, TrialError
from autoquant.evaluation.metrics.metric import Metric
from autoquant.evaluation.metrics.reference import agreement, signal_to_noise
from autoquant.evaluation.metrics.table import open_metric

few_values = st.integers(-3, 3).map(float)  # many ties, as quantized outputs have
maps = hnp.array_shapes(min_dims=3, max_dims=4, min_side=2, max_side=4)
reals = st.floats(-1e6, 1e6, width=32)
RNG = np.random.default_rng(2)


def rows(metric: Metric, ours: Array, theirs: Array) -> Array:
    return metric.measure({"o": ours}, None, {"o": theirs})


@given(maps.flatmap(lambda shape: hnp.arrays(np.float32, (2, *shape), elements=few_values)), st.data())
def test_agreement_is_the_share_of_positions_with_the_same_class(both: Array, data: st.DataObject) -> None:
    ours, theirs = both
    axis = data.draw(st.sampled_from([None, *range(1, ours.ndim), *range(1 - ours.ndim, 0)]))
    found = rows(agreement(axis=axis), ours, theirs)
    along = -1 if axis is None else axis
    expected = [
        np.mean(one == other) for one, other in zip(ours.argmax(axis=along), theirs.argmax(axis=along), strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert found.shape == (len(ours),)
    assert found.dtype == np.float64


@pytest.mark.parametrize("shape", [(4, 3), (4, 1, 3), (4, 3, 1), (4,), (4, 1)])
def test_one_answer_a_sample_is_right_or_wrong(shape: tuple[int, ...]) -> None:
    ours, theirs = RNG.random(shape), RNG.random(shape)
    found = rows(agreement(), ours, theirs)
    assert found.dtype == bool
    one, other = ours.reshape(4, -1), theirs.reshape(4, -1)
    wide = one.shape[1] > 1
    expected = one.argmax(axis=1) == other.argmax(axis=1) if wide else (one[:, 0] > 0.5) == (other[:, 0] > 0.5)
    np.testing.assert_array_equal(found, expected)


def test_masks_of_a_single_column_are_above_the_threshold_or_not() -> None:
    ours, theirs = RNG.random((3, 5, 6, 1)), RNG.random((3, 5, 6, 1))
    expected = ((ours > 0.5) == (theirs > 0.5)).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(rows(agreement(), ours, theirs), expected, rtol=1e-12)
    first = [np.moveaxis(array, -1, 1) for array in (ours, theirs)]
    np.testing.assert_allclose(rows(agreement(axis=1), *first), expected, rtol=1e-12)
    logits = [np.log(array / (1 - array)) for array in first]
    np.testing.assert_allclose(rows(open_metric("agreement@0@axis=1"), *logits), expected, rtol=1e-12)
    with pytest.raises(DataError, match=r"if it is a logit, use --metric agreement@0@axis=1; of other"):
        rows(open_metric("agreement@axis=1"), *logits)


def test_class_numbers_agree_where_they_are_equal() -> None:
    ours, theirs = RNG.integers(0, 3, (4, 5, 6)), RNG.integers(0, 3, (4, 5, 6))
    np.testing.assert_allclose(rows(agreement(), ours, theirs), (ours == theirs).mean(axis=(1, 2)), rtol=1e-12)
    assert rows(agreement(), ours[:, 0, 0], theirs[:, 0, 0]).dtype == bool


def test_of_fp32_only_classes_are_kept() -> None:
    ours, theirs = ({"o": RNG.normal(size=(4, 5, 6, 21)).astype(np.float32)} for _ in range(2))
    kept = agreement().kept(theirs)
    assert kept["o"].nbytes == 4 * 5 * 6
    np.testing.assert_array_equal(agreement().measure(ours, None, kept), agreement().measure(ours, None, theirs))
    numbers = {"o": np.asarray([[-1, 300]])}
    np.testing.assert_array_equal(agreement().kept(numbers)["o"], numbers["o"])
    assert signal_to_noise().kept(theirs) is theirs


def test_several_outputs_count_the_same() -> None:
    ours = {"a": np.asarray([[1, 2.0], [2, 1]]), "b": np.asarray([[[0, 1.0], [1, 0]], [[0, 1], [1, 0]]])}
    theirs = {"a": np.asarray([[0, 9.0], [0, 9]]), "b": np.asarray([[[0, 1.0], [0, 1]], [[0, 1], [1, 0]]])}
    np.testing.assert_array_equal(agreement().measure(ours, None, theirs), [(1 + 0.5) / 2, (0 + 1) / 2])
    chosen = open_metric("agreement@output=b")
    found = chosen.measure(chosen.scored(ours), None, chosen.scored(theirs))
    np.testing.assert_array_equal(found, [0.5, 1.0])


@given(hnp.arrays(np.float32, (2, 3, 4, 5), elements=reals), st.sampled_from([10.0, 30.0, 100.0]))
def test_sqnr_in_float64(both: Array, cap: float) -> None:
    ours, theirs = both
    found = rows(signal_to_noise(cap=cap), ours, theirs)
    for row, one, other in zip(found, ours.astype(np.float64), theirs.astype(np.float64), strict=True):
        noise, signal = math.fsum(((one - other) ** 2).ravel()), math.fsum((other**2).ravel())
        expected = cap if noise == 0 else 0.0 if signal == 0 else 10 * math.log10(signal / noise)
        assert row == pytest.approx(min(max(expected, 0.0), cap), abs=1e-9)


def test_sqnr_by_hand() -> None:
    theirs = np.asarray([[3.0, 4.0]] * 5)
    ours = theirs + np.asarray([[0.3, 0.4], [0.0, 0.0], [6.0, 8.0], [0.03, 0.04], [0.0, 1e-9]])
    # a tenth of the amplitude: 20 dB; equal: the cap; twice the amplitude: the floor; a hundredth: 40 dB, capped
    np.testing.assert_allclose(rows(signal_to_noise(), ours, theirs), [20.0, 30.0, 0.0, 30.0, 30.0], atol=1e-9)
    np.testing.assert_allclose(rows(open_metric("sqnr@100"), ours, theirs), [20.0, 100.0, 0.0, 40.0, 100.0], atol=1e-9)


def test_sqnr_of_itself_is_exactly_the_cap() -> None:
    values = RNG.normal(size=(50, 7)).astype(np.float32)
    for cap in (30.0, 33.3, 100.0):
        metric = signal_to_noise(cap=cap)
        found = rows(metric, values, values.copy())
        assert set(found) == {cap}
        assert metric.bounds == (0.0, cap)


def test_sqnr_of_nothing_and_of_values_near_the_ends_of_float32() -> None:
    nothing = np.zeros((2, 3), np.float32)
    np.testing.assert_array_equal(rows(signal_to_noise(), nothing, nothing), [30.0, 30.0])
    np.testing.assert_array_equal(rows(signal_to_noise(), nothing + 1, nothing), [0.0, 0.0])
    np.testing.assert_array_equal(rows(signal_to_noise(), nothing, nothing + 1), [0.0, 0.0])
    for size in (1e-38, 3e38):
        theirs = np.full((1, 3), size)
        np.testing.assert_allclose(rows(signal_to_noise(), theirs * 0.9, theirs), [20.0], atol=1e-9)
    np.testing.assert_array_equal(rows(signal_to_noise(), np.full((1, 2), 1e308), np.full((1, 2), 1e-300)), [0.0])


def test_sqnr_is_the_mean_over_outputs_whatever_their_units() -> None:
    theirs = {"boxes": np.full((2, 4), 300.0), "scores": np.full((2, 3), 0.1), "ids": np.asarray([3, 4])}
    ours = {"boxes": theirs["boxes"] * 1.1, "scores": theirs["scores"] * 1.01, "ids": np.asarray([3, 4])}
    metric = open_metric("sqnr@50")
    np.testing.assert_allclose(metric.measure(ours, None, theirs), [(20 + 40 + 50) / 3] * 2, atol=1e-9)


@pytest.mark.parametrize("name", ["agreement", "sqnr"])
def test_what_cannot_be_compared(name: str) -> None:
    metric = open_metric(name)
    ours = {"a": np.zeros((2, 3)), "b": np.asarray([[0.0, 1.0], [np.nan, 0.0]])}
    with pytest.raises(TrialError, match="metric: output 'b' is NaN for 1 of 2 samples"):
        metric.measure(ours, None, {"a": np.zeros((2, 3)), "b": np.zeros((2, 2))})
    ours["b"] = np.zeros((2, 6, 2))
    with pytest.raises(TrialError, match=r"output 'b' has shape \(2, 6.*\), the FP32 model's \(2, 5.*\); what depends"):
        metric.measure(ours, None, {"a": np.zeros((2, 3)), "b": np.zeros((2, 5, 2))})
    with pytest.raises(ValueError, match="there are none"):
        metric.measure(ours, None, None)


def test_infinity_has_no_sqnr() -> None:
    with pytest.raises(TrialError, match="metric: output 'o' is infinite"):
        rows(signal_to_noise(), np.asarray([[np.inf, 0.0]]), np.ones((1, 2)))
