"""How far a model's outputs are from the FP32 model's, sample by sample: finer than any count of right answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoquant.array import Array

SLACK = 1e-3
"""By how much rows of probabilities may miss 1, after an INT8 softmax has rounded them."""
TINY = 1e-12
"""The least probability: what an output has below it is no information."""


def divergence(plain: Array, quantized: Array, *, of_classes: bool) -> Array:
    """The divergence of each sample, (batch,), float64, at least 0; infinite where the quantized output is not finite.

    Of scores of classes it is the Kullback-Leibler divergence in nats of the quantized distribution from the FP32 one;
    scores are probabilities where all FP32 rows are, else logits, and a single column stands for two classes. Of other
    outputs it is the squared error relative to the square of the FP32 output, Euclidean norms.
    """
    one = plain.reshape(len(plain), -1).astype(np.float64)
    other = quantized.reshape(len(quantized), -1).astype(np.float64)
    sound = np.asarray(np.isfinite(other).all(axis=1))
    other = np.where(sound[:, None], other, one)
    found = _kullback_leibler(one, other) if of_classes else _relative_error(one, other)
    return np.where(sound, found, np.inf)


def _kullback_leibler(plain: Array, quantized: Array) -> Array:
    single = plain.shape[1] == 1
    probabilities = are_probabilities(plain)
    p, q = (_distribution(scores, probabilities=probabilities, single=single) for scores in (plain, quantized))
    return np.asarray(np.maximum((p * (np.log(p) - np.log(q))).sum(axis=1), 0.0))


def are_probabilities(scores: Array) -> bool:
    """Whether scores (batch, classes) are probabilities: not negative, and of sum 1; a single column: at most 1."""
    if scores.min(initial=0.0) < 0.0:
        return False
    if scores.shape[1] == 1:
        return bool(scores.max(initial=0.0) <= 1.0)
    return bool(np.abs(scores.sum(axis=1) - 1.0).max(initial=0.0) <= SLACK)


def _distribution(scores: Array, *, probabilities: bool, single: bool) -> Array:
    """Probabilities of classes, (batch, 2 or more), none below TINY."""
    if probabilities:
        both = np.concatenate([1.0 - scores, scores], axis=1) if single else scores
        found = np.clip(both, TINY, None)
        return np.asarray(found / found.sum(axis=1, keepdims=True))
    both = np.concatenate([np.zeros_like(scores), scores], axis=1) if single else scores
    powers = np.exp(both - both.max(axis=1, keepdims=True))
    found = np.clip(powers / powers.sum(axis=1, keepdims=True), TINY, None)
    return np.asarray(found / found.sum(axis=1, keepdims=True))


def _relative_error(plain: Array, quantized: Array) -> Array:
    size = np.maximum(np.square(plain).sum(axis=1), np.finfo(np.float64).tiny)
    return np.asarray(np.square(quantized - plain).sum(axis=1) / size)


def cosine_similarity(plain: Sequence[Array], quantized: Sequence[Array]) -> float:
    """The cosine of the angle between two vectors, each given in parts of the same sizes; in [-1, 1].

    1 where the FP32 one is all zero, 0 where only the other is.

    >>> cosine_similarity([np.array([3.0]), np.array([4.0])], [np.array([4.0]), np.array([-3.0])])
    0.0
    """
    scales = [max(float(np.abs(part).max(initial=0.0)) for part in parts) for parts in (plain, quantized)]
    if not all(scales):
        return 0.0 if scales[0] else 1.0
    products = np.zeros(3)
    for parts in zip(plain, quantized, strict=True):  # scaled, so that no square can overflow or vanish
        one, other = (part.astype(np.float64).ravel() / scale for part, scale in zip(parts, scales, strict=True))
        products += one @ other, one @ one, other @ other
    cosine = float(products[0] / np.sqrt(products[1] * products[2]))
    return min(max(cosine, -1.0), 1.0)
