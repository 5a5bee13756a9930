from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from autoquant.array import Array
from autoquant.errors import DataError, TrialError
from autoquant.evaluation.metrics.builtin import (
    area_under_curve,
    mean_squared_error,
    peak_signal_to_noise,
    top_k,
)
from autoquant.evaluation.metrics.metric import first_output

few_values = st.integers(-3, 3).map(float)  # many ties, as quantized outputs have
images = hnp.arrays(np.float32, (3, 2, 4, 1), elements=st.floats(0, 255, width=32))


@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(6, 9)), elements=few_values), st.data())
def test_top_k_is_the_label_among_the_first_of_a_stable_sort(scores: Array, data: st.DataObject) -> None:
    count, classes = scores.shape
    labels = data.draw(hnp.arrays(np.int64, count, elements=st.integers(0, classes - 1)))
    for k in (1, 5):
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        expected = [float(label in row) for label, row in zip(labels, order, strict=True)]
        np.testing.assert_array_equal(top_k("t", k=k).measure({"o": scores}, labels, None), expected)
        one_hot = np.eye(classes, dtype=np.float32)[labels]
        np.testing.assert_array_equal(top_k("t", k=k).measure({"o": scores}, one_hot, None), expected)


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 1, 1)])
def test_a_single_column_is_a_probability(shape: tuple[int, ...]) -> None:
    outputs = np.asarray([0.2, 0.7, 0.5, 0.99]).reshape(shape)
    rows = top_k("top1").measure({"o": outputs}, np.asarray([0, 1, 1, 0]), None)
    np.testing.assert_array_equal(rows, [1, 1, 0, 0])


def test_top_5_of_five_classes_says_nothing() -> None:
    with pytest.raises(DataError, match="metric top5: the model has 5 classes: every answer would be right"):
        top_k("top5", k=5).measure({"o": np.zeros((2, 5))}, np.zeros(2, int), None)


def test_nan_fails_the_trial() -> None:
    with pytest.raises(TrialError, match="is NaN for 1 of 2"):
        top_k("top1").measure({"o": np.asarray([[0, np.nan], [0, 1]])}, np.zeros(2, int), None)


@given(
    st.lists(st.tuples(few_values, st.booleans()), min_size=2, max_size=30).filter(
        lambda rows: len({label for _, label in rows}) == 2
    )
)
def test_auc_is_how_often_a_positive_is_above_a_negative(rows: list[tuple[float, bool]]) -> None:
    scores, labels = (np.asarray(part) for part in zip(*rows, strict=True))
    pairs = [(p > n) + 0.5 * (p == n) for p in scores[labels] for n in scores[~labels]]
    auc = area_under_curve()
    measured = auc.measure({"o": scores[:, None]}, labels.astype(int), None)
    assert measured.shape == (len(rows), 2)
    assert auc.combine(measured) == pytest.approx(np.mean(pairs), abs=1e-12)


def test_auc_equals_that_of_scikit_learn() -> None:
    from sklearn.metrics import roc_auc_score

    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 200)
    positive = np.round(generator.random(200) * 0.5 + 0.3 * labels, 2)
    two = np.stack([1 - positive, positive], axis=1)
    auc = area_under_curve()
    for outputs in (positive, two):
        made = auc.combine(auc.measure({"o": outputs}, labels, None))
        assert made == pytest.approx(roc_auc_score(labels, positive), abs=1e-12)


def test_auc_by_hand() -> None:
    # positives 0.8 and 0.4, negatives 0.6 and 0.4: pairs 1, 1, 0, 1/2
    auc = area_under_curve()
    rows = auc.measure({"o": np.asarray([0.8, 0.6, 0.4, 0.4])}, np.asarray([1, 0, 1, 0]), None)
    assert auc.combine(rows) == pytest.approx(2.5 / 4)


def test_auc_needs_two_classes() -> None:
    auc = area_under_curve()
    with pytest.raises(DataError, match="is for two classes, the model has 3"):
        auc.measure({"o": np.zeros((2, 3))}, np.asarray([0, 1]), None)
    with pytest.raises(DataError, match="there are 0 positive and 2 negative ones"):
        auc.combine(auc.measure({"o": np.zeros((2, 1))}, np.asarray([0, 0]), None))
    with pytest.raises(DataError, match=r"labels are in 0\.\.2, the model has 2 classes"):
        auc.measure({"o": np.zeros((2, 1))}, np.asarray([0, 2]), None)


def test_nan_fails_the_trial_infinity_does_not() -> None:
    outputs = {"logits": np.asarray([[0.0, 1.0], [np.nan, 1.0], [np.nan, np.nan]]), "other": np.zeros(3)}
    with pytest.raises(TrialError, match="metric: output 'logits' is NaN for 2 of 3 samples"):
        first_output(outputs)
    log_probabilities = np.asarray([[-np.inf, 0.0]])
    assert first_output({"log": log_probabilities}) is log_probabilities


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
