"""How a change of an output is measured in nats: as one of class probabilities, or of plain values.

Each kind has a divergence, and a factor S of its Fisher information F = S S^T, by which that is sampled: for random
signs e, E[(S e)(S e)^T] = F. To second order the divergence of a change d of the output is d^T F d / 2 (Kullback,
Information Theory and Statistics, 1959, chapter 2), so it is E[(S e . d)^2] / 2.

Signs take the place of labels drawn from the model's own prediction, whose gradient p - onehot(label) has the same F:
where the model is sure, a label that counts for anything is drawn once in a hundred samples, but signs always count.
Of a network with ten classes, over 256 samples, the numbers of a layer deviated by 59 % of their mean from one seed to
the next with labels, by 15 % with signs and the S below; of one with two classes by 24 %, and not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from autoquant.array import Array
from autoquant.evaluation.metrics.classes import class_axis, has_probabilities, position_scores, sum_to_one

LEAST = 1e-12
"""Probabilities below this count for nothing."""
TINY = 1e-30
FLAT = 1e-4
"""Columns of an output that vary by less than this part of what the others do hold no more than noise."""


@dataclass(frozen=True, slots=True)
class OutputReading:
    """Which outputs count, and as what: those called `outputs`, or all.

    `of_classes` says that outputs (batch, columns) are scores of classes; with `positions` those of any rank are, on
    `axis` (evaluation/metrics/classes.py). None says that nobody knows: probabilities add up to 1 along the last axis.
    """

    of_classes: bool | None = True
    positions: bool = False
    axis: int | None = None
    outputs: tuple[str, ...] = ()

    def counting(self, real: Sequence[str]) -> list[str]:
        """Those that count among the outputs of real numbers; all of them, where none does."""
        return [name for name in real if name in self.outputs] or list(real)


PLAIN = OutputReading()


class Likelihood(Protocol):
    """How an output is read."""

    def divergence(self, before: Array, after: Array) -> Array:
        """KL(before || after) of each sample, in nats, (batch,) float64."""
        ...

    def factor(self, output: Any, signs: Any) -> Any:
        """S e of each sample: tensors of TensorFlow, all of the output's shape; signs are -1 or 1."""
        ...


@dataclass(frozen=True, slots=True)
class Classes:
    """An output of logits, or of `probabilities`, the classes on `axis`; a single column is that of the first of two.

    Of several positions the divergence is the mean of theirs.
    """

    probabilities: bool
    axis: int = 1

    def divergence(self, before: Array, after: Array) -> Array:
        """Sum over classes of p (log p - log q)."""
        scores = position_scores(before, self.axis, "divergence")
        p, q = self._logarithms(scores), self._logarithms(position_scores(after, self.axis, "divergence"))
        return np.asarray((np.exp(p) * (p - q)).sum(axis=1).reshape(scores.shape[:2]).mean(axis=1))

    def factor(self, output: Any, signs: Any) -> Any:
        """Of F = diag(p) - p p^T for logits; for probabilities, what becomes that behind the softmax they come from.

        Of several positions F has one such block for each, divided by their number.
        """
        import tensorflow as tf

        rank = len(output.shape)
        if rank == 2:
            return self._factor(output, signs)
        order = [number for number in range(rank) if number != self.axis] + [self.axis]
        scores, signed = (tf.transpose(tensor, order) for tensor in (output, signs))
        rows = [-1, output.shape[self.axis]]
        shape = tf.shape(scores)
        found = tf.reshape(self._factor(tf.reshape(scores, rows), tf.reshape(signed, rows)), shape)
        positions = tf.cast(tf.reduce_prod(shape[1:-1]), found.dtype)
        return tf.transpose(found / tf.sqrt(positions), np.argsort(order))

    def _factor(self, output: Any, signs: Any) -> Any:
        """The same of one position, (any, classes)."""
        import tensorflow as tf

        if output.shape[-1] == 1:
            p = output if self.probabilities else tf.sigmoid(output)
            spread = tf.maximum(p * (1.0 - p), 0.0)
            return signs * _divided(tf.sqrt(spread), spread) if self.probabilities else signs * tf.sqrt(spread)
        p = output if self.probabilities else tf.nn.softmax(output)
        return _divided(_direction(p, signs), p) if self.probabilities else _direction(p, signs)

    def _logarithms(self, output: Array) -> Array:
        """Of the probabilities of all classes, which add up to 1 exactly, (any, classes), float64."""
        scores = output.reshape(-1, output.shape[2]).astype(np.float64)
        if scores.shape[1] == 1:
            other = 1.0 - scores if self.probabilities else np.zeros_like(scores)
            scores = np.concatenate([scores, other], axis=1)
        whole = np.log(np.maximum(scores, LEAST)) if self.probabilities else scores
        return np.asarray(whole - np.logaddexp.reduce(whole, axis=1, keepdims=True))


