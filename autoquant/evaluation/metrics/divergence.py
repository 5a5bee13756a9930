"""How far a model's outputs are from the FP32 model's, sample by sample: finer than any count of right answers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from autoquant.array import Array
from autoquant.evaluation.data.batch import Outputs
from autoquant.evaluation.metrics.classes import are_classes, position_scores
from autoquant.evaluation.metrics.metric import Metric

SLACK = 1e-3
"""By how much rows of probabilities may miss 1, after an INT8 softmax has rounded them."""
TINY = 1e-12
"""The least probability: what an output has below it is no information."""


def sample_of(outputs: Outputs, place: int) -> Outputs:
    """The outputs of one sample of a batch; copies, as a view would hold the whole batch."""
    return {name: array[place].copy() for name, array in outputs.items()}


def divergences(plain: Sequence[Outputs], quantized: Sequence[Outputs], metric: Metric) -> Array:
    """The divergence of each sample, (samples,), the mean over the outputs that a metric scores."""
    each = [_of_output([one[name] for one in plain], [one[name] for one in quantized], metric) for name in plain[0]]
    return np.asarray(sum(each) / len(each))


def _of_output(plain: Sequence[Array], quantized: Sequence[Array], metric: Metric) -> Array:
    """The same of one output, whose shapes may differ from sample to sample."""
    measure = partial(divergence, of_classes=metric.of_classes, axis=metric.axis)
    if len({array.shape for array in plain}) == 1:
        return measure(np.stack(plain), np.stack(quantized))
    return np.concatenate([measure(p[None], q[None]) for p, q in zip(plain, quantized, strict=True)])


def divergence(plain: Array, quantized: Array, *, of_classes: bool, axis: int | None = None) -> Array:
    """The divergence of each sample, (batch,), float64, at least 0; infinite where the quantized output is not finite.

    Of scores of classes, on `axis` (classes.py), it is the Kullback-Leibler divergence in nats of the quantized
    distribution from the FP32 one, the mean over positions; scores are probabilities where all FP32 rows are, else
    logits, and a single column stands for two classes. Of class numbers it is the share that differs, of other outputs
    the squared error relative to the square of the FP32 output, Euclidean norms.
    """
    one = plain.reshape(len(plain), -1).astype(np.float64)
    other = quantized.reshape(len(quantized), -1).astype(np.float64)
    sound = np.asarray(np.isfinite(other).all(axis=1))
    other = np.where(sound[:, None], other, one)
    if not of_classes:
        found = _relative_error(one, other)
    elif are_classes(plain):
        found = np.asarray((one != other).mean(axis=1))
    else:
        found = _over_positions(one.reshape(plain.shape), other.reshape(plain.shape), axis)
    return np.where(sound, found, np.inf)


def _over_positions(plain: Array, quantized: Array, axis: int | None) -> Array:
    p, q = (position_scores(array, axis, "divergence") for array in (plain, quantized))
    found = _kullback_leibler(p.reshape(-1, p.shape[2]), q.reshape(-1, p.shape[2]))
    return np.asarray(found.reshape(p.shape[:2]).mean(axis=1))


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
