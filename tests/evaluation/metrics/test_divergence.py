"""Divergences against scipy, and what is special about some outputs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, softmax
from scipy.stats import entropy

from autoquant.evaluation.metrics.divergence import divergence

RNG = np.random.default_rng(5)
LOGITS = RNG.normal(0, 3, (20, 7))
OTHER = LOGITS + RNG.normal(0, 0.5, LOGITS.shape)


def test_of_logits_and_of_probabilities_it_is_that_of_scipy() -> None:
    want = [entropy(softmax(p), softmax(q)) for p, q in zip(LOGITS, OTHER, strict=True)]
    np.testing.assert_allclose(divergence(LOGITS, OTHER, of_classes=True), want, rtol=1e-9, atol=1e-12)
    p, q = softmax(LOGITS, axis=1), softmax(OTHER, axis=1)
    np.testing.assert_allclose(divergence(p, q, of_classes=True), want, rtol=1e-6, atol=1e-12)


def test_a_single_column_stands_for_two_classes() -> None:
    p, q = LOGITS[:, :1], OTHER[:, :1]
    want = [entropy([1 - a, a], [1 - b, b]) for a, b in zip(expit(p[:, 0]), expit(q[:, 0]), strict=True)]
    np.testing.assert_allclose(divergence(p, q, of_classes=True), want, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(divergence(expit(p), expit(q), of_classes=True), want, rtol=1e-6, atol=1e-12)


def test_probabilities_that_were_rounded_to_steps_and_to_nothing() -> None:
    p = softmax(LOGITS, axis=1)
    found = divergence(p, np.rint(p * 256) / 256, of_classes=True)
    assert np.isfinite(found).all()
    assert (found >= 0).all()


def test_of_positions_it_is_the_mean_of_theirs_on_any_axis() -> None:
    plain, quantized = RNG.normal(size=(2, 4, 3, 5, 7))
    want = [
        np.mean([entropy(softmax(a), softmax(b)) for a, b in zip(p.reshape(15, 7), q.reshape(15, 7), strict=True)])
        for p, q in zip(plain, quantized, strict=True)
    ]
    np.testing.assert_allclose(divergence(plain, quantized, of_classes=True), want, rtol=1e-9)
    first = (np.moveaxis(array, -1, 1) for array in (plain, quantized))
    np.testing.assert_allclose(divergence(*first, of_classes=True, axis=1), want, rtol=1e-9)


def test_of_class_numbers_it_is_the_share_that_differs() -> None:
    plain, quantized = RNG.integers(0, 3, (2, 4, 5, 6))
    found = divergence(plain, quantized, of_classes=True)
    np.testing.assert_allclose(found, (plain != quantized).mean(axis=(1, 2)), rtol=1e-12)


def test_other_outputs_by_relative_squared_error() -> None:
    plain, quantized = RNG.normal(size=(4, 3, 3, 2)), RNG.normal(size=(4, 3, 3, 2))
    want = [np.sum((q - p) ** 2) / np.sum(p**2) for p, q in zip(plain, quantized, strict=True)]
    np.testing.assert_allclose(divergence(plain, quantized, of_classes=False), want, rtol=1e-12)


@pytest.mark.parametrize("of_classes", [True, False])
def test_equal_is_zero_and_not_finite_is_infinite(of_classes: bool) -> None:
    assert divergence(LOGITS, LOGITS.copy(), of_classes=of_classes).tolist() == [0.0] * 20
    broken = OTHER.copy()
    broken[3, 2], broken[5, 0] = np.nan, np.inf
    found = divergence(LOGITS, broken, of_classes=of_classes)
    assert np.flatnonzero(np.isinf(found)).tolist() == [3, 5]