@dataclass(frozen=True, slots=True)
class Values:
    """An output of any shape that is not a score of classes: each value the mean of a Gaussian.

    Its deviation is the `scale` of its column, the last axis, times the root of the number of values in a sample, so
    that the divergence is half the mean squared change relative to scale^2, for an image of any size. Columns have
    scales of their own because one output can hold boxes, of hundreds of pixels, beside scores, below 1.
    """

    scale: tuple[float, ...]

    def divergence(self, before: Array, after: Array) -> Array:
        """Half the mean squared difference in units of the scale."""
        change = ((after.astype(np.float64) - before) / np.array(self.scale)).reshape(len(before), -1)
        return np.asarray(np.square(change).mean(axis=1) / 2.0)

    def factor(self, output: Any, signs: Any) -> Any:
        """Of F = 1 / (scale^2 values)."""
        import tensorflow as tf

        values = tf.cast(tf.size(output) // tf.shape(output)[0], output.dtype)
        return signs / (tf.constant(self.scale, output.dtype) * tf.sqrt(values))


def likelihood_of(output: Array, reading: OutputReading = PLAIN) -> Likelihood:
    """How to read an output, from its values for a few samples.

    Scores of classes are probabilities where they are in [0, 1] and add up to 1, or are single, and else logits. Other
    outputs are values, whose scale is the standard deviation of each column, but no less than FLAT of the largest.
    """
    if reading.of_classes and output.size and (output.ndim == 2 or (reading.positions and output.ndim > 2)):
        axis = class_axis(output, reading.axis if reading.positions else 1, "sensitivity")
        return Classes(sum_to_one(output, axis), axis)
    if reading.of_classes is None and has_probabilities(output):
        return Classes(probabilities=True, axis=output.ndim - 1)
    spread = np.atleast_1d(output.std(axis=tuple(range(max(output.ndim - 1, 1))), dtype=np.float64))
    scale = np.maximum(spread, FLAT * spread.max(initial=0.0)) if spread.any() else np.ones_like(spread)
    return Values(tuple(scale.tolist()))


def _direction(p: Any, signs: Any) -> Any:
    """S e for F = diag(p) - p p^T, all (batch, classes), by the triangular S of Tanabe and Sagae (1992).

    A choice among classes is one between the first and the rest, then between the second and the rest of those, and so
    on. Each is a column of S, sqrt(p_k r_k / t_k) (1 for k, -p_j / r_k for each j behind it), where t_k is what k and
    those behind it have together and r_k is t_k without p_k. Where two classes share all but a little, one column has
    all but a little of F, and signs hardly matter. (Tanabe, Sagae: An exact Cholesky decomposition and the generalized
    inverse of the variance-covariance matrix of the multinomial distribution. J. R. Stat. Soc. B 54.)
    """
    import tensorflow as tf

    together = tf.maximum(tf.cumsum(p, axis=1, reverse=True), TINY)
    rest = tf.cumsum(p, axis=1, reverse=True, exclusive=True)
    sizes = signs * tf.sqrt(tf.maximum(p * rest, 0.0) / together)
    return sizes - p * tf.cumsum(sizes / tf.maximum(rest, TINY), axis=1, exclusive=True)


def _divided(values: Any, p: Any) -> Any:
    """The quotient, and 0 where p counts for nothing."""
    import tensorflow as tf

    return tf.where(p > LEAST, values / tf.maximum(p, LEAST), tf.zeros_like(values))
