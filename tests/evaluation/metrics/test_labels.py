from __future__ import annotations

import numpy as np
import pytest

from autoquant.errors import DataError, TrialError
from autoquant.evaluation.metrics.labels import class_labels, class_scores, first_output, predicted


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 3), (4, 1, 1, 3), (4, 3, 1)])
def test_scores_lose_axes_of_length_one(shape: tuple[int, ...]) -> None:
    values = np.arange(np.prod(shape)).reshape(shape)
    made = class_scores(values, "top1")
    assert made.shape == (4, 3 if 3 in shape else 1)
    np.testing.assert_array_equal(made.ravel(), values.ravel())


def test_an_image_is_no_score() -> None:
    with pytest.raises(
        DataError, match=r"metric top1: takes one score per class, the model.s output has shape \(batch, 8, 8, 3\)"
    ):
        class_scores(np.zeros((2, 8, 8, 3)), "top1")


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([2, 0, 1], 3),
        ([[2], [0], [1]], 3),
        ([2.0, 0.0, 1.0], 3),
        ([[0, 0, 1], [1, 0, 0], [0, 1, 0]], 3),
        ([[0, 0, 1.0], [1, 0, 0], [0, 1, 0]], 3),
    ],
)
def test_forms_of_labels(labels: list[object], classes: int) -> None:
    made = class_labels(np.asarray(labels), classes, "top1")
    assert made.dtype == np.int64
    np.testing.assert_array_equal(made, [2, 0, 1])


def test_one_column_stands_for_two_classes() -> None:
    np.testing.assert_array_equal(class_labels(np.asarray([False, True]), 1, "top1"), [0, 1])
    np.testing.assert_array_equal(class_labels(np.asarray([[1, 0], [0, 1]]), 1, "top1"), [0, 1])


@pytest.mark.parametrize(
    ("labels", "classes", "told"),
    [
        ([0, 3], 3, "labels are in 0..3, the model has 3 classes (0..2); shift them with --label-offset"),
        ([1, 3], 3, "labels are in 1..3, the model has 3 classes (0..2); use `--label-offset -1`"),
        ([-1, 1], 3, "labels are in -1..1"),
        ([0, 2], 1, "labels are in 0..2, the model has 2 classes"),
        ([0.0, 1.5], 3, "label 1.5 (float64) is not a class number"),
        ([0.0, np.nan], 3, "label nan (float64) is not a class number"),
        (["cat", "dog"], 3, "label cat (<U3) is not a class number"),
        ([[0.2, 0.3, 0.5]], 3, "label rows are not one-hot"),
        ([[1, 1, 0]], 3, "label rows are not one-hot"),
        ([[1, 0, 0, 0]], 3, "labels of shape (batch, 4) are not for 3 classes"),
    ],
)
def test_bad_labels(labels: list[object], classes: int, told: str) -> None:
    with pytest.raises(DataError) as caught:
        class_labels(np.asarray(labels), classes, "top1")
    assert told in str(caught.value)


def test_predictions() -> None:
    np.testing.assert_array_equal(predicted(np.asarray([[1, 3, 3], [0, -1, -2]]), 0.5, "top1"), [1, 0])
    column = np.asarray([[0.5], [0.51], [0.0], [1.0]])
    np.testing.assert_array_equal(predicted(column, 0.5, "top1"), [0, 1, 0, 1])
    np.testing.assert_array_equal(predicted(10 * column - 5, 0.0, "top1"), [0, 1, 0, 1])


@pytest.mark.parametrize("logit", [-4.0, 1.2])
def test_logits_are_not_taken_for_probabilities(logit: float) -> None:
    with pytest.raises(DataError, match=r"no probability; if it is a logit, use --metric agreement@0"):
        predicted(np.asarray([[0.5], [logit]]), 0.5, "agreement")


def test_nan_fails_the_trial_infinity_does_not() -> None:
    outputs = {"logits": np.asarray([[0.0, 1.0], [np.nan, 1.0], [np.nan, np.nan]]), "other": np.zeros(3)}
    with pytest.raises(TrialError, match="metric: output 'logits' is NaN for 2 of 3 samples"):
        first_output(outputs)
    log_probabilities = np.asarray([[-np.inf, 0.0]])
    assert first_output({"log": log_probabilities}) is log_probabilities
