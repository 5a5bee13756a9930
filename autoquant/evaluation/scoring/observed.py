"""What the checks of the FP32 model take of its outputs, gathered batch by batch: never the outputs themselves."""

from __future__ import annotations

import numpy as np

from autoquant.array import Array
from autoquant.evaluation.data.batch import Outputs
from autoquant.evaluation.engines.engine import bytes_of
from autoquant.evaluation.metrics.classes import class_labels, predicted_positions
from autoquant.evaluation.metrics.metric import Metric
from autoquant.evaluation.scoring.checks import (
    Predictions,
    chance_warning,
    check_label_offset,
    check_not_constant,
    check_not_one_class,
    one_position,
    positions_warning,
)
from autoquant.evaluation.scoring.outputs import samples_of

SMALL = 64 * 1024
"""Bytes of outputs a sample up to which all samples of a metric of classes are observed, and not two of each batch."""


class ObservedOutputs:
    """The ends of every value that a metric scores, and the classes that the FP32 model predicts, with the labels."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._low: dict[str, Array] = {}
        self._high: dict[str, Array] = {}
        self._count = 0
        self._predictions: list[Predictions] = []
        self._labels: list[Array] = []
        self._truth: list[Array] = []
        self._everywhere: set[int] = set()
        self._one_shape = True

    def add(self, outputs: Outputs, labels: Array | None) -> None:
        """Observe the outputs of a batch that are scored."""
        count = len(next(iter(outputs.values())))
        all_of_them = self._metric.of_classes and bytes_of(outputs) <= SMALL * count
        seen = slice(count if all_of_them else 2)
        self._add(samples_of(outputs, seen), None if labels is None else labels[seen])

    def _add(self, outputs: Outputs, labels: Array | None) -> None:
        low = {name: array.min(axis=0) for name, array in outputs.items()}
        high = {name: array.max(axis=0) for name, array in outputs.items()}
        if self._count and any(low[name].shape != self._low[name].shape for name in low):
            self._one_shape = False
        if not self._one_shape:
            return
        self._low = {name: np.minimum(each, self._low.get(name, each)) for name, each in low.items()}
        self._high = {name: np.maximum(each, self._high.get(name, each)) for name, each in high.items()}
        self._count += len(next(iter(outputs.values())))
        if not self._metric.of_classes or len(outputs) > 1:  # of several outputs not all need be classes
            return
        name, scores = next(iter(outputs)), one_position(outputs, self._metric)
        if scores is None:
            if len(self._everywhere) < 2:
                found = predicted_positions(outputs[name], self._metric.axis, self._metric.threshold, self._metric.name)
                self._everywhere |= {int(found.min()), int(found.max())} if found.size else set()
            return
        self._predictions.append(Predictions.of(name, scores, self._metric))
        if labels is not None and self._metric.needs_labels:
            self._truth.append(class_labels(labels, self._predictions[-1].classes, self._metric.name))
            self._labels.append(labels if labels.size == len(labels) else labels[:, :0])  # others are not compared

    def check(self) -> tuple[str, ...]:
        """Check all together, unless the outputs' shapes differ, as of images of several sizes.

        What a person should know is returned. Raises DataError naming the likely mistake.
        """
        if not self._one_shape:
            return ()
        check_not_constant(self._low, self._high, self._count)
        if not self._predictions:
            warning = positions_warning(next(iter(self._low)), self._everywhere, self._count)
            return (warning,) if warning else ()
        numbers = np.concatenate([each.numbers for each in self._predictions])
        predictions = Predictions(self._predictions[0].output, numbers, self._predictions[0].classes)
        labels = np.concatenate(self._labels) if self._labels else None
        check_not_one_class(predictions, labels)
        if labels is None:
            return ()
        check_label_offset(predictions, labels)
        warning = chance_warning(predictions, np.concatenate(self._truth))
        return (warning,) if warning else ()
