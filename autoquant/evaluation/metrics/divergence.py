"""How far a model's outputs are from the FP32 model's, sample by sample: finer than any count of right answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from autoquant.array import Array
from autoquant.evaluation.data.batch import Outputs
from autoquant.evaluation.metrics.classes import are_classes, position_scores
from autoquant.evaluation.metrics.metric import Metric

SLACK = 1e-3
"""By how much rows of probabilities may miss 1, after an INT8 softmax has rounded them."""
TINY = 1e-12
"""The least probability: what an output has below it is no information."""
PART = 1 << 20
"""Values that are compared at once, in float64."""


def have_probabilities(outputs: Outputs, metric: Metric) -> dict[str, bool]:
    """Of each output of the FP32 model that a metric scores, whether its scores of classes are probabilities."""
    return {name: metric.of_classes and _probable(array, metric.axis) for name, array in outputs.items()}


def divergences(plain: Outputs, quantized: Outputs, metric: Metric, probabilities: Mapping[str, bool]) -> Array:
    """The divergence of each sample of a batch, (batch,), the mean over the outputs that a metric scores.

    Infinite where an output has another shape than that of the FP32 model.
    """
    each = [
        divergence(
            array,
            quantized[name],
            of_classes=metric.of_classes,
            axis=metric.axis,
            probabilities=probabilities[name],
        )
        if array.shape == quantized[name].shape
        else np.full(len(array), np.inf)
        for name, array in plain.items()
    ]
    return np.asarray(sum(each) / len(each))


def divergence(
    plain: Array, quantized: Array, *, of_classes: bool, axis: int | None = None, probabilities: bool | None = None
) -> Array:
    """The divergence of each sample, (batch,), float64, at least 0; infinite where the quantized output is not finite.

    Of scores of classes, on `axis` (classes.py), it is the Kullback-Leibler divergence in nats of the quantized
    distribution from the FP32 one, the mean over positions; scores are `probabilities`, by default where all FP32 rows
    are, else logits, and a single column stands for two classes. Of class numbers it is the share that differs, of
    other outputs the squared error relative to the square of the FP32 output, Euclidean norms.
    """
    sound = np.isfinite(quantized.reshape(len(quantized), -1)).all(axis=1)
    usable = quantized if sound.all() else np.where(sound.reshape(-1, *[1] * (plain.ndim - 1)), quantized, plain)
    if not of_classes:
        found = np.concatenate([_relative_error(plain[part], usable[part]) for part in _parts(plain)])
    elif are_classes(plain):
        found = (plain != usable).reshape(len(plain), -1).mean(axis=1)
    else:
        known = _probable(plain, axis) if probabilities is None else probabilities
        found = _over_positions(plain, usable, axis, probabilities=known)
    return np.where(sound, found, np.inf)


def _parts(array: Array) -> Iterator[slice]:
    """Rows of an array, as many at a time as have PART values."""
    size = max(PART // max(array[:1].size, 1), 1)
    return (slice(start, start + size) for start in range(0, max(len(array), 1), size))


def _probable(array: Array, axis: int | None) -> bool:
    """Whether the scores of an output of the FP32 model are probabilities at all positions."""
    if are_classes(array):
        return False
    scores = position_scores(array, axis, "divergence")
    rows = scores.reshape(-1, scores.shape[2])
    return all(are_probabilities(rows[part].astype(np.float64)) for part in _parts(rows))


def _over_positions(plain: Array, quantized: Array, axis: int | None, *, probabilities: bool) -> Array:
    p, q = (position_scores(array, axis, "divergence") for array in (plain, quantized))
    one, other = p.reshape(-1, p.shape[2]), q.reshape(-1, p.shape[2])
    found = np.concatenate([_kullback_leibler(one[part], other[part], probabilities) for part in _parts(one)])
    return np.asarray(found.reshape(p.shape[:2]).mean(axis=1))


def _kullback_leibler(plain: Array, quantized: Array, probabilities: bool) -> Array:
    single = plain.shape[1] == 1
    p, q = (
        _distribution(scores.astype(np.float64), probabilities=probabilities, single=single)
        for scores in (plain, quantized)
    )
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
    one, other = (array.reshape(len(array), -1).astype(np.float64) for array in (plain, quantized))
    size = np.maximum(np.square(one).sum(axis=1), np.finfo(np.float64).tiny)
    return np.asarray(np.square(other - one).sum(axis=1) / size)


def cosine_similarity(parts: Iterable[tuple[Array, Array]]) -> float:
    """The cosine of the angle between two vectors, FP32 and quantized, given part by part; in [-1, 1].

    1 where the FP32 one is all zero, 0 where only the other is. Of all parts one is held while the next is made.

    >>> cosine_similarity([(np.array([3.0]), np.array([4.0])), (np.array([4.0]), np.array([-3.0]))])
    0.0
    """
    scales, products = np.zeros(2), np.zeros(3)
    for pair in parts:
        grown = np.maximum(scales, [np.abs(part).max(initial=0.0) for part in pair])
        units = np.where(grown > 0.0, grown, 1.0)  # scaled, so that no square can overflow or vanish
        one, other = (part.astype(np.float64).ravel() / unit for part, unit in zip(pair, units, strict=True))
        shrunk = scales / units
        products *= shrunk[0] * shrunk[1], shrunk[0] ** 2, shrunk[1] ** 2
        products += one @ other, one @ one, other @ other
        scales = grown
    if not scales.all():
        return 0.0 if scales[0] else 1.0
    cosine = float(products[0] / np.sqrt(products[1] * products[2]))
    return min(max(cosine, -1.0), 1.0)
