"""Outputs and labels read as classes."""

from __future__ import annotations

import numpy as np
import pytest

from autoquant.errors import DataError
from autoquant.evaluation.metrics.classes import (
    class_labels,
    class_scores,
    position_scores,
    predicted,
    sample_margins,
)
from autoquant.evaluation.metrics.table import METRICS, open_metric

RNG = np.random.default_rng(4)


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


@pytest.mark.parametrize(
    ("shape", "axis", "expected"),
    [
        ((4, 3), None, (4, 1, 3)),
        ((4,), None, (4, 1, 1)),
        ((4, 1, 1, 3), None, (4, 1, 3)),
        ((4, 3, 1, 1), None, (4, 1, 3)),
        ((4, 5, 3), None, (4, 5, 3)),
        ((4, 5, 6, 3), None, (4, 30, 3)),
        ((4, 5, 6, 1), None, (4, 30, 1)),
        ((4, 3, 5, 6), 1, (4, 30, 3)),
        ((4, 1, 5, 6), -3, (4, 30, 1)),
        ((4, 5, 1), -1, (4, 5, 1)),
    ],
)
def test_scores_of_positions(shape: tuple[int, ...], axis: int | None, expected: tuple[int, ...]) -> None:
    values = RNG.normal(size=shape)
    made = position_scores(values, axis, "agreement")
    assert made.shape == expected
    assert sorted(made.ravel()) == sorted(values.ravel())
    if axis is not None:
        np.testing.assert_array_equal(made[..., 0], np.take(values, 0, axis=axis).reshape(4, -1))


@pytest.mark.parametrize("axis", [0, 2, -2, 7])
def test_an_axis_that_is_not_there(axis: int) -> None:
    with pytest.raises(DataError, match=rf"there is no axis {axis}, the model.s output has shape \(batch, 3\); count"):
        position_scores(np.zeros((4, 3)), axis, "agreement")


def test_the_margin_of_one_position_is_that_of_the_sample() -> None:
    found = sample_margins(METRICS["top1"], [np.asarray([[0.1, 0.7, 0.2], [0.4, 0.4, 0.2]])])
    np.testing.assert_array_equal(found, [0.7 - 0.2, 0.0])


def test_the_margin_of_many_positions_is_a_low_one_of_theirs() -> None:
    first = RNG.normal(size=(6, 4, 5, 3))
    second = RNG.random(size=(6, 7, 1))
    top = np.sort(first.reshape(6, 20, 3), axis=2)
    every = np.concatenate([top[:, :, 2] - top[:, :, 1], np.abs(second[:, :, 0] - 0.5)], axis=1)
    metric = open_metric("agreement@axis=-1")
    np.testing.assert_allclose(sample_margins(metric, [first, second]), np.quantile(every, 0.1, axis=1), rtol=1e-12)
    np.testing.assert_array_equal(sample_margins(metric, [np.ones((6, 4), np.int64)]), np.zeros(6))
