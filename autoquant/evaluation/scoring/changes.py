"""Which samples a trial changed: those that became worse or better than in FP32, counted and listed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from autoquant.array import Array
from autoquant.evaluation.data.batch import Outputs
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.data.ids import sample_ids
from autoquant.evaluation.metrics.classes import sample_classes
from autoquant.evaluation.metrics.metric import Metric
from autoquant.evaluation.scoring.subset import EvaluationSubset

MOST = 200
"""Samples that are listed of those that became worse, and of those that became better."""
MOST_CLASSES = 1000
"""Classes, and pairs of them, that are listed."""


@dataclass(frozen=True, slots=True)
class ChangedSample:
    """A sample by its number in the data, from 0: how much worse it is than in FP32, negative where it is better.

    `label` is the true class, `before` and `after` those of FP32 and INT8, `margin` how far FP32 was from another
    answer; None where the metric has none of them.
    """

    sample: int
    drop: float
    label: int | None = None
    before: int | None = None
    after: int | None = None
    margin: float | None = None


@dataclass(frozen=True, slots=True)
class ClassChanges:
    """A true class: its samples, and how many of them became worse and better."""

    label: int
    samples: int
    worse: int
    better: int


@dataclass(frozen=True, slots=True)
class Confusion:
    """Samples of a true class that FP32 gives one class, and INT8 another."""

    label: int
    before: int
    after: int
    samples: int


@dataclass(frozen=True, slots=True)
class SampleChanges:
    """Of all samples of the search those that became worse or better in the trial.

    `changed` lists of both kinds those of the smallest margin, at most MOST, and where there are no margins, the
    largest changes. `answers` counts samples whose class changed, right or not; None where they have no classes.
    """

    samples: int
    worse: int
    better: int
    changed: tuple[ChangedSample, ...] = ()
    answers: int | None = None
    classes: tuple[ClassChanges, ...] = ()
    confusions: tuple[Confusion, ...] = ()


@dataclass(frozen=True, slots=True)
class LostSample:
    """A sample that is worse than in FP32: its number in the data, from 0, and its `id`, '' where it has no name.

    Classes are as in ChangedSample.
    """

    sample: int
    id: str = ""
    label: int | None = None
    before: int | None = None
    after: int | None = None


def lost_samples(changes: SampleChanges | None, data: Dataset) -> tuple[LostSample, ...]:
    """Those that became worse, of the ones that are listed, in their order. Raises DataError where data is gone."""
    lost = [one for one in changes.changed if one.drop > 0] if changes else []
    ids = sample_ids(data, [one.sample for one in lost])
    return tuple(
        LostSample(one.sample, name, one.label, one.before, one.after) for one, name in zip(lost, ids, strict=True)
    )


class SampleClasses:
    """The classes that a model gives to samples, by place in the subset; None once a sample has several, or none."""

    def __init__(self, metric: Metric, total: int) -> None:
        self._metric = metric
        self.array: Array | None = np.zeros(total, np.int64)

    def put(self, places: slice | Array, outputs: Outputs) -> None:
        """Put in those of a batch."""
        if self.array is None:
            return
        found = sample_classes(self._metric, outputs)
        if found is None:
            self.array = None
        else:
            self.array[places] = found


def sample_changes(subset: EvaluationSubset, rows: Array, classes: Array | None) -> SampleChanges | None:
    """From the rows of INT8 on all samples, and its class of each (samples,) or None.

    None where the metric has no number for each sample.
    """
    if not subset.metric.per_sample or rows.ndim != 1:
        return None
    drops = subset.drops(rows, np.arange(len(subset)))
    labels, before = subset.of_samples("labels"), subset.of_samples("classes")
    after = None if before is None else classes
    numbers = _numbers_in_source(subset)

    def optional(values: Array | None, place: int) -> int | None:
        return None if values is None else int(values[place])

    margins = subset.margins
    listed = [
        ChangedSample(
            sample=int(numbers[place]),
            drop=float(drops[place]),
            label=optional(labels, place),
            before=optional(before, place),
            after=optional(after, place),
            margin=None if margins is None else float(margins[place]),
        )
        for place in (*_nearest(drops, margins), *_nearest(-drops, margins))
    ]
    moved = None if before is None or after is None else np.flatnonzero(before != after)
    return SampleChanges(
        samples=len(subset),
        worse=int((drops > 0).sum()),
        better=int((drops < 0).sum()),
        changed=tuple(listed),
        answers=None if moved is None else len(moved),
        classes=() if labels is None else tuple(_by_class(labels, drops)),
        confusions=() if labels is None or moved is None else tuple(_confusions(moved, labels, before, after)),
    )


def _numbers_in_source(subset: EvaluationSubset) -> Array:
    """The number of each sample in the source of the data."""
    return np.arange(len(subset)) if subset.data.indices is None else subset.data.indices


def _nearest(drops: Array, margins: Array | None) -> list[int]:
    """Places of the samples with a drop above 0: of the smallest margins, or else of the largest drops."""
    worse = np.flatnonzero(drops > 0)
    order = np.argsort(-drops[worse] if margins is None else margins[worse], kind="stable")
    return [int(place) for place in worse[order][:MOST]]


def _by_class(labels: Array, drops: Array) -> Iterator[ClassChanges]:
    """Classes of which a sample changed, those first that lost most."""
    found = []
    for label in np.unique(labels[drops != 0]).tolist():
        own = drops[labels == label]
        found.append(ClassChanges(label, len(own), int((own > 0).sum()), int((own < 0).sum())))
    yield from sorted(found, key=lambda one: (one.better - one.worse, one.label))[:MOST_CLASSES]


def _confusions(moved: Array, labels: Array, before: Array | None, after: Array | None) -> Iterator[Confusion]:
    """The changes of class, the most frequent first."""
    assert before is not None and after is not None
    counts = Counter(zip(labels[moved].tolist(), before[moved].tolist(), after[moved].tolist(), strict=True))
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    yield from (Confusion(*classes, count) for classes, count in ranked[:MOST_CLASSES])
