"""Divergences are those of SciPy; the factor, over all signs there are, makes up the Fisher information."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.linalg import block_diag
from scipy.special import expit, rel_entr, softmax

from autoquant.tuning.sensitivity.likelihoods import Classes, OutputReading, Values, likelihood_of

LOGITS = arrays(np.float32, (3, 4), elements=st.floats(-8, 8, width=32))


def every_factor(likelihood: Classes, output: NDArray[Any]) -> NDArray[Any]:
    """S e for one sample and all signs, (signs, columns), float64."""
    import tensorflow as tf

    columns = output.shape[1]
    signs = np.array(list(product((-1.0, 1.0), repeat=columns)), np.float32)
    repeated = tf.constant(np.repeat(output[:1], len(signs), axis=0))
    return np.asarray(likelihood.factor(repeated, tf.constant(signs)), np.float64)


def information(found: NDArray[Any]) -> Any:
    return found.T @ found / len(found)


@given(LOGITS)
def test_of_logits(logits: NDArray[Any]) -> None:
    p = softmax(logits[0].astype(np.float64))
    found = every_factor(Classes(probabilities=False), logits)
    np.testing.assert_allclose(information(found), np.diag(p) - np.outer(p, p), atol=1e-5)


@given(LOGITS)
def test_of_probabilities_it_becomes_that_of_logits_behind_a_softmax(logits: NDArray[Any]) -> None:
    p = softmax(logits.astype(np.float64), axis=1).astype(np.float32)
    jacobian = np.diag(p[0].astype(np.float64)) - np.outer(p[0], p[0])
    found = every_factor(Classes(probabilities=True), p) @ jacobian
    np.testing.assert_allclose(information(found), jacobian, atol=1e-5)


def test_with_two_classes_signs_do_not_matter() -> None:
    logits = np.array([[0.3, -1.1]], np.float32)
    p = softmax(logits[0].astype(np.float64))
    for one in every_factor(Classes(probabilities=False), logits):
        np.testing.assert_allclose(np.outer(one, one), np.diag(p) - np.outer(p, p), atol=1e-6)


def test_a_single_column_is_one_of_two_classes() -> None:
    z = np.array([[0.7]], np.float32)
    p = expit(0.7)
    np.testing.assert_allclose(information(every_factor(Classes(probabilities=False), z)), [[p * (1 - p)]], rtol=1e-5)
    at_p = every_factor(Classes(probabilities=True), np.array([[p]], np.float32))
    np.testing.assert_allclose(information(at_p), [[1 / (p * (1 - p))]], rtol=1e-5)
    before, after = np.array([[0.7]], np.float32), np.array([[-0.2]], np.float32)
    q = expit(-0.2)
    expected = rel_entr([p, 1 - p], [q, 1 - q]).sum()
    assert Classes(probabilities=False).divergence(before, after) == pytest.approx([expected], rel=1e-6)
    assert Classes(probabilities=True).divergence(expit(before), expit(after)) == pytest.approx([expected], rel=1e-5)


@given(LOGITS, LOGITS)
def test_divergence_of_classes(before: NDArray[Any], after: NDArray[Any]) -> None:
    p, q = softmax(before.astype(np.float64), axis=1), softmax(after.astype(np.float64), axis=1)
    expected = rel_entr(p, q).sum(axis=1)
    np.testing.assert_allclose(Classes(probabilities=False).divergence(before, after), expected, atol=1e-9)
    np.testing.assert_allclose(Classes(probabilities=True).divergence(p, q), expected, rtol=1e-4, atol=1e-5)


def test_sure_probabilities_give_no_infinity() -> None:
    sure = np.array([[1.0, 0.0, 0.0]], np.float32)
    assert np.isfinite(every_factor(Classes(probabilities=True), sure)).all()
    assert np.isfinite(Classes(probabilities=True).divergence(sure, sure[:, ::-1])).all()


def test_values_count_relative_to_their_scale_however_many_they_are() -> None:
    before, change = np.zeros((2, 3, 5, 1), np.float32), np.full((2, 3, 5, 1), 0.5, np.float32)
    assert Values((2.0,)).divergence(before, before + change) == pytest.approx([0.03125] * 2)  # (0.5 / 2)^2 / 2
    import tensorflow as tf

    signs = np.where(np.random.default_rng(0).random(before.shape) < 0.5, -1, 1).astype(np.float32)
    found = np.asarray(Values((2.0,)).factor(tf.constant(before), tf.constant(signs)))
    np.testing.assert_allclose(np.square(found).sum(axis=(1, 2, 3)), 0.25, rtol=1e-6)


@pytest.mark.parametrize(
    ("output", "of_classes", "expected"),
    [
        ([[0.25, 0.75], [1.0, 0.0]], True, Classes(probabilities=True)),
        ([[0.25, 0.5], [1.0, 0.0]], True, Classes(probabilities=False)),
        ([[-1.0, 2.0]], True, Classes(probabilities=False)),
        ([[0.25], [1.0]], True, Classes(probabilities=True)),
        ([[0.25], [3.0]], True, Classes(probabilities=False)),
        ([[1.0, 5.0], [5.0, 1.0]], False, Values((2.0, 2.0))),
        ([[[1.0, 5.0], [5.0, 1.0]]], True, Values((2.0, 2.0))),
        ([3.0, 3.0], True, Values((1.0,))),
        ([[100.0, 0.5, 3.0], [300.0, 0.7, 3.0]], False, Values((100.0, 0.1, 0.01))),  # a flat column is not noise
        ([[0.25, 0.75], [1.0, 0.0]], None, Classes(probabilities=True)),
        ([[[0.25, 0.75], [1.0, 0.0]]], None, Classes(probabilities=True, axis=2)),
        ([[1.0, 5.0], [5.0, 1.0]], None, Values((2.0, 2.0))),
        ([[0.5], [1.0]], None, Values((0.25,))),
    ],
)
def test_how_an_output_is_read(output: list[Any], of_classes: bool | None, expected: Classes | Values) -> None:
    found = likelihood_of(np.array(output, np.float32), OutputReading(of_classes=of_classes))
    if isinstance(expected, Values):
        assert isinstance(found, Values)
        assert found.scale == pytest.approx(expected.scale)
    else:
        assert found == expected


def test_scores_beside_boxes_count_as_much() -> None:
    before = np.random.default_rng(0).normal(size=(4, 50, 2)) * [100.0, 0.1]
    read = likelihood_of(before)
    boxes, scores = (read.divergence(before, before + change).mean() for change in ([10.0, 0.0], [0.0, 0.01]))
    assert boxes == pytest.approx(scores, rel=0.1)  # either is a tenth of what its column varies by
    assert boxes == pytest.approx(0.1**2 / 2 / 2, rel=0.1)


@pytest.mark.parametrize(
    ("shape", "axis", "expected"),
    [((3, 5), None, 1), ((3, 4, 5), None, 2), ((3, 1, 1, 5), None, 3), ((3, 5, 1, 1), None, 1), ((3, 5, 4, 6), 1, 1)],
)
def test_which_axis_is_that_of_classes_where_there_are_positions(
    shape: tuple[int, ...], axis: int | None, expected: int
) -> None:
    scores = np.random.default_rng(0).normal(size=shape)
    reading = OutputReading(positions=True, axis=axis)
    assert likelihood_of(scores, reading) == Classes(probabilities=False, axis=expected)
    assert likelihood_of(softmax(scores, axis=expected), reading) == Classes(probabilities=True, axis=expected)


def test_the_divergence_of_positions_is_the_mean_of_theirs() -> None:
    before, after = np.random.default_rng(1).normal(size=(2, 3, 4, 5, 6))
    p, q = softmax(before, axis=1), softmax(after, axis=1)
    expected = rel_entr(p, q).sum(axis=1).mean(axis=(1, 2))
    np.testing.assert_allclose(Classes(False, 1).divergence(before, after), expected, rtol=1e-9)
    np.testing.assert_allclose(Classes(True, 1).divergence(p, q), expected, rtol=1e-9)


@pytest.mark.parametrize(("shape", "axis"), [((1, 2, 3), 2), ((1, 3, 2), 1), ((1, 2, 1, 2), 1), ((1, 3, 1), 2)])
def test_the_information_of_positions_is_that_of_each_over_their_number(shape: tuple[int, ...], axis: int) -> None:
    import tensorflow as tf

    logits = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    signs = np.array(list(product((-1.0, 1.0), repeat=logits.size)), np.float32).reshape(-1, *shape[1:])
    repeated = tf.constant(np.repeat(logits, len(signs), axis=0))
    found = np.asarray(Classes(False, axis).factor(repeated, tf.constant(signs)), np.float64)
    rows = np.moveaxis(found, axis, -1).reshape(len(signs), -1)
    each = np.moveaxis(logits.astype(np.float64), axis, -1).reshape(-1, shape[axis])
    blocks = []
    for row in each:
        p = softmax(row) if len(row) > 1 else expit(row)
        blocks.append((np.diag(p) - np.outer(p, p)) / len(each))
    np.testing.assert_allclose(information(rows), block_diag(*blocks), atol=1e-6)


def test_which_outputs_count() -> None:
    assert OutputReading().counting(["a", "b"]) == ["a", "b"]
    assert OutputReading(outputs=("b",)).counting(["a", "b"]) == ["b"]
    assert OutputReading(outputs=("ids",)).counting(["a", "b"]) == ["a", "b"]  # class numbers have no gradient
